"""The candle store: what is written is read, whatever happens while writing; else an error."""

import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.data.downloads.store import (
    Merged,
    Series,
    merge,
    milliseconds,
    moment,
    open_series,
    read_series,
    series_path,
    stored,
    uncovered,
    union,
    write_series,
)
from portfolio_env.errors import ArgumentError, DataError

HOUR = milliseconds("1h")


def series_of(times, symbol="BTC/USDT", covered=()):
    times = np.asarray(times, np.int64) * HOUR
    bars = times[:, None] / HOUR + np.arange(1, 6)
    return Series("binance", symbol, "1h", times, bars, tuple(covered))


def same(a, b):
    return (
        (a.exchange, a.symbol, a.timeframe, a.covered)
        == (b.exchange, b.symbol, b.timeframe, b.covered)
        and np.array_equal(a.times, b.times)
        and np.array_equal(a.bars, b.bars)
    )


SYMBOLS = st.text(st.sampled_from("ABab12/:-_.% $é\\"), min_size=1, max_size=12)


@given(symbols=st.lists(SYMBOLS, min_size=2, max_size=2, unique=True))
def test_different_symbols_have_different_files_in_one_folder(symbols):
    paths = [series_path("store", "binance", symbol, "1h") for symbol in symbols]
    assert paths[0] != paths[1]
    for path in paths:
        assert path.parts[:3] == ("store", "binance", "1h") and len(path.parts) == 4
        assert not path.name.startswith(".")
    assert series_path("s", "kraken", "BTC/USD", "1d").name == "BTC-USD.parquet"


@pytest.mark.parametrize("symbol", ["BTC/USDT", "BTC/USDT:USDT", "BTC/USD:BTC-240329", ".KXBT"])
def test_what_is_written_is_read(tmp_path, symbol):
    series = series_of([3, 4, 9], symbol, [(0, 10 * HOUR)])
    path = write_series(tmp_path, series)
    assert same(read_series(path), series)
    assert same(open_series(tmp_path, "binance", symbol, "1h"), series)
    assert stored(tmp_path) == [path]
    frame = pd.read_parquet(path)  # as anyone would read it
    pd.testing.assert_frame_equal(frame, series.frame)
    assert list(frame.columns) == ["date", "open", "high", "low", "close", "volume"]
    assert str(frame["date"].dtype) == "datetime64[ms, UTC]"
    metadata = pq.read_schema(path).metadata
    assert metadata[b"symbol"].decode() == symbol
    assert (metadata[b"exchange"], metadata[b"timeframe"]) == (b"binance", b"1h")


def test_an_absent_series_is_empty(tmp_path):
    series = open_series(tmp_path, "binance", "BTC/USDT", "1h")
    assert len(series.times) == 0 and series.covered == () and len(series.frame) == 0
    assert stored(tmp_path) == [] and stored(tmp_path / "nothing") == []
    assert same(read_series(write_series(tmp_path, series)), series)


def test_dying_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    old, new = series_of([1, 2]), series_of([1, 2, 3])
    path = write_series(tmp_path, old)
    write = pq.write_table

    def half(table, where, **options):
        write(table, where, **options)
        with open(where, "r+b") as file:
            file.truncate(100)
        raise KeyboardInterrupt

    def whole(table, where, **options):
        write(table, where, **options)
        raise KeyboardInterrupt  # between writing and renaming

    for dying in (half, whole):
        monkeypatch.setattr(pq, "write_table", dying)
        with pytest.raises(KeyboardInterrupt):
            write_series(tmp_path, new)
        assert same(read_series(path), old)
        assert list(path.parent.iterdir()) == [path]
    monkeypatch.undo()
    left_by_a_kill = path.with_name(".BTC-USDT.4711.parquet")
    left_by_a_kill.write_bytes(b"PAR1")
    assert stored(tmp_path) == [path]
    write_series(tmp_path, new)
    assert same(read_series(path), new)


WRITING = """
import sys
import numpy as np
from portfolio_env.data.downloads.store import Series, write_series
while True:
    for n_rows in (300_000, 200_000):
        bars = np.full((n_rows, 5), float(n_rows))
        times = np.arange(n_rows) * 60_000
        write_series(sys.argv[1], Series("binance", "BTC/USDT", "1m", times, bars, ((0, n_rows),)))
        print("written", flush=True)
"""


def test_a_kill_while_writing_leaves_a_whole_file(tmp_path):
    command = [sys.executable, "-c", WRITING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for wait in (0.0, 0.004, 0.013):
            assert process.stdout.readline() == "written\n"
            time.sleep(wait)
        process.kill()
    series = open_series(tmp_path, "binance", "BTC/USDT", "1m")
    n_rows = len(series.times)
    assert n_rows in (200_000, 300_000)
    assert series.covered == ((0, n_rows),) and (series.bars == n_rows).all()


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_damaged_files_are_refused(tmp_path, size):
    path = write_series(tmp_path, series_of(range(100)))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"not a readable Parquet file .*; delete the file and"):
        read_series(path)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    series_of([1, 2]).frame.to_parquet(path)
    match = "not a file of downloaded candles; move it out of the store"
    with pytest.raises(DataError, match=match):
        read_series(path)
    pd.DataFrame({"x": [1.0]}).to_parquet(path)
    with pytest.raises(DataError, match="not a file of downloaded candles"):
        read_series(path)
    other = write_series(tmp_path, series_of([1, 2], "ETH/USDT"))
    other.rename(series_path(tmp_path, "binance", "BTC/USDT", "1h"))
    with pytest.raises(DataError, match="holds binance ETH/USDT 1h; move it where it belongs"):
        open_series(tmp_path, "binance", "BTC/USDT", "1h")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covered": b"[[1, 2"}, "holds an invalid candle"),
        ({"covered": b"[1, 2]"}, "holds an invalid candle"),
        ({"covered": b"[[0, 1e400]]"}, "holds an invalid candle"),
        ({"covered": b"[[0, " + b"9" * 40 + b"]]"}, "times that no calendar has"),
        ({"covered": None}, "not a file of downloaded candles"),
        ({"symbol": None}, "not a file of downloaded candles"),
    ],
)
def test_damaged_metadata_are_refused(tmp_path, change, message):
    path = write_series(tmp_path, series_of([1, 2]))
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    del metadata[b"sha256"]  # as before there was one
    for key, value in change.items():
        metadata[key.encode()] = value
    kept = {key: value for key, value in metadata.items() if value is not None}
    pq.write_table(table.replace_schema_metadata(kept), path)
    with pytest.raises(DataError, match=message):
        read_series(path)


def test_disorder_and_missing_numbers_are_refused(tmp_path):
    series = series_of([1, 2, 3])
    for times, bars in (
        (series.times[::-1], series.bars),
        (np.zeros_like(series.times), series.bars),
        (series.times, series.bars * [1, 1, np.nan, 1, 1]),
    ):
        path = write_series(tmp_path, replace(series, times=times, bars=bars))
        with pytest.raises(DataError, match="out of order or incomplete"):
            read_series(path)


PAGES = st.lists(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=12), max_size=8)


@given(pages=PAGES)
def test_pages_in_any_split_order_and_repetition_give_the_truth(pages):
    """Against a dictionary that the later candle overwrites."""
    series, expected = series_of([]), {}
    for page in pages:
        counts = Counter()
        for t, wrong in page:
            known = expected.get(t)
            counts["new" if known is None else "same" if known == t + wrong else "other"] += 1
            expected[t] = t + wrong
        times = np.array([t for t, _ in page], np.int64) * HOUR
        bars = np.array([[t + wrong] * 5 for t, wrong in page], float)
        series, merged = merge(series, times, bars)
        assert merged == Merged(counts["new"], counts["same"], counts["other"])
    np.testing.assert_array_equal(series.times, np.array(sorted(expected), np.int64) * HOUR)
    assert series.bars[:, 3].tolist() == [expected[t] for t in sorted(expected)]


RANGES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6)


@given(ranges=RANGES, start=st.integers(0, 40), length=st.integers(0, 20))
def test_ranges_are_sets_of_moments(ranges, start, length):
    covered = {t for low, high in ranges for t in range(low, high)}
    joined = union(ranges)
    assert {t for low, high in joined for t in range(low, high)} == covered
    assert all(low < high for low, high in joined)
    assert all(a[1] < b[0] for a, b in pairwise(joined))
    parts = uncovered(joined, start, start + length)
    assert [t for low, high in parts for t in range(low, high)] == sorted(
        set(range(start, start + length)) - covered
    )
    assert all(low < high for low, high in parts)


def test_gaps_are_what_the_exchange_lacks_and_holes_what_was_not_downloaded():
    series = series_of([0, 1, 4, 5, 9, 10, 12], covered=[(0, 6 * HOUR), (9 * HOUR, 13 * HOUR)])
    assert series.gaps == [
        (np.datetime64("1970-01-01T02:00"), 2),
        (np.datetime64("1970-01-01T11:00"), 1),
    ]
    assert series.holes == [(np.datetime64("1970-01-01T06:00"), np.datetime64("1970-01-01T09:00"))]


def test_moments_print_as_short_as_they_can():
    texts = ["1970-01-01", "1970-01-01T00:01", "1970-01-01T00:00:01.000", "2024-02-29"]
    for text in texts:
        assert str(moment(np.datetime64(text, "ms").astype(np.int64))) == text
    with pytest.raises(ArgumentError, match="unknown timeframe '1y'"):
        milliseconds("1y")
