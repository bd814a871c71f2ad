"""A session on the exchange of the examples, by the very command that it prints."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from portfolio_env import load_market

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.name != "posix", reason="it is ended by a signal")
def test_the_command_that_it_prints_trades_there(tmp_path):
    served = [sys.executable, "examples/exchange.py", "--folder", tmp_path]
    ended = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        served, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **ended
    ) as exchange:
        try:
            lines = [exchange.stdout.readline() for _ in range(4)]
            keys = dict(word.split("=") for word in lines[2].split()[1:])
            _, *words = shlex.split(lines[3])
            typed = [sys.executable, *words, "--once"]
            done = subprocess.run(
                typed, cwd=ROOT, env=os.environ | keys, capture_output=True, text=True
            )
            assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
            assert done.stdout.startswith(("No bar has closed yet", "Bar "))
            assert len(load_market(str(tmp_path / "minutes.csv")).timestamps) == 300
        finally:
            exchange.send_signal(signal.SIGINT)
        assert exchange.wait(10) == 0 and exchange.stderr.read() == ""
