"""Sweeps: many settings, folds and seeds trained by as many processes and machines as there are."""
