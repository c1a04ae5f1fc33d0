"""The producer of prices: one active writer, any number of standbys."""
