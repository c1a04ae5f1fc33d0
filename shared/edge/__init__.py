"""What makes a process an edge.

Follow a message out: a subscription of the broker -> `topics` (or `line`): in order? a gap? then `continuity` fills
it -> `delivery`: an event, encoded once -> `fanout`: to every listener -> `wire`: to its socket, and what a slow client
loses, if anything. Who is here, and who may be: `admission`, `sessions`, `presence`, `moving`.
"""
