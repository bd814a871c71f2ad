"""Trees of tensors in a file: exact, complete or absent, and every damage is an error."""

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import examples
from helpers.payload import Payload
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from agents.tensors import load_tensors, reason_of, save_tensors
from portfolio_env.errors import ArgumentError, DataError

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats() | st.text(max_size=5)
)
ARRAYS = st.builds(
    lambda dtype, shape: np.asarray(np.arange(math.prod(shape)).reshape(shape) % 2, dtype),
    st.sampled_from(["f4", "f8", ">f8", "i8", "u4", "u1", "i1", "?"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
LEAVES = SCALARS | ARRAYS | ARRAYS.map(lambda a: th.tensor(a.astype(a.dtype.newbyteorder("="))))
KEYS = st.text("a/'$", max_size=4) | st.integers() | st.sampled_from(["$tensor", "$items"])
TREES = st.recursive(
    LEAVES,
    lambda of: (
        st.lists(of, max_size=3)
        | st.lists(of, max_size=3).map(tuple)
        | st.dictionaries(KEYS, of, max_size=3)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal in type, keys in order, and every bit."""
    if isinstance(a, np.ndarray | th.Tensor):
        x, y = np.asarray(a), np.asarray(b)
        native = x.dtype.newbyteorder("=") == y.dtype
        return type(a) is type(b) and x.shape == y.shape and native and np.array_equal(x, y)
    if isinstance(a, float):
        return isinstance(b, float) and (a == b or (math.isnan(a) and math.isnan(b)))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors")


@given(TREES)
@examples(200)
def test_a_tree_comes_back_as_it_was(folder: Path, tree: Any) -> None:
    save_tensors(folder / "tree.safetensors", tree, kind="tree")
    assert same(tree, load_tensors(folder / "tree.safetensors", kind="tree"))
    assert [file.name for file in folder.glob("*tree*")] == ["tree.safetensors"]


def test_views_are_stored_by_value_and_shared_tensors_once(tmp_path: Path) -> None:
    whole = th.arange(1000.0)
    tree = {"a": whole, "again": whole.detach(), "part": whole[10:20], "column": whole[::100]}
    save_tensors(tmp_path / "a.safetensors", tree, kind="tree")
    assert same(tree, load_tensors(tmp_path / "a.safetensors", kind="tree"))
    assert (tmp_path / "a.safetensors").stat().st_size < 6000


def test_any_changed_bit_and_any_cut_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tree = {
        "weights": th.arange(7.0),
        "options": {"é": [1.5, None]},
        "rng": np.arange(3, dtype="u4"),
    }
    save_tensors(path, tree, kind="tree")
    content = path.read_bytes()
    damaged = [content[:size] for size in range(len(content))] + [content + b"\0"]
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(changed))
    for wrong in damaged:
        path.write_bytes(wrong)
        with pytest.raises(DataError, match=r"a\.safetensors (is damaged|holds)"):
            load_tensors(path, kind="tree")
    path.write_bytes(content)
    assert same(tree, load_tensors(path, kind="tree"))


def test_files_of_other_kinds_are_refused_and_nothing_in_them_runs(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "a.safetensors"
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    wrong: dict[str, Any] = {
        "pickle": lambda: path.write_bytes(pickle.dumps(Payload(trap))),
        "torch": lambda: th.save(Payload(trap), path),
        "text": lambda: path.write_text("hello"),
        "nothing": lambda: path.write_bytes(b""),
        "foreign": lambda: save_file({"a": th.ones(3)}, path),
        "deep": lambda: save_file({}, path, {"portfolio_env": deep}),
        "number": lambda: path.write_bytes((1).to_bytes(8, "little") + b"1"),
    }
    for write in wrong.values():
        write()
        with pytest.raises(DataError, match=r"a\.safetensors is damaged, or no file of tensors"):
            load_tensors(path, kind="tree")
    assert not trap.exists()
    save_tensors(path, {}, kind="forest")
    with pytest.raises(DataError, match=r"a\.safetensors holds 'forest', not 'tree'"):
        load_tensors(path, kind="tree")
    with pytest.raises(DataError, match="there is no file"):
        load_tensors(tmp_path / "b.safetensors", kind="tree")


@pytest.mark.parametrize(
    "wrong", [object(), np.array([None]), np.array(["a"]), np.float32(1), {1.5: 0}, {1, 2}, print]
)
def test_what_is_neither_numbers_nor_json_is_refused_and_the_old_file_stays(
    wrong: Any, tmp_path: Path
) -> None:
    save_tensors(tmp_path / "a.safetensors", 1, kind="tree")
    with pytest.raises(ArgumentError, match="here"):
        save_tensors(tmp_path / "a.safetensors", {"here": wrong}, kind="tree")
    assert load_tensors(tmp_path / "a.safetensors", kind="tree") == 1


def test_other_readers_of_safetensors_read_the_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    save_tensors(tmp_path / "a.safetensors", {"net": {"weight": th.ones(2)}}, kind="tree")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert th.equal(file.get_tensor("net/weight"), th.ones(2))
        described = json.loads(file.metadata()["portfolio_env"])
    assert described["kind"] == "tree"
    assert json.loads(described["tree"]) == {"net": {"weight": {"$tensor": "net/weight"}}}


def test_equal_trees_make_equal_files(tmp_path: Path) -> None:
    tree = {str(i): th.full((i,), float(i)) for i in range(9)}
    for name in "abcd":
        save_tensors(tmp_path / name, tree, kind="tree")
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_weights_of_another_network_say_what_differs() -> None:
    with pytest.raises(RuntimeError) as caught:
        th.nn.Linear(2, 1).load_state_dict(th.nn.Linear(2, 1, bias=False).state_dict())
    assert reason_of(caught.value) == (
        "the weights of another network, or of another version of it: "
        'Missing key(s) in state_dict: "bias".'
    )
    assert reason_of(KeyError("scale")) == "no 'scale'"
    assert len(reason_of(ValueError("x" * 300))) == 200
