import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import load_market
from portfolio_env.data.generators.synthetic import REGIMES, synthetic_panel


@pytest.fixture(scope="module")
def panel():
    return synthetic_panel(seed=11, bars=8_000, assets=6)


@pytest.fixture(scope="module")
def returns(panel):
    return np.diff(np.log(panel.close), axis=0)


def autocorrelation(values, lag):
    centred = values - values.mean(axis=0)
    return (centred[lag:] * centred[:-lag]).mean(axis=0) / centred.var(axis=0)


@given(
    seed=st.integers(0, 2**32),
    bars=st.integers(2, 60),
    assets=st.integers(2, 8),
    periods_per_year=st.sampled_from([252, 365]),
    ragged=st.booleans(),
)
def test_every_draw_is_a_consistent_panel(seed, bars, assets, periods_per_year, ragged):
    panel = synthetic_panel(
        seed=seed, bars=bars, assets=assets, periods_per_year=periods_per_year, ragged=ragged
    )
    assert panel.close.shape == (bars, assets)
    assert panel.periods_per_year == periods_per_year
    present = np.isfinite(panel.close)
    assert present[:, :2].all()
    assert present.any(axis=0).all()
    assert ragged or present.all()
    assert (
        np.abs(np.diff(present.astype(int), axis=0, prepend=0, append=0)).sum(axis=0) <= 2
    ).all()


def test_the_same_arguments_give_the_same_bits_and_other_seeds_others():
    first = load_market("synthetic?seed=3&bars=500&ragged=true&assets=8")
    assert load_market("synthetic?assets=8&seed=3&bars=500&ragged=true").hash == first.hash
    assert load_market("synthetic?seed=4&bars=500&ragged=true&assets=8").hash != first.hash


def test_tails_are_fat_and_lie_in_the_usual_range(returns):
    z = (returns - returns.mean(axis=0)) / returns.std(axis=0)
    assert ((z**4).mean(axis=0) > 4).all()
    volatility = returns.std(axis=0) * np.sqrt(252)
    assert ((volatility > 0.15) & (volatility < 0.6)).all()


def test_volatility_clusters_but_returns_are_not_predictable(returns):
    for lag in (1, 5, 20):
        assert (autocorrelation(np.abs(returns), lag) > 0.05).all()
        # three standard errors, which clustering makes wider than 1 / sqrt(T)
        assert (np.abs(autocorrelation(returns, lag)) < 0.1).all()


def test_assets_are_correlated_by_the_market_factor(returns):
    correlation = np.corrcoef(returns.T)[np.triu_indices(6, 1)]
    assert (correlation > 0.15).all()
    assert (correlation < 0.9).all()


def test_volume_rises_with_absolute_returns(panel, returns):
    money = np.log(panel.volume * panel.close)[1:]
    for i in range(6):
        assert np.corrcoef(np.abs(returns[:, i]), money[:, i])[0, 1] > 0.1


def test_ranges_fit_the_returns(panel, returns):
    """Parkinson's variance from high and low agrees with that of close to close less the gaps."""
    spread = np.log(panel.high / panel.low)
    parkinson = (spread**2).mean(axis=0) / (4 * np.log(2))
    assert (np.abs(parkinson[None] / returns.var(axis=0) - 0.85) < 0.25).all()
    assert ((panel.high > panel.open) & (panel.low < panel.close)).mean() > 0.99


def test_gaps_from_close_to_open_have_their_share_of_the_variance(panel, returns):
    gaps = np.log(panel.open[1:] / panel.close[:-1])
    share = gaps.var(axis=0) / returns.var(axis=0)
    assert ((share > 0.1) & (share < 0.2)).all()


def test_regimes_change_the_market():
    assert [regime.name for regime in REGIMES] == ["bull", "bear", "crisis"]
    close = synthetic_panel(seed=2, bars=8_000, assets=20).close
    market = np.diff(np.log(close), axis=0).mean(axis=1)
    yearly = market[: len(market) // 60 * 60].reshape(-1, 60).std(axis=1) * np.sqrt(252)
    assert np.quantile(yearly, 0.97) > 2 * np.quantile(yearly, 0.3)


def test_timestamps_are_days_with_or_without_weekends():
    weekdays = load_market("synthetic?bars=100").timestamps.astype("datetime64[D]")
    assert np.is_busday(weekdays).all()
    daily = load_market("synthetic?bars=100&periods_per_year=365").timestamps
    assert (np.diff(daily) == np.timedelta64(1, "D")).all()
