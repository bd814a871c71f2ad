"""Stable-Baselines3: algorithms with their defaults, vector environment, buffers, noise, curves."""
