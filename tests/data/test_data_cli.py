"""`python -m portfolio_env.data`: what is printed, what is written, and the exit status."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.exchange_dialects import ms

from portfolio_env import Market, load_market
from portfolio_env.data.__main__ import main
from portfolio_env.data.bars import read_frame
from portfolio_env.data.downloads import exchange
from portfolio_env.data.downloads.store import series_path

SYMBOLS = "BTC/USDT,ETH/USDT"
pytestmark = pytest.mark.usefixtures("redirected")


def fetch(store, *options, symbols=SYMBOLS, since="2023-12-01"):
    arguments = ["fetch", "--exchange", "binance", "--symbols", symbols, "--since", since]
    return main([*arguments, "--store", str(store), *options])


def test_fetch_update_and_list(server, tmp_path, capsys):
    server.outages["ETH/USDT"] = [(ms("2023-12-10"), ms("2023-12-13"))]
    assert fetch(tmp_path) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert table[1].split()[:7] == [
        "binance", "BTC/USDT", "1d", "31", "31", "2023-12-01", "2023-12-31",
    ]  # fmt: skip
    server.now = ms("2024-01-03T00:00:10")
    assert main(["update", "--store", str(tmp_path), "--symbols", "ETH/USDT"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[:5] == ["binance", "ETH/USDT", "1d", "2", "30"]
    assert main(["list", "--store", str(tmp_path)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == [
        "binance", "BTC/USDT", "1d", "31", "2023-12-01", "2023-12-31", "0", "0",
    ]  # fmt: skip
    assert table[2].split()[-2:] == ["1", "3"]


def test_one_bad_symbol_fails_the_command_and_not_the_others(server, tmp_path, capsys):
    assert fetch(tmp_path, symbols="BTCUSDT,ETH/USDT") == 1
    printed = capsys.readouterr()
    assert "error: BTCUSDT 1d: unknown symbol of binance 'BTCUSDT': did you mean BTC/USDT" in (
        printed.err
    )
    assert "ETH/USDT" in printed.out
    assert series_path(tmp_path, "binance", "ETH/USDT", "1d").exists()


def test_an_unreachable_exchange_is_an_error_without_traceback(server, tmp_path, capsys):
    server.trouble = dict.fromkeys(range(20), 503)
    assert fetch(tmp_path) == 1
    assert capsys.readouterr().err.startswith("error: binance gave no good answer to 6 requests")


def test_damaged_files_are_listed_as_errors(server, tmp_path, capsys):
    assert fetch(tmp_path) == 0
    path = series_path(tmp_path, "binance", "ETH/USDT", "1d")
    path.write_bytes(path.read_bytes()[:200])
    capsys.readouterr()
    assert main(["list", "--store", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 2
    assert printed.err.startswith(f"error: {path} is not a readable Parquet file")


def test_an_interrupted_download_says_how_to_go_on(server, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(exchange, "download", interrupt)
    assert fetch(tmp_path) == 130
    assert capsys.readouterr().err == "stopped; the same command continues\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "--exchange", "binanse", "--symbols", "A/B", "--since", "2020-01-01"],
         "unknown exchange 'binanse': did you mean binance"),
        (["fetch", "--exchange", "yahoo", "--symbols", "SPY", "--bars", "5"], "give --since"),
        (["update"], "no such series are stored in data: fetch them first"),
        (["convert", "sp500", "a.xls"], "a.xls has no known suffix: end it with .npz"),
        (["convert", "sp500", "a.csv", "--fit-end", "2020-01-01"], "holds bars only, not --fit"),
        (["convert", "nothing.csv", "a.npz"], "there is no such file or folder"),
        (["report", "nothing.csv"], "there is no such file or folder"),
    ],
)  # fmt: skip
def test_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and message in printed.err
    assert len(printed.err.splitlines()) == 1 and printed.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["fetch"], ["fetch", "--exchange"], ["sell"]])
def test_wrong_usage_has_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    capsys.readouterr()


def test_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "portfolio_env.data", "list", "--store", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"nothing is stored in {tmp_path}\n")


@pytest.mark.parametrize("action", ["list", "update"])
def test_a_file_in_place_of_a_store_is_told(tmp_path, capsys, action):
    (tmp_path / "file").write_text("")
    assert main([action, "--store", str(tmp_path / "file")]) == 1
    assert (
        capsys.readouterr().err == f"error: store is {tmp_path / 'file'}, a file; give a folder\n"
    )


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.csv.gz"])
def test_converts_to_bars_that_load_the_same(server, tmp_path, capsys, name):
    server.listed["ETH/USDT"] = ms("2023-12-04")
    assert fetch(tmp_path / "data") == 0
    source, out = tmp_path / "data" / "binance" / "1d", tmp_path / name
    assert main(["convert", str(source), str(out)]) == 0
    pd.testing.assert_frame_equal(
        read_frame(out).sort_values(["symbol", "date"], ignore_index=True),
        read_frame(source).sort_values(["symbol", "date"], ignore_index=True),
        check_exact=True,
    )
    a, b = load_market(source), load_market(out)
    np.testing.assert_array_equal(a.panel.close, b.panel.close)
    assert capsys.readouterr().out.splitlines()[-1] == str(out)


def test_converts_to_a_market(server, tmp_path):
    assert fetch(tmp_path / "data", "--timeframe", "1h", "--no-progress") == 0
    source, out = tmp_path / "data" / "binance" / "1h", tmp_path / "m.npz"
    labels = tmp_path / "labels.csv"
    labels.write_text("symbol,sector\nBTC/USDT,money\nETH/USDT,platform\n")
    options = ["--timeframe", "4h", "--assets", "ETH/USDT,BTC/USDT", "--start", "2023-12-03"]
    options += ["--metadata", str(labels), "--fit-end", "2023-12-20", "--repair.fill-gaps", "2"]
    assert main(["convert", str(source), str(out), *options]) == 0
    market = Market.load(out)
    expected = load_market(
        source,
        timeframe="4h",
        assets=["ETH/USDT", "BTC/USDT"],
        start="2023-12-03",
        metadata=labels,
        fit_end="2023-12-20",
        repair={"fill_gaps": 2},
    )
    assert market.hash == expected.hash
    assert market.assets == ("ETH/USDT", "BTC/USDT")
    assert market.panel.categories["sector"] == ("platform", "money")
    assert market.periods_per_year == 6 * 365


def test_report_writes_the_page(monkeypatch, tmp_path, capsys):
    from portfolio_env.data.reports import exploration

    monkeypatch.setattr(
        exploration, "write_report", lambda source, out, **_: out / f"{source}.html"
    )
    assert main(["report", "sp500", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'sp500.html'}\n"
