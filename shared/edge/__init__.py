"""What makes a process an edge: topics with cursors, the hub that fans out, connections, overflow, presence, timers.

Follow a message out:
`broker` subscription -> `topic` (in order? gap? fill) -> `event` (encoded once) -> `hub` (to every
listener) -> the listener's `outbox`, where `overflow` says what a slow client loses, if anything.
"""
