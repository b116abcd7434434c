"""One source of readings per file."""
