"""Service defaults: settings, app, server, lifecycle, health, metrics, logs, tracing, embedded NATS."""
