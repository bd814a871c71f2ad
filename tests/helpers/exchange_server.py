"""Exchanges on the loopback interface, with candles from a formula, and faults.

`ExchangeServer` answers as Binance, Binance US, Coinbase, Kraken and KuCoin do (see
`exchange_dialects`), and takes orders as Binance and Kraken do (see `venue`). `connect` points one
of ccxt's own classes to it.
"""

import json
import random
import re
import threading
import zlib
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import ccxt
import numpy as np

from helpers.exchange_dialects import CANDLES, MARKETS, STEPS, ms
from helpers.venue.book import Refused
from helpers.venue.dialects import accepted, answer, order_asked, refusal
from portfolio_env.data.downloads.store import read_series, series_path


@cache
def formula(symbol, timeframe, opens):
    """Open, high, low, close and volume of a candle, with at most 8 decimals."""
    draw = random.Random(zlib.crc32(f"{symbol} {timeframe} {opens}".encode()))
    start, close = (round(draw.uniform(1, 2), 8) for _ in range(2))
    high = round(max(start, close) + draw.random(), 8)
    low = round(min(start, close) - 0.5 * draw.random(), 8)
    return start, high, low, close, round(draw.uniform(0.1, 1e5), 8)


class ExchangeServer:
    """Answers on 127.0.0.1 until closed; a context manager.

    Attributes:
        now: the exchanges' time, ms.
        listed: {symbol: ms} since when there is trade (before 2017 everywhere else).
        delisted: {symbol: ms} until when.
        outages: {symbol: [(from, to)]} without trade.
        hidden: {(symbol, timeframe): ms} candles before are not given although there was trade.
        faults: {n: fault} what goes wrong with the n-th request for candles, counted from 0.
        trouble: the same for all other requests.
        asked: (exchange, symbol, timeframe, start, limit) of the requests for candles.
        delay: seconds before each answer with candles.
        retry_after: seconds that answers of status 429 ask to wait.
        formula: gives the values of a candle.
        venues: {exchange: account} that take orders.
        order_faults: {n: fault} what goes wrong with the n-th order: "unheard" (executed, and no
            answer comes), "lost" (neither), "late" (arrives 3 s later, and no answer comes),
            "failed" (executed, and answered with status 502), a status, or a refusal.
        account_faults: the same for the other requests about accounts: "unheard", or a status.
        down: (from, to) times between which every answer is status 503.
        orders_asked: the orders that were asked for, refused ones too.
    """

    def __init__(self):
        self.reset()
        self.lock = threading.Lock()
        self.closing = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet per answer, else each takes 40 ms

            def do_GET(self):
                outer.handle(self)

            do_POST = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_):  # a client that was killed or gave up
                pass

        self.http = Server(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    def reset(self):
        """Forget every setting, fault and request."""
        self.now = ms("2024-01-01T00:00:30")
        self.listed, self.delisted, self.outages, self.hidden = {}, {}, {}, {}
        self.faults, self.trouble, self.asked = {}, {}, []
        self.others, self.delay, self.retry_after = 0, 0.0, 7
        self.formula, self.venues, self.down = formula, {}, []
        self.order_faults, self.account_faults = {}, {}
        self.orders_asked, self.accounts_asked = [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    # what there is

    def exists(self, symbol, timeframe, opens):
        """Whether there was any trade from when a candle opens to when it closes or to now."""
        closes = min(opens + STEPS[timeframe], self.now + 1)
        silent = [(0, self.listed.get(symbol, ms("2017-01-01")))]
        silent += self.outages.get(symbol, ())
        silent.append((self.delisted.get(symbol, self.now + 1), closes))
        silent.append((0, self.hidden.get((symbol, timeframe), 0)))
        position = opens
        for start, end in sorted(silent):
            if start <= position:
                position = max(position, end)
        return position < closes

    def times(self, symbol, timeframe, start, end):
        """When the candles in [start, end) open; weeks begin on Mondays."""
        step = STEPS[timeframe]
        shift = 4 * STEPS["1d"] if timeframe == "1w" else 0
        first = -(-(start - shift) // step) * step + shift
        last = min(end, self.now + 1)
        return [t for t in range(first, last, step) if self.exists(symbol, timeframe, t)]

    def candle(self, symbol, timeframe, opens):
        """A candle: [opens, open, high, low, close, volume]; of a running one what there is."""
        values = self.formula(symbol, timeframe, opens)
        if opens + STEPS[timeframe] > self.now:
            return [opens, *values[:1] * 4, round(values[4] / 3, 8)]
        return [opens, *values]

    def truth(self, symbol, timeframe, start, end=None):
        """The candles that are over and open in [start, end): times (n,), bars (n, 5)."""
        end = self.now if end is None else ms(end)
        times = self.times(symbol, timeframe, ms(start), end)
        times = [t for t in times if t + STEPS[timeframe] <= self.now]
        bars = [self.candle(symbol, timeframe, t)[1:] for t in times]
        return np.array(times, np.int64), np.array(bars, float).reshape(-1, 5)

    # how it is said

    def handle(self, request):
        url = urlsplit(request.path)
        _, exchange, path = url.path.split("/", 2)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0)).decode()
        texts = parse_qs(url.query) | parse_qs(body)
        query = {key: values[0] for key, values in texts.items()}
        if exchange == "clock":  # of processes that go by this one
            self.now += int(path)
            self.send(request, self.now, 200, None)
            return
        if any(start <= self.now < end for start, end in self.down):
            self.send(request, None, 200, 503)
            return
        if exchange in self.venues and self.trades(request, exchange, path, query):
            return
        found = CANDLES[exchange](self, path, query)
        if found is None:
            with self.lock:
                fault, self.others = self.trouble.get(self.others), self.others + 1
            content = MARKETS[exchange](self, path, query)
            self.send(request, content, 404 if content is None else 200, fault)
            return
        symbol, timeframe, rows, start, limit, say = found
        with self.lock:
            fault = self.faults.get(len(self.asked))
            self.asked.append((exchange, symbol, timeframe, start, limit))
        self.closing.wait(self.delay)
        rows = self.spoiled(fault, symbol, timeframe, rows)
        self.send(request, say(rows), 200, fault)

    def trades(self, request, exchange, path, query):
        """Answer a request about prices, orders or the account; False for any other."""
        venue, method = self.venues[exchange], request.command
        with venue.lock:
            asked = order_asked(exchange, path, method, query, self)
            venue.file.execute("BEGIN")
            try:
                venue.settle()
                if asked is None:
                    found, fault = answer(exchange, venue, path, method, query), None
                    if found is not None:
                        fault = self.account_faults.get(self.accounts_asked)
                        self.accounts_asked += 1
                else:
                    fault = self.order_faults.get(len(self.orders_asked))
                    self.orders_asked.append(asked[0])
                    found = self.placed(exchange, venue, *asked, fault)
            finally:
                venue.file.execute("COMMIT")
        if found is None:
            return False
        if fault in ("unheard", "lost", "late"):
            fault = "reset"
        elif not isinstance(fault, int):
            fault = 502 if fault == "failed" else None
        self.send(request, found[1], found[0], fault)
        return True

    def placed(self, exchange, venue, order, valid_until, fault):
        """Place an order, unless a fault keeps it from the venue."""
        if fault == "late":
            venue.send_later(order, valid_until, self.now + 3_000)
        if fault in ("late", "lost") or isinstance(fault, int):
            return 200, None
        try:
            if fault not in (None, "unheard", "failed"):
                raise Refused(fault)
            return accepted(exchange, venue.place(order, valid_until=valid_until))
        except Refused as why:
            return refusal(exchange, str(why))

    def spoiled(self, fault, symbol, timeframe, rows):
        """Rows as a fault has them."""
        draw = random.Random(len(self.asked))
        step = STEPS[timeframe]
        if fault == "empty":
            return []
        if fault == "duplicates":
            return [row for row in rows for _ in range(2)]
        if fault == "disorder":
            return draw.sample(rows, len(rows))
        if fault == "overlap":
            before = self.times(symbol, timeframe, rows[0][0] - 3 * step, rows[0][0])
            return [self.candle(symbol, timeframe, t) for t in before] + rows
        if fault == "conflict":  # first a wrong value, then the right one
            wrong = [[row[0], *(2 * value for value in row[1:])] for row in rows[:2]]
            return wrong + rows
        if fault == "late":
            return [*rows[:-1], [rows[-1][0] + step // 4, *rows[-1][1:]]]
        if fault == "null":
            return [[*row[:4], None, row[5]] if i == 1 else row for i, row in enumerate(rows)]
        return rows

    def send(self, request, content, status, fault):
        """Answer, or fail to."""
        body = json.dumps(content).encode()
        headers = {}
        if fault == "timeout":
            self.closing.wait(5)
            request.close_connection = True
            return
        if fault == "reset":
            request.close_connection = True
            return
        if isinstance(fault, int):
            status, body = fault, b"<html>no</html>"
            headers = {"Retry-After": str(self.retry_after)} if status == 429 else {}
        if fault == "truncated":
            body = body[: len(body) // 2]
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body) + (99 if fault == "broken" else 0)))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
        request.close_connection = request.close_connection or fault == "broken"


def redirect(exchange, base):
    """Point a ccxt exchange to a server, and let it ask as fast as it can."""
    exchange.urls["api"] = {
        name: re.sub(r"^https://[^/]+", f"{base}/{exchange.id}", url)
        for name, url in exchange.urls["api"].items()
    }
    exchange.rateLimit = 0
    exchange.timeout = 10_000
    exchange.session.trust_env = False
    return exchange


def connect(name, base):
    """One of ccxt's own classes, pointed to a server."""
    return redirect(getattr(ccxt, name)(), base)


def check(server, store, exchange, symbol, timeframe, since, until=None):
    """The stored series, which is the truth from one time to another, and nothing else."""
    series = read_series(series_path(store, exchange, symbol, timeframe))
    times, bars = server.truth(symbol, timeframe, since, until)
    assert len(times)
    np.testing.assert_array_equal(series.times, times)
    np.testing.assert_array_equal(series.bars, bars)
    return series
