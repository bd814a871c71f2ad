"""Indicators by group, each causal and registered by name."""
