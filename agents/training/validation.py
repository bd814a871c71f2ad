"""Backtests on the validation range, to select the best model and for its card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gymnasium.wrappers import RecordEpisodeStatistics

from agents.training.config import Range
from portfolio_env import Market, PortfolioEnv
from portfolio_env.evaluation import BacktestResult, backtest
from portfolio_env.evaluation.backtest import Policy
from portfolio_env.metrics import annual_log_growth


class Validation:
    """Backtest on the validation range, and its edge over equal weight.

    Args:
        market: Market with fitted features.
        rows: Validation range, half-open; the account always starts at its first bar.
        env_options: Keywords of ``PortfolioEnv``.
    """

    def __init__(self, market: Market, rows: Range, env_options: Mapping[str, Any]) -> None:
        self.options = {**env_options, "start": rows[0], "end": rows[1]}
        # The episode return of this reward is the growth above equal weight.
        self.env = RecordEpisodeStatistics(
            PortfolioEnv(market, reward="excess_log_return", **self.options)
        )

    def run(self, policy: Policy) -> tuple[BacktestResult, dict[str, float]]:
        """Backtest a policy.

        Returns:
            The account, and its figures: ``growth``, yearly log growth after costs;
            ``excess_growth``, what of it is above equal weight, which is rebalanced at every bar
            without costs; ``turnover`` a step.
        """
        result = backtest(policy, self.env)
        years = (len(result.values) - 1) / result.periods_per_year
        return result, {
            "growth": float(annual_log_growth(result.values, result.periods_per_year)),
            "excess_growth": float(self.env.return_queue[-1]) / years,
            "turnover": float(result.turnovers.mean()),
        }


def plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON: the growth of a ruined account, minus infinity, becomes None."""
    return {name: each if math.isfinite(each) else None for name, each in figures.items()}
