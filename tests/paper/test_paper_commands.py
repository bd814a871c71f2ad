"""Commands on paper accounts: a replay that is its backtest, and errors in one line."""

import json
import sqlite3
import sys

import pytest
from helpers.small_runs import made_run

import trade
from agents.trading.commands import COMMANDS, Replay, replayed
from portfolio_env.files.atomic import locked

MARKET = "synthetic?bars=200&assets=3"
HRP = ("replay", "--baseline", "hrp", "--market", MARKET)


def command(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["trade.py", *map(str, arguments)])
    status = trade.main()
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_replay_is_shown_checked_and_exported(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "paper"
    options = ("--baseline", "momentum(lookback=20,every=5)", "--market", MARKET, "--out", folder)
    status, out, _ = command(monkeypatch, capsys, "replay", *options)
    rows = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("largest"))
    assert status == 0
    assert float(rows["largest"].split()[1]) < 1e-12
    status, out, _ = command(monkeypatch, capsys, "verify", folder)
    assert (status, "is whole" in out) == (0, True)
    status, out, _ = command(monkeypatch, capsys, "status", folder)
    assert (status, "trading" in out, "open alerts" in out) == (0, True, True)
    record = json.loads((folder / "status.json").read_text())
    held = sum(float(each["units"]) * each["price"] for each in record["positions"])
    assert held + record["cash"] == pytest.approx(record["value"], rel=1e-12)
    assert f"{record['value']:,.2f}" in (folder / "status.html").read_text()
    assert command(monkeypatch, capsys, "halt", folder, "--reason", "<b>wrong</b>")[0] == 0
    assert "halted: <b>wrong</b>" in command(monkeypatch, capsys, "status", folder)[1]
    page = (folder / "status.html").read_text()
    assert ("&lt;b&gt;wrong" in page, "<b>wrong" in page) == (True, False)
    with locked(folder / "session.lock", busy="it runs"):
        status, _, err = command(monkeypatch, capsys, "resume", folder)
        assert (status, "used by another process" in err, err.count("\n")) == (1, True, 1)
    assert command(monkeypatch, capsys, "resume", folder, "--reducing")[0] == 0
    assert "reducing: by hand" in command(monkeypatch, capsys, "status", folder)[1]
    assert command(monkeypatch, capsys, "flatten", folder)[0] == 0
    assert "flat: by hand" in command(monkeypatch, capsys, "status", folder)[1]
    assert command(monkeypatch, capsys, "reconcile", folder)[1] == "no difference was found\n"
    for own in (("reconcile", folder, "--accept", "so be it"), ("resolve", folder, "0" * 32)):
        status, _, err = command(monkeypatch, capsys, *own)
        assert (status, err.startswith("error: "), err.count("\n")) == (1, True, 1)
    assert command(monkeypatch, capsys, "verify", folder)[0] == 0
    status, out, _ = command(monkeypatch, capsys, "export", folder)
    assert (status, (folder / "export" / "fills.csv").exists()) == (0, True)
    flaky = (*options, "--scenario", "flaky", "--seed", 2, "--lot", 0.01, "--participation", 0.1)
    assert command(monkeypatch, capsys, "replay", *flaky)[0] == 0
    assert command(monkeypatch, capsys, "verify", folder)[0] == 0
    for scenario in ("crash", "liquidity"):
        shocked = (*options, "--scenario", scenario)
        status, out, _ = command(monkeypatch, capsys, "replay", *shocked)
        assert (status, "largest difference" in out) == (0, True)
    with sqlite3.connect(folder / "ledger.db") as edited:
        edited.execute("UPDATE valuations SET value = 'much' WHERE rowid = 3")
    edited.close()
    for name in ("status", "verify"):
        status, _, err = command(monkeypatch, capsys, name, folder)
        assert (status, err.startswith("error: "), err.count("\n")) == (1, True, 1)
    data = bytearray((folder / "ledger.db").read_bytes())
    data[len(data) // 2] ^= 4
    (folder / "ledger.db").write_bytes(data)
    status, _, err = command(monkeypatch, capsys, "verify", folder)
    assert (status, err.startswith("error: "), err.count("\n")) == (1, True, 1)
    head = json.loads((folder / "head.json").read_text())
    assert head["seq"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "sac", "direct"])
def test_a_run_on_paper_is_its_backtest(tmp_path, algo):
    run = made_run(tmp_path / "run", algo=algo, market=MARKET)
    told = replayed(Replay(run))
    assert float(told["largest difference"].split()[0]) < 1e-9 and "filled" in told["orders"]
    told = replayed(Replay(run, scenario="flaky", seed=1, latency=60.0, lot=0.01))
    assert "of that by unfilled" in told and float(told["largest difference"].split()[0]) > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "nowhere"), "has no ledger.db: give the folder of a session"),
        (("replay",), "give the folder of a run, or --baseline"),
        (("replay", "--baseline", "nothing", "--market", MARKET), "nothing"),
        ((*HRP, "--participation", "3"), "in (0, 1]"),
        ((*HRP, "--latency", "-5"), "latency"),
        ((*HRP, "--latency", "1e300"), "latency"),
        (
            (*HRP, "--until", "1990-01-01"),
            "holds 0 bars, and a replay needs 2: give",
        ),
        (
            (
                "paper",
                "--baseline",
                "equal_weight",
                "--market",
                MARKET,
                "--exchange",
                "binance",
                "--capital",
                "1000",
                "--session",
                "s",
            ),
            "is a pair such as BTC/USDT",
        ),
    ],
)
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = command(monkeypatch, capsys, *arguments)
    assert (status, err.count("\n")) == (1, 1)
    assert message in err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_say_what_they_take(monkeypatch, capsys, name):
    """Options of a command and those of a market may not share a name, or none can be read."""
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, capsys, name, "--help")
    assert ended.value.code == 0
