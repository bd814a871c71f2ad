"""The deep momentum network: its features by hand, its positions, and that it finds a trend."""

import pickle

import numpy as np
import pandas as pd
import pytest
from helpers.bare_markets import market_of

import portfolio_env as pe
from baselines import make_baseline
from baselines.networks.deep_momentum import momentum_inputs
from portfolio_env.errors import ArgumentError

SMALL = {"months": [0.5, 1], "sequence": 10, "hidden": 8, "epochs": 25}


def trending(seed=0, bars=700, assets=6):
    """Prices whose expected returns last: a slow autoregression in each asset."""
    rng = np.random.default_rng(seed)
    drift = np.zeros((bars, assets))
    for t in range(1, bars):
        drift[t] = 0.97 * drift[t - 1] + rng.normal(0, 0.0015, assets)
    return market_of(100 * np.exp((drift + rng.normal(0, 0.005, (bars, assets))).cumsum(axis=0)))


def test_features_are_those_of_formulas_written_out():
    close = np.exp(np.random.default_rng(1).normal(0, 0.01, (200, 2)).cumsum(axis=0))
    inputs = momentum_inputs(close, [1, 20])
    t, returns = 120, close[1:, 0] / close[:-1, 0] - 1
    past = returns[:t]
    weights = (1 - 2 / 61) ** np.arange(t)[::-1]
    mean = (weights * past).sum() / weights.sum()
    variance = (weights * (past - mean) ** 2).sum() / weights.sum()
    variance /= 1 - (weights**2).sum() / weights.sum() ** 2  # unbiased
    assert inputs.volatility[t, 0] == pytest.approx(variance**0.5)
    expected = (close[t, 0] / close[t - 20, 0] - 1) / (variance * 20) ** 0.5
    assert inputs.features[t, 0, 1] == pytest.approx(expected)

    def gap(u):
        ages = np.arange(u + 1)[::-1]
        means = [
            ((1 - 1 / s) ** ages * close[: u + 1, 0]).sum() / ((1 - 1 / s) ** ages).sum()
            for s in (8, 24)
        ]
        return (means[0] - means[1]) / close[u - 62 : u + 1, 0].std(ddof=1)

    gaps = [gap(u) for u in range(t - 19, t + 1)]
    assert inputs.features[t, 0, 2] == pytest.approx(
        np.clip(gaps[-1] / np.std(gaps, ddof=1), -10, 10)
    )
    assert np.isnan(inputs.features[:80]).any() and not np.isnan(inputs.features[90:]).any()


@pytest.mark.parametrize("long_only", [True, False])
def test_it_finds_a_trend_and_scales_by_volatility(long_only):
    market = trending()
    limits = pe.PortfolioConstraints(long_only=long_only, max_leverage=1.0 if long_only else 3.0)
    model = make_baseline("deep_momentum", market, constraints=limits, cost_bps=0.0, **SMALL)
    model.fit(market.panel, (0, 500))
    rows = range(520, 690, 10)
    held = np.array([model.predict_weights(row).to_numpy()[1:] for row in rows])
    later = np.array([market.close[row + 10] / market.close[row] - 1 for row in rows])
    assert np.corrcoef(held.ravel(), later.ravel())[0, 1] > 0.1
    assert (held < 0).any() == (not long_only)
    assert (abs(held).sum(axis=1) <= limits.max_leverage + 1e-9).all()
    inputs = momentum_inputs(market.close[:521], [1])
    size = 0.15 / (inputs.volatility[520] * market.panel.past(520).bars_per_year() ** 0.5) / 6
    assert (abs(held[0]) <= size * 1.02).all()  # of the whole past, or of what it reads


def test_blocks_of_features_give_the_decisions_of_single_bars():
    """In any order of bars, across blocks, after a pickle, as the market grows, blind to later."""
    market = trending()
    model = make_baseline("deep_momentum", market, **SMALL).fit(market.panel, (0, 200))
    rows = [255, 256, 300, 511, 512, 310, 690]
    alone = {row: model.target(market.panel.past(row)) for row in rows}
    for row in rows:
        assert (model.predict_weights(row).to_numpy() == alone[row]).all()
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict_weights(310).to_numpy() == alone[310]).all()
    close = market.close.copy()
    close[301:] *= np.random.default_rng(1).uniform(0.5, 2, close[301:].shape)
    other = make_baseline("deep_momentum", market_of(close), **SMALL)
    other.restore(model.state())
    assert (other.predict_weights(300).to_numpy() == alone[300]).all()
    growing = make_baseline("deep_momentum", market.past(300), **SMALL)
    growing.restore(model.state())
    assert (growing.predict_weights(300).to_numpy() == alone[300]).all()
    growing.follow(market)
    assert (growing.predict_weights(310).to_numpy() == alone[310]).all()


def test_late_and_stale_assets_are_left_out_and_said():
    market = trending(bars=400)
    close = pd.DataFrame(market.close, market.timestamps, list("ABCDEF"))
    close.iloc[:330, 0] = np.nan
    close.iloc[200:, 1] = 7.0
    close.iloc[350, 2] = np.nan
    other = pe.load_market(close, features="none")
    model = make_baseline("deep_momentum", other, **SMALL).fit(other.panel, (0, 300))
    weights = model.predict_weights(380)
    assert weights["A"] == weights["B"] == 0 and (weights[list("CDEF")] > 0).all()
    assert set(next(iter(model.left_out.values()))) == {"A", "B"}


def test_what_cannot_be_is_said():
    market = trending(bars=200)
    with pytest.raises(ArgumentError, match="call fit"):
        make_baseline("deep_momentum", market).predict_weights(150)
    with pytest.raises(ArgumentError, match="no window of sequence=63"):
        make_baseline("deep_momentum", market).fit(market.panel, (0, 150))
    for options, message in (
        ({"volatility": 0}, "volatility=0"),
        ({"months": 3}, "list of numbers"),
        ({"sequence": 1}, "sequence=1"),
        ({"validation": 0.9}, "validation=0.9"),
    ):
        with pytest.raises(ArgumentError, match=message):
            make_baseline("deep_momentum", market, **options)
