"""Trees of tensors in one file of numbers and JSON, which cannot run code.

The file is an ordinary safetensors file: the tensors under flattened names, and in its header's
metadata the tree as JSON, its kind, and a checksum of it all. Equal trees make equal files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import regular, remedy, replacing

SUFFIX = ".safetensors"
_ENTRY = "portfolio_env"
_Convert = Callable[[Any, str], Any]


def save_tensors(path: str | Path, tree: Any, *, kind: str) -> None:
    """Write a tree to one file, which is complete or absent.

    Args:
        path: The file.
        tree: Nested dicts, lists and tuples of tensors, NumPy arrays, and what JSON knows: numbers
            (infinite ones and whole ones of any size too), text, True, False and None. Keys are
            text or whole numbers.
        kind: Kind of the tree, which ``load_tensors`` checks.

    Raises:
        ArgumentError: If the tree holds anything else; the message says where.
        DataError: If the file cannot be written; one of that name is then as it was.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[tuple[Any, ...], str] = {}

    def packed(value: Any, where: str) -> Any:
        if isinstance(value, Tensor | np.ndarray):
            tensor = _plain(value, where)
            # Networks that share a part list it several times; it is stored once.
            key = (tensor.data_ptr(), tensor.dtype, tensor.shape)
            if key not in names:
                while where in tensors:  # the key "a/b" beside the keys "a", "b"
                    where += "'"
                names[key] = where
                tensors[where] = tensor
            return {"$tensor" if isinstance(value, Tensor) else "$array": names[key]}
        if isinstance(value, dict):
            return _pack_dict(value, where, packed)
        if isinstance(value, list | tuple):
            items = [packed(item, f"{where}/{i}") for i, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise ArgumentError(
            f"{where or 'the tree'} is of type {type(value).__name__}, which is neither a tensor "
            "nor JSON; turn it into numbers or text first"
        )

    text = json.dumps(packed(tree, ""))
    described = {"kind": kind, "sha256": _digest(kind, text, tensors), "tree": text}
    metadata = {_ENTRY: json.dumps(described)}  # one entry: several come in any order
    with replacing(path) as beside:
        try:
            save_file(tensors, beside, metadata)
        except SafetensorError as error:  # a full disk, among others
            number = re.search(r"\(os error (\d+)\)", str(error))
            told = (int(number[1]), str(error)) if number else (str(error),)
            raise OSError(*told) from error


def load_tensors(path: str | Path, *, kind: str | None) -> Any:
    """Read what ``save_tensors`` wrote; tensors are on the CPU.

    Args:
        path: The file.
        kind: Required kind of the tree; None takes any.

    Raises:
        DataError: If there is no such file, it is of another kind, or it is damaged: a single
            changed bit is noticed. Nothing in it is executed, whatever it holds.
    """
    try:
        content = regular(path).read_bytes()
        if content.startswith(b"PK"):
            raise DataError(f"{path} is a zip; agents.load_zip reads those of Stable-Baselines3")
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        described = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][_ENTRY])
        stored, text = described["kind"], described["tree"]
        if described["sha256"] != _digest(stored, text, tensors):
            raise ValueError("its checksum is wrong")
        tree = _unpack(json.loads(text), tensors)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path} cannot be read ({reason}); {remedy(error)}") from error
    except (SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} is damaged, or no file of tensors ({reason}); restore it from a copy"
        ) from error
    if kind not in (None, stored):
        raise DataError(f"{path} holds {stored!r}, not {kind!r}; give the file that does")
    return tree


def check_finite(weights: Any, path: str | Path) -> None:
    """Reject weights, in nested dicts and lists, with numbers that are not finite.

    Args:
        weights: Tensors; other values pass.
        path: File that they were read from.

    Raises:
        DataError: With the file.
    """
    if isinstance(weights, Tensor):
        if weights.is_floating_point() and not bool(weights.isfinite().all()):
            raise DataError(
                f"{path} holds weights that are not finite: its training diverged, or it "
                "was edited; take another model, or train again with a lower learning rate"
            )
    elif isinstance(weights, dict | list | tuple):
        for part in weights.values() if isinstance(weights, dict) else weights:
            check_finite(part, path)


def reason_of(error: Exception) -> str:
    """Return an error's first line, in at most 200 characters.

    Where weights do not fit a network, torch lists in the lines after it how they differ.
    """
    said, *rest = str(error).splitlines() or [type(error).__name__]
    other = "the weights of another network, or of another version of it"
    if rest and said.startswith("Error(s) in loading state_dict"):
        said = f"{other}: {rest[0].strip()}"
    elif "parameter group that doesn't match" in said:  # an optimiser, which is loaded first
        said = other
    elif isinstance(error, KeyError):
        said = f"no {said}"
    return said if len(said) <= 200 else f"{said[:197]}..."


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Return SHA-256 of name, type, shape and bytes of every tensor."""
    return _digest("", "", {name: _plain(tensor, name) for name, tensor in weights.items()})


def _plain(value: Tensor | np.ndarray[Any, Any], where: str) -> Tensor:
    """Return values on the CPU, in memory of their own."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise ArgumentError(f"{where} is an array of {value.dtype}; give numbers or booleans")
        own = np.require(value, value.dtype.newbyteorder("="), ["C", "W"])
        return th.from_numpy(own)
    tensor = value.detach().cpu().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone()


def _pack_dict(value: dict[Any, Any], where: str, pack: _Convert) -> Any:
    """Pack a dict as a JSON object; as a list of pairs if keys are numbers or look like a tag."""
    for key in value:
        if type(key) not in (str, int):
            raise ArgumentError(f"{where or 'the tree'} has the key {key!r}; give text or integers")
    items = {key: pack(item, f"{where}/{key}".lstrip("/")) for key, item in value.items()}
    if all(isinstance(key, str) and not key.startswith("$") for key in items):
        return items
    return {"$items": [[key, item] for key, item in items.items()]}


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    """Invert packing, of checked JSON."""
    if isinstance(node, list):
        return [_unpack(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    tag = next(iter(node), "")
    if tag == "$tensor":
        return tensors[node[tag]]
    if tag == "$array":
        return tensors[node[tag]].numpy()
    if tag == "$tuple":
        return tuple(_unpack(item, tensors) for item in node[tag])
    if tag == "$items":
        return {key: _unpack(item, tensors) for key, item in node[tag]}
    return {key: _unpack(item, tensors) for key, item in node.items()}


def _digest(kind: str, text: str, tensors: dict[str, Tensor]) -> str:
    """Return SHA-256 of the tree and of name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps([kind, text]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(th.uint8).numpy().data)
    return digest.hexdigest()
