"""Running cases: what is done, what is kept, and where it came from."""
