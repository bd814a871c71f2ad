"""A real process, killed at random moments, ends with what the venue says, once."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.paper.trader import trade

from portfolio_env.paper import Fill, Ledger
from portfolio_env.paper.journal import Journal
from portfolio_env.paper.orders import UNFINISHED

KILLS = int(os.environ.get("PAPER_KILLS", "5"))


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_a_killed_process_loses_and_doubles_nothing(tmp_path, lost):
    rng, kills = np.random.default_rng(int(10 * lost)), 0
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    while kills < KILLS:  # session after session, each killed until it ends
        folder, finished = tmp_path / f"after {kills}", False
        while not finished:
            after = rng.uniform(0.001, 0.5) if kills < KILLS else 0.0  # 0 is never
            command = [sys.executable, "-m", "helpers.paper.trader", str(folder), str(lost)]
            done = subprocess.run(
                [*command, str(after)], env=environment, capture_output=True, text=True
            )
            finished = done.returncode == 0
            assert finished or (after and done.returncode == -signal.SIGALRM), done.stderr
            kills += not finished
        _check(folder)
    if not lost:
        undisturbed, found = trade(None).ledger, Ledger.of(folder, read_only=True)
        for name, units in undisturbed.all_units().items():
            near = pytest.approx(float(units), rel=0.05, abs=60)
            assert float(found.all_units()[name]) == near


def _check(folder):
    ledger, venue = Ledger.of(folder, read_only=True), Journal(folder / "venue.db", read_only=True)
    ledger.verify()
    venue.verify()
    accepted = Counter(event.body["order"]["id"] for event in venue.events("accepted"))
    assert max(accepted.values()) == 1
    assert set(accepted) <= {order.id for order in ledger.orders()}
    theirs = [Fill.from_json(event.body) for event in venue.events("fill")]
    assert sorted(own.trade_id for own in theirs) == sorted(own.trade_id for own in ledger.fills())
    assert {own.trade_id: own for own in theirs} == {own.trade_id: own for own in ledger.fills()}
    assert len(ledger.query("SELECT 1 FROM decisions")) == len(ledger.query("SELECT 1 FROM bars"))
    assert not ledger.orders(states=UNFINISHED)
