"""Windows are views, targets are what an account would have earned, and ranges keep apart."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from portfolio_env import ArgumentError, Market, PortfolioEnv, PricePanel

T, N = 9, 3


def market_of(close, tradable=None, features=None):
    times = pd.date_range("2020-01-01", periods=len(close)).to_numpy()
    names = tuple("ABCDEF"[: close.shape[1]])
    volume = None if tradable is None else np.where(tradable, 1.0, 0.0)
    volume = volume if volume is None else np.where(np.isfinite(close), volume, np.nan)
    panel = PricePanel(times, names, close, volume=volume)
    if features is None:
        features = np.zeros((*close.shape, 0), np.float32)
    return Market(panel, features, tuple(f"f{k}" for k in range(features.shape[2])))


@st.composite
def closes(draw):
    """Prices of assets that are listed late, pause and are delisted."""
    close = draw(hnp.arrays(float, (T, N), elements=st.sampled_from([1.0, 1.5, 2.0, 4.0])))
    close[draw(hnp.arrays(bool, (T, N)))] = np.nan
    close[:, 0] = np.nan_to_num(close[:, 0], nan=3.0)
    return close


def slow_return(close, tradable, t, asset, horizon, haircut):
    """The same return, one bar at a time."""
    if t + horizon >= len(close) or not tradable[t, asset]:
        return np.nan
    later = [s for s in range(t + 1, len(close)) if not np.isnan(close[s, asset])]
    end = t + horizon
    if end in later:
        return close[end, asset] / close[t, asset] - 1
    if any(s > end for s in later):
        return np.nan  # a pause
    last = max([t, *later])
    return (1 - haircut) * close[last, asset] / close[t, asset] - 1


@settings(max_examples=60)
@given(closes(), st.integers(1, T), st.sampled_from([0.0, 0.3]))
def test_targets_are_those_of_a_loop(close, horizon, haircut):
    market = market_of(close)
    found = market.targets("return", horizon, haircut=haircut)
    slow = [
        [slow_return(close, market.tradable, t, n, horizon, haircut) for n in range(N)]
        for t in range(T)
    ]
    np.testing.assert_allclose(found, slow, rtol=1e-14)
    known = np.isfinite(found)
    for kind, value in (("direction", found > 0), ("magnitude", np.abs(found))):
        other = market.targets(kind, horizon, haircut=haircut)
        np.testing.assert_array_equal(other, np.where(known, value, np.nan))


@pytest.mark.parametrize("haircut", [0.0, 0.25])
def test_an_account_earns_the_target(haircut):
    """All in one asset at close t, without costs: the account grows by the target of row t."""
    close = np.array([[1.0, 2], [1.2, 2.5], [0.9, 2.4], [1.1, np.nan], [1.3, np.nan]])
    market = market_of(close)
    targets = market.targets(haircut=haircut)
    costs = {"commission_bps": 0, "slippage_bps": 0, "delisting_haircut": haircut}
    for t in range(4):
        for asset in np.flatnonzero(market.tradable[t]):
            env = PortfolioEnv(
                market, start=t, window=1, action="weights", costs=costs, observation="index"
            )
            env.reset(seed=0)
            value = env.step(np.eye(3)[1 + asset])[4]["portfolio_value"] / 10_000
            assert value - 1 == pytest.approx(targets[t, asset], abs=1e-12)


@settings(max_examples=30)
@given(closes(), st.integers(1, 4), st.integers(0, 2), st.randoms())
def test_later_prices_do_not_change_the_targets_of_a_purged_range(close, horizon, more, random):
    market = market_of(close)
    try:
        (start, end), _, _ = market.split(6, 8, purge=horizon + more)
    except ArgumentError:
        return
    changed = close.copy()
    changed[6:] *= random.uniform(0.5, 2)
    before, after = (each.targets(horizon=horizon) for each in (market, market_of(changed)))
    np.testing.assert_array_equal(before[start:end], after[start:end])


def test_windows_are_read_only_views_that_end_at_their_row():
    features = np.random.default_rng(0).normal(size=(T, N, 4)).clip(-9, 9).astype(np.float32)
    market = market_of(np.full((T, N), 2.0), features=features)
    for bars in (1, 4, T):
        windows = market.windows(bars)
        assert windows.shape == (T - bars + 1, bars, N, 4)
        assert np.shares_memory(windows, market.features)
        assert not windows.flags.writeable
        for t in range(bars - 1, T):
            np.testing.assert_array_equal(windows[t - bars + 1], features[t - bars + 1 : t + 1])
    for bars in (0, T + 1, 2.0):
        with pytest.raises(ArgumentError, match="bars="):
            market.windows(bars)


def test_split_keeps_ranges_apart():
    market = market_of(np.full((100, 1), 2.0))
    assert market.split(0.6, 0.2) == ((0, 60), (60, 80), (80, 100))
    assert market.split(0.6, 0.2, purge=5, embargo=3) == ((0, 55), (63, 75), (83, 100))
    with pytest.raises(ArgumentError, match="leave no bar of the range 60 to 80"):
        market.split(0.6, 0.2, purge=15, embargo=5)
    with pytest.raises(ArgumentError, match="purge=-1"):
        market.split(purge=-1)


def test_bad_targets_are_named():
    market = market_of(np.full((5, 1), 2.0))
    for options, message in (
        ({"kind": "up"}, "kind='up'"),
        ({"horizon": 0}, "horizon=0"),
        ({"haircut": 2.0}, "haircut=2.0"),
    ):
        with pytest.raises(ArgumentError, match=message):
            market.targets(**options)
    assert np.isnan(market.targets(horizon=5)).all()
