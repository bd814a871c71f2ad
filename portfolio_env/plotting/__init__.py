"""Figures without a display: axes, labels and saving, and pictures of returns."""
