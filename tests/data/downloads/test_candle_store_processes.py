"""Downloads that share a store, are killed, or find no room: nothing that was stored is lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.exchange_dialects import ms
from helpers.exchange_server import ExchangeServer, formula

from portfolio_env.data.downloads.store import Series, add_candles, open_series, series_path, stored

TESTS = Path(__file__).parents[2]
HOUR = 3_600_000
SINCE, UNTIL = "2019-06-01", "2020-01-01"

FETCH = """
import sys
from helpers.exchange_server import connect
from portfolio_env.data.downloads.exchange import fetch
base, store, since, until, flush = sys.argv[1:]
exchange = connect("binance", base)
print("ready", flush=True)
(report,) = fetch(exchange, "BTC/USDT", "1h", since, until, store, flush_seconds=float(flush))
exchange.session.close()
sys.exit(f"error: {report.error}" if report.error else 0)
"""


def start(base, store, since=SINCE, until=UNTIL, flush=0.0, **options):
    """A process that downloads hourly candles, once it is ready to."""
    places = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, base, str(store), since, until, str(flush)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)}, **options,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def check_against_formula(series, since, until):
    """Every candle of a range is there, and is the exchange's."""
    expected = np.arange(ms(since), ms(until), HOUR)
    np.testing.assert_array_equal(series.times, expected)
    truth = [formula("BTC/USDT", "1h", int(opens)) for opens in expected]
    np.testing.assert_array_equal(series.bars, np.array(truth))


def killed_fetches(folder: Path, kills: int, seed: int) -> dict[str, int]:
    """Kill downloads at random moments, each of more than the one before; what was damaged or lost.

    After every kill the file must be readable and hold no fewer candles than before, all of them
    the exchange's; the last run must end, and leave the whole range and no temporary file.

    Args:
        folder: an empty one.
        kills: how many.
        seed: of the moments.

    Returns:
        How many "kills" met a running process, after how many of these something new was "stored",
        and the "candles" at the end.
    """
    rng = random.Random(seed)
    landed, sizes = 0, [0]
    days = np.datetime64(SINCE) + np.arange(60, 60 * (kills + 2), 60)
    with ExchangeServer() as server:
        server.delay = 0.02
        began = time.monotonic()
        with start(server.base, folder / "unharmed", until=str(days[0])) as process:
            ready = time.monotonic() - began
            process.communicate()
        usual = time.monotonic() - began - ready
        for day in days[:-1]:
            with start(server.base, folder / "killed", until=str(day)) as process:
                time.sleep(rng.uniform(0, usual))
                landed += process.poll() is None
                process.send_signal(signal.SIGKILL)
            series = open_series(folder / "killed", "binance", "BTC/USDT", "1h")
            assert len(series.times) >= sizes[-1]
            truth = [formula("BTC/USDT", "1h", int(opens)) for opens in series.times]
            np.testing.assert_array_equal(series.bars, np.array(truth).reshape(-1, 5))
            sizes.append(len(series.times))
        with start(server.base, folder / "killed", until=str(days[-1])) as process:
            told = process.communicate()[1]
        assert process.returncode == 0, told
    series = open_series(folder / "killed", "binance", "BTC/USDT", "1h")
    check_against_formula(series, SINCE, str(days[-1]))
    (path,) = stored(folder / "killed")
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".lock"}
    new = int((np.diff(sizes) > 0).sum())
    return {"kills": landed, "stored": new, "candles": len(series.times)}


@pytest.mark.slow
def test_downloads_that_are_killed_at_random_moments_lose_nothing(tmp_path):
    assert killed_fetches(tmp_path, kills=5, seed=0)["kills"] >= 1


@pytest.mark.slow
def test_downloads_of_one_symbol_at_the_same_time_keep_everything(tmp_path, server):
    """Two of the same range and one of an earlier one, writing after every page."""
    server.delay = 0.01
    ranges = [(SINCE, UNTIL), (SINCE, UNTIL), ("2019-01-01", SINCE)]
    processes = [start(server.base, tmp_path, *dates) for dates in ranges]
    for process in processes:
        told = process.communicate()[1]
        assert process.returncode == 0, told
    series = open_series(tmp_path, "binance", "BTC/USDT", "1h")
    check_against_formula(series, "2019-01-01", UNTIL)
    assert series.covered == ((ms("2019-01-01"), ms(UNTIL)),)


def test_candles_are_added_to_what_is_stored_by_now(tmp_path):
    """Not to what was stored when the download began."""
    mine = theirs = Series.empty("binance", "BTC/USDT", "1h")
    add_candles(tmp_path, theirs, [0, HOUR], np.ones((2, 5)), [(0, 2 * HOUR)])
    series, merged = add_candles(
        tmp_path, mine, [2 * HOUR], np.ones((1, 5)), [(2 * HOUR, 3 * HOUR)]
    )
    assert merged.new == 1
    assert series.times.tolist() == [0, HOUR, 2 * HOUR]
    assert series.covered == ((0, 3 * HOUR),)


@pytest.mark.slow
def test_a_full_disk_is_told_and_what_is_stored_stays(tmp_path, server):
    """A limit on the size of files stands for the disk."""
    resource = pytest.importorskip("resource")
    with start(server.base, tmp_path, "2019-12-30") as process:
        process.communicate()
    path = series_path(tmp_path, "binance", "BTC/USDT", "1h")
    before = path.read_bytes()

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    with start(server.base, tmp_path, preexec_fn=limit) as process:
        told = process.communicate()[1]
    assert process.returncode == 1
    assert told.startswith(f"error: {path} cannot be written (File too large)"), told
    assert len(told.splitlines()) == 1
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {path.name, ".lock"}


CONVERT = """
import sys
from portfolio_env.data.__main__ import main
for name in sys.argv[1:]:
    assert main(["convert", "synthetic?bars=2000", name]) == 1
"""


@pytest.mark.slow
def test_a_full_disk_leaves_every_kind_of_converted_file_as_it_was(tmp_path):
    resource = pytest.importorskip("resource")
    paths = [tmp_path / name for name in ("a.npz", "a.csv", "a.csv.gz", "a.parquet")]
    for path in paths:
        path.write_text("old")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *map(str, paths)], capture_output=True, text=True,
        preexec_fn=limit, check=True, env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )  # fmt: skip
    for path, line in zip(paths, done.stderr.splitlines(), strict=True):
        assert line.startswith(f"error: {path} cannot be written (File too large)")
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert {path.read_text() for path in paths} == {"old"}


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(tmp_path, server, link, capsys,
                                                                monkeypatch, waits):  # fmt: skip
    from portfolio_env.data.__main__ import main
    from portfolio_env.data.downloads import exchange

    monkeypatch.setattr(exchange, "public_exchange", lambda name, symbols: link(name))
    arguments = ["fetch", "--exchange", "binance", "--symbols", "BTC/USDT", "--bars", "3"]
    (tmp_path / "file").write_text("")
    assert main([*arguments, "--store", str(tmp_path / "file")]) == 1
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert "Not a directory" in line or "File exists" in line
    folder = tmp_path / "store"
    assert main([*arguments, "--store", str(folder)]) == 0
    (path,) = stored(folder)
    before = path.read_bytes()
    if os.geteuid() == 0:
        pytest.skip("a read-only folder keeps root from nothing")
    path.parent.chmod(0o500)
    arguments[-1] = "9"
    assert main([*arguments, "--store", str(folder)]) == 1
    assert "Permission denied" in capsys.readouterr().err
    path.parent.chmod(0o700)
    assert path.read_bytes() == before
