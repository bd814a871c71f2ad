"""Real processes that trade on a loopback exchange, killed at random moments."""

import os
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from helpers.exchange_dialects import SYMBOLS
from helpers.venue.book import Venue
from helpers.venue.dialects import rules
from test_exchange_day import HOUR, START, walk

from portfolio_env.paper import Ledger
from portfolio_env.paper.exchange.command import KEY, SECRET

KILLS, HOURS = int(os.environ.get("KILLS", "5")), 12
TESTS = Path(__file__).parents[1]
CHILD = """
import sys, urllib.request
sys.path[:0] = sys.argv[3:]
import numpy as np
from test_exchange_command import called
from test_exchange_day import HOUR, START
from pathlib import Path

class Remote:
    def __init__(self, base):
        self.base = base
    def now(self, ms=0):
        with urllib.request.urlopen(f"{self.base}/clock/{ms}") as answer:
            return np.datetime64(int(answer.read()), "ms").astype("datetime64[ns]")
    def sleep(self, duration):
        self.now(max(int(np.ceil(duration / np.timedelta64(1, "ms"))), 0))

class Server:
    base = sys.argv[1]

clock = Remote(sys.argv[1])
print("ready", flush=True)
while True:
    called(Server, Path(sys.argv[2]), clock, address=f"{Server.base}/binance")
    ms = int(clock.now().astype("datetime64[ms]").astype(np.int64))
    if ms > START + HOURS * HOUR:
        break
    clock.now((ms // HOUR + 1) * HOUR + 12_000 - ms)
"""


@pytest.mark.slow
def test_kills_lose_and_double_nothing(server, tmp_path):
    server.formula, server.now = walk, START
    symbols, funds = SYMBOLS["binance"], {"USDT": Decimal(10_000)}
    venue = server.venues["binance"] = Venue(tmp_path / "v.db", server, rules("binance"), funds)
    server.order_faults = {3: "unheard", 8: "late", 12: "lost"}
    draw, kills = np.random.default_rng(0), 0
    code = CHILD.replace("HOURS *", f"{HOURS} *")
    given = [server.base, str(tmp_path), str(TESTS), str(TESTS / "paper")]
    while True:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *given],
            stdout=subprocess.PIPE,
            env=os.environ | {KEY: "key", SECRET: "c2VjcmV0"},
        )
        assert child.stdout.readline() == b"ready\n"
        if kills < KILLS:
            time.sleep(float(draw.uniform(0.1, 2.0)))
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        ended = child.wait()
        child.stdout.close()
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    accepted = [order["client"] for order in venue.orders()]
    assert len(accepted) == len(set(accepted)) > 3
    ledger = Ledger.of(tmp_path / "session", read_only=True)
    assert set(accepted) <= {order.id for order in ledger.orders()}
    assert len(ledger.fills()) == len(venue.trades())
    units, held = ledger.all_units(), venue.money()
    assert units[""] == held["USDT"]
    assert all(units.get(s, 0) == held.get(s.split("/")[0], 0) for s in symbols)
    assert ledger.trading[0] == "active"
    ledger.verify()
    ledger.close()
    venue.close()
    assert server.now > START + HOURS * HOUR
