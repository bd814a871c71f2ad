"""Stretches of time cover a record once, regimes know only the past, and seeds have their mean."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.accounts import account
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.diagnostics.crises import CRYPTO_WINDOWS, EQUITY_WINDOWS, known_dates
from portfolio_env.evaluation.diagnostics.subperiods import (
    calendar_windows,
    filtered_regimes,
    growth_by_regime,
    growth_in,
    seeds_summary,
)
from portfolio_env.evaluation.statistics import seeds_interval

RETURNS = np.random.default_rng(0).normal(0, 0.01, 900)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(2, 900),
    start=st.dates(pd.Timestamp("1999-01-01").date(), pd.Timestamp("2005-01-01").date()),
    hours=st.sampled_from([1, 24]),
)
def test_calendar_blocks_cover_every_step_once(steps, start, hours):
    own = account(RETURNS[:steps], start=str(start))
    times = own.timestamps[0] + np.arange(steps + 1) * np.timedelta64(hours, "h")
    result = replace(own, timestamps=times)
    windows = calendar_windows(times)
    if not windows:
        return
    growth = growth_in({"own": result}, windows).loc["own"]
    assert growth.sum() == pytest.approx(RETURNS[:steps].sum(), abs=1e-12)
    frame = pd.Series(RETURNS[:steps], pd.DatetimeIndex(times[1:]))
    years = len(frame.index.year.unique()) > 1
    form = "%Y" if years else "%Y-%m"
    expected = frame.groupby(frame.index.strftime(form)).sum()
    assert growth.to_dict() == pytest.approx(expected.to_dict(), abs=1e-12)


def test_short_records_have_no_blocks():
    assert calendar_windows(account(RETURNS[:5], start="2020-12-29").timestamps) == {}
    assert calendar_windows(account(RETURNS[:20], start="2020-12-02").timestamps) == {}


def test_growth_by_regime_is_that_of_its_steps():
    regimes = (np.arange(900) % 3 == 0).astype(np.int64)
    found = growth_by_regime({"own": account(RETURNS)}, regimes, ("a", "b", "never"))
    assert found.loc["own", "b"] == pytest.approx(RETURNS[::3].mean() * 252)
    weighted = found.loc["own", ["a", "b"]] @ [600, 300]
    assert weighted == pytest.approx(RETURNS.sum() * 252)
    assert np.isnan(found.loc["own", "never"])
    for periods in (9, 10):  # too few for a growth per year, and just enough
        few = (np.arange(900) < periods).astype(np.int64)
        found = growth_by_regime({"own": account(RETURNS)}, few, ("a", "b"))
        assert np.isnan(found.loc["own", "b"]) == (periods < 10)
    with pytest.raises(ArgumentError, match="899 regimes for the 900 decisions"):
        growth_by_regime({"own": account(RETURNS)}, regimes[1:], ("a", "b"))


def test_regimes_are_told_from_the_past_alone():
    pytest.importorskip("statsmodels")
    panel = synthetic_panel(bars=700, assets=3, seed=4)
    model, path = filtered_regimes(panel, (0, 400), (450, 700))
    assert len(path) == 250
    assert set(path) <= {0, 1}
    assert model.volatilities[0] < model.volatilities[1]
    close = panel.close.copy()
    close[601:] *= np.exp(np.random.default_rng(1).normal(0, 0.2, (99, 3)))
    other, changed = filtered_regimes(replace(panel, close=close, open=None, high=None, low=None),
                                  (0, 400), (450, 700))  # fmt: skip
    assert np.array_equal(other.parameters, model.parameters)
    assert np.array_equal(changed[: 601 - 450], path[: 601 - 450])
    assert not np.array_equal(changed, path)
    close = panel.close.copy()
    close[400:] *= 2  # the first move that is not learned from ends at bar 400
    moved, _ = filtered_regimes(replace(panel, close=close, open=None, high=None, low=None),
                            (0, 400), (450, 700))  # fmt: skip
    assert np.array_equal(moved.parameters, model.parameters)


def test_known_dates_are_those_of_the_kind_of_market():
    panel = synthetic_panel(bars=60, assets=2)
    assert known_dates(panel) is None
    real = replace(panel, provenance={"source": "prices.csv"})
    assert known_dates(real)[0] is EQUITY_WINDOWS
    weekends = synthetic_panel(bars=60, assets=2, periods_per_year=365)
    assert known_dates(replace(weekends, provenance={}))[0] is CRYPTO_WINDOWS


def test_seeds_have_an_interquartile_mean():
    scores = {f"ppo_{i}": {"growth": value} for i, value in enumerate([0.0, 0.1, 0.2, 0.9])}
    table = pd.DataFrame.from_dict(scores | {"other": {"growth": 5.0}}, orient="index")
    groups = {"ppo": list(scores)}
    found = seeds_summary(table, groups, ["growth"])["ppo"]["growth"]
    assert found.estimate == pytest.approx(0.15)
    assert found == seeds_interval([0.0, 0.1, 0.2, 0.9])
    table.loc["ppo_1", "growth"] = np.nan  # ruined: neither the best nor left out
    assert np.isnan(seeds_summary(table, groups, ["growth"])["ppo"]["growth"].estimate)
