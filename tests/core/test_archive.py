import io
import pickle
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pytest
from helpers.panels import panel_of
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import DataError, Market, load_market
from portfolio_env.files.archive import read_arrays, write_arrays
from portfolio_env.market.growing import GrowableArray


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
    market = load_market(panel_of("D", 60))
    market.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as stored:
        np.savez_compressed(tmp_path / "packed.npz", **stored)
    assert Market.load(tmp_path / "packed.npz").hash == market.hash


def test_saved_markets_are_mapped_shared_and_outlive_their_file(tmp_path):
    path = tmp_path / "m.npz"
    market = load_market(panel_of("D", 60))
    market.save(path)
    loaded = Market.load(path)
    assert isinstance(loaded.features.base, np.memmap)
    assert loaded.hash == pickle.loads(pickle.dumps(loaded)).hash == market.hash
    load_market(panel_of("D", 90)).save(path)
    assert loaded.hash == market.hash
    assert Market.load(path).n_bars == 90
    path.unlink()
    assert loaded.past(30).hash == market.past(30).hash


def test_equal_markets_make_equal_files(tmp_path):
    for name in ("a.npz", "b.npz"):
        load_market(panel_of("D", 60)).save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path, keep):
    path = tmp_path / "m.npz"
    load_market(panel_of("D", 60)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(DataError, match="is not a saved market"):
        load_market(path)


@given(st.lists(st.integers(1, 30), max_size=12))
def test_appended_rows_leave_earlier_views_alone(steps):
    rows = np.arange(1000.0).reshape(500, 2)
    room = GrowableArray(rows[:3])
    views = [room.filled()]
    for step in steps:
        used = len(views[-1])
        if not room.fits(used, step):
            room = GrowableArray(views[-1])
        if room.fits(used, step):
            assert not room.fits(used - 1, step)
            views.append(room.append(rows[used : used + step]))
    for view in views:
        np.testing.assert_array_equal(view, rows[: len(view)])
        assert not view.flags.writeable


def with_member(path, source, name, content):
    """A copy of a saved market in which one array file has other bytes."""
    with ZipFile(source) as old, ZipFile(path, "w") as new:
        for member in old.infolist():
            new.writestr(
                ZipInfo(member.filename),
                content if member.filename == f"{name}.npy" else old.read(member),
            )
    return path


def npy(array=None, *, header=None, body=b""):
    """The bytes of an array file; its header may be a lie."""
    file = io.BytesIO()
    if header is None:
        np.lib.format.write_array(file, array, allow_pickle=True)
    else:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(body)
    return file.getvalue()


def layout(descr, shape):
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize("name", ["features", "close"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(header=layout("|O", (60, 3, 6)), body=bytes(8 * 60 * 18)), "object is not a type"),
        (npy(header=layout([("a", "|O")], (60,)), body=bytes(480)), "is not a type"),
        (npy(header=layout([("a", "<f8")], (60,)), body=bytes(480)), "is not a type"),
        (npy(np.array([print], object)), "object is not a type"),
        (npy(header=layout("<f4", (60, 3, 6)), body=bytes(100)), "takes not 100 bytes"),
        (npy(header=layout("<f4", (1 << 40, 1 << 40)), body=bytes(64)), "takes not 64 bytes"),
        (npy(header=layout("<f4", (-1, -16)), body=bytes(64)), "takes not 64 bytes"),
        (npy(header=layout("<f4", (16,)), body=bytes(65)), "takes not 65 bytes"),
        (npy(header=layout("<f4", (0, 3, 6))), "shape"),
        (npy(header=layout("<U8", (60, 3, 6)), body=bytes(32 * 60 * 18)), "."),
        (b"\x93NUMPY\x01\x00\xff\xff{", "damaged"),
        (b"\x93NUMPY\x07\x00\x10\x00", "version"),
        (b"", "damaged"),
    ],
)
def test_arrays_that_are_not_what_they_say_are_refused(tmp_path, name, content, reason):
    """A dtype of objects, mapped, is a pointer of the writer's choice: it crashed the process."""
    source = tmp_path / "m.npz"
    load_market(panel_of("D", 60)).save(source)
    forged = with_member(tmp_path / "forged.npz", source, name, content)
    with pytest.raises(DataError, match=rf"forged\.npz.*{reason}"):
        Market.load(forged)


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "m.npz"
    load_market(panel_of("D", 60)).save(path)
    with pytest.warns(UserWarning, match="Duplicate"), ZipFile(path, "a") as archive:
        archive.writestr("close.npy", npy(np.ones((60, 3))))
    with pytest.raises(DataError, match="twice"):
        Market.load(path)


def test_a_file_that_unpacks_to_much_more_than_it_is_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with ZipFile(path, "w", ZIP_DEFLATED) as archive, archive.open("features.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, layout("<f4", (30_000_000,)))
        for _ in range(120):
            member.write(bytes(1_000_000))
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match="100 times as large as the file"):
        Market.load(path)


def test_mapped_features_are_verified_by_choice(tmp_path):
    path = tmp_path / "m.npz"
    market = load_market(panel_of("D", 60))
    market.save(path)
    content = bytearray(path.read_bytes())
    at = content.index(market.features[40].tobytes())
    content[at] ^= 1  # the last bit of a number
    path.write_bytes(content)
    assert Market.load(path, verify=False).hash != market.hash
    with pytest.raises(DataError, match=r"m\.npz.*checksum of 'features\.npy'"):
        Market.load(path)


def test_files_that_numpy_wrote_are_read(tmp_path):
    market = load_market(panel_of("D", 60))
    market.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as stored:
        np.savez(tmp_path / "plain.npz", **stored)
    loaded = Market.load(tmp_path / "plain.npz")
    assert loaded.hash == market.hash
