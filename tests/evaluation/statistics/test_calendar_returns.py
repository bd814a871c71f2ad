"""Calendar returns and drawdowns with dates, against pandas, plain Python and quantstats."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import metrics
from portfolio_env.errors import ArgumentError


def record(bars: int = 1200):
    """A deterministic account of business days; quantstats was given the same returns."""
    k = np.arange(bars)
    returns = 0.0004 + 0.012 * np.sin(1.7 * k) * np.cos(0.31 * k * k % 7) + 0.004 * np.sin(k / 90)
    days = pd.bdate_range("2019-03-01", periods=bars + 1)
    return 100 * np.r_[1.0, np.cumprod(1 + returns)], days.to_numpy()


# quantstats 0.0.86: stats.monthly_returns(returns) and stats.drawdown_details(drawdown_series),
# whose drawdowns start and end with their first and last day below the peak.
YEARS = {2019: 1.119384, 2020: -0.456623, 2021: 0.652538, 2022: 0.054968, 2023: -0.106116}
MONTHS_OF_2020 = [
    0.077723, -0.028094, 0.017525, -0.039518, -0.033421, -0.055953, -0.084372, -0.105647,
    -0.045004, -0.065861, -0.124985, -0.089986,
]  # fmt: skip
DRAWDOWNS = [
    ("2020-03-25", "2021-03-30", "2022-02-11", 54.879064),
    ("2022-06-16", "2023-06-30", None, 46.523309),
    ("2020-02-06", "2020-03-09", "2020-03-23", 4.823840),
    ("2022-04-15", "2022-04-29", "2022-05-05", 2.905031),
    ("2022-05-25", "2022-05-31", "2022-06-10", 2.636294),
]


def test_months_and_years_are_those_of_quantstats():
    table = metrics.monthly_table(*record())
    assert table["year"].round(6).to_dict() == YEARS
    assert table.loc[2020, list(range(1, 13))].round(6).tolist() == MONTHS_OF_2020
    assert np.isnan(table.loc[2019, 1]) and np.isnan(table.loc[2023, 12])


def test_drawdowns_are_those_of_quantstats():
    found = metrics.worst_drawdowns(*record())
    day = pd.offsets.BDay()
    for (start, trough, end, depth), row in zip(DRAWDOWNS, found.itertuples(), strict=True):
        assert row.peak + day == pd.Timestamp(start)
        assert row.trough == pd.Timestamp(trough)
        assert pd.isna(row.recovery) if end is None else row.recovery - day == pd.Timestamp(end)
        assert round(100 * row.depth, 6) == depth


@given(st.integers(0, 2**32 - 1), st.sampled_from(["week", "month", "quarter", "year"]))
def test_calendar_returns_compound_to_the_total_return(seed, period):
    random = np.random.default_rng(seed)
    bars = int(random.integers(1, 60))
    hours = np.cumsum(random.integers(1, 2000, bars + 1))
    times = np.datetime64("2020-01-01T00", "h") + hours
    values = np.exp(np.cumsum(random.normal(0, 0.1, bars + 1)))
    found = metrics.calendar_returns(values, times, period)
    assert np.prod(1 + found) == pytest.approx(values[-1] / values[0])
    assert found.index.is_monotonic_increasing and found.index.is_unique


@given(st.integers(0, 2**32 - 1))
def test_drawdowns_agree_with_a_walk_along_the_path(seed):
    random = np.random.default_rng(seed)
    bars = int(random.integers(1, 80))
    values = np.exp(np.cumsum(random.normal(0, 0.1, bars + 1))).round(1) + 0.1
    times = np.datetime64("2020-01-01", "D") + np.arange(bars + 1)
    expected, peak, depth = [], 0, 0.0
    for bar in range(1, bars + 1):
        depth = max(depth, 1 - values[bar] / values[peak])
        if values[bar] >= values[peak]:
            if depth:
                expected.append((peak, depth, bar - peak))
            peak, depth = bar, 0.0
    if depth:
        expected.append((peak, depth, bars - peak))
    expected.sort(key=lambda fall: -fall[1])
    found = metrics.worst_drawdowns(values, times, bars)
    assert found["depth"].tolist() == pytest.approx([fall[1] for fall in expected])
    assert found["bars"].tolist() == found["days"].tolist()
    assert sorted(found["bars"]) == sorted(fall[2] for fall in expected)
    if bars > 1 and len(expected):
        assert found["depth"].iloc[0] == pytest.approx(metrics.max_drawdown(values))


def test_an_account_that_never_fell_has_no_drawdown():
    found = metrics.worst_drawdowns([1.0, 1.0, 2.0], np.arange(3).astype("datetime64[D]"))
    assert len(found) == 0 and found["recovery"].dtype.kind == "M"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], ["2020-01-01"]), "do not match; give one time"),
        (([[1.0], [2.0]], ["2020-01-01", "2020-01-02"]), "do not match; give one time"),
        (([1.0, 2.0], ["2020-01-02", "2020-01-02"]), "timestamps must increase"),
        (([1.0, 2.0], ["2020-01-01", "2020-01-02"], "day"), "period='day' must be one of"),
    ],
)
def test_bad_records_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        metrics.calendar_returns(*arguments)
    if len(arguments) == 2:
        with pytest.raises(ArgumentError, match=message):
            metrics.worst_drawdowns(*arguments)
