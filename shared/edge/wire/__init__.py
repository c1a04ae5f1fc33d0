"""What goes over the wire to a browser and back: frames, and the sockets that carry them."""
