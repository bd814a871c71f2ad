"""Performance measures against independent libraries, hand computations and their properties."""

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from skfolio import measures as skfolio

from portfolio_env import metrics
from portfolio_env.errors import ArgumentError

DAYS = 252
RETURNS = np.random.default_rng(7).standard_t(5, 1000) * 0.01 + 0.0004
VALUES = 100 * np.cumprod(np.r_[1, 1 + RETURNS])

some_returns = arrays(np.float64, st.integers(2, 60), elements=st.floats(-0.5, 0.5, width=32))


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (metrics.total_return(VALUES), empyrical.cum_returns_final(RETURNS)),
        (metrics.annual_return(VALUES, DAYS), empyrical.annual_return(RETURNS)),
        (metrics.volatility(RETURNS, DAYS), empyrical.annual_volatility(RETURNS)),
        (metrics.sharpe(RETURNS, DAYS), empyrical.sharpe_ratio(RETURNS)),
        (
            metrics.sharpe(RETURNS, DAYS, risk_free_annual=0.0252),
            empyrical.sharpe_ratio(RETURNS, risk_free=0.0001),
        ),
        (metrics.sortino(RETURNS, DAYS), empyrical.sortino_ratio(RETURNS)),
        (
            metrics.sortino(RETURNS, DAYS, risk_free_annual=0.0252),
            empyrical.sortino_ratio(RETURNS, required_return=0.0001),
        ),
        (metrics.calmar(VALUES, DAYS), empyrical.calmar_ratio(RETURNS)),
        (metrics.max_drawdown(VALUES), -empyrical.max_drawdown(RETURNS)),
        (metrics.value_at_risk(RETURNS), -empyrical.value_at_risk(RETURNS)),
        (metrics.expected_shortfall(RETURNS), -empyrical.conditional_value_at_risk(RETURNS)),
        (metrics.omega(RETURNS, DAYS), empyrical.omega_ratio(RETURNS)),
        (
            metrics.omega(RETURNS, DAYS, risk_free_annual=0.0252),
            empyrical.omega_ratio(RETURNS, risk_free=0.0001),
        ),
        (metrics.tail_ratio(RETURNS), empyrical.tail_ratio(RETURNS)),
    ],
)
def test_agrees_with_empyrical(own, other):
    assert own == pytest.approx(other, rel=1e-12)


def test_certainty_equivalent_is_the_riskless_return_of_equal_utility():
    moments = RETURNS.mean(), RETURNS.var(ddof=1)
    assert metrics.certainty_equivalent(RETURNS, DAYS, 3.0) == pytest.approx(
        DAYS * (moments[0] - 1.5 * moments[1])
    )
    assert metrics.certainty_equivalent(np.full((5, 2), 0.01), 12) == pytest.approx([0.12, 0.12])


N = len(RETURNS)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (metrics.volatility(RETURNS, 1), skfolio.standard_deviation(RETURNS)),
        # its drawdowns add returns up unless told to compound them
        (
            metrics.max_drawdown(VALUES),
            skfolio.max_drawdown(skfolio.get_drawdowns(RETURNS, compounded=True)),
        ),
        (metrics.expected_shortfall(RETURNS), skfolio.cvar(RETURNS)),
        # its value at risk is a return that happened, the one above the 5 % mark
        (np.sort(-RETURNS)[-N // 20 - 1], skfolio.value_at_risk(RETURNS)),
        # its semi-deviation divides by K - 1
        (
            metrics.sortino(RETURNS, 1),
            RETURNS.mean()
            / skfolio.semi_deviation(RETURNS, min_acceptable_return=0)
            * np.sqrt(N / (N - 1)),
        ),
        # its moments are not corrected for bias, and 3 is the kurtosis of the normal distribution
        (metrics.standardised_moments(RETURNS)[0], skfolio.skew(RETURNS)),
        (metrics.standardised_moments(RETURNS)[1], skfolio.kurtosis(RETURNS)),
        (metrics.skewness(RETURNS), stats.skew(RETURNS, bias=False)),
        (metrics.kurtosis(RETURNS), stats.kurtosis(RETURNS, bias=False)),
        (
            metrics.effective_assets([[0.1, 0.4, 0.3, 0.2]]),
            skfolio.effective_number_assets(np.array([0.4, 0.3, 0.2]) / 0.9),
        ),
    ],
)
def test_agrees_with_skfolio_and_scipy(own, other):
    assert own == pytest.approx(other, rel=1e-10)


def test_value_at_risk_lies_between_neighbouring_returns():
    """Interpolated, so one period off another library's rule at most."""
    worst = np.sort(-RETURNS)[::-1]
    assert worst[N // 20] <= metrics.value_at_risk(RETURNS) <= worst[N // 20 - 1]


def test_hand_computed_account():
    values = [100.0, 110.0, 99.0, 99.0, 120.0]
    held = [[0, 0.5, 0.5], [0.5, 0.5, 0.0], [1, 0, 0], [0, 1.5, -0.5]]
    measures = metrics.summary(values, held, [1, 0.5, 0.5, 2], [1.0, 0, 0, 9.9], 4)
    assert measures["total_return"] == pytest.approx(0.2)
    assert measures["annual_return"] == pytest.approx(0.2)
    assert measures["annual_log_growth"] == pytest.approx(np.log(1.2))
    assert measures["max_drawdown"] == pytest.approx(0.1)
    assert measures["max_drawdown_length"] == 2
    assert measures["hit_ratio"] == 0.5
    assert measures["annual_turnover"] == 4.0
    assert measures["cost_drag"] == pytest.approx(-np.log(0.99) - np.log(0.9))
    assert measures["effective_assets"] == pytest.approx((2 + 1 + 0 + 4 / 2.5) / 4)
    assert measures["exposure"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert measures["profit_factor"] == pytest.approx(31 / 11)
    assert measures["omega"] == pytest.approx((0.1 + 21 / 99) / 0.1)
    assert measures["recovery_time"] == 2


def recovery_by_hand(values):
    """Straight from the definition: bottom of the deepest fall, then wait for the peak before."""
    falls = [1 - value / max(values[: t + 1]) for t, value in enumerate(values)]
    bottom = falls.index(max(falls))
    peak = max(values[: bottom + 1])
    for t in range(bottom, len(values)):
        if values[t] >= peak:
            return t - bottom
    return np.inf


@given(st.lists(st.integers(1, 6), min_size=2, max_size=12))
def test_recovery_time_is_what_its_definition_says(values):
    values = [float(value) for value in values]  # whole numbers: ties and exact recoveries occur
    assert metrics.recovery_time(values) == recovery_by_hand(values)
    assert (
        metrics.recovery_time(np.transpose([values, values])).tolist()
        == [recovery_by_hand(values)] * 2
    )


def test_profit_factor_counts_money_and_omega_returns():
    values = [100.0, 200.0, 150.0, 300.0, 150.0]  # +100, -50, +150, -150
    assert metrics.profit_factor(values) == pytest.approx(250 / 200)
    assert metrics.omega(metrics.simple_returns(values), DAYS) == pytest.approx(2 / 0.75)


def test_expected_shortfall_counts_the_last_period_in_part():
    returns = -np.arange(30.0) / 100  # the worst 5 % are one and a half periods
    assert metrics.expected_shortfall(returns) == pytest.approx((0.29 + 0.5 * 0.28) / 1.5)


def test_measures_without_risk_are_undefined_not_zero():
    flat = np.full(5, 100.0)
    returns = metrics.simple_returns(flat)
    for ratio in (
        metrics.sharpe(returns, DAYS),
        metrics.sortino(returns, DAYS),
        metrics.calmar(flat, DAYS),
        metrics.omega(returns, DAYS),
        metrics.profit_factor(flat),
        metrics.tail_ratio(returns),
        metrics.skewness(np.full(9, 0.1)),
        metrics.kurtosis(np.full(9, 0.1)),
        metrics.skewness(RETURNS[:2]),
        metrics.kurtosis(RETURNS[:3]),
        metrics.volatility(returns[:1], DAYS),
        metrics.sharpe(
            np.full(9, 0.1), DAYS
        ),  # equal numbers have no deviation, not a rounding error
    ):
        assert np.isnan(ratio)
    assert metrics.max_drawdown_length(flat) == 0
    assert metrics.recovery_time(flat) == 0


def test_ruin():
    values = [100.0, 50.0, 0.0]
    assert metrics.annual_log_growth(values, DAYS) == -np.inf
    assert metrics.total_return(values) == -1
    assert metrics.annual_return(values, DAYS) == -1
    assert metrics.max_drawdown(values) == 1
    debt = [100.0, 50.0, -20.0]  # what a short position or leverage can leave
    assert metrics.annual_log_growth(debt, DAYS) == -np.inf
    assert metrics.total_return(debt) == pytest.approx(-1.2)
    assert metrics.max_drawdown(debt) == pytest.approx(1.2)


@given(some_returns, st.floats(0.01, 1e6))
def test_scaling_money_changes_nothing(returns, scale):
    values = np.cumprod(np.r_[1, 1 + returns])
    held, turnovers = np.ones((len(returns), 3)) / 3, np.abs(returns)
    costs = 0.001 * values[:-1]
    before = metrics.summary(values, held, turnovers, costs, DAYS)
    after = metrics.summary(scale * values, held, turnovers, scale * costs, DAYS)
    # A path that returns to its peak may miss it by rounding, and equal returns may differ by it.
    exact = before.keys() - {"max_drawdown_length", "recovery_time", "hit_ratio", "skewness"}
    for name in exact - {
        "sharpe",
        "sortino",
        "calmar",
        "omega",
        "profit_factor",
        "tail_ratio",
        "kurtosis",
    }:
        assert after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-9, nan_ok=True), name


@given(some_returns)
def test_bounds(returns):
    values = np.cumprod(np.r_[1, 1 + returns])
    falls = metrics.drawdowns(values)
    assert ((falls >= 0) & (falls < 1)).all()
    assert metrics.max_drawdown_length(values) <= len(returns)
    assert 0 <= metrics.hit_ratio(returns) <= 1
    assert metrics.expected_shortfall(returns) >= metrics.value_at_risk(returns) - 1e-12


def test_lanes_are_independent():
    """Two axes of lanes give what every lane gives alone, for every measure there is."""
    generator = np.random.default_rng(0)
    values = np.cumprod(1 + generator.normal(0, 0.02, (80, 2, 3)), axis=0)
    held = generator.dirichlet(np.ones(4), (79, 2, 3))
    turnovers, costs = generator.random((2, 79, 2, 3)) * 0.01
    record = metrics.track_record(values, held, turnovers, costs)
    for name, measure in metrics.MEASURES.items():
        lanes = measure(record, DAYS)
        assert lanes.shape == (2, 3), name
        for lane in np.ndindex(2, 3):
            at = (slice(None), *lane)
            alone = metrics.summary(values[at], held[at], turnovers[at], costs[at], DAYS)
            assert lanes[lane] == pytest.approx(alone[name], rel=1e-12), name


@pytest.mark.parametrize("values", [3.0, [1.0], [-1.0, 1.0], [0.0, 1.0]])
def test_bad_paths(values):
    with pytest.raises(ArgumentError, match="values"):
        metrics.total_return(values)


def test_no_periods():
    with pytest.raises(ArgumentError, match="no period"):
        metrics.hit_ratio([])
