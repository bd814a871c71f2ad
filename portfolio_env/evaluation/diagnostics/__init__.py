"""Diagnostics of a backtest: plausibility, decay, sub-periods, crises, regimes, events, stress."""
