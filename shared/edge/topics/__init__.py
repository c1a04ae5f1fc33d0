"""Subjects one by one, each with a chain of its own: how an edge holds rooms (ADR 0003)."""
