"""Written beside and renamed, checked when read: a file is the old one or the whole new one."""

import json
import math
import multiprocessing
import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.settings.files import read_settings
from agents.tensors import load_tensors
from portfolio_env import load_market
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import locked, parse_json, read_json, replacing, write_json
from portfolio_env.files.parquet import read_parquet
from portfolio_env.live.risk_limits import read_limits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


def test_replaces_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with replacing(path) as beside:
            assert beside.parent == path.parent
            assert beside.suffix == path.suffix
            beside.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_a_pipe_is_refused_not_waited_for(tmp_path, ending):
    pipe = tmp_path / f"prices{ending}"
    os.mkfifo(pipe)
    tensors = partial(load_tensors, kind=None)
    for read in (load_market, read_json, tensors, read_limits, read_parquet, read_settings):
        with pytest.raises(DataError, match=r"not a regular file|is not a file of settings"):
            read(pipe)


def test_a_broken_link_in_a_folder_is_not_left_out(tmp_path):
    (tmp_path / "A.csv").write_text("date,close\n2020-01-01,1\n2020-01-02,2\n")
    (tmp_path / "B.csv").symlink_to("nowhere.csv")
    with pytest.raises(DataError, match=r"B\.csv: cannot be read"):
        load_market(tmp_path)


def test_a_table_that_pandas_cannot_hold_is_an_error(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    symbols = pyarrow.array([["A"], ["B"]])
    frame = pd.DataFrame({"date": ["2020-01-01"] * 2, "symbol": ["A", "B"], "close": [1.0, 2.0]})
    table = pyarrow.Table.from_pandas(frame).set_column(1, "symbol", symbols)
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="is not a Parquet table"):
        load_market(tmp_path / "a.parquet")


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as beside:
        beside.write_text("new")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _die_while_writing(path):
    with replacing(path) as beside:
        beside.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    for killed in (path, other):
        process = multiprocessing.get_context("spawn").Process(
            target=_die_while_writing, args=(killed,)
        )
        process.start()
        process.join()
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(path) as beside:
        beside.write_text("whole")
    (left,) = set(tmp_path.iterdir()) - {path}  # that of the other file
    with replacing(other) as beside:
        assert not left.exists()
        beside.write_text("whole")


def test_a_writer_leaves_another_that_is_still_writing_alone(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_what_another_machine_left_goes_after_a_day(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as beside:
        beside.write_text("whole")
        family = beside.name.rsplit("-", 3)[0]
    recent, old = (tmp_path / f"{family}-00000000-{pid}-0.txt" for pid in (1, 2))
    for stray in (recent, old):
        stray.write_text("half")
    os.utime(old, (time.time() - 90_000,) * 2)
    with replacing(path) as beside:
        beside.write_text("again")
    assert recent.exists() and not old.exists()


def test_a_file_that_the_system_refuses_is_named_and_the_old_one_kept(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    full = pytest.raises(DataError, match=r"a\.json cannot be written \(No space left")
    with full, replacing(path) as beside:
        beside.write_text("half")
        raise OSError(28, "No space left on device")
    assert read_json(path) == {"a": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written \(File exists\)"):
        write_json(tmp_path / "file" / "b.json", {})


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # as /dev/null, which root could replace
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DataError, match="and no file"):
            write_json(tmp_path / name, {})
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 2


@given(value=st.dictionaries(st.text().filter(lambda key: key != "sha256"), JSON, max_size=5))
def test_what_is_written_is_read(value, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.json"
    write_json(path, value)
    assert repr(read_json(path)) == repr(value)  # -0.0 and 1 against 1.0 told apart too
    path.write_text(json.dumps(json.loads(path.read_text())))  # however it is laid out
    assert repr(read_json(path)) == repr(value)


def test_an_edit_by_hand_is_told_until_its_checksum_is_removed(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"steps": 10, "rate": 0.5})
    path.write_text(path.read_text().replace("10", "20"))
    with pytest.raises(DataError, match=r'a\.json is damaged or edited by hand.*"sha256"'):
        read_json(path)
    edited = json.loads(path.read_text())
    del edited["sha256"]
    path.write_text(json.dumps(edited))
    assert read_json(path) == {"steps": 20, "rate": 0.5}


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    for call in (read_json, read_limits):
        with pytest.raises(DataError, match="a file is where its folder should be"):
            call(file / "b.json")
    with pytest.raises(DataError, match="should be: give another"), locked(file / "lock"):
        pass


def test_a_checksum_whose_name_is_damaged_is_no_entry(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    path.write_text(path.read_text().replace("sha256", "sha257"))
    with pytest.raises(DataError, match="damaged"):
        read_json(path)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_cannot_say_is_refused_before_anything_is_written(tmp_path, number):
    with pytest.raises(ArgumentError, match=r"a\.json cannot hold"):
        write_json(tmp_path / "a.json", {"deep": [{"x": number}]})
    with pytest.raises(ArgumentError, match="checksum's name"):
        write_json(tmp_path / "a.json", {"sha256": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b'{"a": NaN}', "the number NaN"),
        (b'{"a": [-Infinity]}', "the number -Infinity"),
        (b'{"a": 1e999}', "the number 1e999"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "names 'c' twice"),
        (b'{"a": ' + b"[" * 100_000, "nests too deeply"),
        (b'{"a": "\xff"}', "utf-8"),
        ("{}".encode("utf-16"), "utf-8"),
        (b'{"a": "\x00"}', "Invalid control character"),
    ],
)
def test_a_file_that_is_no_such_json_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json is damaged or.* \(.*{reason}.*restore") as told:
        read_json(path)
    assert len(str(told.value)) < 500


def test_json_that_is_no_object_is_not_called_damaged(tmp_path):
    path = tmp_path / "a.json"
    for content in ("[1]", "3", "null", '"text"'):
        path.write_text(content)
        with pytest.raises(DataError, match=r"a\.json holds .* it must hold an object") as told:
            read_json(path)
        assert "damaged" not in str(told.value)


def test_what_cannot_be_opened_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path)


def test_a_bare_list_of_an_earlier_version_is_read_as_an_entry(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    assert read_json(path, bare="items") == {"items": [1, 2]}
    assert parse_json("[1, 2]") == [1, 2]


def _count(path: Path) -> None:
    for _ in range(50):
        with locked(path.with_name("lock")):
            write_json(path, {"n": read_json(path)["n"] + 1})


def test_processes_that_lock_a_file_lose_no_change(tmp_path):
    path = tmp_path / "n.json"
    write_json(path, {"n": 0})
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert read_json(path) == {"n": 150}


def test_a_second_process_may_be_told_instead(tmp_path):
    told = pytest.raises(DataError, match="in use")
    with locked(tmp_path / "lock"), told, locked(tmp_path / "lock", busy="in use"):
        raise AssertionError
    with locked(tmp_path / "lock", busy="in use"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_files_are_as_readable_as_any_other_also_where_a_writer_makes_private_ones(tmp_path):
    with replacing(tmp_path / "model.safetensors") as beside:
        private = tmp_path / "private"
        private.touch(0o600)
        private.replace(beside)  # as safetensors writes
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


MILLION = 1_000_000


@pytest.mark.parametrize(
    "column",
    [
        np.ones(10 * MILLION),
        np.zeros(10 * MILLION, bool),
        pa.DictionaryArray.from_arrays(np.zeros(MILLION, np.int32), ["x" * 50_000]),
        pa.array([["x" * 1_000]] * (MILLION // 10)),
        pa.array([b"x" * 1_000] * (MILLION // 10), pa.binary(1_000)),
    ],
    ids=["numbers", "bits", "texts", "lists", "bytes"],
)
def test_a_small_parquet_file_of_many_values_is_refused_undecoded(tmp_path, monkeypatch, column):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"close": column}), path, compression="zstd")
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(pq, "read_table", None)
    with pytest.raises(DataError, match=r"bomb\.parquet unpacks to more than 100 times its size"):
        read_parquet(path)


def test_a_parquet_file_of_many_equal_short_texts_is_read(tmp_path):
    """All of a column's different texts together are long, and none of them is."""
    path, names = tmp_path / "long.parquet", [f"S{each:04}" for each in range(5_000)]
    table = pa.table(
        {"symbol": pa.array(names * 200), "odd": pa.array(["", None] * (MILLION // 2))}
    )
    pq.write_table(table, path)
    assert read_parquet(path).equals(table)
