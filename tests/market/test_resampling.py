from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, load_market
from portfolio_env.data.bars import read_panel
from portfolio_env.market.panel import BAR_FIELDS, PricePanel
from portfolio_env.resampling import TIMEFRAMES, closed_groups, resample


def panel_of(times, seed=0, n_assets=3, missing=0.0, per_year=np.nan):
    """Random bars at the given times; every row has a bar."""
    rng = np.random.default_rng(seed)
    shape = (len(times), n_assets)
    low, middle, last, high = np.sort(rng.lognormal(size=(4, *shape)), axis=0)
    swap = rng.random(shape) < 0.5
    opened, close = np.where(swap, last, middle), np.where(swap, middle, last)
    absent = rng.random(shape) < missing
    absent[np.arange(len(times)), rng.integers(0, n_assets, len(times))] = False
    fields = (opened, high, low, close, rng.integers(0, 50, shape).astype(float))
    bars = {
        name: np.where(absent, np.nan, values)
        for name, values in zip(BAR_FIELDS, fields, strict=True)
    }
    return PricePanel(
        np.array(times, "datetime64[ns]"),
        tuple("ABCDEFGH"[:n_assets]),
        **bars,
        exogenous={"x": np.where(rng.random(shape) < 0.2, np.nan, rng.normal(size=shape))},
        categories={"sector": ("s",) * n_assets},
        periods_per_year=per_year,
    )


KINDS = {  # frequency of the bars, bars per year, bars in a few months, coarser timeframes
    "hourly": ("h", 8760, 900, ["4h", "1d", "1w", "1M"]),
    "minutes": ("30min", 17520, 900, ["1h", "4h", "1d", "1w"]),
    "daily": ("D", 365, 90, ["1w", "1M"]),
    "business": ("B", 252, 90, ["1w", "1M"]),
    "sessions": ("bh", 252 * 8, 400, ["4h", "1d", "1w", "1M"]),
}


@st.composite
def cases(draw):
    """A panel of any kind with holes in rows and bars, and a coarser timeframe."""
    frequency, per_year, most, timeframes = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    start = pd.Timestamp("2023-11-20") + pd.Timedelta(hours=draw(st.integers(0, 600)))
    times = pd.date_range(start, periods=draw(st.integers(2, most)), freq=frequency)
    if per_year <= 365:
        times = times.normalize()
    seed = draw(st.integers(0, 2**32 - 1))
    kept = np.random.default_rng(seed).random(len(times)) < draw(st.sampled_from([1, 0.95, 0.6]))
    kept[:2] = True
    panel = panel_of(times[kept], seed, missing=draw(st.sampled_from([0, 0.4])), per_year=per_year)
    return panel, draw(st.sampled_from(timeframes))


def resampled(panel, timeframe):
    """None if nothing is over."""
    if closed_groups(panel.timestamps, panel.periods_per_year, timeframe)[1][-1] < 0:
        with pytest.raises(DataError, match=f"no period of {timeframe} is over"):
            resample(panel, timeframe)
        return None
    return resample(panel, timeframe)


def assert_same(left, right, rows=slice(None)):
    np.testing.assert_array_equal(left.timestamps, right.timestamps[rows])
    for name in BAR_FIELDS:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name)[rows])
    for name, values in left.exogenous.items():
        np.testing.assert_array_equal(values, right.exogenous[name][rows])


RULES = {"1w": "W-SUN", "1M": "ME", "1d": "D", "4h": "4h", "1h": "h"}
BUSINESS_RULES = RULES | {"1w": "W-FRI", "1M": "BME"}


@given(cases())
def test_bars_are_those_of_pandas(case):
    panel, timeframe = case
    ours = resampled(panel, timeframe)
    if ours is None:
        return
    weekends = panel.periods_per_year % 252 == 0
    rule = (BUSINESS_RULES if weekends else RULES)[timeframe]
    for i in range(len(panel.assets)):
        frame = pd.DataFrame(
            {name: getattr(panel, name)[:, i] for name in BAR_FIELDS},
            pd.DatetimeIndex(panel.timestamps),
        )
        # pandas labels business months by their last midnight: bars later on that day are moved
        frame.index = frame.index.normalize() if timeframe in ("1w", "1M") else frame.index
        theirs = frame.resample(rule).agg(
            {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
        )
        has_rows = frame["close"].resample(rule).size() > 0
        theirs = theirs[has_rows].iloc[: len(ours.timestamps)]
        theirs["volume"] = theirs["volume"].where(theirs["close"].notna())
        for name in BAR_FIELDS:
            np.testing.assert_allclose(getattr(ours, name)[:, i], theirs[name], rtol=1e-12)


@given(cases())
def test_a_bar_is_known_at_the_row_with_its_label_or_the_next_one(case):
    panel, timeframe = case
    ours = resampled(panel, timeframe)
    group, closed = closed_groups(panel.timestamps, panel.periods_per_year, timeframe)
    assert group[0] == 0
    assert set(np.diff(group)) <= {0, 1}
    assert set(closed - group) <= {-1, 0}
    n_bars = 0 if ours is None else len(ours.timestamps)
    assert closed[-1] + 1 == n_bars
    for g in range(n_bars):
        last = np.flatnonzero(group == g)[-1]
        assert panel.timestamps[last] <= ours.timestamps[g]
        following = panel.timestamps[last + 1 :]
        assert not len(following) or ours.timestamps[g] < following[0]
        np.testing.assert_array_equal(ours.exogenous["x"][g], panel.exogenous["x"][last])


@given(cases(), st.data())
def test_the_first_rows_give_the_first_bars(case, data):
    panel, timeframe = case
    t = data.draw(st.integers(1, len(panel.timestamps) - 1))
    part = panel.subset(slice(0, t + 1))
    for whole, cut in zip(
        closed_groups(panel.timestamps, panel.periods_per_year, timeframe),
        closed_groups(part.timestamps, part.periods_per_year, timeframe),
        strict=True,
    ):
        np.testing.assert_array_equal(whole[: t + 1], cut)
    ours = resampled(part, timeframe)
    if ours is not None:
        assert_same(ours, resample(panel, timeframe), slice(0, len(ours.timestamps)))


@given(cases(), st.data())
def test_later_bars_change_no_bar_that_is_known(case, data):
    panel, timeframe = case
    t = data.draw(st.integers(0, len(panel.timestamps) - 2))
    other = panel_of(panel.timestamps, seed=data.draw(st.integers(0, 99)), missing=0.3)
    mixed = {
        name: np.concatenate([getattr(panel, name)[: t + 1], getattr(other, name)[t + 1 :]])
        for name in BAR_FIELDS
    }
    ours, changed = resampled(panel, timeframe), resampled(replace(panel, **mixed), timeframe)
    if ours is not None:
        known = int((ours.timestamps <= panel.timestamps[t]).sum())
        assert_same(ours.subset(slice(0, known)), changed, slice(0, known)) if known else None


@given(cases())
def test_chains_end_where_one_step_does(case):
    panel, timeframe = case
    if panel.periods_per_year % 252 == 0:  # sessions are over later than their days
        return
    for middle in ("1h", "4h", "1d"):
        shorter = TIMEFRAMES[middle] < TIMEFRAMES[timeframe]
        if shorter and 365 * 24 * 3600 / panel.periods_per_year < TIMEFRAMES[middle].item() / 1e9:
            direct = resampled(panel, timeframe)
            step = resampled(panel, middle)
            if direct is not None:
                both = resample(step, timeframe)
                assert_same(replace(both, volume=direct.volume), direct)
                np.testing.assert_allclose(both.volume, direct.volume, rtol=1e-12)
                assert both.periods_per_year == direct.periods_per_year


def test_labels_and_periods_per_year():
    def labels(frequency, timeframe, start="2024-01-01", periods=24 * 60, **options):
        panel = panel_of(pd.date_range(start, periods=periods, freq=frequency), **options)
        bars = resample(panel, timeframe)
        assert bars.provenance["timeframe"] == timeframe
        assert bars.categories == panel.categories
        return [str(label)[:16] for label in bars.timestamps[[0, -1]]], bars.periods_per_year

    assert labels("h", "4h") == (["2024-01-01T03:00", "2024-02-29T23:00"], 2190)
    assert labels("h", "1d") == (["2024-01-01T23:00", "2024-02-29T23:00"], 365)
    assert labels("h", "1w") == (["2024-01-07T23:00", "2024-02-25T23:00"], 52)
    assert labels("h", "1M") == (["2024-01-31T23:00", "2024-02-29T23:00"], 12)
    assert labels("D", "1w", periods=20) == (["2024-01-07T00:00", "2024-01-14T00:00"], 52)
    assert labels("B", "1w", periods=20) == (["2024-01-05T00:00", "2024-01-26T00:00"], 52)
    assert labels("B", "1M", periods=67) == (["2024-01-31T00:00", "2024-03-29T00:00"], 12)
    at_close = labels("B", "1w", start="2024-01-01T21:00", periods=20)
    assert at_close == (["2024-01-05T21:00", "2024-01-26T21:00"], 52)
    days = labels("bh", "1d", periods=80, per_year=252 * 8)
    assert days == (["2024-01-01T16:00", "2024-01-11T16:00"], 252)
    assert labels("bh", "4h", periods=80)[1] == 252 * 3  # from 9 to 17 in steps from midnight


def test_a_missing_last_bar_delays_what_is_known_and_keeps_the_label():
    hours = pd.date_range("2024-01-01", periods=49, freq="h")
    times = hours.delete([22, 23])
    group, closed = closed_groups(times.to_numpy("M8[ns]"), 8760, "1d")
    assert closed.tolist() == [-1] * 22 + [0] * 23 + [1, 1]
    assert group.tolist() == [0] * 22 + [1] * 24 + [2]
    panel = panel_of(times, per_year=8760)
    labels = [str(label)[:13] for label in resample(panel, "1d").timestamps]
    assert labels == ["2024-01-01T23", "2024-01-02T23"]
    friday_off = pd.DatetimeIndex(["2024-03-27", "2024-03-28", "2024-04-01", "2024-04-02"])
    group, closed = closed_groups(friday_off.to_numpy("M8[ns]"), 252, "1M")
    assert (group.tolist(), closed.tolist()) == ([0, 0, 1, 1], [-1, -1, 0, 0])
    months = resample(panel_of(friday_off, per_year=252), "1M")
    assert str(months.timestamps[0])[:10] == "2024-03-29"


def test_weekend_bars_of_business_markets_belong_to_the_next_period():
    times = pd.DatetimeIndex(["2015-02-26", "2015-02-27", "2015-02-28", "2015-03-02"])
    for timeframe in ("1w", "1M"):
        group, closed = closed_groups(times.to_numpy("M8[ns]"), 252, timeframe)
        assert (group.tolist(), closed.tolist()) == ([0, 0, 1, 1], [-1, 0, 0, 0])


def test_closing_prices_alone_and_the_own_timeframe():
    panel = panel_of(pd.date_range("2024-01-01", periods=14))
    bare = replace(panel, open=None, high=None, low=None, volume=None)
    weeks = resample(bare, "1w")
    assert weeks.open is weeks.high is weeks.low is weeks.volume is None
    np.testing.assert_array_equal(weeks.close, resample(panel, "1w").close)
    assert resample(panel, "1d") is panel
    assert resample(weeks, "1w") is weeks
    months = resample(panel_of(pd.date_range("2024-01-01", periods=70)), "1M")
    assert resample(months, "1M") is months


@pytest.mark.parametrize(
    ("frequency", "timeframe", "text"),
    [
        ("D", "1h", "not a multiple of the bars of 1d: choose from .*'1d', '1w', '1M'"),
        ("4h", "1h", "not a multiple of the bars of 4h"),
        ("3h", "4h", "not a multiple of the bars of 180 minutes: choose from .*'1d'"),
        ("7D", "1M", "not a multiple"),
        ("D", "1W", "unknown timeframe '1W': did you mean"),
        ("D", "2d", "unknown timeframe '2d'"),
    ],
)
def test_timeframes_that_do_not_fit(frequency, timeframe, text):
    panel = panel_of(pd.date_range("2024-01-01", periods=30, freq=frequency))
    for call in (
        lambda: resample(panel, timeframe),
        lambda: closed_groups(panel.timestamps, panel.periods_per_year, timeframe),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()


def test_bars_closer_than_their_length_are_refused():
    times = pd.date_range("2024-01-01", periods=48, freq="h")
    closer = times.insert(24, pd.Timestamp("2024-01-01T23:30"))
    with pytest.raises(DataError, match=r"23:30.* is less than a bar \(1h\) after .*23:00"):
        closed_groups(closer.to_numpy("M8[ns]"), 8760, "1d")


def test_load_market_resamples_what_it_keeps(tmp_path):
    name = "synthetic?bars=400&assets=3"
    base = load_market(name)
    weeks = load_market(name, timeframe="1w", end=200)
    assert_same(weeks.panel, resample(base.panel.subset(slice(0, 200)), "1w"))
    base.save(tmp_path / "m.npz")
    again = load_market(tmp_path / "m.npz", timeframe="1w", end=200)
    assert again.hash == weeks.hash
    assert again.panel.provenance["timeframe"] == "1w"


def test_hours_become_the_real_days(shared_data):
    hours = read_panel(shared_data / "crypto_hourly.csv.gz")
    days = resample(hours, "1d")
    real = read_panel(shared_data / "crypto_daily.csv.gz")
    counts = pd.Series(1, pd.DatetimeIndex(hours.timestamps)).resample("D").sum()
    whole = counts.to_numpy() == 24
    assert (len(whole), whole.sum()) == (999, 994)
    dates = days.timestamps.astype("datetime64[D]")
    rows = np.searchsorted(real.timestamps, dates)
    columns = [real.assets.index(asset) for asset in days.assets]
    for name in BAR_FIELDS:
        theirs = getattr(real, name)[np.ix_(rows, columns)][whole]
        if name == "volume":  # a sum of 24 rounded numbers
            np.testing.assert_allclose(days.volume[whole], theirs, rtol=1e-15)
        else:
            np.testing.assert_array_equal(getattr(days, name)[whole], theirs)
    weeks = resample(hours, "1w")
    assert_same(replace(resample(days, "1w"), volume=weeks.volume), weeks)
    assert str(weeks.timestamps[-1])[:13] == "2023-12-24T23"


def test_real_equities_have_weeks_and_months(shared_data):
    panel = read_panel(shared_data / "us_equities_daily.csv.gz")
    weeks, months = resample(panel, "1w"), resample(panel, "1M")
    assert (len(weeks.timestamps), len(months.timestamps)) == (1044, 240)
    assert set(pd.DatetimeIndex(weeks.timestamps).day_of_week) == {4}
    assert (weeks.periods_per_year, months.periods_per_year) == (52, 12)
    wamu = np.isfinite(months.close[:, months.assets.index("WAMU")])
    assert wamu.sum() == 57  # delisted in its 57th month
    np.testing.assert_array_equal(weeks.close[-1], panel.close[-1])
