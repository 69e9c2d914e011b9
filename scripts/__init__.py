"""What a user runs; each file says how in its first lines."""
