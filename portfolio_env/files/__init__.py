"""Files that are written whole, checked when read, and hold nothing that could run."""
