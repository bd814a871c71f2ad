"""Downloads that go wrong on the way: the store holds the truth all the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ccxt
import numpy as np
import pytest
from helpers.exchange_dialects import STEPS, SYMBOLS, ms
from helpers.exchange_server import check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portfolio_env.data.downloads import exchange as exchanges
from portfolio_env.data.downloads.client import Client, Retry
from portfolio_env.data.downloads.store import open_series
from portfolio_env.errors import ArgumentError, DataError

SYMBOL = {name: symbols[0] for name, symbols in SYMBOLS.items()}
pytestmark = pytest.mark.usefixtures("waits")
LATE = ("timeout", 429, 500, 502, 503, "truncated", "broken", "reset", "empty")
ODD = {
    "duplicates": {"duplicates": 1000},
    "overlap": {"duplicates": 3},
    "conflict": {"conflicts": 2},
    "disorder": {},
}


@pytest.mark.parametrize("fault", LATE)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_asks_again_what_failed_on_the_way(server, link, waits, tmp_path, fault, at):
    server.faults = {at: fault}
    (report,) = exchanges.fetch(link(), "BTC/USDT", "1h", "2023-09-15", store=tmp_path)
    check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-09-15")
    assert report.error is None
    assert report.retries == 1
    assert len(server.asked) == 4
    if fault == 429:
        assert waits == [7.0]  # as Retry-After says
    else:
        assert waits == [0.5]


def test_two_empty_pages_in_a_row_are_no_outage(server, link, tmp_path):
    server.faults = {1: "empty", 2: "empty"}
    (report,) = exchanges.fetch(link(), "BTC/USDT", "1h", "2023-09-15", store=tmp_path)
    check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-09-15")
    assert report.gaps == [] and report.error is None


@pytest.mark.parametrize("fault", ODD)
def test_puts_odd_pages_in_order_and_reports_them(server, link, tmp_path, fault):
    server.faults = {1: fault}
    (report,) = exchanges.fetch(link(), "BTC/USDT", "1h", "2023-09-15", store=tmp_path)
    check(server, tmp_path, "binance", "BTC/USDT", "1h", "2023-09-15")
    counts = {"duplicates": 0, "conflicts": 0, "incomplete": 0, "retries": 0} | ODD[fault]
    assert {name: getattr(report, name) for name in counts} == counts
    assert (report.out_of_order > 300) == (fault == "disorder")
    assert report.error is None


@pytest.mark.parametrize("name", SYMBOL)
@pytest.mark.parametrize("fault", [429, 503, "truncated", "empty", "duplicates", "disorder"])
def test_every_exchange_survives(server, link, waits, tmp_path, name, fault):
    """To ccxt's Coinbase, Kraken and KuCoin an answer that is cut off is an empty page."""
    server.faults = {0: fault}
    since = np.datetime64(server.now, "ms").astype("M8[D]") - 20
    (report,) = exchanges.fetch(link(name), SYMBOL[name], "1h", since, store=tmp_path)
    check(server, tmp_path, name, SYMBOL[name], "1h", since)
    assert report.error is None
    assert report.duplicates >= 300 if fault == "duplicates" else report.duplicates == 0
    assert report.gaps == []


@pytest.mark.parametrize("name", SYMBOL)
@pytest.mark.parametrize("fault", [503, "truncated", "broken"])
def test_lists_of_markets_are_asked_for_again(server, link, waits, tmp_path, name, fault):
    server.trouble = {0: fault, 2: fault}
    (report,) = exchanges.fetch(link(name), SYMBOL[name], "1d", "2023-12-01", store=tmp_path)
    assert report.error is None
    assert len(waits) == 2
    check(server, tmp_path, name, SYMBOL[name], "1d", "2023-12-01")


def test_gives_up_and_keeps_what_came(server, link, waits, tmp_path):
    server.faults = dict.fromkeys(range(1, 50), 503)
    exchange = link()
    arguments = (exchange, ["BTC/USDT", "ETH/USDT"], "1h", "2023-09-15")
    reports = exchanges.fetch(*arguments, store=tmp_path)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0] * 2
    assert "binance gave no good answer to 6 requests" in reports[0].error
    assert "503" in reports[0].error and len(reports[0].error) < 600
    assert [report.rows_total for report in reports] == [1000, 0]
    server.faults, server.asked[:] = {}, []
    reports = exchanges.fetch(*arguments, store=tmp_path)
    assert [report.error for report in reports] == [None, None]
    times, _ = server.truth("BTC/USDT", "1h", "2023-09-15")
    assert server.asked[0] == ("binance", "BTC/USDT", "1h", times[1000], 1000)
    for symbol in ("BTC/USDT", "ETH/USDT"):
        check(server, tmp_path, "binance", symbol, "1h", "2023-09-15")


def test_an_exchange_that_never_answers_is_an_error(server, link, waits, tmp_path):
    server.trouble = dict.fromkeys(range(50), "truncated")
    with pytest.raises(DataError, match=r"6 requests; the last time: BadResponse: .*cut off"):
        exchanges.fetch(link(), "BTC/USDT", since="2023-09-15", store=tmp_path)
    assert not list(tmp_path.iterdir())


def test_waits_as_long_as_it_is_told_but_not_for_hours(server, link, tmp_path):
    exchange = link()
    client = Client(exchange, Retry(random=lambda: 1.0))
    assert [client.retry.seconds(k) for k in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert Retry(random=lambda: 0.0).seconds(2, asked=3.5) == 3.5
    with pytest.raises(ArgumentError, match="attempts=0 must be an integer of 1 or more"):
        Retry(attempts=0)
    waits = []
    server.faults = {0: 429, 1: 429}
    server.retry_after = 7200
    (report,) = exchanges.fetch(
        exchange, "BTC/USDT", "1d", "2023-09-15", store=tmp_path, retry=Retry(sleep=waits.append)
    )
    assert waits == []
    assert "gave no good answer to 1 requests; the last time: RateLimitExceeded" in report.error


def test_a_place_that_is_not_served_is_said_at_once(server, link, waits, tmp_path):
    server.trouble = {0: 451}
    with pytest.raises(DataError, match=r"refuses: RestrictedLocation.* does not serve this place"):
        exchanges.fetch(link(), "BTC/USDT", since="2023-09-15", store=tmp_path)
    assert waits == []


def test_a_candle_without_a_number_is_left_out_and_reported(server, link, tmp_path):
    server.faults = {0: "null"}
    (report,) = exchanges.fetch(link(), "BTC/USDT", "1d", "2023-12-01", store=tmp_path)
    assert report.incomplete == 1
    assert report.error is None
    series = open_series(tmp_path, "binance", "BTC/USDT", "1d")
    assert series.holes == [(np.datetime64("2023-12-02"), np.datetime64("2023-12-03"))]
    server.faults = {}
    (later,) = exchanges.update(tmp_path, link())
    assert (later.incomplete, later.rows_new, later.error) == (0, 1, None)
    assert open_series(tmp_path, "binance", "BTC/USDT", "1d").holes == []


def test_a_candle_off_the_clock_hides_none_after_it(server, link, tmp_path):
    server.faults = {0: "late"}
    (report,) = exchanges.fetch(link(), "BTC/USDT", "1h", "2023-09-15", store=tmp_path)
    series = open_series(tmp_path, "binance", "BTC/USDT", "1h")
    times, bars = server.truth("BTC/USDT", "1h", "2023-09-15")
    times[999] += STEPS["1h"] // 4
    np.testing.assert_array_equal(series.times, times)
    np.testing.assert_array_equal(series.bars, bars)
    assert report.gaps == []


def test_an_interruption_keeps_what_came(server, link, tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    server.faults = {2: 503}
    with pytest.raises(KeyboardInterrupt):
        exchanges.fetch(
            link(), "BTC/USDT", "1h", "2023-09-15", store=tmp_path, retry=Retry(sleep=interrupt)
        )
    series = open_series(tmp_path, "binance", "BTC/USDT", "1h")
    np.testing.assert_array_equal(
        series.times, server.truth("BTC/USDT", "1h", "2023-09-15")[0][:2000]
    )


SCRIPT = """
import sys
from helpers.exchange_server import connect
from portfolio_env.data.downloads import exchange
exchange.fetch(connect("binance", sys.argv[1]), "BTC/USDT", "1m", "2023-12-20", store=sys.argv[2],
               flush_seconds=0)
"""


def test_a_killed_download_continues_where_it_stopped(server, link, tmp_path):
    server.delay = 0.1
    tests = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.base, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
    )
    deadline = time.monotonic() + 60
    while len(server.asked) < 6 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    times, bars = server.truth("BTC/USDT", "1m", "2023-12-20")
    series = open_series(tmp_path, "binance", "BTC/USDT", "1m")
    n_rows = len(series.times)
    assert 3000 <= n_rows <= 6000 < len(times) and n_rows % 1000 == 0
    np.testing.assert_array_equal(series.times, times[:n_rows])
    np.testing.assert_array_equal(series.bars, bars[:n_rows])
    server.asked.clear()
    server.delay = 0.0
    (report,) = exchanges.fetch(link(), "BTC/USDT", "1m", "2023-12-20", store=tmp_path)
    assert server.asked[0][3] == times[n_rows]
    assert min(start for *_, start, _ in server.asked) == times[n_rows]
    assert report.rows_new == len(times) - n_rows
    check(server, tmp_path, "binance", "BTC/USDT", "1m", "2023-12-20")


FAULTS = st.dictionaries(
    st.integers(0, 12),
    st.sampled_from([429, 500, "truncated", "reset", "empty", *ODD]),
    max_size=5,
).filter(lambda faults: list(faults.values()).count("empty") < 3)
SILENCES = st.lists(st.tuples(st.integers(0, 2600), st.integers(1, 700)), max_size=4)


@given(
    name=st.sampled_from(["binance", "coinbase", "kucoin"]),
    faults=FAULTS,
    silences=SILENCES,
    listed=st.integers(0, 2000),
)
@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
def test_whatever_happens_the_store_holds_the_truth(
    server, link, tmp_path_factory, name, faults, silences, listed
):
    store, symbol, hour = tmp_path_factory.mktemp("store"), SYMBOL[name], STEPS["1h"]
    start = ms("2023-09-15")
    server.outages = {symbol: [(start + a * hour, start + (a + n) * hour) for a, n in silences]}
    server.listed = {symbol: start + listed * hour}
    server.asked.clear()
    server.faults = faults
    exchange, retry = link(name), Retry(attempts=20, sleep=lambda _: None)
    for _ in range(2):  # empty pages can hide the end, for a time
        (report,) = exchanges.fetch(exchange, symbol, "1h", "2023-09-15", store=store, retry=retry)
        server.faults = {}
    check(server, store, name, symbol, "1h", "2023-09-15")
    assert report.error is None
    missing = sum(n for _, n in report.gaps)
    times = server.truth(symbol, "1h", "2023-09-15")[0]
    assert missing == (times[-1] - times[0]) // hour + 1 - len(times)


DAY, FIRST = 86_400_000, 1_704_067_200_000  # 2024-01-01


class Late(ccxt.Exchange):
    """Days of one symbol, of which some are not there at first, or have no volume."""

    lacking: frozenset[int] = frozenset()
    empty: frozenset[int] = frozenset()
    asked = 0

    def describe(self):
        about = {"id": "late", "has": {"fetchOHLCV": True}, "timeframes": {"1d": "1d"}}
        return self.deep_extend(super().describe(), about)

    def load_markets(self, *_, **__):
        self.markets = {"BTC/USD": {"symbol": "BTC/USD", "spot": True}}
        return self.markets

    def feature_value(self, *_):
        return 100

    def fetch_ohlcv(self, symbol, timeframe="1d", since=None, limit=None, params=None):
        type(self).asked += 1
        days = [day for day in range(400) if FIRST + day * DAY >= (since or 0)]
        rows = [
            [
                FIRST + day * DAY,
                10 + day,
                12 + day,
                9 + day,
                11 + day,
                None if day in self.empty else 5,
            ]
            for day in days
            if day not in self.lacking
        ]
        return rows[: limit or 100]


def updated(store, day):
    """What an update on a day reports."""
    return exchanges.update(store, Late(), clock=lambda: (FIRST + day * DAY) / 1000)[0]


@pytest.mark.parametrize("kind", ["lacking", "empty"])
def test_days_that_were_missing_are_asked_for_again_for_a_month(monkeypatch, tmp_path, kind):
    monkeypatch.setattr(Late, kind, frozenset([20, 60, 75, 76]))
    options = {"store": tmp_path, "clock": lambda: (FIRST + 80 * DAY) / 1000}
    first = exchanges.fetch(Late(), "BTC/USD", "1d", "2024-01-01", **options)[0]
    assert (first.rows_new, first.error) == (76, None)
    assert first.incomplete == (4 if kind == "empty" else 0)
    asked = Late.asked
    still = updated(tmp_path, 81)
    assert (still.rows_new, still.error) == (1, None)
    assert Late.asked - asked <= 5
    monkeypatch.setattr(Late, kind, frozenset())
    late = updated(tmp_path, 82)
    assert (late.rows_new, late.rows_total, late.error) == (4, 81, None)
    assert [str(when) for when, _ in late.gaps] == ["2024-01-21"]  # older than a month: believed
    asked = Late.asked
    assert updated(tmp_path, 83).rows_new == 1
    assert Late.asked - asked == 1
