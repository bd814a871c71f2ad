"""Real files are read as they are, with their true anomalies."""

import gzip

import numpy as np
import pandas as pd
import pytest

from portfolio_env import DataError, load_market
from portfolio_env.data.bars import read_panel
from portfolio_env.market.panel import BAR_FIELDS


def bars_of(panel, symbol):
    column = panel.assets.index(symbol)
    rows = np.flatnonzero(np.isfinite(panel.close[:, column]))
    return [str(panel.timestamps[row])[:10] for row in rows[[0, -1]]], len(rows)


def test_real_crypto_daily(shared_data):
    panel = read_panel(shared_data / "crypto_daily.csv.gz")
    assert panel.close.shape == (2694, 19)
    assert np.isfinite(panel.close).sum() == 40_058
    assert panel.periods_per_year == 365
    assert bars_of(panel, "SOLUSDT") == (["2020-08-11", "2024-12-31"], 1604)
    assert bars_of(panel, "XMRUSDT") == (["2019-03-15", "2024-02-20"], 1804)
    assert bars_of(panel, "MATICUSDT") == (["2019-04-26", "2024-09-10"], 1965)
    row = np.searchsorted(panel.timestamps, np.datetime64("2020-03-12"))
    btc, shib = panel.assets.index("BTCUSDT"), panel.assets.index("SHIBUSDT")
    assert (panel.close[row, btc], panel.low[row, btc]) == (4800.0, 4410.0)
    shib_low = np.nanmin(panel.low[:, shib])
    assert 0 < shib_low < 1e-5
    assert np.nanmax(panel.volume[:, shib]) > 1e13
    np.testing.assert_array_equal(panel.tradable, np.isfinite(panel.close))
    features = load_market(panel, fit_end="2022-01-01").features
    assert np.isfinite(features).all()


def test_real_crypto_hourly(shared_data):
    panel = read_panel(shared_data / "crypto_hourly.csv.gz")
    assert panel.close.shape == (23_964, 8)
    assert np.isfinite(panel.close).all()
    assert panel.periods_per_year == 8760
    hours = pd.date_range(panel.timestamps[0], panel.timestamps[-1], freq="h")
    absent = hours.difference(pd.DatetimeIndex(panel.timestamps))
    expected = [f"2021-04-20T{h:02d}" for h in (2, 3)]
    expected += [f"2021-04-25T{h:02d}" for h in (5, 6, 7)]
    expected += [f"2021-08-13T{h:02d}" for h in (2, 3, 4, 5)]
    expected += [f"2021-09-29T{h:02d}" for h in (7, 8)] + ["2023-03-24T13"]
    assert [f"{hour:%Y-%m-%dT%H}" for hour in absent] == expected
    silent = np.argwhere(~panel.tradable)
    assert len(silent) == 8
    assert {str(panel.timestamps[t])[:13] for t, _ in silent} == {"2023-03-24T12"}


def test_real_us_equities(shared_data):
    panel = read_panel(shared_data / "us_equities_daily.csv.gz")
    assert panel.close.shape == (5033, 35)
    assert panel.periods_per_year == 252
    assert bars_of(panel, "WAMU") == (["2004-01-02", "2008-09-26"], 1193)
    assert bars_of(panel, "META")[0][0] == "2012-05-18"
    wamu = panel.close[:, panel.assets.index("WAMU")]
    assert wamu[np.isfinite(wamu)][-2:].tolist() == [1.77, 0.16]
    spy = panel.close[:, panel.assets.index("SPY")]
    row = np.searchsorted(panel.timestamps, np.datetime64("2008-09-15"))
    assert spy[row - 1 : row + 1].round(2).tolist() == [126.09, 120.09]


def test_files_are_read_to_the_last_bit(shared_data):
    path = shared_data / "crypto_daily.csv.gz"
    panel = read_panel(path)
    with gzip.open(path, "rt") as file:
        next(file)
        for line in list(file)[::97]:
            date, symbol, *values = line.strip().split(",")
            t = np.searchsorted(panel.timestamps, np.datetime64(date))
            i = panel.assets.index(symbol)
            assert [getattr(panel, name)[t, i] for name in BAR_FIELDS] == [float(v) for v in values]


def test_load_market_from_a_real_file(shared_data):
    names = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"]
    path = shared_data / "crypto_daily.csv.gz"
    market = load_market(path, assets=names, start="2020-08-11", fit_end="2023-01-01")
    assert market.assets == tuple(names)
    assert market.n_bars == 1604
    assert market.tradable.all()
    with pytest.raises(ValueError, match=r"did you mean .*BTCUSDT"):
        load_market(path, assets=["BTC", "ETHUSDT"])
    alone = read_panel(shared_data / "us_equities_adjclose.csv.gz")
    assert alone.provenance["notes"][0] == "the adjusted close is the close"
    assert alone.close[0, alone.assets.index("AAPL")] == 0.321708
    with pytest.raises(DataError, match=r"close is not positive"):
        load_market(shared_data / "riskfree_daily.csv.gz")
