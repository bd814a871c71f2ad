"""Mean-variance optimisers: independent solutions, bounds, fallbacks, the frontier."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog, minimize

import portfolio_env as pe
from baselines import optimisers
from baselines.optimisers import MeanVariance, MinimumVariance, RiskParity, efficient_frontier
from baselines.optimisers.base import adapter
from portfolio_env.errors import ArgumentError, PortfolioError

BARS = 253


def walk(assets=5, bars=BARS, seed=0, drift=8e-4, **options):
    """A market of assets with a common factor; its prices are known at all bars."""
    rng = np.random.default_rng(seed)
    common = rng.standard_t(5, (bars, 2)) * 0.007 @ rng.normal(0.7, 0.4, (2, assets))
    own = rng.standard_t(5, (bars, assets)) * 0.01
    steps = common + own + rng.normal(drift, 8e-4, assets)
    close = prices(np.cumprod(1 + steps, axis=0))
    return pe.load_market(close, periods_per_year=252, **options)


def prices(close):
    days = pd.bdate_range("2020-01-01", periods=len(close))
    return pd.DataFrame(close, days, [f"A{i:02d}" for i in range(close.shape[1])])


def moments(market):
    returns = market.close[1:] / market.close[:-1] - 1
    return returns.mean(axis=0), np.cov(returns.T)


def slsqp(objective, assets, low, high, *constraints):
    """The best of three starts; the objective is scaled to about 1."""
    whole = {"type": "eq", "fun": lambda w: w.sum() - 1}
    runs = [
        minimize(
            objective,
            np.random.default_rng(start).dirichlet(np.full(assets, 50)),
            method="SLSQP",
            bounds=[(low, high)] * assets,
            constraints=[whole, *constraints],
            options={"ftol": 1e-13, "maxiter": 1000},
        )
        for start in range(3)
    ]
    return min(runs, key=lambda run: run.fun if run.success else np.inf).x


@pytest.mark.parametrize(("assets", "low"), [(5, 0.05), (5, 0.0), (20, 0.01), (30, 0.0)])
def test_agreement_with_slsqp(assets, low):
    market = walk(assets, seed=assets)
    mean, covariance = moments(market)
    rate = 0.03 / 252

    def sharpe(w):
        return (w @ mean - rate) / np.sqrt(w @ covariance @ w)

    def variance(w):
        return 1e4 * w @ covariance @ w

    options = {"min_weight": low, "covariance": "sample", "risk_free_rate": 0.03}
    found = MeanVariance(market, **options).predict_weights(BARS - 1).to_numpy()[1:]
    best = slsqp(lambda w: -10 * sharpe(w), assets, low, 0.4)
    assert found == pytest.approx(best, abs=2e-4)
    assert sharpe(found) == pytest.approx(sharpe(best), abs=1e-5)

    calm = MinimumVariance(market, min_weight=low, covariance="sample").predict_weights(BARS - 1)
    least = slsqp(variance, assets, low, 0.4)
    assert calm.to_numpy()[1:] == pytest.approx(least, abs=2e-4)

    wanted = (calm.to_numpy()[1:] @ mean + found @ mean) / 2
    options |= {"objective": "target_return", "target_return": 252 * wanted}
    target = MeanVariance(market, **options).predict_weights(BARS - 1).to_numpy()[1:]
    reaching = {"type": "ineq", "fun": lambda w: 1e3 * (w @ mean - wanted)}
    assert target == pytest.approx(slsqp(variance, assets, low, 0.4, reaching), abs=2e-4)
    assert target @ mean == pytest.approx(wanted, rel=1e-6)

    richest = MeanVariance(market, objective="max_return", min_weight=low)
    linear = linprog(-mean, A_eq=[np.ones(assets)], b_eq=[1], bounds=(low, 0.4)).x
    assert richest.predict_weights(BARS - 1).to_numpy()[1:] == pytest.approx(linear, abs=1e-12)


def test_scale_of_the_returns_does_not_matter():
    market = walk(4)
    steps = market.close[1:] / market.close[:-1] - 1
    small = np.vstack([np.ones(4), np.cumprod(1 + steps / 1000, axis=0)])
    calm = pe.load_market(prices(small))
    for objective in ("max_sharpe", "min_variance"):
        pair = [
            MeanVariance(each, objective=objective, risk_free_rate=0.0).predict_weights(BARS - 1)
            for each in (market, calm)
        ]
        assert pair[0].to_numpy() == pytest.approx(pair[1].to_numpy(), abs=1e-4)


def test_defaults_suit_any_number_of_assets():
    for assets, lowest in ((2, 0.05), (5, 0.05), (20, 0.025), (40, 0.0125)):
        weights = MeanVariance(walk(assets)).predict_weights(BARS - 1)
        assert weights.to_numpy()[1:].min() == pytest.approx(lowest, abs=1e-12) or assets == 2
        assert weights.to_numpy()[1:].max() <= 0.4 + 1e-12
        assert weights["cash"] == pytest.approx(0.2 if assets == 2 else 0, abs=1e-12)


def test_bounds_that_no_portfolio_keeps_to_are_refused_before_anything_is_solved(monkeypatch):
    monkeypatch.setattr(optimisers.base, "adapter", lambda: pytest.fail("a solver was loaded"))
    thirty = walk(30)
    with pytest.raises(ArgumentError, match=r"0\.05 x 30 assets .* lower min_weight to .* 0\.0333"):
        MeanVariance(thirty, min_weight=0.05)
    cashless = pe.PortfolioConstraints(max_cash=0.0)
    with pytest.raises(ArgumentError, match=r"5 assets x max_weight=0\.15 .* raise max_weight"):
        MeanVariance(walk(5), max_weight=0.15, constraints=cashless)
    reserve = pe.PortfolioConstraints(min_cash=0.5)
    with pytest.raises(ArgumentError, match=r"lower min_weight to at most 0\.1"):
        MeanVariance(walk(5), min_weight=0.11, constraints=reserve)
    leveraged = pe.PortfolioConstraints(max_leverage=0.4, min_cash=0.0)
    with pytest.raises(ArgumentError, match=r"lower min_weight to at most 0\.08"):
        MeanVariance(walk(5), min_weight=0.1, constraints=leveraged)
    few = pe.PortfolioConstraints(top_k=10)
    assert MeanVariance(thirty, min_weight=0.05, constraints=few).min_weight == 0.05


def test_bad_options_are_refused():
    market = walk()
    for options, message in (
        ({"objective": "max_sharp"}, "did you mean max_sharpe"),
        ({"covariance": "shrunken"}, "covariance=.* must be one of"),
        ({"mean": "median"}, "mean=.* must be one of"),
        ({"objective": "target_return"}, "do not fit"),
        ({"target_return": 0.1}, "do not fit"),
        ({"max_weight": 1.5}, "max_weight=1.5"),
        ({"min_weight": -0.1}, "min_weight=-0.1"),
        ({"lookback": 1}, "lookback=1"),
    ):
        with pytest.raises(ArgumentError, match=message):
            MeanVariance(market, **options)


@pytest.mark.parametrize("kind", [MeanVariance, MinimumVariance, RiskParity])
def test_cash_is_what_the_bounds_leave(kind):
    constraints = pe.PortfolioConstraints(max_weight=0.15, min_cash=0.1)
    weights = kind(walk(), constraints=constraints).predict_weights(BARS - 1)
    assert weights.to_numpy() == pytest.approx([0.25, *[0.15] * 5], abs=1e-12)
    constraints = pe.PortfolioConstraints(max_weight=0.3, min_cash=0.1)
    weights = kind(walk(), constraints=constraints).predict_weights(BARS - 1)
    assert weights["cash"] == pytest.approx(0.1, abs=1e-12)
    # the invested part is the solution for bounds as wide again
    whole = pe.PortfolioConstraints(max_weight=0.3 / 0.9)
    options = {} if kind is RiskParity else {"min_weight": 0.0}
    pair = [
        kind(walk(), constraints=limits, **options).predict_weights(BARS - 1).to_numpy()[1:]
        for limits in (constraints, whole)
    ]
    assert pair[0] / 0.9 == pytest.approx(pair[1], abs=1e-9)


def test_assets_come_and_go():
    market = walk(6, bars=120)
    close = np.array(market.close)
    close[:50, :3] = np.nan  # listed late
    close[80:, 3] = np.nan  # delisted
    close[:, 4] = 7.0  # never moves
    ragged = pe.load_market(prices(close))
    model = MeanVariance(ragged, lookback=30)
    held = [set(np.flatnonzero(model.predict_weights(row).to_numpy())) for row in range(120)]
    assert held[:30] == [{0}] * 30
    assert held[30:80] == [{0, 4, 6}] * 50  # both at 0.4, the rest in cash
    assert model.predict_weights(60).to_numpy() == pytest.approx([0.2, 0, 0, 0, 0.4, 0, 0.4])
    assert held[80:] == [{1, 2, 3, 6}] * 40
    assert (model.predict_weights(100)[1:] <= 0.4 + 1e-12).all()


def test_top_k_chooses_and_solves_again():
    market = walk(8)
    constraints = pe.PortfolioConstraints(top_k=3)
    model = MinimumVariance(market, constraints=constraints, max_weight=0.5)
    full = MinimumVariance(market, max_weight=0.5).predict_weights(BARS - 1).iloc[1:]
    chosen = full.nlargest(3).index
    weights = model.predict_weights(BARS - 1)
    assert set(weights.index[weights > 0]) <= set(chosen)
    alone = MinimumVariance(market.select(sorted(chosen)), max_weight=0.5)
    assert weights[sorted(chosen)].to_numpy() == pytest.approx(
        alone.predict_weights(BARS - 1).to_numpy()[1:], abs=1e-9
    )


def test_where_nothing_beats_the_risk_free_rate_the_variance_is_least_and_that_is_said():
    falling = walk(drift=-5e-3)
    options = {"covariance": "sample", "min_weight": 0.05}
    model = MeanVariance(falling, **options)
    weights = model.predict_weights(BARS - 1)
    assert (weights == MinimumVariance(falling, **options).predict_weights(BARS - 1)).all()
    info = json.loads(json.dumps(model.model_info()))
    date = str(falling.timestamps[-1])
    assert info["fallbacks"] == {date: "min_variance: nothing exceeds the risk-free rate"}
    # one asset above the rate is not enough where bounds force the others in
    mean, _ = moments(market := walk())
    rate = float(252 * (mean.max() - 1e-6))
    forced = MeanVariance(market, min_weight=0.05, risk_free_rate=rate)
    forced.predict_weights(BARS - 1)
    free = MeanVariance(market, min_weight=0.0, max_weight=1.0, risk_free_rate=rate)
    assert free.predict_weights(BARS - 1).iloc[1 + mean.argmax()] > 0.9
    assert len(forced.fallbacks) == 1 and not free.fallbacks

    high = MeanVariance(market, objective="target_return", target_return=9.0)
    richest = MeanVariance(market, objective="max_return")
    assert (high.predict_weights(BARS - 1) == richest.predict_weights(BARS - 1)).all()
    assert [*high.fallbacks.values()] == ["max_return: nothing exceeds the target return"]


def test_the_smallest_excess_over_the_risk_free_rate_is_still_solved():
    market = walk(10)
    mean, covariance = moments(market)
    best = int(mean.argmax())
    for excess in (1e-2, 1e-4, 1e-5):
        rate = mean[best] - excess * np.sqrt(covariance[best, best])
        model = MeanVariance(
            market, min_weight=0.0, max_weight=1.0, risk_free_rate=252 * rate, covariance="sample"
        )
        assert model.predict_weights(BARS - 1).to_numpy()[1:] @ mean > rate
        assert not model.fallbacks


@pytest.mark.parametrize("covariance", [*optimisers.COVARIANCES[:-1]])  # Jorion's is refused
def test_singular_covariances_are_solved(covariance):
    market = walk(4, bars=22)
    twins = np.hstack([market.close, market.close, market.close])
    few = pe.load_market(prices(twins))
    for model in (
        MeanVariance(few, lookback=8, covariance=covariance, risk_free_rate=-0.5),
        MinimumVariance(few, lookback=8, covariance=covariance),
        RiskParity(few, lookback=8, covariance=covariance),
    ):
        weights = model.predict_weights(21).to_numpy()
        assert weights.sum() == pytest.approx(1, abs=1e-12)
        assert (weights >= 0).all() and weights[1:].max() <= 0.4 + 1e-12


def test_estimators_are_what_they_are_called():
    returns = np.random.default_rng(0).normal(1e-3, 0.01, (80, 4))
    library = adapter()
    assert library.mean("sample", returns) == pytest.approx(returns.mean(axis=0), rel=1e-12)
    decay = 0.5 ** (np.arange(79, -1, -1) / 20)  # a quarter of the window
    expected = decay @ returns / decay.sum()
    assert library.mean("exponential", returns) == pytest.approx(expected, rel=1e-9)
    shrunk = library.mean("james_stein", returns)
    assert np.ptp(shrunk) < np.ptp(returns.mean(axis=0))
    sample = np.cov(returns.T)
    assert library.covariance("sample", returns) == pytest.approx(sample, rel=1e-12)
    second = (returns.T * decay) @ returns / decay.sum()
    assert library.covariance("exponential", returns) == pytest.approx(second, rel=1e-9)
    for name in ("ledoit_wolf", "oas"):
        estimate = library.covariance(name, returns)
        spread = [np.linalg.eigvalsh(each) for each in (estimate, sample)]
        assert np.ptp(spread[0]) < np.ptp(spread[1])
        assert np.trace(estimate) == pytest.approx(np.trace(sample) * 79 / 80, rel=1e-9)


def test_risk_parity_contributes_as_budgeted():
    market = walk(6)
    _, covariance = moments(market)
    budgets = dict(zip(market.assets, [1, 1, 2, 2, 3, 3], strict=True))
    for given, expected in (
        (None, np.full(6, 1 / 6)),
        (budgets, np.array([1, 1, 2, 2, 3, 3]) / 12),
    ):
        model = RiskParity(market, budgets=given, covariance="sample")
        weights = model.predict_weights(BARS - 1).to_numpy()[1:]
        contributions = weights * (covariance @ weights) / (weights @ covariance @ weights)
        assert contributions == pytest.approx(expected, rel=1e-4)
    pair = walk(2, seed=3)
    weights = RiskParity(pair, covariance="sample").predict_weights(BARS - 1).to_numpy()[1:]
    inverse = 1 / np.sqrt(np.diag(moments(pair)[1]))
    assert weights == pytest.approx(inverse / inverse.sum(), rel=1e-5)
    for wrong in ({"A00": 1.0}, {**budgets, "A00": 0.0}):
        with pytest.raises(ArgumentError, match="positive number"):
            RiskParity(market, budgets=wrong)


def test_no_portfolio_within_the_bounds_lies_above_the_frontier():
    market = walk(6)
    model = MeanVariance(market, covariance="sample", min_weight=0.05, max_weight=0.4)
    frontier = efficient_frontier(model, BARS - 1, points=25)
    table = frontier.portfolios
    weights = table[list(market.assets)].to_numpy()
    assert (weights >= 0.05 - 1e-12).all() and (weights <= 0.4 + 1e-12).all()
    assert weights.sum(axis=1) == pytest.approx(np.ones(25), abs=1e-12)
    mean, covariance = moments(market)
    returns, volatility = table["expected_return"], table["volatility"]
    assert returns.to_numpy() == pytest.approx(252 * weights @ mean, rel=1e-9)
    variances = 252 * ((weights @ covariance) * weights).sum(axis=1)
    assert volatility.to_numpy() ** 2 == pytest.approx(variances, rel=1e-9)
    steps = np.diff(returns)
    assert steps == pytest.approx(np.full(24, steps.mean()), rel=1e-3)
    assert (np.diff(volatility) > 0).all()
    assert (np.diff(volatility, 2) > -1e-7).all()

    ends = {}
    for objective in ("min_variance", "max_return"):
        own = MeanVariance(market, covariance="sample", min_weight=0.05, objective=objective)
        ends[objective] = own.predict_weights(BARS - 1).to_numpy()[1:]
    assert weights[0] == pytest.approx(ends["min_variance"], abs=1e-9)
    assert weights[-1] == pytest.approx(ends["max_return"], abs=1e-9)

    box = pe.PortfolioConstraints(min_weight=0.05, max_weight=0.4, max_cash=0.0)
    draws = np.random.default_rng(0).dirichlet(np.full(6, 0.3), 3000)
    others = box.project(np.hstack([np.zeros((3000, 1)), draws]))[:, 1:]
    calmest = np.interp(252 * others @ mean, returns, volatility)
    chords = np.diff(volatility).max() * 0.02  # the frontier lies below its chords
    own = np.sqrt(252 * ((others @ covariance) * others).sum(axis=1))
    assert (own >= calmest - chords).all()


def test_the_capital_market_line_touches_the_frontier_from_above():
    market = walk(6)
    model = MeanVariance(market, min_weight=0.0, risk_free_rate=0.03)
    frontier = efficient_frontier(model, BARS - 1, points=40)
    best = frontier.tangency.iloc[0]
    held = best[list(market.assets)].to_numpy()
    assert held == pytest.approx(model.predict_weights(BARS - 1).to_numpy()[1:], abs=1e-12)
    assert best["sharpe"] >= frontier.portfolios["sharpe"].max() - 1e-9
    line = frontier.capital_market_line(points=11)
    assert len(line) == 11
    assert line.iloc[0].tolist() == [0, 0.03]
    at = np.interp(best["volatility"], line["volatility"], line["expected_return"])
    assert at == pytest.approx(best["expected_return"], rel=1e-12)
    above = np.interp(
        frontier.portfolios["volatility"], line["volatility"], line["expected_return"]
    )
    assert (above >= frontier.portfolios["expected_return"] - 1e-9).all()
    assert frontier.assets.index.tolist() == list(market.assets)
    assert len(efficient_frontier(model, BARS - 1, points=2).portfolios) == 2


def test_an_inaccurate_frontier_is_refused_in_our_own_words(monkeypatch, recwarn):
    import warnings

    from skfolio.optimization import MeanRisk

    def inaccurate(self, returns):
        with warnings.catch_warnings():  # as skfolio does for several targets
            warnings.simplefilter("once", UserWarning)
            warnings.warn("Solution may be inaccurate", stacklevel=2)
        self.weights_ = np.zeros((2, 3))
        return self

    monkeypatch.setattr(MeanRisk, "fit", inaccurate)
    market = pe.load_market("synthetic?bars=100&assets=3", features="none")
    with pytest.raises(PortfolioError, match=r"found no weights of 3 assets .*inaccurate"):
        efficient_frontier(MeanVariance(market, lookback=60), 90)
    assert not recwarn.list


def test_frontiers_without_choice_or_tangency():
    falling = walk(drift=-5e-3)
    bare = efficient_frontier(MeanVariance(falling), BARS - 1, points=5)
    assert len(bare.portfolios) == 5 and not len(bare.tangency)
    assert not len(bare.capital_market_line())
    settled = efficient_frontier(MeanVariance(walk(5), max_weight=0.2), BARS - 1)
    assert settled.portfolios[list(walk(5).assets)].to_numpy() == pytest.approx(
        np.full((1, 5), 0.2)
    )
    with pytest.raises(ArgumentError, match="shorter lookback"):
        efficient_frontier(MeanVariance(walk(5)), 100)
    with pytest.raises(ArgumentError, match="points=1"):
        efficient_frontier(MeanVariance(walk(5)), BARS - 1, points=1)


def test_the_figure_shows_frontier_line_and_assets():
    for market in (walk(6), walk(5, drift=-5e-3)):
        frontier = efficient_frontier(MeanVariance(market), BARS - 1)
        axes = frontier.figure().axes[0]
        lines = {line.get_label(): line for line in axes.lines}
        x, y = lines["efficient frontier"].get_data()
        assert x == pytest.approx(100 * frontier.portfolios["volatility"])
        assert y == pytest.approx(100 * frontier.portfolios["expected_return"])
        assert ("capital market line" in lines) == (len(frontier.tangency) == 1)
        assert {text.get_text() for text in axes.texts} == set(market.assets)


def test_heavy_libraries_are_not_imported_before_weights_are_asked_for():
    code = """
import sys
from baselines import make_baseline
import portfolio_env as pe
model = make_baseline("mean_variance", pe.load_market("synthetic?assets=3&bars=40"), lookback=20)
assert not {"skfolio", "sklearn", "cvxpy", "torch"} & set(sys.modules), sorted(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "baselines.optimisers.skfolio_adapter", None)
    monkeypatch.delattr(optimisers, "skfolio_adapter", raising=False)
    with pytest.raises(ArgumentError, match=r"pip install .skfolio"):
        MinimumVariance(walk()).predict_weights(BARS - 1)


def test_later_bars_change_nothing():
    market = walk(bars=300)
    late = np.array(market.close)
    late[BARS:] *= np.random.default_rng(1).uniform(0.5, 2, late[BARS:].shape)
    other = pe.load_market(replace(market.panel, close=late))
    for kind in (MeanVariance, MinimumVariance, RiskParity):
        pair = [kind(each).predict_weights(BARS - 1) for each in (market, other)]
        assert (pair[0] == pair[1]).all()
