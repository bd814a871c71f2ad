"""Interest accrues by the clock, at the rate that was known, in the economics and in its twin."""

import gzip
import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, Market, PortfolioEnv, PricePanel
from portfolio_env.market.rates import rates_at
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.simulator import Simulator

DAY = 24 * 60 * 60
YEAR = 365.25 * DAY
MONTH = pd.Series([0.0, 0.02, 0.05], pd.to_datetime(["2019-01-01", "2021-01-11", "2021-02-01"]))


def market_at(seconds, seed=0, assets=2):
    """A market with bars at these seconds after the start of 2021."""
    times = np.datetime64("2021-01-01", "s") + np.asarray(seconds).astype("timedelta64[s]")
    close = np.exp(np.random.default_rng(seed).normal(0, 0.02, (len(times), assets)).cumsum(0))
    panel = PricePanel(times, tuple("ABC"[:assets]), close)
    return Market(panel, np.zeros((*close.shape, 0), np.float32), ())


def values_of(market, weights, **options):
    """(T,) values of an account that asks for the same weights at every bar, without costs."""
    costs = {"commission_bps": 0} | options.pop("costs")
    simulator = Simulator(market, window=1, action="weights", costs=costs, **options)
    simulator.reset(lambda _: None)
    values = [simulator.initial_value]
    for _ in range(market.n_bars - 1):
        simulator.step([weights])
        values.append(simulator.ledger[dynamics.VALUE, 0])
    return np.array(values)


def days(*numbers):
    return np.cumsum([0, *numbers]) * DAY


pauses = st.lists(st.integers(1, 40 * DAY), min_size=1, max_size=30)


@given(pauses, st.floats(-0.5, 1.0))
def test_cash_earns_the_rate_times_the_time_that_passed(pauses, rate):
    market = market_at(np.cumsum([0, *pauses]))
    values = values_of(market, [1, 0, 0], costs={"cash_rate_annual": rate})
    value = 10_000.0
    for pause, found in zip(pauses, values[1:], strict=True):
        value *= 1 + rate * pause / YEAR
        assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("frequency", ["D", "B", "2B", "W", "h", "MS"])
def test_a_year_earns_the_yearly_rate_at_any_frequency(frequency):
    times = pd.date_range("2021-01-01", "2022-01-03", freq=frequency)
    market = market_at((times - times[0]).total_seconds())
    values = values_of(market, [1, 0, 0], costs={"cash_rate_annual": 0.05})
    years = (times[-1] - times[0]).total_seconds() / YEAR
    grown = np.log(values[-1] / values[0]) / years
    assert np.log1p(0.05 / 12) * 11.5 < grown < 0.05  # compounded from bar to bar


@given(pauses, st.integers(0, 2**32 - 1))
def test_debts_and_shorts_pay_by_the_clock(pauses, seed):
    market = market_at(np.cumsum([0, *pauses]), seed)
    rates = {"margin_rate_annual": 0.08, "borrow_rate_annual": 0.03, "cash_rate_annual": 0.02}
    limits = {"long_only": False, "max_leverage": 3.0, "max_weight": 2.0}
    moves = market.close[1:] / market.close[:-1]
    for weights, interest in (
        ([-0.5, 1.5, 0.0], -0.5 * 0.08),
        ([1.4, -0.4, 0.0], 1.4 * 0.02 - 0.4 * 0.03),
    ):
        values = values_of(market, weights, costs=rates, constraints=limits)
        expected = weights[0] + moves @ weights[1:] + interest * np.array(pauses) / YEAR
        alive = np.cumprod(expected > 0.2).astype(bool)
        assert (values[1:] / values[:-1])[alive] == pytest.approx(expected[alive], rel=1e-9)


def test_a_dated_rate_is_earned_from_the_bar_that_knows_it():
    market = market_at(days(7, 3, 7, 14, 7))  # January 1, 8, 11, 18, February 1, 8
    values = values_of(market, [1, 0, 0], costs={"cash_rate_annual": MONTH})
    by_hand = np.array([0, 0, 0.02 * 7, 0.02 * 14, 0.05 * 7]) / 365.25
    assert values[1:] / values[:-1] - 1 == pytest.approx(by_hand, abs=1e-15)


@given(st.integers(0, 29), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_a_later_rate_changes_nothing_before_its_bar(row, rate, seed):
    rng = np.random.default_rng(seed)
    market = market_at(rng.integers(1, 5 * DAY, 30).cumsum(), seed)
    stamps = pd.DatetimeIndex(market.timestamps)
    dated = pd.Series(rng.uniform(-0.2, 0.2, 30), stamps, name="fraction")
    changed = dated.copy()
    changed.iloc[row:] = rate
    one, other = (
        values_of(market, [0.5, 0.2, 0.3], costs={"cash_rate_annual": each}, execution=how)
        for each in (dated, changed)
        for how in ["close"]
    )
    assert np.array_equal(one[: row + 1], other[: row + 1])


def test_a_constant_is_a_dated_rate_that_never_changes():
    market = market_at(days(1, 3, 1, 1, 4))
    costs = {"margin_rate_annual": 0.07}
    dated = pd.Series(0.03, pd.date_range("2020-12-30", periods=9))
    one, other = (
        values_of(market, [0.7, 0.1, 0.2], costs=costs | {"cash_rate_annual": rate})
        for rate in (0.03, dated)
    )
    assert np.array_equal(one, other)


def test_a_range_before_the_first_rate_is_refused_and_a_later_one_is_not():
    market = market_at(days(*[1] * 40))
    costs = {"cash_rate_annual": {"2021-01-20": 0.02}}
    with pytest.raises(ArgumentError, match="before the first of the dated rates"):
        PortfolioEnv(market, window=1, costs=costs)
    env = PortfolioEnv(market, window=1, costs=costs, start="2021-01-20")
    assert np.isfinite(env.simulator.arrays.interest[env.simulator.episodes.start :]).all()


def test_a_series_is_kept_as_json_that_makes_the_same_costs():
    costs = TransactionCosts(cash_rate_annual=MONTH)
    again = TransactionCosts(**json.loads(json.dumps(asdict(costs))))
    assert again == costs
    assert list(again.cash_rate_annual.values()) == MONTH.tolist()


def test_files_name_their_column_and_unit(tmp_path):
    plain, many = tmp_path / "rates.csv", tmp_path / "many.csv.gz"
    plain.write_text("date,rate\n2021-01-01,0.01\n2021-01-03,.\n2021-01-04,0.03\n")
    with gzip.open(many, "wt") as file:
        file.write("date,rf_pct_per_day,irx_close_pct_pa\n2021-01-01,0.003,0.9\n2021-01-02,0,5.2\n")
    times = np.arange("2020-12-31", "2021-01-05", dtype="datetime64[D]").astype("M8[ns]")
    found = rates_at("cash", str(plain), times)
    assert found.tolist() == pytest.approx([np.nan, 0.01, 0.01, 0.01, 0.03], nan_ok=True)
    found = rates_at("cash", f"{many}?column=irx_close_pct_pa", times)
    assert found.tolist() == pytest.approx([np.nan, 0.009, 0.052, 0.052, 0.052], nan_ok=True)
    with pytest.raises(DataError, match=r"\?column=NAME"):
        rates_at("cash", str(many), times)
    with pytest.raises(DataError, match=r"5\.2 on 2021-01-02.*divide percent by 100"):
        rates_at("cash", f"{many}?column=irx_close_pct_pa&unit=fraction", times)
    with pytest.raises(DataError, match="cannot be read"):
        rates_at("cash", str(tmp_path / "none.csv"), times)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(bytes(8 << 20)) * 12)
    with pytest.raises(DataError, match=r"cannot be read.*more than 100 times its size"):
        rates_at("cash", str(tmp_path / "bomb.csv.gz"), times)
    with pytest.raises(ArgumentError, match="'column'"):
        rates_at("cash", f"{many}?colunm=irx_close_pct_pa", times)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (pd.Series([0.01, 0.02]), "has no dates"),
        (pd.Series([5.2], pd.to_datetime(["2020-01-01"])), "divide percent by 100"),
        (pd.Series([], dtype=float), "holds no rates"),
        ({"2020-01-01": 0.1, "2020-01-01T00:00": 0.2}, "more than one rate"),
        ({"yesterday": 0.1}, "is not a date"),
        ({"2020-01-01": "much"}, "no number"),
        (11, r"must be in \[-1, 1\]"),
        ("", "must be a finite number"),
    ],
)
def test_what_is_no_rate_is_refused(rate, message):
    with pytest.raises(ArgumentError, match=message):
        TransactionCosts(cash_rate_annual=rate)


def test_the_real_rates_of_two_decades(shared_data):
    path = f"{shared_data / 'riskfree_daily.csv.gz'}?column=irx_close_pct_pa"
    times = pd.bdate_range("2004-01-02", "2023-12-29")
    market = market_at((times - pd.Timestamp("2021-01-01")).total_seconds())
    values = values_of(market, [1, 0, 0], costs={"cash_rate_annual": path})
    daily = pd.read_csv(path.partition("?")[0], index_col="date", parse_dates=True)
    known = daily["irx_close_pct_pa"].reindex(times).ffill().to_numpy()[:-1] / 100
    grown = np.cumprod(1 + known * (np.diff(times) / np.timedelta64(int(YEAR), "s")))
    assert values[1:] / 10_000 == pytest.approx(grown, rel=1e-12)
    assert 1.25 < grown[-1] < 1.35  # some 1.3 % a year
