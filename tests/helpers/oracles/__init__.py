"""Slow, independent implementations in plain Python that tests compare with."""
