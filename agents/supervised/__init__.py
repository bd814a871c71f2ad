"""Supervised learning: forecasts of returns and directions by any encoder, and their judgement."""
