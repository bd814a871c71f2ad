"""The causes of a shortfall sum to the difference of two accounts that were kept independently."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.paper.attribution import (
    FILL_COLUMNS,
    KINDS,
    IdealAccount,
    PaperAccount,
    by_kind,
    ideal_account,
    shortfall,
)

ASSETS = ("A", "B", "C")
FRICTIONS = ("missed", "size", "risk", "rounding", "unfilled", *KINDS[5:])


def accounts(seed, frictions, bars=12):
    """An ideal and a paper account, kept by cash and units bar by bar; money moves nowhere else."""
    rng, n = np.random.default_rng(seed), len(ASSETS)
    on = {name: name in frictions for name in KINDS}
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.05, (bars + 1, n)), axis=0))
    prices = close[:-1] * np.exp(rng.normal(0, 0.01, (bars, n)))
    ideal_units = rng.integers(-20, 40, (bars, n)) + rng.random((bars, n))
    decided = ~(rng.random(bars) < 0.3) if on["missed"] else np.ones(bars, bool)
    wished = ideal_units * (0.97 if on["size"] else 1.0)
    allowed = wished * (0.8 if on["risk"] else 1.0)
    ordered = np.trunc(allowed) if on["rounding"] else allowed
    spread, impact, fees = (
        (rng.random((3, bars, n)) * 0.1) if on["fees"] else np.zeros((3, bars, n))
    )
    interest = rng.normal(0, 1, (2, bars)) if on["interest"] else np.zeros((2, bars))
    cash, values = 1e4, [1e4]
    before = np.zeros(n)
    for t in range(bars):
        cash -= (ideal_units[t] - before) @ prices[t] + (spread + impact + fees)[t].sum()
        cash += interest[0, t]
        before = ideal_units[t]
        values.append(cash + before @ close[t + 1])
    ideal = IdealAccount(np.array(values), ideal_units, prices, spread, impact, fees, interest[0])
    cash, held, fills, kept, values = 1e4, np.zeros(n), [], [], [1e4]
    for t in range(bars):
        wanted = ordered[t] if decided[t] else held
        for i in range(n):
            whole = wanted[i] - held[i]
            if on["unfilled"]:
                whole *= rng.random()
            for units in (0.4 * whole, whole - 0.4 * whole):
                way = np.sign(units)
                reference = prices[t, i] * (np.exp(rng.normal(0, 0.01)) if on["timing"] else 1)
                mid = reference * (np.exp(rng.normal(0, 0.01)) if on["delay"] else 1)
                half = 0.02 if on["spread"] else 0.0
                price = mid + way * half + way * (0.1 * rng.random() if on["impact"] else 0)
                fee = abs(units) * 0.01 if on["fees"] else 0.0
                fills.append([t, ASSETS[i], units, reference, mid, half, price, fee])
                cash -= units * price + fee
                held[i] += units
        cash += interest[1, t]
        kept.append(held.copy())
        values.append(cash + held @ close[t + 1])
    paper = PaperAccount(
        np.array(values), decided, wished, allowed, ordered, np.array(kept), interest[1]
    )
    table = pd.DataFrame(fills, columns=list(FILL_COLUMNS))
    return paper, ideal, table[table["units"] != 0], close, ASSETS


@settings(max_examples=25)
@given(st.integers(0, 2**31 - 1), st.sets(st.sampled_from(FRICTIONS)))
def test_the_causes_sum_to_the_difference(seed, frictions):
    paper, ideal, fills, close, assets = accounts(seed, frictions)
    table = shortfall(paper, ideal, fills, close, assets)
    difference = paper.values[-1] - ideal.values[-1]
    assert table.to_numpy().sum() == pytest.approx(difference, abs=1e-9 * ideal.values.max())
    # what is off makes nothing
    paid = {"spread", "impact"} if "fees" in frictions else set()  # the ideal account's own
    for name in set(KINDS) - frictions - paid:
        assert np.abs(table[name]).max() < 1e-9 * ideal.values.max(), name
    told = by_kind(table, fills)
    assert told.loc["total", "money"] == pytest.approx(difference, abs=1e-5)


@pytest.mark.parametrize("kind", FRICTIONS)
def test_a_single_friction_is_all_of_the_difference(kind):
    paper, ideal, fills, close, assets = accounts(7, {kind})
    total = shortfall(paper, ideal, fills, close, assets).sum()
    difference = paper.values[-1] - ideal.values[-1]
    named = total[["spread", "impact", "fees"]].sum() if kind == "fees" else total[kind]
    assert abs(difference) > 0.01 and named == pytest.approx(difference, abs=1e-8)


def test_accounts_that_do_not_add_up_are_refused():
    paper, ideal, fills, close, assets = accounts(3, set(FRICTIONS))
    for changed, message in (
        ((paper, ideal, fills.iloc[1:], close, assets), "at bar 0 the fills of A sum to"),
        ((paper, ideal, fills.drop(columns="mid"), close, assets), "lack the columns mid"),
        ((paper, ideal, fills.assign(bar=99), close, assets), r"rows in \[0, 11\]"),
        ((paper, ideal, fills, close[:-1], assets), "close has shape"),
        ((paper, ideal, fills.assign(fee=1.0), close, assets), "the causes sum to"),
    ):
        with pytest.raises(ArgumentError, match=message):
            shortfall(*changed)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_a_backtest_that_is_traded_as_it_is_falls_short_of_nothing(execution):
    market = pe.load_market("synthetic?bars=90&assets=3", fit_end=40)
    costs = {"commission_bps": 10, "impact": 0.2, "fixed_fee": 0.5, "cash_rate_annual": 0.03}
    rules = {"observation": "index", "action": "weights", "window": 1, "execution": execution}
    env = pe.PortfolioEnv(market, costs=costs, initial="equal_weight", **rules)
    result = backtest(make_baseline("momentum", market), env)
    first = market.n_bars - len(result.values)
    close = market.close[first:]
    prices = market.panel.open[first + 1 :] if execution == "next_open" else None
    ideal = ideal_account(result, close, prices)
    begun = result.drifted[0, 1:] * result.values[0] / close[0]
    trades = np.diff(ideal.units, axis=0, prepend=begun[None])
    rows = [
        [
            t,
            name,
            trades[t, i],
            *[ideal.prices[t, i]] * 2,
            0.0,
            ideal.prices[t, i],
            ideal.fees[t, i],
        ]
        for t in range(len(trades))
        for i, name in enumerate(market.assets)
    ]
    fills = pd.DataFrame(rows, columns=list(FILL_COLUMNS))
    decided = np.ones(len(trades), bool)
    paper = PaperAccount(result.values, decided, *[ideal.units] * 4, ideal.interest)
    table = shortfall(paper, ideal, fills, close, market.assets, begun)
    assert np.abs(table.to_numpy()).max() < 1e-8 and result.costs.sum() > 10
    dearer = replace(
        paper, values=result.values - np.r_[0.0, np.cumsum(np.abs(trades).sum(axis=1))]
    )
    costly = fills.assign(fee=fills["fee"] + fills["units"].abs())
    total = shortfall(dearer, ideal, costly, close, market.assets, begun).sum()
    assert total["fees"] == pytest.approx(dearer.values[-1] - result.values[-1], rel=1e-9)
