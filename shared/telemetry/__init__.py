"""What operators see: logs, metrics, traces. Below everything else, so that any part may use it."""
