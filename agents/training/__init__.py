"""Training runs: settings, callbacks, curricula, validation, run folders, resuming, model cards."""
