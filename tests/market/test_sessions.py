"""Sessions tell closing times and holidays from bars that were lost."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from portfolio_env.data.reports.quality import quality
from portfolio_env.errors import ArgumentError, DataError


def panel_of(present, times):
    """A panel of random walks with bars where they are present."""
    steps = np.random.default_rng(0).normal(0, 0.01, present.shape)
    close = np.where(present, 100 * np.exp(steps.cumsum(axis=0)), np.nan)
    names = [f"A{i}" for i in range(present.shape[1])]
    return pe.load_market(pd.DataFrame(close, times, names), features="none").panel


def daily(bars=400):
    """Two coins and three stocks with common holidays: times and which bars there are."""
    times = pd.date_range("2021-01-01", periods=bars)
    present = np.ones((bars, 5), bool)
    present[times.day_of_week >= 5, 2:] = False
    present[[120, 257], 2:] = False  # holidays on weekdays
    return times, present


@examples(25)
@given(seed=st.integers(0, 2**16), lost=st.integers(0, 12))
def test_lost_bars_are_the_gaps_and_weekends_and_holidays_are_none(seed, lost):
    times, present = daily()
    rng = np.random.default_rng(seed)
    expected = present.copy()
    rows, columns = np.nonzero(present[10:-10])
    at = rng.choice(len(rows), lost, replace=False)
    missing = present.copy()
    missing[10 + rows[at], columns[at]] = False
    panel = panel_of(missing, times)
    open_ = panel.sessions()
    alone = (missing[:, 2:].any(axis=1) != present[:, 2:].any(axis=1)).any()
    if not alone:  # else all stocks lost the same day, which is a holiday then
        first = missing.argmax(axis=0)
        np.testing.assert_array_equal(open_[10:-10], expected[10:-10])
        assert quality(panel).assets["missing_bars"].sum() == lost
        assert (first == present.argmax(axis=0)).all()


def test_a_panel_of_stocks_beside_crypto_has_a_clean_report():
    for bars in (400, 401, 402):  # to a Friday, a Saturday, a Sunday
        times, present = daily(bars)
        assert not quality(panel_of(present, times)).findings
    present[-4:, 3] = False  # from a Thursday on
    (finding,) = quality(panel_of(present, times)).findings
    assert finding.kind == "ends_early" and finding.symbol == "A3"


def test_a_long_outage_stays_a_gap():
    times, present = daily()
    present[150:290, 3] = False
    report = quality(panel_of(present, times))
    (gap,) = report.gaps.to_dict("records")
    weekdays = (times[150:290].day_of_week < 5).sum()
    assert gap["symbol"] == "A3" and gap["bars"] == pytest.approx(weekdays, abs=2)


def test_hours_move_with_the_clocks():
    """Bars of New York, whose hours in UTC change twice a year, beside a coin."""
    times = pd.date_range("2021-01-04", "2022-01-01", freq="30min")
    local = times.tz_localize("UTC").tz_convert("America/New_York")
    minutes = local.hour * 60 + local.minute
    weekdays = local.day_of_week < 5
    present = np.ones((len(times), 2), bool)
    present[:, 1] = weekdays & (minutes >= 570) & (minutes < 960)
    open_ = panel_of(present, times).sessions()[:, 1]
    # within four weeks of a change both hours look open
    assert (open_ & ~present[:, 1]).sum() < 0.02 * present[:, 1].sum() + 4 * 5 * 2 * 2 * 2
    assert (open_ | ~present[:, 1]).all()


def test_few_bars_tell_nothing_so_that_each_missing_one_is_a_gap():
    times = pd.date_range("2024-01-01", periods=10)
    present = np.ones((10, 2), bool)
    present[[4, 5], 1] = False
    report = quality(panel_of(present, times))
    assert report.gaps["bars"].tolist() == [2]


def test_an_exchange_of_the_library(monkeypatch):
    times = pd.date_range("2024-01-01", periods=8)
    panel = panel_of(np.ones((8, 2), bool), times)
    monkeypatch.setitem(sys.modules, "exchange_calendars", None)
    with pytest.raises(DataError, match="pip install exchange_calendars"):
        panel.sessions({"A1": "XNYS"})

    def get_calendar(name, start, end):
        if name != "XNYS":
            raise KeyError(name)
        days = pd.DatetimeIndex(["2024-01-02", "2024-01-03", "2024-01-04", "2024-01-05"])
        opens = pd.Series(days.tz_localize("UTC") + pd.Timedelta("14h30min"))
        return SimpleNamespace(sessions=days, opens=opens, closes=opens + pd.Timedelta("6h30min"))

    module = SimpleNamespace(get_calendar=get_calendar)
    monkeypatch.setitem(sys.modules, "exchange_calendars", module)
    found = panel.sessions({"A1": "XNYS"})
    assert found[:, 0].all() and found[:, 1].tolist() == [False, *[True] * 4, *[False] * 3]
    with pytest.raises(ArgumentError, match="must be known to exchange_calendars"):
        panel.sessions({"A1": "XXXX"})
    with pytest.raises(ArgumentError, match="XX"):
        panel.sessions({"XX": "XNYS"})
    hours = pd.date_range("2024-01-02 13:30", periods=12, freq="h")
    intraday = panel_of(np.ones((12, 1), bool), hours).sessions({"A0": "XNYS"})[:, 0]
    assert intraday.tolist() == [False, *[True] * 7, *[False] * 4]


def test_sessions_agree_with_the_real_library():
    pytest.importorskip("exchange_calendars")
    times = pd.date_range("2023-12-01", "2024-02-01")
    found = panel_of(np.ones((len(times), 1), bool), times).sessions({"A0": "XNYS"})[:, 0]
    closed = {str(day)[:10] for day in times[~found & (times.day_of_week < 5)]}
    assert closed == {"2023-12-25", "2024-01-01", "2024-01-15"}


def test_the_report_names_the_repair_that_helps():
    rows = [("2024-01-02", "A", 1.0), ("2024-01-01", "A", 1.0), ("2024-01-01", "A", 0.0)]
    frame = pd.DataFrame(rows, columns=["date", "symbol", "close"])
    frame["date"] = pd.to_datetime(frame["date"])
    report = quality(frame)
    assert report.repairs == {"sort": True, "drop_faulty": True, "drop_duplicates": "first"}
    assert "repair={'sort': True" in str(report) and "--data.repair" in str(report)
    with pytest.raises(DataError, match=r"or load it with repair=\{'sort': True"):
        report.check()
    assert len(pe.load_market(frame, features="none", repair=report.repairs).timestamps) == 2
