"""Backtests in training: on the validation range to select the best model, and for curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from agents.training.config import Range
from portfolio_env import Market, PortfolioEnv
from portfolio_env.evaluation import BacktestResult, backtest
from portfolio_env.evaluation.backtest import Policy
from portfolio_env.evaluation.gate import equal_weight_growth
from portfolio_env.metrics import annual_log_growth, max_drawdown

PROBE_BARS = 250  # of each stretch
Known = dict[str, dict[str, float]]
"""Figures of ``Validation`` by ``digest_of`` the weights that they were computed with, on a CPU."""


class Validation:
    """Backtest on the validation range, and its edge over equal weight.

    Args:
        market: Market with fitted features.
        rows: Validation range, half-open; the account always starts at its first bar.
        env_options: Keywords of ``PortfolioEnv``.
    """

    def __init__(self, market: Market, rows: Range, env_options: Mapping[str, Any]) -> None:
        self.market, self.rows = market, rows
        self.options = {**env_options, "start": rows[0], "end": rows[1]}
        self.env = PortfolioEnv(market, **self.options)

    @cached_property
    def benchmark(self) -> float:
        """Return the yearly log growth of equal weight, after costs."""
        return equal_weight_growth(self.market, self.rows, self.options)

    def run(self, policy: Policy) -> tuple[BacktestResult, dict[str, float]]:
        """Backtest a policy.

        Returns:
            The account, and its figures: ``growth``, yearly log growth after costs;
            ``excess_growth``, what of it is above equal weight, which is rebalanced at every bar
            and pays the same costs; ``turnover`` a step.
        """
        result = backtest(policy, self.env)
        growth = float(annual_log_growth(result.values, result.periods_per_year))
        return result, {
            "growth": growth,
            "excess_growth": growth - self.benchmark,
            "turnover": float(result.turnovers.mean()),
        }


class Probes:
    """Deterministic backtests on the same bars every time, so that curves show learning alone.

    The account trades the last bars of the training range and the first bars of the validation
    range, at most ``PROBE_BARS`` of each.

    Args:
        market: Market with fitted features.
        ranges: Rows of each range.
        env_options: Keywords of ``PortfolioEnv``.
        bars: Bars a decision observes.
    """

    def __init__(
        self,
        market: Market,
        ranges: Mapping[str, Range],
        env_options: Mapping[str, Any],
        bars: int,
    ) -> None:
        self.market = market
        (start, end), (first, last) = ranges["train"], ranges["validation"]
        start = max(start, market.warmup + bars - 1, end - PROBE_BARS)
        rows = {"train": (start, end), "validation": (first, min(last, first + PROBE_BARS))}
        self.validations = {
            name: Validation(market, within, env_options) for name, within in rows.items()
        }
        self.options = self.validations["validation"].options

    def run(self, policy: Policy) -> dict[str, Any]:
        """Backtest a policy on both ranges.

        Returns:
            By ``portfolio/train/`` and ``portfolio/validation/``: ``value``, the final value over
            the initial one; ``excess_growth`` of ``Validation``; ``turnover`` and ``cost`` (share
            of the account's value) a step; ``drawdown``, the largest; ``concentration``, the mean
            sum of squared weights; and ``weights``, those held of the assets, as an array.
        """
        points: dict[str, Any] = {}
        for name, validation in self.validations.items():
            result, figures = validation.run(policy)
            held = result.held
            points |= {
                f"portfolio/{name}/{key}": value
                for key, value in {
                    "value": float(result.values[-1] / result.values[0]),
                    "excess_growth": figures["excess_growth"],
                    "turnover": figures["turnover"],
                    "cost": float(np.mean(result.costs / result.values[:-1])),
                    "drawdown": float(max_drawdown(result.values)),
                    "concentration": float((held**2).sum(axis=1).mean()),
                    "weights": held[:, 1:],
                }.items()
            }
        return points


def plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics as JSON: the growth of a ruined account, minus infinity, becomes None."""
    return {name: each if math.isfinite(each) else None for name, each in figures.items()}
