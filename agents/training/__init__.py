"""Training runs: settings, pre-training, the run folder, resuming, walk-forward training."""
