"""Figures without a display: axes, labels and saving, and plots of returns."""
