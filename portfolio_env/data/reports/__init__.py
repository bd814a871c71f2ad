"""What is in a source of bars: a report on its quality, and an exploration in pictures."""
