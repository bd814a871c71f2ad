"""Yearly figures are by the bars of a range; ratios are over cash; constant growth has none."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from baselines.strategies import baseline
from portfolio_env import metrics
from portfolio_env.evaluation import backtest, compare
from portfolio_env.evaluation.diagnostics.decay import rolling_sharpe
from portfolio_env.evaluation.statistics import (
    deflated_sharpe_ratio,
    growth_difference_test,
    probabilistic_sharpe_ratio,
    resample_measures,
)
from portfolio_env.evaluation.statistics.overfitting import backtest_overfitting
from portfolio_env.evaluation.task import EvaluationFold
from portfolio_env.evaluation.walk_forward import stitch

RATES = {"2000-01-01": 0.05, "2020-05-01": 0.01}
YEAR = np.timedelta64(36_525 * 864, "s")


def prices(days, assets=3, seed=0, drift=3e-4):
    moves = np.random.default_rng(seed).normal(drift, 0.01, (len(days), assets))
    return pd.DataFrame(np.exp(moves.cumsum(0)), days, [f"A{i}" for i in range(assets)])


PLAIN = {"features": "none"}
MARKET = pe.load_market(prices(pd.bdate_range("2020-01-01", periods=300)), **PLAIN)


def held(cash, market=MARKET, rate=0.05, **options):
    """The backtest of so much cash, the rest in equal weights, without costs of trading."""
    share = dict.fromkeys(market.assets, (1 - cash) / market.n_assets)
    policy = make_baseline("constant_rebalanced", market, proportions={"cash": cash, **share})
    costs = {"commission_bps": 0, "cash_rate_annual": rate}
    trading = {"window": 1, "action": "weights", "observation": "index", "costs": costs}
    return backtest(policy, pe.PortfolioEnv(market, **trading, **options))


# ---- bars per year


@pytest.mark.parametrize("frequency", ["D", "B", "2B", "W", "6h"])
def test_bars_per_year_are_those_of_the_range(frequency):
    days = pd.date_range("2018-01-01", "2021-01-01", freq=frequency)
    both = days[: len(days) // 2].append(days[len(days) // 2 :: 3])  # then a third as often
    market = pe.load_market(prices(both), **PLAIN)
    half = len(days) // 2
    for start, end in ((0, half), (half, len(both)), (10, len(both))):
        result = held(0.5, market, start=start, end=end)
        steps, times = len(result.costs), result.timestamps
        assert result.periods_per_year == pytest.approx(steps / ((times[-1] - times[0]) / YEAR))
        assert result.periods_per_year == market.bars_per_year(start, end)
        growth = np.log(result.values[-1] / result.values[0]) / ((times[-1] - times[0]) / YEAR)
        assert result.metrics()["annual_log_growth"] == pytest.approx(growth)
    assert market.bars_per_year(0, half) > 2 * market.bars_per_year(half)


def test_what_is_stated_wins_everywhere_a_market_is_made(tmp_path):
    frame = prices(pd.bdate_range("2020-01-01", periods=50))
    long = (
        frame.rename_axis("date").reset_index().melt("date", var_name="symbol", value_name="close")
    )
    long.to_csv(tmp_path / "bars.csv", index=False)
    counted = pe.load_market(frame, **PLAIN)
    made = [
        pe.load_market(frame, periods_per_year=240, **PLAIN),
        pe.load_market(tmp_path / "bars.csv", periods_per_year=240, start=0, end=40, **PLAIN),
        pe.Market.from_prices(frame, periods_per_year=240, **PLAIN),
        pe.Market.from_frame(long, periods_per_year=240, **PLAIN),
        pe.Market.from_panel(counted.panel, periods_per_year=240, **PLAIN),
    ]
    made[0].save(tmp_path / "saved.npz")
    made += [pe.Market.load(tmp_path / "saved.npz"), made[0].past(30), made[0].subset(slice(3, 20))]
    made.append(pe.load_market(tmp_path / "saved.npz", end=40))
    counted.save(tmp_path / "counted.npz")
    made.append(pe.load_market(tmp_path / "counted.npz", periods_per_year=240))
    for market in made:
        assert market.periods_per_year == market.bars_per_year(2, 9) == 240
        assert market.panel.periods_per_year == 252  # weekends are told by the calendar
        assert held(0.5, market).periods_per_year == 240
        assert "240 bars per year, stated" in repr(market)
    assert made[0].hash != counted.hash == pe.load_market(frame, **PLAIN).hash
    assert f"{counted.bars_per_year():.6g} bars per year, counted" in repr(counted)
    for wrong in (0, -1, np.nan, "252"):
        with pytest.raises(pe.ArgumentError, match="periods_per_year"):
            pe.load_market(frame, periods_per_year=wrong)


def test_folds_that_are_joined_have_the_bars_per_year_and_the_cash_of_all():
    whole = held(0.3, rate=RATES)
    parts = [held(0.3, rate=RATES, start=a, end=b) for a, b in ((0, 100), (99, 180), (179, None))]
    joined = stitch(parts)
    assert joined.periods_per_year == whole.periods_per_year
    assert np.array_equal(joined.cash_returns, whole.cash_returns)


# ---- over cash


def test_the_cash_of_an_account_is_what_it_would_earn_on_cash_alone():
    result = held(1.0, rate=RATES)
    assert result.cash_returns == pytest.approx(result.returns, abs=1e-15)
    assert set(np.round(365.25 * result.cash_returns, 9)) >= {0.05, 0.01}  # of one day
    assert np.array_equal(held(0.4, rate=RATES).cash_returns, result.cash_returns)


@pytest.mark.parametrize("rate", [0.0, 0.05, -0.02, RATES])
def test_ratios_do_not_depend_on_the_share_of_cash(rate):
    whole = held(0.0, rate=rate)
    for cash in (0.5, 0.9, 0.99, 0.999):
        mixed = held(cash, rate=rate)
        for name in ("sharpe", "sortino", "omega"):
            assert mixed.metrics()[name] == pytest.approx(whole.metrics()[name], rel=1e-6)
        year = whole.periods_per_year
        own, other = (
            probabilistic_sharpe_ratio(each.excess_returns, year) for each in (mixed, whole)
        )
        assert own.probability == pytest.approx(other.probability, rel=1e-6)
    excess = whole.returns - whole.cash_returns
    by_hand = excess.mean() / excess.std(ddof=1) * np.sqrt(whole.periods_per_year)
    assert whole.metrics()["sharpe"] == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("rate", [0.0, 0.05, RATES])
def test_nothing_but_cash_has_no_ratio(rate):
    found = held(1.0, rate=rate)
    for name in ("sharpe", "sortino", "omega"):
        assert np.isnan(found.metrics()[name])
    assert np.isnan(probabilistic_sharpe_ratio(found.excess_returns, 252).probability)


def test_a_comparison_says_the_same_of_equal_risk_whatever_is_in_cash():
    results = {"equal_weight": held(0.0), "calm": held(0.9), "cash": held(1.0)}
    table = compare(results, n_resamples=200).table
    for column in ("sharpe", "sharpe_low", "sharpe_high", "deflated_sharpe"):
        assert table.at["calm", column] == pytest.approx(table.at["equal_weight", column], rel=1e-6)
        assert np.isnan(table.at["cash", column])


def test_intervals_resample_returns_over_cash():
    record = held(0.9, rate=RATES).track_record()
    drawn = resample_measures({"it": record}, 252, measures=["sharpe"], n_resamples=20, seed=1)
    plain = record._replace(returns=record.excess_returns)
    again = resample_measures({"it": plain}, 252, measures=["sharpe"], n_resamples=20, seed=1,
                              mean_block=drawn.mean_block)  # fmt: skip
    assert np.array_equal(drawn.draws, again.draws)


def test_one_rate_in_a_report():
    pytest.importorskip("skfolio")
    rates = {"2000-01-01": 0.02, "2020-12-01": 0.04}
    options = {"window": 1, "observation": "index", "constraints": {}, "execution": "close",
               "costs": {"cash_rate_annual": rates}, "initial_value": 1.0}  # fmt: skip
    fold = EvaluationFold(
        MARKET, {"train": (0, 200), "validation": (200, 220), "test": (220, 300)}, options
    )
    model = baseline("mean_variance", fold, "test")
    assert list(model.risk_free_rate.values()) == [0.02, 0.04]
    for row, rate in ((MARKET.row("2020-11-30"), 0.02), (MARKET.row("2020-12-01"), 0.04)):
        model.lookback = 100
        problem = model.problem(MARKET.panel.past(row))
        assert model.yearly_risk_free(problem) == rate
        year = MARKET.bars_per_year(row - 100, row + 1)
        assert model.risk_free(problem) == pytest.approx(rate / year)


# ---- without risk


growths = st.one_of(st.floats(-0.02, 0.02), st.floats(-1e-9, 1e-9), st.just(0.0))


@given(growths, st.floats(1e-3, 1e9), st.integers(20, 400))
def test_constant_growth_has_no_ratio(growth, start, periods):
    values = start * np.cumprod(np.r_[1.0, np.full(periods, 1 + growth)])
    returns = metrics.simple_returns(values)
    other = np.random.default_rng(periods).normal(0, 0.01, periods)
    undefined = {
        "sharpe": metrics.sharpe(returns, 252),
        "sortino": metrics.sortino(returns, 252),
        "omega": metrics.omega(returns, 252),
        "over its own rate": metrics.sharpe(returns - growth, 252),
        "omega over its own rate": metrics.omega(returns - growth, 252),
        "sortino over its own rate": metrics.sortino(returns - growth, 252),
        "skewness": metrics.skewness(returns),
        "kurtosis": metrics.kurtosis(returns),
        "beta": metrics.beta(other, returns),
        "correlation": metrics.correlation(other, returns),
        "information ratio": metrics.information_ratio(
            (1 + other) * (1 + growth) / (1 + growth) - 1, other, 252
        ),
        "probabilistic": probabilistic_sharpe_ratio(returns, 252).probability,
        "deflated": deflated_sharpe_ratio(returns, 252, [0.5, 1.0]).probability,
    }
    assert not {name: value for name, value in undefined.items() if not np.isnan(value)}
    assert np.isnan(rolling_sharpe(returns, 252, 10)).all()
    assert metrics.volatility(returns, 252) == 0
    if growth >= 0:
        assert np.isnan(metrics.calmar(values, 252)) and np.isnan(metrics.profit_factor(values))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 1e-8, 1e-2]), st.floats(-0.01, 0.01))
def test_a_quiet_series_keeps_its_ratios(seed, deviation, mean):
    returns = mean + deviation * np.random.default_rng(seed).standard_normal(250)
    expected = returns.mean() / returns.std(ddof=1) * np.sqrt(252)
    assert metrics.sharpe(returns, 252) == expected
    assert np.isfinite(metrics.skewness(returns)) and np.isfinite(metrics.kurtosis(returns))
    assert np.isfinite(metrics.beta(returns[::-1], returns))


def test_a_copy_has_no_certain_difference():
    pytest.importorskip("statsmodels")
    own = np.random.default_rng(0).normal(0, 0.01, 200)
    assert np.isnan(growth_difference_test(own + 1e-4, own, 252).p_value)


def test_a_windows_ratio_is_that_of_the_window():
    rng = np.random.default_rng(3)
    returns = np.r_[rng.normal(0, 0.01, 50), np.full(40, 1e-4), rng.normal(0, 0.01, 50)]
    found = rolling_sharpe(returns, 252, 20)
    expected = [metrics.sharpe(returns[i : i + 20], 252) for i in range(len(found))]
    assert found == pytest.approx(expected, nan_ok=True)
    assert np.isnan(found[50:71]).all() and np.isfinite(found[:50]).all()


def test_overfitting_of_a_strategy_without_risk_is_refused():
    returns = np.random.default_rng(0).normal(0, 0.01, (200, 3))
    returns[:, 1] = metrics.simple_returns(100 * 1.0001 ** np.arange(201))
    with pytest.raises(pe.ArgumentError, match="no risk"):
        backtest_overfitting(returns, blocks=8)


def test_an_asset_that_grows_at_one_rate_is_left_out_by_one_rule():
    days = pd.bdate_range("2020-01-01", periods=80)
    frame = prices(days).assign(BILL=100 * 1.0001 ** np.arange(80))
    market = pe.load_market(frame)
    names = ["inverse_volatility"]
    try:
        import skfolio  # noqa: F401
    except ImportError:
        pass
    else:
        names += ["min_variance", "risk_parity", "hrp", "mean_variance"]
    for name in names:
        weights = make_baseline(name, market, lookback=60).predict_weights(79)
        assert weights["BILL"] == 0 and weights[1:].sum() == pytest.approx(1)
