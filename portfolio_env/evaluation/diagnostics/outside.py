"""Prices from outside of the market, such as those of an index fund, as a line of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from portfolio_env.data.load import load_panel
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import time_text

DAY = np.timedelta64(1, "D")
OLDEST = 7
"""Days that the last price may be old at a bar: weekends and holidays, but no missing week."""


def read_outside(benchmark: str | Path) -> PricePanel:
    """Return the bars of one asset: ``FILE``, or ``FILE:SYMBOL`` of a file with several.

    Prices are adjusted as those of ``load_market`` are by default.

    Args:
        benchmark: The file, of any form that ``load_market`` reads.

    Raises:
        ArgumentError: If the file lacks the symbol, or holds several assets and none is named.
        DataError: If the file cannot be read.
    """
    whole = str(benchmark)
    file, _, symbol = (whole, "", "") if Path(whole).exists() else whole.rpartition(":")
    if not file:
        raise DataError(f"benchmark={whole!r} is no file: give FILE or FILE:SYMBOL.")
    panel = load_panel(file, assets=[symbol] if symbol else None)
    if len(panel.assets) > 1:
        raise ArgumentError(
            f"benchmark={whole!r} holds {len(panel.assets)} assets; name one of them, such as "
            f"{whole}:{panel.assets[0]}."
        )
    return panel


def outside_account(panel: PricePanel, like: BacktestResult) -> BacktestResult:
    """Return the account that follows the prices of an asset from outside, without costs.

    At every bar it is worth the last close known there; a daily one is known at the end of its day.

    Args:
        panel: Bars of one asset.
        like: Account of the market, whose bars, first value and returns of cash it takes.

    Raises:
        DataError: If the prices do not cover the bars.
    """
    name = panel.assets[0]
    close = panel.close[:, 0]
    there = np.isfinite(close)
    known, times = _known(panel.timestamps)[there], _known(like.timestamps)
    rows = np.searchsorted(known, times, side="right") - 1
    late = (rows < 0) | (times - known[rows] > OLDEST * DAY)
    if late.any():
        raise DataError(
            f"the prices of {name} from {time_text(panel.timestamps[there][0])} to "
            f"{time_text(panel.timestamps[there][-1])} have none in the {OLDEST} days up to "
            f"{time_text(like.timestamps[late.argmax()])}; give a series without gaps from "
            f"{time_text(like.timestamps[0])} to {time_text(like.timestamps[-1])}, or evaluate on "
            "the dates that it covers."
        )
    prices, count = close[there][rows], len(like.costs)
    held = np.zeros_like(like.held)
    held[:, 0] = 1.0  # of no asset of the market
    nothing = np.zeros(count)
    return BacktestResult(
        assets=like.assets,
        timestamps=like.timestamps,
        values=like.values[0] * prices / prices[0],
        drifted=held,
        held=held,
        trades=np.zeros_like(held),
        turnovers=nothing,
        costs=nothing,
        carries=nothing,
        last_weights=held[-1],
        stated_periods_per_year=like.stated_periods_per_year,
        cash_returns=like.cash_returns,
        outside=name,
    )


def _known(times: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Return when bars are known: those of dates alone at the end of the day."""
    daily = (times == times.astype("datetime64[D]")).all()
    return times + DAY if daily else times
