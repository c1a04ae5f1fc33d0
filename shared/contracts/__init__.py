"""What crosses a process border. Pure: no I/O, no framework, no broker."""
