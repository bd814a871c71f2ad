"""Search of settings: spaces, methods, scores before the test range, the choice and its record."""
