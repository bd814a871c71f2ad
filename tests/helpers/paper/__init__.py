"""Sessions of paper trading that can be killed at any boundary."""
