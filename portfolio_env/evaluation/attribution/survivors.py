"""Universes that were chosen with hindsight: nothing in them failed, and nothing was new."""

from __future__ import annotations

import numpy as np

from portfolio_env.evaluation.backtest import BacktestResult, decision_rows
from portfolio_env.evaluation.diagnostics.crises import MADE_UP
from portfolio_env.market.panel import PricePanel

SURVIVORS = "survivors"
"""Key of a panel's provenance: True if its assets were chosen by what became of them, False if by
what was known at the time, as the members of an index on every date."""


def hindsight(result: BacktestResult, panel: PricePanel) -> str:
    """Return why the assets seem to be chosen with hindsight, in a few words; "" if they do not.

    A list of today has no asset that was delisted, and none that was listed later than the first
    bar, unless its provenance says that it is none. Generated prices have survivors alone, and
    nobody chose them.

    Args:
        result: Any backtest over the range.
        panel: The market that it ran on.

    Raises:
        ArgumentError: If the panel does not hold the bars of the backtest.
    """
    stated = panel.provenance.get(SURVIVORS)
    if stated is True:
        return "the data say so"
    if stated is False or str(panel.provenance.get("source", "")).startswith(MADE_UP):
        return ""
    first, last = decision_rows(result, panel)
    count = len(panel.assets)
    if count > 1 and np.isfinite(panel.close[[first, last]]).all():
        return f"all {count} assets have prices from the first bar to the last"
    return ""
