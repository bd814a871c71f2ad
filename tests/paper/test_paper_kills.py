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

KILLS = int(os.environ.get("PAPER_KILLS", "5"))


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_a_killed_process_loses_and_doubles_nothing(tmp_path, lost):
    rng, kills, finished = np.random.default_rng(int(10 * lost)), 0, False
    paths = [str(Path(__file__).parents[1]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "helpers.paper.trader", str(tmp_path), str(lost)]
    while not finished:
        with subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            if kills < KILLS:
                _wait_for_a_ledger(tmp_path, process)
                try:
                    process.wait(rng.uniform(0.0, 0.5))
                except subprocess.TimeoutExpired:
                    kills += 1
                    process.send_signal(signal.SIGKILL)
            _, said = process.communicate(timeout=120)
        finished = process.returncode == 0
        assert finished or process.returncode == -signal.SIGKILL, said
    assert kills > 1
    _check(tmp_path)
    if not lost:
        undisturbed = trade(None).ledger
        found = Ledger.of(tmp_path, read_only=True)
        for name, units in undisturbed.all_units().items():
            near = pytest.approx(float(units), rel=0.05, abs=60)
            assert float(found.all_units()[name]) == near


def _wait_for_a_ledger(folder, process):
    """Wait until it is past its imports, so that kills hit the trading."""
    before = _changed(folder)
    while process.poll() is None and _changed(folder) == before:
        try:
            process.wait(0.005)
        except subprocess.TimeoutExpired:
            continue


def _changed(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.db*")}


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
    assert not ledger.orders(unfinished=True)
