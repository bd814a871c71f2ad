"""Commands of paper trading for runs and baselines."""
