"""Performance in known windows, and a detector that knows the past alone."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.data.generators.synthetic import _regimes, synthetic_panel
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.diagnostics.crises import (
    EQUITY_BREAKS,
    performance_in,
    windows_around,
)
from portfolio_env.evaluation.diagnostics.regimes import (
    _model,
    detection_scores,
    fit_regimes,
    regime_path,
)

MARKET = pe.load_market("synthetic?assets=3&bars=120")  # business days from 2010-01-04


@pytest.fixture(scope="module")
def result():
    env = pe.PortfolioEnv(MARKET, observation="index", action="weights", window=1, start=60)
    return backtest(make_baseline("equal_weight", MARKET), env)


def test_windows_chain_to_the_whole_record(result):
    """Windows that tile the record hold every return once."""
    days = pd.DatetimeIndex(result.timestamps)
    middle = days[20]
    table = performance_in(
        {"equal": result},
        {
            "early": (days[0], middle),
            "late": (middle + pd.Timedelta(days=1), days[-1]),
            "all": ("2000-01-01", "2100-01-01"),
            "never": ("2005-01-01", "2005-12-31"),
        },
    )
    growth, bars = table["growth"].droplevel("strategy"), table["bars"].droplevel("strategy")
    assert growth["all"] == pytest.approx(result.log_returns.sum(), abs=1e-12)
    assert growth["early"] + growth["late"] == pytest.approx(growth["all"], abs=1e-12)
    assert bars.to_dict() == {"early": 20, "late": 39, "all": 59, "never": 0}
    assert table.loc[("early", "equal"), "last"] == middle
    assert table.loc[("never", "equal")].drop("bars").isna().all()
    measures = result.metrics()
    whole = table.loc[("all", "equal")]
    assert whole["volatility"] == pytest.approx(measures["volatility"])
    assert whole["max_drawdown"] == pytest.approx(measures["max_drawdown"])
    assert whole["recovery"] == measures["recovery_time"]


@given(st.lists(st.floats(0.5, 2.0), min_size=12, max_size=40), st.data())
def test_drawdown_and_recovery_by_hand(values, data):
    template = recorded(values)
    i = data.draw(st.integers(1, len(values) - 2))
    j = data.draw(st.integers(i, len(values) - 1))
    times = template.timestamps
    row = performance_in({"x": template}, {"w": (times[i], times[j])}).iloc[0]
    inside = values[i - 1 : j + 1]  # from the value before the first bar
    worst, bottom, peak = 0.0, 0, inside[0]
    highest = inside[0]
    for k, value in enumerate(inside):
        highest = max(highest, value)
        if 1 - value / highest > worst:
            worst, bottom, peak = 1 - value / highest, k, highest
    assert row["max_drawdown"] == pytest.approx(worst, abs=1e-12)
    after = [k for k, value in enumerate(values[i - 1 + bottom :]) if value >= peak]
    assert row["recovery"] == (after[0] if after else np.inf)
    assert row["bars"] == j - i + 1


def recorded(values):
    """A record with these values; nothing else about it is read here."""
    env = pe.PortfolioEnv(MARKET, observation="index", action="weights", window=1, start=100)
    made = backtest(make_baseline("cash", MARKET), env)
    times = np.datetime64("2021-01-01T00", "ns") + np.arange(len(values)) * np.timedelta64(1, "D")
    return replace(made, values=np.array(values), timestamps=times)


def test_windows_lie_around_their_dates():
    windows = windows_around(EQUITY_BREAKS, before=10, after=20)
    for name, when in EQUITY_BREAKS.items():
        (_, last), (first, end) = windows[f"{name}, before"], windows[f"{name}, after"]
        assert first == np.datetime64(when) == last + 1
        assert end - first == np.timedelta64(19, "D")
    with pytest.raises(ArgumentError, match="before=0"):
        windows_around(EQUITY_BREAKS, before=0)
    with pytest.raises(ArgumentError, match="swap them"):
        performance_in({"x": recorded([1.0, 2.0])}, {"w": ("2021-01-02", "2021-01-01")})


def switching(bars, seed, calm=0.006, wild=0.03, stay=120):
    """Gaussian returns whose deviation changes at known rows."""
    rng = np.random.default_rng(seed)
    changes = np.arange(stay, bars, stay)
    regime = (np.arange(bars) // stay) % 2
    return rng.normal(0, np.where(regime, wild, calm)), regime, changes


def test_what_the_library_warns_of_is_not_printed(monkeypatch):
    """Its first import put a filter of its own before the one that silences it."""

    def imported(series, regimes):
        warnings.simplefilter("always", RuntimeWarning)
        model = _model(series, regimes)

        def fit(**options):
            warnings.warn("not converged", RuntimeWarning, stacklevel=1)
            return type(model).fit(model, **options)

        return SimpleNamespace(fit=fit)

    monkeypatch.setattr("portfolio_env.evaluation.diagnostics.regimes._model", imported)
    with warnings.catch_warnings(record=True) as told:
        assert fit_regimes(switching(400, 0)[0]).volatilities[1] > 0
    assert not told


def test_regimes_with_known_dates_are_told():
    returns, regime, changes = switching(1800, 0)
    model = fit_regimes(returns[:900])
    assert model.converged
    assert model.volatilities == pytest.approx([0.006, 0.03], rel=0.1)
    path = regime_path(model.filtered(returns))
    assert (path == regime)[900:].mean() > 0.95
    scores = detection_scores(path[900:], changes[changes > 900] - 900, 252)
    assert scores.detected == 1
    assert scores.detection_lag <= scores.adaptation <= 10
    assert scores.false_alarms < 3


def test_filtered_probabilities_know_the_past_alone():
    returns, _, _ = switching(600, 1)
    model = fit_regimes(returns[:300])
    before = model.filtered(returns)
    assert before.sum(axis=1) == pytest.approx(1)
    changed = returns.copy()
    changed[450:] *= -9
    assert (model.filtered(changed)[:450] == before[:450]).all()
    assert (model.filtered(changed)[450:] != before[450:]).any()


def test_turbulence_of_the_synthetic_market_is_seen():
    """Fat tails and clustered volatility blur its regimes; still their order is seen in all."""
    for seed in range(3):
        panel = synthetic_panel(seed=seed, bars=2500, assets=10)
        regime = _regimes(np.random.default_rng(seed), 2500)  # what the panel was drawn from
        returns = np.diff(np.log(panel.close), axis=0).mean(axis=1)
        turbulent = fit_regimes(returns[:1250]).filtered(returns)[1250:, 1]
        means = [turbulent[regime[1251:] == state].mean() for state in range(2)]
        assert means[0] < means[1]


def test_three_regimes_are_ordered_by_volatility():
    rng = np.random.default_rng(0)
    deviations = np.repeat([0.03, 0.004, 0.011, 0.03, 0.004, 0.011], 200)
    model = fit_regimes(rng.normal(0, deviations), regimes=3)
    assert model.volatilities == pytest.approx([0.004, 0.011, 0.03], rel=0.1)


def test_scores_by_hand():
    #               0  1  2  3  4  5  6  7  8  9
    path = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 0])
    found = detection_scores(path, [3], 10)
    assert found == (1.0, 1.0, np.inf, 3.0)  # told after 1 bar, back at the end, 3 more changes
    found = detection_scores(path, [3, 8], 10, patience=5)
    assert found.detected == 1.0
    assert sorted((found.detection_lag, found.adaptation)) == [1.0, 3.0]
    missed = detection_scores(path, [2], 5, patience=2)
    assert missed == (0.0, np.inf, np.inf, 2.0)
    perfect = detection_scores([0, 0, 1, 1, 0], [2, 4], 5)
    assert perfect == (1.0, 0.0, 0.0, 0.0)


def test_a_threshold_trades_false_alarms_for_time():
    probabilities = np.array([0.1, 0.6, 0.4, 0.7, 0.9, 0.4, 0.1])
    rows = np.column_stack([1 - probabilities, probabilities])
    assert regime_path(rows, 0.5).tolist() == [0, 1, 0, 1, 1, 0, 0]
    assert regime_path(rows, 0.8).tolist() == [0, 0, 0, 0, 1, 1, 0]


def test_bad_detections_are_refused():
    for call, match in (
        (lambda: fit_regimes(np.zeros(50)), "at least 100"),
        (lambda: fit_regimes(np.zeros(500)), "constant"),
        (lambda: fit_regimes(np.ones(500), regimes=4), "2 or 3"),
        (lambda: regime_path(np.ones((2, 2)), 0.4), "threshold=0.4"),
        (lambda: detection_scores([0, 1], [], 252), "changes="),
        (lambda: detection_scores([0, 1], [2], 252), "changes="),
    ):
        with pytest.raises(ArgumentError, match=match):
            call()
