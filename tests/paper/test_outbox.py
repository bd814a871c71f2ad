"""Alerts open once, close once, and reach every sink at least once, whatever is killed."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from portfolio_env.errors import ArgumentError
from portfolio_env.live import AlertBounds
from portfolio_env.paper import Ledger, SimulatedClock
from portfolio_env.paper.exchange import FileSink, LogSink, Outbox, WebhookSink, watch

START = np.datetime64("2024-01-01", "ns")
SECOND = np.timedelta64(1, "s")


@pytest.fixture
def clock():
    return SimulatedClock(START)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger.of(tmp_path)
    ledger.start(START, "s", ("A", "B"))
    yield ledger
    ledger.close()


def opened(ledger, number, *, is_open=True):
    ledger.append("alert", START, id=f"a{number}", name="n", open=is_open, text=f"text {number}")


class Killed(BaseException):
    """The process ends."""


class Taken:
    """A sink that keeps what it is sent, and may be killed before or after it."""

    name = "taken"

    def __init__(self):
        self.ids, self.before, self.after, self.fails = [], set(), set(), 0

    def send(self, alert):
        number = len(self.ids)
        if number in self.before:
            self.before.remove(number)
            raise Killed
        if self.fails:
            self.fails -= 1
            return False
        self.ids.append((alert["id"], alert["open"]))
        if number in self.after:
            self.after.remove(number)
            raise Killed
        return True


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_loses_no_alert(ledger, clock, tmp_path, place, when):
    for number in range(3):
        opened(ledger, number)
    opened(ledger, 1, is_open=False)
    expected = [("a0", True), ("a1", True), ("a2", True), ("a1", False)]
    sink = Taken()
    getattr(sink, when).add(place)
    with pytest.raises(Killed):
        Outbox(ledger, [sink], clock).deliver()
    again = Ledger.of(tmp_path)
    Outbox(again, [sink], clock).deliver()
    assert list(dict.fromkeys(sink.ids)) == expected
    assert len(sink.ids) == 4 + (when == "after")  # once more, with the same id
    assert Outbox(again, [sink], clock).deliver() == 0
    again.verify()
    again.close()


def test_a_sink_that_fails_is_tried_again_and_holds_no_other_up(ledger, clock):
    bad, good = Taken(), Taken()
    bad.fails, good.name = 3, "good"
    opened(ledger, 0)
    outbox, waited = Outbox(ledger, [bad, good], clock), []
    for _ in range(20):
        outbox.deliver()
        waited.append(len(bad.ids))
        clock.sleep(SECOND)
    assert len(good.ids) == len(bad.ids) == 1
    assert waited.index(1) == 1 + 2 + 4  # after 1, 2 and 4 seconds


def test_a_clock_that_goes_back_holds_no_sink_up(ledger, clock):
    sink = Taken()
    sink.fails = 1
    opened(ledger, 0)
    outbox = Outbox(ledger, [sink], clock)
    assert outbox.deliver() == 0
    clock._now -= np.timedelta64(3650, "D")
    assert outbox.deliver() == 1


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"id": "a0"}\n{"id": "a')
    assert FileSink(path).send({"id": "a1"})
    assert path.read_text().splitlines() == ['{"id": "a0"}', '{"id": "a', '{"id": "a1"}']
    assert not FileSink(tmp_path).send({"id": "a2"})  # a folder


def test_the_log_tells_alerts(caplog):
    with caplog.at_level(logging.INFO, "portfolio_env.paper"):
        for text in ("far", "drift: far"):
            LogSink().send({"id": "a", "name": "drift", "open": True, "text": text})
    assert caplog.messages == ["drift: far"] * 2


@pytest.fixture
def hook():
    """A receiver on this machine: what it got, and the statuses it answers with."""

    class Handler(BaseHTTPRequestHandler):
        got, statuses, headers_got = [], [], []

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.got.append(json.loads(body))
            self.headers_got.append(dict(self.headers))
            self.send_response(self.statuses.pop(0) if self.statuses else 200)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", Handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_gets_an_alert_with_its_id_until_it_says_yes(ledger, clock, hook, monkeypatch):
    url, receiver = hook
    monkeypatch.setenv("PORTFOLIO_ENV_WEBHOOK_TOKEN", "secret")
    receiver.statuses[:] = [500, 302]
    opened(ledger, 0)
    outbox = Outbox(ledger, [WebhookSink(url)], clock)
    for _ in range(5):
        outbox.deliver()
        clock.sleep(10 * SECOND)
    assert [alert["id"] for alert in receiver.got] == ["a0"] * 3
    assert receiver.headers_got[0]["Authorization"] == "Bearer secret"
    assert not ledger.query("SELECT * FROM events WHERE body LIKE '%secret%'")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://example.com/", "https://named.example.com/",
        "ftp://127.0.0.1/", "http://127.0.0.1.example.com/", "http://me:secret@127.0.0.1/", "x",
    ],
)  # fmt: skip
def test_webhooks_elsewhere_are_refused(url):
    with pytest.raises(ArgumentError, match="webhook") as told:
        WebhookSink(url, hosts=["hooks.example.org"])
    assert "me:secret" not in str(told.value)
    assert WebhookSink("https://hooks.example.org/x", hosts=["hooks.example.org"])


def valued(ledger, bar, value):
    moment = START + bar * SECOND
    ledger.append("valuation", moment, moment, value=str(value), cash=str(value), stop={})


def test_an_alert_opens_once_and_closes_once_without_fluttering(ledger, clock):
    bounds = AlertBounds(drawdown=0.1)
    for bar, value in enumerate([100, 95, 89, 91, 89, 91.5, 93, 95, 88]):
        valued(ledger, bar, value)
        watch(ledger, bounds, clock)
    told = [(event.body["open"], event.body["id"]) for event in ledger.events("alert")]
    assert [is_open for is_open, _ in told] == [True, False, True]
    assert told[0][1] == told[1][1] != told[2][1]
    assert (
        "drawdown: 11.0 % below the highest value so far, 100.00"
        in ledger.query("SELECT text FROM alerts")[0]["text"]
    )


CHILD = """
import sys, itertools
from pathlib import Path
import numpy as np
from portfolio_env.paper import Ledger, SystemClock
from portfolio_env.paper.exchange import FileSink, Outbox
folder = Path(sys.argv[1])
ledger = Ledger.of(folder)
ledger.start(np.datetime64("2024-01-01", "ns"), "s", ("A",))
outbox = Outbox(ledger, [FileSink(folder / "alerts.jsonl")], SystemClock())
first = len(ledger.query("SELECT id FROM alerts"))
for number in itertools.count(first):
    ledger.append("alert", SystemClock().now(), id=f"a{number}", name="n", open=True, text="t")
    outbox.deliver()
"""


@pytest.mark.slow
def test_real_kills_lose_no_alert(tmp_path):
    draw = np.random.default_rng(0)
    for _ in range(10):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)])
        while not (tmp_path / "alerts.jsonl").exists():
            time.sleep(0.05)
        time.sleep(float(draw.uniform(1.0, 2.5)))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    ledger = Ledger.of(tmp_path)
    Outbox(ledger, [FileSink(tmp_path / "alerts.jsonl")], SimulatedClock(START)).deliver()
    known = {row["id"] for row in ledger.query("SELECT id FROM alerts")}
    ledger.verify()
    ledger.close()
    found = set()
    for line in (tmp_path / "alerts.jsonl").read_text().splitlines():
        if line.endswith("}"):
            found.add(json.loads(line)["id"])
    assert found == known and known
