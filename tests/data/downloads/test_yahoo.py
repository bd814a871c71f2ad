import sys
import threading
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from portfolio_env import ArgumentError, DataError, load_market
from portfolio_env.data.bars import read_frame, read_panel
from portfolio_env.data.downloads import yahoo
from portfolio_env.data.downloads.store import LOCK, read_series
from portfolio_env.data.downloads.yahoo import fetch_yahoo, update_yahoo
from portfolio_env.data.metadata import with_categories
from portfolio_env.files.atomic import locked

TODAY = pd.Timestamp("2024-03-13")  # a Wednesday
FIELDS = ["Open", "High", "Low", "Close", "Volume"]
INFO = {
    "AAPL": {
        "sector": "Technology",
        "industry": "Consumer Electronics",
        "quoteType": "EQUITY",
        "country": "United States",
        "currency": "USD",
        "exchange": "NMS",
        "marketCap": 3_000_000_000_000,
    },
    "HSBA.L": {"sector": "Financial Services", "quoteType": "EQUITY", "currency": "GBp"},
    "^GSPC": {"quoteType": "INDEX", "currency": "USD", "exchange": "SNP"},
}


class YFException(Exception):
    pass


class Yahoo(ModuleType):
    """A yfinance with the shapes of the real one; `history` is what the exchanges know by now."""

    def __init__(self):
        super().__init__("yfinance")
        self.exceptions = ModuleType("yfinance.exceptions")
        self.exceptions.YFException = YFException
        self.zones = {"AAPL": "America/New_York", "HSBA.L": "Europe/London"}
        days = pd.bdate_range("2023-01-02", TODAY)
        self.prices = {name: self.bars(days, seed) for seed, name in enumerate(INFO)}
        self.prices["^GSPC"] = self.prices["^GSPC"].drop(pd.Timestamp("2023-02-20"))
        self.calls = []
        self.broken = set()

    @staticmethod
    def bars(days, seed):
        rng = np.random.default_rng(seed)
        prices = np.sort(rng.lognormal(3, 0.1, (len(days), 4)), axis=1)
        frame = pd.DataFrame(prices[:, [1, 3, 0, 2]], days, FIELDS[:4])
        return frame.assign(Volume=rng.integers(1, 10**9, len(days)))

    def history(self, name, start, end):
        """As `Ticker.history(auto_adjust=True, actions=False)`; Yahoo appends the latest price."""
        if name not in self.prices or name in self.broken:
            return None
        bars = self.prices[name]
        bars = bars[(bars.index >= start) & ((bars.index < end) | (bars.index == TODAY))]
        if not len(bars):
            return None
        zone = self.zones.get(name, "America/New_York")
        return bars.tz_localize(zone).rename_axis("Date")

    def download(self, tickers, start, end, **options):
        self.calls.append((sorted(tickers), start, end))
        assert options["auto_adjust"] is True
        assert options["interval"] == "1d"
        empty = pd.DataFrame(dict.fromkeys([*FIELDS[:4], "Adj Close", "Volume"], np.nan), index=[])
        found = {name.upper(): self.history(name.upper(), start, end) for name in set(tickers)}
        found = {
            name: empty if bars is None else bars.tz_localize(None) for name, bars in found.items()
        }
        index = pd.DatetimeIndex([])
        for bars in found.values():
            index = index.union(bars.index) if len(bars) else index
        table = pd.concat(
            {name: bars.reindex(index) for name, bars in found.items()},
            axis=1,
            names=["Ticker", "Price"],
        )
        return table.swaplevel(axis=1).sort_index(level=0, axis=1)

    def Ticker(self, name):
        if name in self.broken:
            raise YFException("Too Many Requests. Rate limited. Try after a while.")
        return SimpleNamespace(info=INFO.get(name, {"trailingPegRatio": None}))

    def pay(self, name, factor):
        """A dividend or split: the whole history is adjusted."""
        bars = self.prices[name]
        old = bars.index < TODAY
        bars.loc[old, FIELDS[:4]] *= factor
        noise = 1 + 1e-7 * np.random.default_rng(0).normal(size=(old.sum(), 1))
        bars.loc[old, FIELDS[:4]] *= noise


@pytest.fixture
def fake(monkeypatch):
    module = Yahoo()
    monkeypatch.setitem(sys.modules, "yfinance", module)
    monkeypatch.setitem(sys.modules, "yfinance.exceptions", module.exceptions)
    travel(monkeypatch, TODAY)
    return module


def travel(monkeypatch, day):
    monkeypatch.setattr(yahoo, "_today", lambda: int(day.timestamp() * 1000))


def test_fetched_bars_are_a_store_folder_with_labels(fake, tmp_path):
    report = fetch_yahoo(["aapl", "HSBA.L", "^GSPC", "AAPL"], "2023-01-02", store=tmp_path)
    assert report.added == {"AAPL": 312, "HSBA.L": 312, "^GSPC": 311}
    assert report.missing == report.unlabelled == report.incomplete == {}
    panel = read_panel(tmp_path / "yahoo" / "1d")
    assert panel.assets == ("AAPL", "HSBA.L", "^GSPC")
    assert panel.periods_per_year == 252
    assert (panel.provenance["exchange"], panel.provenance["timeframe"]) == ("yahoo", "1d")
    days = pd.DatetimeIndex(panel.timestamps)
    assert (str(days[0])[:10], str(days[-1])[:10]) == ("2023-01-02", "2024-03-12")  # not today's
    for i, name in enumerate(panel.assets):
        expected = fake.prices[name].reindex(days)
        for field in FIELDS:
            values = getattr(panel, field.lower())[:, i]
            np.testing.assert_array_equal(values, expected[field])
    labels = tmp_path / "yahoo" / "metadata.csv"
    assert set(pd.read_csv(labels)["prices_adjusted_for"]) == {"splits and dividends"}
    categories = with_categories(panel, labels).categories
    assert categories["sector"] == ("Technology", "Financial Services", "")
    assert categories["asset_class"] == ("EQUITY", "EQUITY", "INDEX")
    assert categories["region"] == ("United States", "", "")
    assert categories["currency"] == ("USD", "GBp", "USD")
    with pytest.raises(DataError, match=r"GBP: HSBA\.L; USD: AAPL, "):
        load_market(tmp_path / "yahoo" / "1d")  # the store knows, without being asked for labels
    money = {"base_currency": "USD", "exchange_rates": {"GBP": 1.25}}
    market = load_market(tmp_path / "yahoo" / "1d", metadata=labels, features="none", **money)
    assert market.panel.categories == categories
    np.testing.assert_allclose(market.close, panel.close * [1, 0.0125, 1], rtol=1e-15)


def test_fetching_again_continues(fake, tmp_path, monkeypatch):
    fetch_yahoo(["AAPL", "^GSPC"], "2023-01-02", "2024-01-01", store=tmp_path)
    first = read_frame(tmp_path / "yahoo" / "1d")
    fake.calls.clear()
    report = fetch_yahoo(["AAPL", "^GSPC"], "2023-06-01", store=tmp_path)
    assert report.added == {"AAPL": 52, "^GSPC": 52}
    assert report.refetched == []
    assert fake.calls == [(["AAPL", "^GSPC"], "2023-11-29", "2024-03-13")]
    again = read_frame(tmp_path / "yahoo" / "1d")
    for name in ("AAPL", "^GSPC"):
        old, new = (frame[frame["symbol"] == name] for frame in (first, again))
        pd.testing.assert_frame_equal(
            old.reset_index(drop=True), new.iloc[: len(old)].reset_index(drop=True)
        )
    fake.calls.clear()
    assert update_yahoo(store=tmp_path).added == {"AAPL": 0, "^GSPC": 0}
    assert fake.calls == []
    travel(monkeypatch, TODAY + pd.Timedelta(days=1))
    assert update_yahoo("aapl", store=tmp_path).added == {"AAPL": 1}


def test_histories_that_begin_later_are_fetched_from_the_start(fake, tmp_path):
    fetch_yahoo("AAPL", "2024-01-01", store=tmp_path)
    report = fetch_yahoo("AAPL", "2023-01-02", store=tmp_path)
    assert report.added == {"AAPL": 260}
    assert len(read_frame(tmp_path / "yahoo" / "1d")) == 312
    fake.prices["NEW"] = fake.bars(pd.bdate_range("2024-03-01", TODAY), 7)
    assert fetch_yahoo("NEW", "2023-01-02", store=tmp_path).added == {"NEW": 8}
    fake.calls.clear()
    assert fetch_yahoo("NEW", "2023-01-02", store=tmp_path).added == {"NEW": 0}
    assert fake.calls == []  # what was asked for is known, not only what came


@pytest.mark.parametrize("factor", [0.5, 1 - 1e-4])
def test_a_dividend_or_split_fetches_everything_again(fake, tmp_path, factor):
    fetch_yahoo(["AAPL", "HSBA.L"], "2023-01-02", "2024-01-01", store=tmp_path)
    fake.pay("AAPL", factor)
    report = update_yahoo(store=tmp_path)
    assert report.refetched == ["AAPL"]
    assert report.added == {"AAPL": 52, "HSBA.L": 52}
    assert "history fetched again" in str(report)
    frame = read_frame(tmp_path / "yahoo" / "1d")
    stored = frame[frame["symbol"] == "AAPL"].set_index("date")["close"]
    np.testing.assert_array_equal(stored, fake.prices["AAPL"]["Close"].iloc[:-1])


def test_the_noise_of_yahoo_fetches_nothing_again(fake, tmp_path):
    fetch_yahoo("AAPL", "2023-01-02", "2024-01-01", store=tmp_path)
    fake.pay("AAPL", 1.0)
    assert update_yahoo(store=tmp_path).refetched == []


def test_what_is_missing_is_reported(fake, tmp_path):
    report = fetch_yahoo(["AAPL", "GONE"], "2023-01-02", "2024-01-01", store=tmp_path)
    assert list(report.added) == ["AAPL"]
    assert "no prices" in report.missing["GONE"]
    assert "GONE: not there" in str(report)
    assert not list(tmp_path.glob("*/*/GONE*"))
    fake.broken.add("AAPL")
    report = update_yahoo(store=tmp_path)
    assert "what is stored is kept" in report.missing["AAPL"]
    assert len(read_frame(tmp_path / "yahoo" / "1d")) == 260
    assert fetch_yahoo("GONE", "2023-01-02", store=tmp_path).added == {}


def test_unlabelled_symbols_are_reported_and_asked_for_again(fake, tmp_path, monkeypatch):
    fake.prices["ODD"] = fake.prices["AAPL"]
    report = fetch_yahoo("ODD", "2023-01-02", store=tmp_path)
    assert report.unlabelled == {"ODD": "Yahoo says nothing about it"}
    path = tmp_path / "yahoo" / "metadata.csv"
    assert not path.exists()

    def refuse(name):
        raise YFException("Too Many Requests.")

    with monkeypatch.context() as patch:
        patch.setattr(fake, "Ticker", refuse)
        report = update_yahoo(store=tmp_path)
    assert report.unlabelled == {"ODD": "Too Many Requests."}
    fetch_yahoo("AAPL", "2023-01-02", store=tmp_path)
    monkeypatch.setitem(INFO, "ODD", {"quoteType": "ETF"})
    assert update_yahoo(store=tmp_path).unlabelled == {}
    assert pd.read_csv(path)["symbol"].tolist() == ["AAPL", "ODD"]


def test_incomplete_bars_are_left_out_and_reported(fake, tmp_path):
    fake.prices["AAPL"].iloc[3, 0] = np.nan
    report = fetch_yahoo("AAPL", "2023-01-02", store=tmp_path)
    assert report.incomplete == {"AAPL": 1}
    assert report.added == {"AAPL": 311}
    assert "1 incomplete bars left out" in str(report)


def test_only_rounding_widens_a_bar(fake, tmp_path):
    bars = fake.prices["AAPL"]
    bars.iloc[0, :4] = [2.0, 3.0, 1.0, np.nextafter(3.0, 4.0)]
    bars.iloc[1, :4] = [np.nextafter(1.0, 0.0), 3.0, 1.0, 2.0]
    bars.iloc[2, :4] = [2.0, 3.0, 1.0, 3.1]  # an error of the source
    fetch_yahoo("AAPL", "2023-01-02", store=tmp_path)
    (path,) = tmp_path.glob("yahoo/1d/*.parquet")
    high, low = read_series(path).bars[:3, [1, 2]].T
    assert high.tolist() == [np.nextafter(3.0, 4.0), 3.0, 3.0]
    assert low.tolist() == [1.0, np.nextafter(1.0, 0.0), 1.0]


def test_arguments(fake, tmp_path, monkeypatch):
    for call, text in (
        (lambda: fetch_yahoo("AAPL", "2023-01-02", timeframe="1h", store=tmp_path), "give '1d'"),
        (lambda: fetch_yahoo([], "2023-01-02", store=tmp_path), "give at least one"),
        (lambda: fetch_yahoo("AAPL", "2024-03-13", store=tmp_path), "hold no day that is over"),
        (lambda: fetch_yahoo("AAPL", "2024-01-02", "2024-01-02", tmp_path), "hold no day"),
        (lambda: update_yahoo(store=tmp_path), "fetch_yahoo first"),
        (lambda: update_yahoo("AAPL", store=tmp_path), r"\['AAPL'\] is not stored"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
    monkeypatch.setitem(sys.modules, "yfinance", None)
    with pytest.raises(DataError, match="pip install yfinance"):
        fetch_yahoo("AAPL", "2023-01-02", store=tmp_path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_yfinance_returns_such_tables(monkeypatch):
    yfinance = pytest.importorskip("yfinance")
    from yfinance import utils

    fake = Yahoo()

    def history(ticker, start=None, end=None, **options):
        bars = fake.history(ticker.ticker, start, end)
        return utils.empty_df() if bars is None else bars

    monkeypatch.setattr(yfinance.Ticker, "history", history)
    for names in (["AAPL", "HSBA.L", "^GSPC", "GONE"], ["AAPL"], ["GONE"]):
        options = {"interval": "1d", "auto_adjust": True, "progress": False}
        real, ours = (
            module.download(names, start="2023-01-02", end="2024-03-13", **options)
            for module in (yfinance, fake)
        )
        assert real.columns.names == ours.columns.names == ["Price", "Ticker"]
        assert set(real.columns) == set(ours.columns)
        pd.testing.assert_frame_equal(
            real, ours[real.columns], check_freq=False, check_index_type=False, check_names=False
        )


def test_a_second_download_waits_for_the_first(fake, tmp_path):
    """Each replaces whole histories and writes the one table of labels."""
    reports = []
    second = threading.Thread(
        target=lambda: reports.append(fetch_yahoo("AAPL", "2023-01-02", store=tmp_path))
    )
    with locked(tmp_path / "yahoo" / LOCK):
        second.start()
        second.join(0.3)
        assert second.is_alive() and not fake.calls
    second.join()
    assert reports[0].added["AAPL"] > 0 and not reports[0].missing
