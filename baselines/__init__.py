"""Baselines: policies that need no training, judged through the same environment as any agent."""

from typing import Any

from baselines.base import Baseline
from baselines.simple import BuyAndHold, Cash, EqualWeight
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market

__all__ = ["BASELINES", "Baseline", "BuyAndHold", "Cash", "EqualWeight", "make_baseline"]

BASELINES: dict[str, type[Baseline]] = {
    "buy_and_hold": BuyAndHold,
    "cash": Cash,
    "equal_weight": EqualWeight,
}


def make_baseline(name: str, market: Market, **options: Any) -> Baseline:
    """Build a baseline by name.

    Args:
        name: One of ``BASELINES``.
        market: The market its environments trade.
        **options: Options of that baseline.

    Returns:
        The baseline; its ``predict`` answers like that of a trained SB3 model.

    Raises:
        ArgumentError: If there is no baseline of that name.
    """
    if name not in BASELINES:
        raise ArgumentError(f"baseline={name!r} is unknown; choose one of {sorted(BASELINES)}.")
    return BASELINES[name](market, **options)
