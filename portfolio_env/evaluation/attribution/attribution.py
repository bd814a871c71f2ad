"""Attribution of a difference to the reference: by asset, without some assets, by style."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.evaluation.attribution.contributions import (
    Contributions,
    contributions,
    kept_returns,
    leads,
)
from portfolio_env.evaluation.attribution.styles import style_returns
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.statistics.bootstrap import FloatArray, Interval
from portfolio_env.evaluation.statistics.regression import regression
from portfolio_env.market.panel import PricePanel
from portfolio_env.metrics.arrays import deviation, is_constant

LEAST_PERIODS = 60
"""Periods below which nothing is regressed."""
EXPLAINED = 0.5
"""An asset explains a lead if less than this share is left without it, a style if it makes up as
much or more."""
KEPT = 0.1
"""Share of the lead that must be left in a random half: less is a matter of costs."""
HALVES = 200
"""Random halves of the assets."""
PAIR_ASSETS = 8
"""Assets from which on two are left out together as well."""
MEASURES = ("growth", "sharpe")


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """Attribution of the difference between an account and a reference.

    Attributes:
        strategy: Name of the account.
        reference: Name of the reference.
        assets: One row per asset, then cash (or the outside prices that an account follows) and
            costs: mean ``weight`` and ``reference_weight``; ``growth`` and ``reference_growth``,
            what it contributed to yearly log growth, and their ``difference``, which sums to that
            of the accounts; and the differences ``growth_without`` and ``sharpe_without`` of the
            accounts without the asset (see ``kept_returns``; none of cash and costs).
        without: Rows ``growth`` (per year) and ``sharpe``: the difference of ``all`` assets, the
            least (``low``) and the most (``high``) without one, the ``asset`` without which it is
            least, the ``pair`` found by leaving out a second one and the difference ``low_pair``,
            and ``halves``, the share of random halves of the assets in which it is above a tenth
            (``KEPT``) of that of all.
        alpha: Yearly return over the reference times ``beta``, of returns in excess of cash.
        beta: Exposure to the reference.
        styles: One row per style account, by ``style_returns``: its ``mean`` per year, the
            exposure ``beta`` of the difference to it alone with ``low`` and ``high``, and the
            ``share`` of the mean difference that this makes; ``joint`` exposures to all of them
            at once likewise. Columns of the same names after ``equal_risk_`` are of the account
            at the volatility of the reference. None without prices.
        joint: By "growth" and "equal_risk": ``share`` of the mean difference that all styles make
            together, ``r_squared``, and the yearly ``alpha`` that they leave, with its ``low`` and
            ``high``.
    """

    strategy: str
    reference: str
    assets: pd.DataFrame
    without: pd.DataFrame
    alpha: Interval
    beta: Interval
    styles: pd.DataFrame | None
    joint: Mapping[str, Mapping[str, float]]

    def __repr__(self) -> str:
        whole: Any = self.without.at["growth", "all"]
        growth = 100 * float(whole)
        return f"Attribution({self.strategy} less {self.reference}: {growth:+.1f} % a year)"

    def facts(self) -> dict[str, Any]:
        """Return all as JSON-able data but what is by asset."""
        styles = {} if self.styles is None else self.styles.to_dict(orient="index")
        return {
            "without": self.without.to_dict(orient="index"),
            "alpha": self.alpha._asdict(),
            "beta": self.beta._asdict(),
            "styles": styles,
            "joint": {name: dict(each) for name, each in self.joint.items()},
        }


def attribution(
    names: tuple[str, str],
    result: BacktestResult,
    reference: BacktestResult,
    rest: BacktestResult,
    panel: PricePanel | None = None,
    seed: int = 0,
) -> Attribution:
    """Return where the difference between two accounts comes from; no decision is made again.

    Args:
        names: Names of account and reference.
        result: Backtest of the account.
        reference: Backtest of the reference, over the same periods; neither was ruined.
        rest: Account whose other assets take the place of one that is left out, see
            ``kept_returns``: the reference, or equal weight where that is of outside prices.
        panel: Prices of the market, for the styles; None for none.
        seed: Seed of the random halves.

    Raises:
        ArgumentError: If the panel does not hold the bars or the assets.
    """
    own, other, filler = (contributions(each) for each in (result, reference, rest))
    assets = list(dict.fromkeys([*own.assets, *other.assets, *filler.assets]))
    own, other, filler = (each.of(assets) for each in (own, other, filler))
    parts = {"growth": own.growth(), "reference_growth": other.growth()}
    table = pd.DataFrame(parts).reindex(list(dict.fromkeys([*assets, *own.other, *other.other])))
    table = table.fillna(0.0)
    table["difference"] = table["growth"] - table["reference_growth"]
    table.insert(0, "weight", pd.Series(own.weights.mean(axis=0), assets))
    table.insert(1, "reference_weight", pd.Series(other.weights.mean(axis=0), assets))
    single, without = _without(own, other, filler, seed)
    for measure in MEASURES:
        table[f"{measure}_without"] = pd.Series(single[measure].to_numpy(), assets)
    year, pair = own.periods_per_year, (result.excess_returns, reference.excess_returns)
    nothing = Interval(np.nan, np.nan, np.nan, np.nan)
    alpha = beta = nothing
    styles: pd.DataFrame | None = None
    joint: dict[str, dict[str, float]] = {}
    enough = len(result.costs) >= LEAST_PERIODS and not any(map(is_constant, pair))
    if enough:
        fitted = regression(*pair, year)
        alpha, beta = fitted.alpha, fitted.betas[0]
    if enough and panel is not None:
        styles, joint = _styles(pair, style_returns(rest, panel), year)
    return Attribution(*names, table, without, alpha, beta, styles, joint)


def _without(
    own: Contributions, other: Contributions, filler: Contributions, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the differences without each asset, and their range, worst pair and random halves."""
    n, year, cash = len(own.assets), own.periods_per_year, own.cash_returns

    def differences(kept: Any) -> pd.DataFrame:
        ours, theirs = (kept_returns(each, filler, kept) for each in (own, other))
        return leads(ours, theirs, cash, year)

    whole = differences(np.ones((n, 1), np.bool_))
    one = ~np.eye(n, dtype=np.bool_)
    single = differences(one) if n > 1 else whole * np.nan
    generator = np.random.default_rng(seed)
    halves = np.zeros((n, HALVES), np.bool_)
    for case in range(HALVES):
        halves[generator.permutation(n)[: n // 2], case] = True
    among = differences(halves) if n > 1 else whole * np.nan
    rows = {}
    for measure in MEASURES:
        each = single[measure]
        row: dict[str, Any] = {"all": whole.at[0, measure], "low": each.min(), "high": each.max()}
        row |= {"asset": "", "pair": "", "low_pair": np.nan}
        row["halves"] = (among[measure].dropna() > KEPT * abs(row["all"])).mean()
        if each.notna().any():
            first = int(str(each.idxmin()))
            row["asset"] = own.assets[first]
            if n >= PAIR_ASSETS:
                kept = one & one[:, [first]]
                second = differences(kept)[measure].drop(index=first)
                row["low_pair"] = second.min()
                if second.notna().any():
                    row["pair"] = own.assets[int(str(second.idxmin()))]
        rows[measure] = row
    return single, pd.DataFrame.from_dict(rows, orient="index")


def _styles(
    pair: tuple[FloatArray, FloatArray], returns: pd.DataFrame, year: float
) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Return the exposures of the difference to style accounts, at its own and at equal risk."""
    own, other = pair
    level = own * float(deviation(other) / deviation(own))
    returns = returns.loc[:, returns.std() > 0]
    table = pd.DataFrame({"mean": year * returns.mean()})
    joint: dict[str, dict[str, float]] = {}
    for measure, difference in (("growth", own - other), ("equal_risk", level - other)):
        prefix = "" if measure == "growth" else "equal_risk_"
        mean = year * difference.mean()
        if is_constant(difference) or not len(table):
            continue
        whole = regression(difference, returns.to_numpy(), year)
        rows = {}
        for place, style in enumerate(returns):
            alone = regression(difference, returns[style].to_numpy(), year).betas[0]
            together, of_style = whole.betas[place], float(table["mean"].iloc[place])
            rows[style] = {
                f"{prefix}beta": alone.estimate,
                f"{prefix}low": alone.low,
                f"{prefix}high": alone.high,
                f"{prefix}share": alone.estimate * of_style / mean,
                f"{prefix}joint": together.estimate,
                f"{prefix}joint_low": together.low,
                f"{prefix}joint_high": together.high,
            }
        table = table.join(pd.DataFrame.from_dict(rows, orient="index"))
        joint[measure] = {
            "share": float(1 - whole.alpha.estimate / mean),
            "r_squared": whole.r_squared,
            "alpha": whole.alpha.estimate,
            "low": whole.alpha.low,
            "high": whole.alpha.high,
        }
    return table, joint
