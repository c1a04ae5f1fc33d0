"""The broker: one port with its promise (`port`), and two adapters, `memory` and `jetstream`."""
