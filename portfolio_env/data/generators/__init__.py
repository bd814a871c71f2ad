"""Synthetic markets: with realistic returns, with a planted signal, and with none."""
