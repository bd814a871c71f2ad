"""Stable-Baselines3: algorithms, vector environment, buffers and callbacks."""
