"""Assets that models left out of their decisions, and accounts that hardly traded or held one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.evaluation.backtest import BacktestResult

MOSTLY_CASH = 0.9
"""1 less the mean gross exposure, from which on an account hardly traded."""
MOSTLY_ONE = 0.5
"""Mean weight of an asset above which an account is mostly that asset."""
OFTEN_CUT = 0.05
"""Share of bars above which it is said that a limit cuts the turnover."""
OFTEN_UNFILLED = 0.05
"""Share of all orders above which it is said that they were not filled."""
REFUSED = " Give the account constraints that allow them: long_only=False, max_leverage=..."
_NAMED = 3


def left_out_table(results: Mapping[str, BacktestResult]) -> pd.DataFrame:
    """Return who was left out of decisions, by whom, when and why.

    Args:
        results: Backtests by name of the strategy.

    Returns:
        One row per asset and reason, the most decisions first: ``asset``, ``reason``,
        ``strategies`` (a list of names), ``first`` and ``last`` date, and ``decisions``, the most
        of one strategy.
    """
    rows: list[dict[str, Any]] = [
        {"asset": asset, "reason": reason, "strategy": name, "date": date[:16]}
        for name, result in results.items()
        for date, reasons in result.left_out.items()
        for asset, reason in reasons.items()
    ]
    columns = ["asset", "reason", "strategies", "first", "last", "decisions"]
    if not rows:
        return pd.DataFrame(columns=columns)
    frame = pd.DataFrame(rows)
    frame["date"] = frame["date"].str.removesuffix("T00:00")
    grouped = frame.groupby(["asset", "reason"])
    found = grouped.agg(
        strategies=("strategy", lambda names: list(dict.fromkeys(names))),
        first=("date", "min"),
        last=("date", "max"),
        decisions=("strategy", lambda names: int(names.value_counts().max())),
    ).reset_index()
    order = ["decisions", "asset", "reason"]
    return found.sort_values(order, ascending=[False, True, True], ignore_index=True)[columns]


def left_out_lines(results: Mapping[str, BacktestResult]) -> list[str]:
    """Return a sentence on who was left out, or none."""
    found = left_out_table(results)
    if not len(found):
        return []
    names = list(dict.fromkeys(found["asset"]))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    models = list(dict.fromkeys(name for row in found["strategies"] for name in row))
    worst = found.iloc[0]
    return [
        f"Left out of decisions, though tradable: {', '.join(names[:_NAMED])}{more} (by "
        f"{', '.join(models[:_NAMED])}{' and others' * (len(models) > _NAMED)}), most often as "
        f"{worst['asset']} {worst['reason']}; the report lists all."
    ]


def remarks(result: BacktestResult) -> list[str]:
    """Return in a few words each whether an account hardly traded, or mostly held one asset."""
    if result.outside:
        return ["outside prices"]
    found = ["never invested"] if result.idle else []
    if not len(result.costs):
        return found
    if not found and not np.any(result.turnovers):
        found = ["never traded"]
    refused = np.broadcast_to(result.refused, result.costs.shape)
    # a share of the trades: a model may well decide once a month
    if refused.sum() > OFTEN_CUT * ((result.turnovers > 0) | refused).sum():
        found.append(f"short positions or leverage refused on {refused.sum():,} bars")
    stopped = np.broadcast_to(result.cut, result.costs.shape) & (result.turnovers == 0)
    if stopped.sum() > OFTEN_CUT * ((result.turnovers > 0) | stopped).sum():
        why = "a limit left none, or sales could not pay the fixed fee"
        found.append(f"trades cut to nothing on {stopped.sum():,} bars: {why}")
    if found and found[0].startswith("never"):
        return found
    if (idle := 1 - result.mean_exposure) > MOSTLY_CASH:
        shorts = bool((result.held[:, 1:] < 0).any())  # whose money is in cash too
        invested = f"only {100 * (1 - idle):.0f} % invested on average"
        return [*found, invested if shorts else f"{100 * idle:.0f} % cash on average"]
    means = result.held[:, 1:].mean(axis=0)
    if len(means) > 1 and means.max() > MOSTLY_ONE:
        share = f"{100 * means.max():.0f} % {result.assets[int(means.argmax())]} on average"
        found.append(share)
    if (cut := float(np.mean(result.cut))) > OFTEN_CUT:
        found.append(f"turnover cut on {100 * cut:.0f} % of bars")
    if (lacking := result.unfilled_share) > OFTEN_UNFILLED:
        found.append(f"{100 * lacking:.0f} % of orders unfilled")
    return found


def remark_sentences(result: BacktestResult) -> list[str]:
    """Return the same as sentences."""
    if result.outside:
        return ["Its prices are from outside of the market, without costs."]
    verbs = {
        "turnover": "had its ",
        "trades": "had its ",
        "short": "had ",
        "never": "",
        "only": "was ",
        "unfilled": "left ",
    }
    found = []
    for each in remarks(result):
        first, *_, last = each.split()
        verb = verbs.get(last, verbs.get(first, "held "))
        found.append(f"It {verb}{each}.{REFUSED * ('refused' in each)}")
    return found
