"""Files that are written whole, checked when read, and contain no code."""
