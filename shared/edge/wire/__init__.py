"""A connection on the wire: the gate that accepts it, the frames it speaks, the sockets that carry them."""
