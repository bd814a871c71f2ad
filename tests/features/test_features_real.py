"""The full preset on real bars: delistings, outages, silent bars, and moves of a factor of five."""

from pathlib import Path

import numpy as np
import pytest

from portfolio_env import Market, load_market

FILES = ("crypto_daily", "crypto_hourly", "us_equities_daily")


@pytest.fixture(scope="module", params=FILES)
def market(request: pytest.FixtureRequest, shared_data: Path) -> Market:
    path = shared_data / f"{request.param}.csv.gz"
    return load_market(path, features="full", fit_end=-1000)


def test_everything_is_known_but_what_cannot_be(market: Market) -> None:
    assert market.n_features >= 99
    known = market.features[..., market.feature_names.index("known")]
    old = np.cumsum(market.tradable, axis=0) > market.warmup + 30
    settled = market.tradable & old
    assert settled.sum() > 0.6 * settled.size
    # what is still missing then are windows with a silent bar
    assert (known[settled] == 1).mean() > 0.97
    assert not market.features[~market.tradable].any()


def test_features_are_spread_within_the_bound(market: Market) -> None:
    rows = slice(market.warmup, market.n_bars - 1000)
    values = market.features[rows][market.tradable[rows]]
    assert (np.abs(values) >= market.feature_bound).mean(axis=0).max() < 0.03
    fixed = {"bar_gap", "known"}  # the clock of a market that never closes, and full knowledge
    still = [n for n, s in zip(market.feature_names, values.std(axis=0), strict=True) if s < 0.05]
    assert set(still) <= fixed


def test_hourly_bars_know_the_days_that_are_over(shared_data: Path) -> None:
    path = shared_data / "crypto_hourly.csv.gz"
    hours = load_market(path, features=("1d:return_1", "1d:close_location"))
    days = load_market(shared_data / "crypto_daily.csv.gz", assets=hours.assets)
    close = dict(zip(days.timestamps.astype("datetime64[D]"), days.close, strict=True))
    for when in ("2021-06-01T22", "2021-06-01T23", "2021-06-02T00", "2023-11-05T13"):
        t = hours.row(when)
        over = np.datetime64(when, "h") + np.timedelta64(1, "h")
        day = over.astype("datetime64[D]") - np.timedelta64(1, "D")  # the last one that has ended
        expected = close[day] / close[day - np.timedelta64(1, "D")] - 1
        np.testing.assert_allclose(hours.features[t, :, 0], expected, rtol=1e-6)


def test_a_delisted_asset_leaves_no_trace_after_its_last_bar(shared_data: Path) -> None:
    market = load_market(shared_data / "us_equities_daily.csv.gz", features="full")
    lost = market.assets.index("WAMU")
    last = market.row("2008-09-26")
    crash = market.features[last, lost, market.feature_names.index("return_1")]
    assert crash == pytest.approx(0.16 / 1.77 - 1, rel=1e-5)
    assert not market.features[last + 1 :, lost].any()
