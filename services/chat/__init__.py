"""Chat over WebSocket: rooms, messages stored before they are acked, typing, presence, history by HTTP."""
