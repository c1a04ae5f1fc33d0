"""What is delivered, to whom, and what becomes of it when they are too slow; pure."""
