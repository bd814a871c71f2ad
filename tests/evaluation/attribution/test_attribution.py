"""What a difference is made of sums to it, and leads of one asset or one style are called so."""

import numpy as np
import pytest
import statsmodels.api as sm

import portfolio_env as pe
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest, compare, stitch
from portfolio_env.evaluation.attribution.contributions import contributions
from portfolio_env.evaluation.attribution.sentences import hindsight
from portfolio_env.evaluation.attribution.styles import style_returns
from portfolio_env.evaluation.statistics import regression
from portfolio_env.evaluation.summary import sentence
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel

N, T, START = 10, 800, 300
FEW = {"n_resamples": 200}


class Fixed:
    """Weights that are restored at every step."""

    action = "weights"

    def __init__(self, weights):
        self.target = np.asarray(weights, np.float64)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return np.tile(self.target, (len(observation["t"]), 1)), state


def market_of(log_returns, provenance=None):
    close = 100 * np.exp(np.cumsum(log_returns, axis=0))
    days = np.datetime64("2015-01-01", "ns") + np.arange(len(close)) * np.timedelta64(1, "D")
    names = tuple(f"A{number}" for number in range(close.shape[1]))
    panel = PricePanel(days, names, close, provenance=provenance or {})
    return pe.load_market(panel, features="none")


def noise(seed=0):
    generator = np.random.default_rng(seed)
    common = generator.normal(3e-4, 0.008, (T, 1))
    return common + generator.normal(0, 0.006, (T, N))


def run(market, weights, **options):
    options = {"start": START, "costs": {"commission_bps": 5}, **options}
    env = pe.PortfolioEnv(market, observation="index", action="weights", window=1, **options)
    return backtest(Fixed(weights), env)


def equal():
    return np.r_[0.0, np.full(N, 1 / N)]


def compared(market, weights):
    results = {"equal_weight": run(market, equal()), "own": run(market, weights)}
    return compare(results, panel=market.panel, **FEW)


@pytest.fixture(scope="module")
def winner():
    """A market with one asset that doubles every year, and an account that holds a third of it."""
    logs = noise()
    logs[:, 3] += 0.004
    weights = np.r_[0.0, np.full(N, 0.65 / (N - 1))]
    weights[4] = 0.35
    return compared(market_of(logs), weights)


def test_contributions_sum_to_the_difference(winner):
    found = winner.attribution("own")
    assert found.assets["difference"].sum() == pytest.approx(
        winner.table.loc["own", "growth_difference"], abs=1e-12
    )
    for name, column in (("own", "growth"), ("equal_weight", "reference_growth")):
        growth = winner.table.loc[name, "annual_log_growth"]
        assert found.assets[column].sum() == pytest.approx(growth, abs=1e-12)
    assert found.assets["difference"].idxmax() == "A3"
    assert winner.attribution("own") is found


def test_contributions_are_weights_times_returns_and_costs():
    market = market_of(noise(1))
    result = run(market, equal())
    parts = contributions(result)
    close = market.panel.close[START:]
    returns = close[1:] / close[:-1] - 1
    np.testing.assert_allclose(parts.earned, parts.weights * returns, atol=1e-12)
    np.testing.assert_allclose(parts.other["costs"], -result.costs / result.values[:-1], atol=1e-12)
    np.testing.assert_allclose(parts.returns, result.returns, atol=1e-14)


def test_stitched_accounts_keep_what_their_folds_contributed():
    market = market_of(noise(2))
    folds = [run(market, equal(), start=s, end=e) for s, e in ((300, 500), (499, 800))]
    whole = contributions(stitch(folds))
    apart = np.concatenate([contributions(each).earned for each in folds])
    np.testing.assert_allclose(whole.earned, apart, atol=1e-12)


def test_without_an_asset_both_accounts_are_those_of_the_others(winner):
    """Without the winner, the rest of the account is equal weight but for costs."""
    row = winner.attribution("own").without.loc["growth"]
    assert row["asset"] == "A3"
    assert abs(row["low"]) < 0.01 < 0.2 < row["all"]
    assert row["high"] >= row["all"]
    assert 0.3 < row["halves"] < 0.7  # the winner is in half of them
    told = sentence(winner, "own")
    assert "Without A3 the difference is" in told
    assert "one asset explains it" in told
    assert "chosen with hindsight (all 10 assets have prices" in told


def test_a_concentrated_copy_is_never_said_to_beat_without_its_asset():
    """A tilt to one lucky asset: wherever it is ahead, the sentence names the asset."""
    for seed in range(5):
        logs = noise(seed)
        logs[:, 0] += 0.003
        weights = np.r_[0.0, 0.4, np.full(N - 1, 0.6 / (N - 1))]
        found = compared(market_of(logs), weights)
        told = sentence(found, "own")
        ahead = " beats " in told or " outgrows " in told
        assert not ahead or "Without A0" in told


def test_a_levered_copy_does_not_beat_at_equal_risk_and_the_market_explains_it():
    beaten, explained = 0, 0
    for seed in range(10):
        logs = noise(seed) + 1e-3
        market = market_of(logs)
        levered = np.r_[-0.5, np.full(N, 1.5 / N)]
        options = {"constraints": {"max_leverage": 1.5, "min_cash": -0.5}}
        results = {
            "equal_weight": run(market, equal()),
            "own": run(market, levered, **options),
        }
        told = sentence(compare(results, panel=market.panel, **FEW), "own")
        beaten += " beats " in told or "beats equal weight at equal risk" in told
        explained += "outgrows" in told and "Exposure to the market" in told
    assert beaten == 0
    assert explained >= 5


def test_a_better_account_of_less_risk_beats_at_equal_risk():
    generator = np.random.default_rng(0)
    logs = np.repeat(generator.normal(0, 0.003, (T, 1)), N, axis=1)
    logs[:, : N // 2] += generator.normal(1e-3, 0.003, (T, N // 2))
    logs[:, N // 2 :] += generator.normal(2e-4, 0.03, (T, N - N // 2))
    calm = np.r_[0.0, np.full(N // 2, 2 / N), np.zeros(N - N // 2)]
    told = sentence(compared(market_of(logs), calm), "own")
    assert "beats equal weight" in told
    assert "asset explains" not in told


def test_regression_is_that_of_statsmodels():
    generator = np.random.default_rng(0)
    x = generator.normal(0, 0.01, (400, 3)) * [1, 10, 0.1]
    y = x @ [0.5, -0.2, 3.0] + np.convolve(generator.normal(0, 0.01, 404), np.ones(5), "valid")
    found = regression(y, x, 252, lags=4)
    other = sm.OLS(y, sm.add_constant(x)).fit(
        cov_type="HAC", cov_kwds={"maxlags": 4, "use_correction": True}
    )
    scale = np.r_[252, 1, 1, 1][:, None]
    own = np.array([[each.low, each.high] for each in (found.alpha, *found.betas)])
    np.testing.assert_allclose(own, scale * other.conf_int(), rtol=1e-8)
    assert found.r_squared == pytest.approx(other.rsquared)
    assert found.betas[0].p_value == pytest.approx(other.pvalues[1], rel=1e-6)
    with pytest.raises(ArgumentError, match="same periods"):
        regression(y[:-1], x, 252)


def test_styles_are_known_at_the_decision_and_explain_a_tilt_to_them():
    logs = noise(3)
    logs[:, 7:] = 3 * logs[:, 7:]  # the volatile third
    market = market_of(logs + 5e-4)
    result = run(market, equal())
    styles = style_returns(result, market.panel)
    assert list(styles) == ["market", "volatility", "beta", "momentum", "reversal"]
    close = market.panel.close
    returns = (close[1:] / close[:-1] - 1)[START:]
    expected = returns[:, 7:].mean(axis=1)
    assert np.corrcoef(styles["volatility"], expected)[0, 1] > 0.8
    np.testing.assert_allclose(styles["market"], returns.mean(axis=1), atol=1e-12)
    cut = START + 200
    changed = logs.copy()
    changed[cut + 1 :] = np.random.default_rng(9).normal(0, 0.05, changed[cut + 1 :].shape)
    later = market_of(changed + 5e-4)
    again = style_returns(run(later, equal()), later.panel)
    np.testing.assert_allclose(again[:200], styles[:200], atol=1e-12)
    tilt = compared(market, np.r_[0.0, np.full(7, 0.05), np.full(3, 0.65 / 3)])
    row = tilt.attribution("own").styles.loc["volatility"]
    assert row["low"] > 0
    assert tilt.attribution("own").joint["growth"]["r_squared"] > 0.5


def test_hindsight_is_no_listing_and_no_end():
    market = market_of(noise(4))
    result = run(market, equal())
    assert "all 10 assets" in hindsight(result, market.panel)
    for provenance, expected in (({"survivors": False}, ""), ({"source": "synthetic"}, "")):
        assert hindsight(result, market_of(noise(4), provenance).panel) == expected
    assert "data say so" in hindsight(result, market_of(noise(4), {"survivors": True}).panel)
    ended = noise(4)
    ended[700:, 2] = np.nan
    dead = market_of(ended)
    assert isinstance(dead, Market)
    assert hindsight(result, dead.panel) == ""


def test_refuses_unknown_names(winner):
    with pytest.raises(ArgumentError, match="nobody"):
        winner.attribution("nobody")
