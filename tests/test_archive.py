import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panels import panel_of

from portfolio_env import DataError, Market, load_market
from portfolio_env.archive import read_arrays, write_arrays
from portfolio_env.growing import Room


@given(
    rows=st.integers(0, 50),
    names=st.lists(st.text("abcdé xyz", min_size=1, max_size=40), unique=True, max_size=4),
)
def test_files_are_aligned_and_readable_by_numpy(tmp_path_factory, rows, names):
    path = tmp_path_factory.mktemp("archive") / "a.npz"
    rng = np.random.default_rng(rows)
    arrays = {name: rng.random((rows, k + 1)) for k, name in enumerate(names)}
    arrays["big"] = rng.random((rows, 3, 5)).astype(np.float32)
    write_arrays(path, arrays)
    read = read_arrays(path, mapped="big")
    with np.load(path) as stored:
        assert sorted(stored.files) == sorted(arrays) == sorted(read)
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
            np.testing.assert_array_equal(read[name], array)
    if rows:
        assert read["big"].ctypes.data % 64 == 0
        assert isinstance(read["big"], np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            read["big"][0] = 0


def test_compressed_files_are_read_all_the_same(tmp_path):
    market = Market.from_panel(panel_of("D", 60))
    market.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as stored:
        np.savez_compressed(tmp_path / "packed.npz", **stored)
    assert Market.load(tmp_path / "packed.npz").hash == market.hash


def test_saved_markets_are_mapped_shared_and_outlive_their_file(tmp_path):
    path = tmp_path / "m.npz"
    market = Market.from_panel(panel_of("D", 60))
    market.save(path)
    loaded = Market.load(path)
    assert isinstance(loaded.features.base, np.memmap)
    assert loaded.hash == pickle.loads(pickle.dumps(loaded)).hash == market.hash
    Market.from_panel(panel_of("D", 90)).save(path)
    assert loaded.hash == market.hash
    assert Market.load(path).n_bars == 90
    path.unlink()
    assert loaded.past(30).hash == market.past(30).hash


def test_equal_markets_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        Market.from_panel(panel_of("D", 60)).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "m.npz"
    Market.from_panel(panel_of("D", 60)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(DataError, match="is no saved market"):
        load_market(path)


@given(st.lists(st.integers(1, 30), max_size=12))
def test_appended_rows_leave_earlier_views_alone(steps):
    rows = np.arange(1000.0).reshape(500, 2)
    room = Room(rows[:3])
    views = [room.filled()]
    for step in steps:
        used = len(views[-1])
        if not room.fits(used, step):
            room = Room(views[-1])
        if room.fits(used, step):
            assert not room.fits(used - 1, step)
            views.append(room.append(rows[used : used + step]))
    for view in views:
        np.testing.assert_array_equal(view, rows[: len(view)])
        assert not view.flags.writeable
