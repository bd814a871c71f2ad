"""Samples of a market for supervised learning: windows of features and the returns that follow.

Windows are views of the market's own memory; targets are one array of the shape of the prices.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from portfolio_env.checks import check_choice, check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import FloatArray, PricePanel

Kind: TypeAlias = Literal["return", "direction", "magnitude"]
KINDS: tuple[Kind, ...] = ("return", "direction", "magnitude")
Range: TypeAlias = tuple[int, int]


def windows_of(features: npt.NDArray[np.float32], bars: int) -> npt.NDArray[np.float32]:
    """Return all windows of a market's features, see ``Market.windows``."""
    n = len(features)
    if check_integer("bars", bars) > n:
        raise ArgumentError(f"bars={bars} must be at most {n}, the bars of the market.")
    view = np.lib.stride_tricks.sliding_window_view(features, bars, axis=0)
    return np.moveaxis(view, -1, 1)


def targets_of(panel: PricePanel, kind: Kind, horizon: int, haircut: float) -> FloatArray:
    """Return what followed every bar of a panel, see ``Market.targets``."""
    check_choice("kind", kind, KINDS)
    check_integer("horizon", horizon)
    check_number("haircut", haircut, 0, 1)
    close, n = panel.close, len(panel.timestamps)
    returns = np.full(close.shape, np.nan)
    if horizon < n:
        paid = close[horizon:].copy()
        bars = np.isfinite(close)
        last = np.where(bars.any(0), n - 1 - bars[::-1].argmax(0), -1)
        end = np.arange(horizon, n)[:, None]
        delisted = (last >= 0) & (last < end) & (last >= end - horizon)
        value = (1 - haircut) * close[last, np.arange(close.shape[1])]
        paid = np.where(delisted, value, paid)
        returns[:-horizon] = np.where(
            panel.tradable[:-horizon], paid / close[:-horizon] - 1, np.nan
        )
    if kind == "direction":
        return np.where(np.isnan(returns), np.nan, returns > 0)
    return np.abs(returns) if kind == "magnitude" else returns


def separated(
    ranges: tuple[Range, Range, Range], purge: int, embargo: int
) -> tuple[Range, Range, Range]:
    """Return the ranges of a split with gaps between them, see ``Market.split``."""
    check_integer("purge", purge, 0)
    check_integer("embargo", embargo, 0)
    (first, second), (third, fourth), (fifth, end) = ranges
    made = (first, second - purge), (third + embargo, fourth - purge), (fifth + embargo, end)
    for whole, left in zip(ranges, made, strict=True):
        if left[0] >= left[1]:
            raise ArgumentError(
                f"purge={purge} and embargo={embargo} leave no bar of the range {whole[0]} to "
                f"{whole[1]}: give fewer, or longer ranges"
            )
    return made
