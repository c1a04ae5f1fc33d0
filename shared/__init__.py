"""What every Fanfare service stands on; it imports no service."""
