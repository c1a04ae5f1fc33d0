"""A stream read whole, all its subjects in one chain: how an edge holds notifications (ADR 0015)."""
