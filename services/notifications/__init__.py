"""Notifications, prices and system status over SSE: one stream for a client, resumable at any edge."""
