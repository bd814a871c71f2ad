"""Downloads: the store holds what was asked for, asked for once, and reports what is missing."""

import time
from itertools import pairwise

import numpy as np
import pytest
from helpers.exchange_dialects import STEPS, SYMBOLS, ms
from helpers.exchange_server import check

from portfolio_env import load_market
from portfolio_env.data.downloads import exchange as exchanges
from portfolio_env.data.downloads.client import Client, Retry
from portfolio_env.data.downloads.store import open_series, series_path
from portfolio_env.errors import ArgumentError

PAGE = {"binance": 1000, "binanceus": 1000, "coinbase": 300, "kraken": 720, "kucoin": 1500}
SYMBOL = {name: symbols[0] for name, symbols in SYMBOLS.items()}
pytestmark = pytest.mark.usefixtures("waits")


@pytest.mark.parametrize("name", SYMBOL)
@pytest.mark.parametrize(("timeframe", "pages"), [("1h", 2.4), ("1d", 1.2), ("15m", 0.5)])
def test_pages_through_each_exchange(server, link, waits, tmp_path, name, timeframe, pages):
    if name == "kraken":  # which gives no more than one page
        pages = 0.8
    since = np.datetime64(server.now - int(PAGE[name] * pages) * STEPS[timeframe], "ms")
    since = since.astype("M8[D]")
    (report,) = exchanges.fetch(link(name), SYMBOL[name], timeframe, since, store=tmp_path)
    series = check(server, tmp_path, name, SYMBOL[name], timeframe, since)
    assert report.error is None
    assert (report.rows_new, report.rows_total) == (len(series.times),) * 2
    assert (report.first, report.last) == tuple(series.times[[0, -1]].astype("M8[ms]"))
    assert report.listed is None
    assert report.gaps == [] and waits == []
    assert len(server.asked) == -(-len(series.times) // PAGE[name])  # not one too many
    assert load_frame(tmp_path / name / timeframe) == {SYMBOL[name]: len(series.times)}


def load_frame(folder):
    """Rows per symbol as the reader of files sees them."""
    from portfolio_env.data.bars import read_frame

    return read_frame(folder)["symbol"].value_counts().to_dict()


def test_several_symbols_become_a_market(server, link, tmp_path):
    server.listed["SOL/USDT"] = ms("2023-08-11T06:30")
    reports = exchanges.fetch(
        link(), ["BTC/USDT", "ETH/USDT", "SOL/USDT"], "1d", "2023-01-01", store=tmp_path
    )
    assert [report.error for report in reports] == [None] * 3
    assert reports[2].listed == np.datetime64("2023-08-11")
    market = load_market(tmp_path / "binance" / "1d")
    assert market.assets == ("BTC/USDT", "ETH/USDT", "SOL/USDT")
    times, bars = server.truth("SOL/USDT", "1d", "2023-01-01")
    np.testing.assert_array_equal(market.panel.close[-len(times) :, 2], bars[:, 3])
    assert str(market.timestamps[-1])[:10] == "2023-12-31"  # the day that is not over is left out
    assert market.periods_per_year == 365


@pytest.mark.parametrize("name", SYMBOL)
def test_outages_are_reported_and_not_asked_for_again(server, link, tmp_path, name):
    symbol = SYMBOL[name]
    server.outages[symbol] = [
        (ms("2023-12-13T02:00"), ms("2023-12-13T06:00")),
        (ms("2023-12-24T07:00"), ms("2023-12-24T09:00")),
    ]
    arguments = (link(name), symbol, "1h", "2023-12-10")
    (report,) = exchanges.fetch(*arguments, store=tmp_path)
    check(server, tmp_path, name, symbol, "1h", "2023-12-10")
    gaps = [(np.datetime64("2023-12-13T02:00"), 4), (np.datetime64("2023-12-24T07:00"), 2)]
    assert report.gaps == gaps
    server.asked.clear()
    (report,) = exchanges.fetch(*arguments, store=tmp_path)
    assert server.asked == []
    assert (report.rows_new, report.gaps, report.error) == (0, gaps, None)


@pytest.mark.parametrize("name", SYMBOL)
@pytest.mark.parametrize(
    ("timeframe", "listed"), [("1h", "2023-12-08T10:17"), ("1d", "2023-05-17")]
)
def test_finds_the_listing_in_a_few_requests(server, link, tmp_path, name, timeframe, listed):
    symbol = SYMBOL[name]
    server.listed[symbol] = ms(listed)
    arguments = (link(name), symbol, timeframe, "2010-01-01")
    (report,) = exchanges.fetch(*arguments, store=tmp_path)
    series = check(server, tmp_path, name, symbol, timeframe, "2010-01-01")
    assert report.error is None
    assert report.listed == report.first == series.times[0].astype("M8[ms]")
    assert report.gaps == []
    assert len(server.asked) <= 35  # of pages of 300 hours there are 400
    server.asked.clear()
    exchanges.fetch(*arguments, store=tmp_path)
    assert server.asked == []


@pytest.mark.parametrize("name", ["binance", "coinbase", "kucoin"])
def test_stops_at_a_delisting(server, link, tmp_path, name):
    symbol = SYMBOL[name]
    server.delisted[symbol] = ms("2023-03-05T11:00")
    arguments = (link(name), symbol, "1h", "2023-02-01")
    (report,) = exchanges.fetch(*arguments, store=tmp_path)
    check(server, tmp_path, name, symbol, "1h", "2023-02-01")
    assert report.error is None
    assert report.last == np.datetime64("2023-03-05T10:00")
    assert len(server.asked) <= 12


@pytest.mark.parametrize("name", ["binance", "coinbase", "kucoin"])
def test_crosses_a_long_silence(server, link, tmp_path, name):
    """Of minutes, more than any page holds."""
    symbol = SYMBOL[name]
    server.outages[symbol] = [(ms("2023-12-03T12:34"), ms("2023-12-28T09:21"))]
    (report,) = exchanges.fetch(link(name), symbol, "1m", "2023-12-03T06:00", store=tmp_path)
    check(server, tmp_path, name, symbol, "1m", "2023-12-03T06:00")
    assert report.error is None
    assert report.gaps == [(np.datetime64("2023-12-03T12:34"), 25 * 1440 - 193)]
    assert len(server.asked) <= 35


def test_a_symbol_without_candles_is_an_error(server, link, tmp_path):
    server.listed["SOL/USDT"] = server.now + 1
    (report,) = exchanges.fetch(link(), "SOL/USDT", "1d", "2023-02-01", store=tmp_path)
    assert report.error == "binance has no candles of SOL/USDT 1d in this range"
    assert not list(tmp_path.iterdir())


def test_only_finished_candles_are_stored(server, link, tmp_path):
    exchange = link()
    server.now = ms("2023-12-31T23:59:59.999")
    exchanges.fetch(exchange, "BTC/USDT", "1h", "2023-12-30", store=tmp_path)
    series = check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-12-30")
    assert series.times[-1] == ms("2023-12-31T22:00")
    server.now = ms("2024-01-01")
    exchanges.update(tmp_path, exchange)
    series = check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-12-30")
    assert series.times[-1] == ms("2023-12-31T23:00")
    server.asked.clear()
    (report,) = exchanges.update(tmp_path, exchange)
    assert server.asked == [] and report.rows_new == 0


def test_a_clock_may_be_given(server, link, tmp_path):
    now = ms("2023-12-20T12:00")
    exchanges.fetch(
        link(), "BTC/USDT", "1h", "2023-12-15", store=tmp_path, clock=lambda: now / 1000
    )
    check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-12-15", "2023-12-20T12:00")


@pytest.mark.parametrize(
    ("timeframe", "since", "kept"),
    [
        ("1h", "2023-01-01", "2023-12-02T01:00"),
        ("1d", "2020-01-01", "2022-01-12"),
        ("1d", "2022-01-08", "2022-01-12"),  # four days are fewer than any longer candle has
        ("1m", "2023-12-31T11:57", "2023-12-31T12:01"),
    ],
)
def test_candles_that_kraken_keeps_no_more_are_reported(
    server, link, tmp_path, timeframe, since, kept
):
    (report,) = exchanges.fetch(link("kraken"), "BTC/USD", timeframe, since, store=tmp_path)
    check(server, tmp_path, "kraken", "BTC/USD", timeframe, kept)
    assert f"only the newest candles of {timeframe}" in report.error
    assert f"those from {since} to {kept} are lost" in report.error
    assert report.listed is None


def test_a_hole_since_the_last_update_is_reported(server, link, tmp_path):
    exchange = link("kraken")
    exchanges.fetch(exchange, "BTC/USD", "1h", "2023-12-10", store=tmp_path)
    server.now = ms("2024-02-15T00:30")
    (report,) = exchanges.update(tmp_path, exchange)
    assert "those from 2024-01-01 to 2024-01-16T01:00 are lost" in report.error
    series = open_series(tmp_path, "kraken", "BTC/USD", "1h")
    assert series.holes == [(np.datetime64("2024-01-01"), np.datetime64("2024-01-16T01:00"))]
    assert series.gaps == report.gaps == []  # what was not downloaded is no outage
    (report,) = exchanges.update(tmp_path, exchange)
    assert report.error is None


def test_short_candles_that_are_gone_are_no_outage(server, link, waits, tmp_path):
    server.hidden["BTC/USD", "1m"] = ms("2023-12-20")
    (report,) = exchanges.fetch(link("coinbase"), "BTC/USD", "1m", "2023-12-01", store=tmp_path)
    assert (
        "no candles of BTC/USD 1m from 2023-12-01 to 2023-12-01T01:00, but longer" in report.error
    )
    assert len(server.asked) <= 6


def test_bad_symbols_name_their_neighbours_and_stop_nobody(server, link, tmp_path):
    reports = exchanges.fetch(link(), ["BTCUSDT", "ETH/USDT"], "1d", "2023-12-01", store=tmp_path)
    assert reports[0].error.startswith("unknown symbol of binance 'BTCUSDT': did you mean BTC/USDT")
    assert reports[0].rows_total == 0
    assert reports[1].error is None
    check(server, tmp_path, "binance", "ETH/USDT", "1d", "2023-12-01")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("binanc", "BTC/USDT", "1d", "2023-01-01"), "did you mean binance"),
        (("binance", "BTC/USDT", "2d", "2023-01-01"), "unknown timeframe '2d'"),
        (("binance", [], "1d", "2023-01-01"), "there are no symbols"),
        ((7, "BTC/USDT", "1d", "2023-01-01"), "7 is not an exchange"),
        (("coinbase", "BTC/USD", "4h", "2023-01-01"), "coinbase has no candles of 4h"),
    ],
)
def test_refuses_what_cannot_be_fetched(tmp_path, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        exchanges.fetch(*arguments, store=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either since"),
        ({"since": "2023-01-01", "bars": 5}, "give either since"),
        ({"bars": 0}, "bars=0"),
        ({"since": "2023-01-01", "until": "2023-01-01"}, "hold no candle of 1d"),
        ({"since": "2025-01-01"}, "hold no candle of 1d"),
        ({"since": "soon"}, "'soon' is not a date"),
    ],
)
def test_refuses_ranges_without_candles(server, link, tmp_path, options, message):
    with pytest.raises(ArgumentError, match=message):
        exchanges.fetch(link(), "BTC/USDT", store=tmp_path, **options)
    assert server.asked == []
    assert server.others == 0 or "no candle" in message  # what is over, the exchange must say


def test_a_number_of_candles_may_be_asked_for(server, link, tmp_path):
    (report,) = exchanges.fetch(link(), "BTC/USDT", "4h", store=tmp_path, bars=1234)
    assert report.rows_total == 1234
    assert report.last == np.datetime64("2023-12-31T20:00")


def test_extends_in_both_directions_and_asks_for_nothing_twice(server, link, tmp_path):
    exchange = link()
    ranges = [
        ("2023-06-01", "2023-07-01"),
        ("2023-08-01", "2023-09-01"),
        ("2023-05-01", "2023-06-15"),
        ("2023-05-01", None),
    ]
    new = []
    for since, until in ranges:
        (report,) = exchanges.fetch(exchange, "BTC/USDT", "1h", since, until, tmp_path)
        new.append(report.rows_new)
        assert report.gaps == [] and report.error is None
    assert new == [24 * days for days in (30, 31, 31, 31 + 122)]
    check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-05-01")
    asked = sorted((start, start + limit * STEPS["1h"]) for *_, start, limit in server.asked)
    assert all(high <= low for (_, high), (low, _) in pairwise(asked))
    assert sum(limit for *_, limit in server.asked) == sum(new)


def test_updates_all_or_some_series(server, link, tmp_path):
    exchange = link()
    exchanges.fetch(exchange, ["BTC/USDT", "ETH/USDT"], "1d", "2023-12-01", store=tmp_path)
    exchanges.fetch(exchange, "BTC/USDT", "4h", "2023-12-20", store=tmp_path)
    server.now = ms("2024-01-05T00:10")
    with pytest.raises(ArgumentError, match="unknown stored symbol 'BTC/USDC': did you mean BTC"):
        exchanges.update(tmp_path, exchange, "BTC/USDC")
    (report,) = exchanges.update(tmp_path, exchange, "ETH/USDT")
    assert (report.symbol, report.rows_new) == ("ETH/USDT", 4)
    series_path(tmp_path, "binance", "SOL/USDT", "1d").write_bytes(b"PAR1")
    reports = exchanges.update(tmp_path, exchange)
    assert {(r.symbol, r.timeframe): r.rows_new for r in reports} == {
        ("SOL-USDT", "1d"): 0,
        ("BTC/USDT", "1d"): 4,
        ("ETH/USDT", "1d"): 0,
        ("BTC/USDT", "4h"): 24,
    }
    assert [r.symbol for r in reports if r.error] == ["SOL-USDT"]
    check(server, tmp_path, "binance", "BTC/USDT", "4h", "2023-12-20")
    with pytest.raises(ArgumentError, match="no such series are stored"):
        exchanges.update(tmp_path / "nothing")


def test_asks_for_spot_markets_only_unless_symbols_say_otherwise():
    spot = exchanges.public_exchange("binance", ["BTC/USDT", "ETH/USDT"])
    assert spot.enableRateLimit and spot.options["fetchMarkets"]["types"] == ["spot"]
    swap = exchanges.public_exchange("binance", ["BTC/USDT", "ETH/USDT:USDT"])
    assert "linear" in swap.options["fetchMarkets"]["types"]


def test_takes_this_computers_time_where_the_exchange_does_not_tell(link):
    exchange = link("coinbase")
    client = Client(exchange, Retry())
    assert client.now() == ms("2024-01-01T00:00:30")
    exchange.has = {**exchange.has, "fetchTime": False}
    assert abs(client.now() - 1000 * time.time()) < 60_000
    exchange.has = {**exchange.has, "fetchTime": True}


def test_leaves_the_callers_exchange_as_it_was(server, link, tmp_path):
    exchange = link()
    before = set(vars(exchange))
    exchange.handle_errors = own = lambda *_: None
    exchanges.fetch(exchange, "BTC/USDT", since="2023-12-01", store=tmp_path)
    assert exchange.handle_errors is own
    del exchange.handle_errors
    assert "parse_ohlcvs" not in set(vars(exchange)) - before
