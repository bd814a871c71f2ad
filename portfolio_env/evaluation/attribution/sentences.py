"""Sentences on what explains a lead over the reference, and on universes chosen with hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from portfolio_env.evaluation.attribution.attribution import EXPLAINED, HALVES, KEPT, Attribution
from portfolio_env.evaluation.attribution.styles import LEAST_ASSETS, MARKET
from portfolio_env.evaluation.backtest import BacktestResult, decision_rows
from portfolio_env.evaluation.diagnostics.crises import MADE_UP
from portfolio_env.market.panel import PricePanel

Lead = Literal["growth", "sharpe"]

SURVIVORS = "survivors"
"""Key of a panel's provenance: True if its assets were chosen by what became of them, False if by
what was known at the time, as the members of an index on every date."""


def explanations(found: Attribution, measures: Sequence[Lead]) -> list[str]:
    """Return a sentence for everything that alone explains a lead: an asset, a pair, a style.

    An asset does if less than half of the lead (``EXPLAINED``) is left without it, in both
    accounts; two are looked for where one does not. A style does if the exposure to it, whose 95 %
    interval does not contain 0, makes half of the lead or more, at equal volatility where the lead
    is in the Sharpe ratio.

    Args:
        found: The attribution.
        measures: In what the account is ahead.
    """
    sentences: dict[str, None] = {}
    for measure in measures:
        whole: Any = found.without.at[measure, "all"]
        if not whole > 0:
            continue
        for sentence in (_asset(found, measure), _style(found, measure)):
            if sentence:
                sentences[sentence] = None
    return list(sentences)


def halves_text(found: Attribution, measures: Sequence[Lead]) -> str:
    """Return in how many random halves of the assets a lead is left, in a few words."""
    column: Any = found.without["halves"]
    shares = [float(column[measure]) for measure in measures]
    percents = [f"{100 * share:.0f} %" for share in dict.fromkeys(shares)]
    kinds = " and in ".join(percents)
    named = " (growth, Sharpe ratio)" if len(percents) > 1 else ""
    least = f"{100 * KEPT:.0f} % of the lead or more"
    return f"{least} is left in {kinds} of {HALVES} random halves of them{named}"


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


def _asset(found: Attribution, measure: Lead) -> str:
    row: Any = found.without.loc[measure]
    if len(found.assets) - 2 < LEAST_ASSETS:
        return ""
    whole = float(row["all"])
    if row["low"] < EXPLAINED * whole:
        text, left, verb = row["asset"], row["low"], "one asset explains"
    elif row["low_pair"] < EXPLAINED * whole:
        text, left = f"{row['asset']} and {row['pair']}", row["low_pair"]
        verb = "two assets explain"
    else:
        return ""
    if measure == "growth":
        return (
            f"Without {text} the difference is {100 * left:+.1f} instead of {100 * whole:+.1f} % a "
            f"year: {verb} it."
        )
    return (
        f"Without {text} the Sharpe difference is {left:+.2f} instead of {whole:+.2f}: {verb} it."
    )


def _style(found: Attribution, measure: Lead) -> str:
    prefix = "" if measure == "growth" else "equal_risk_"
    if found.styles is None or f"{prefix}beta" not in found.styles:
        return ""
    columns = [f"{prefix}{name}" for name in ("beta", "low", "high", "share")]
    table = found.styles[columns].set_axis(["beta", "low", "high", "share"], axis=1)
    known: pd.DataFrame = table[(table["low"] > 0) | (table["high"] < 0)]
    known = known[known["share"] >= EXPLAINED].sort_values("share", kind="stable")
    if not len(known):
        return ""
    style, row = str(known.index[-1]), known.iloc[-1]
    what = "the market" if style == MARKET else f"the style {style}"
    share = f"{100 * row['share']:.0f} %" if row["share"] < 1 else "all"
    where = "" if measure == "growth" else " at equal volatility"
    return (
        f"Exposure to {what} (beta {row['beta']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]) "
        f"makes {share} of the difference{where}: one style explains it."
    )
