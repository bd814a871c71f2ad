"""The files that a run may consist of: which they are, and whether they are what they say."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from agents.run_folder import CHECKPOINTS, latest_checkpoint
from agents.tensors import SUFFIX, load_tensors
from portfolio_env.errors import DataError
from portfolio_env.files import read_json

_TEXTS = (".md", ".txt")
_EVENTS = re.compile(r"events\.out\.tfevents\.[\w.+-]+")
_FIRST_EVENT = b"brain.Event:"  # of every file of TensorBoard, before its numbers
EVALUATION = "evaluation"  # accounts and reports, which evaluate.py writes again


def kind_of(name: str) -> str | None:
    """What a file is by its name: "tensors", "json", "text" or "events"; None for any other."""
    if _EVENTS.fullmatch(name):
        return "events"
    suffix = Path(name).suffix
    return "text" if suffix in _TEXTS else {SUFFIX: "tensors", ".json": "json"}.get(suffix)


def check_file(path: Path) -> None:
    """Read a file as what its name says; checksums are compared.

    Raises:
        DataError: if it is damaged, or of no known kind.
    """
    kind = kind_of(path.name)
    if kind == "tensors":
        load_tensors(path, kind=None)
    elif kind == "json":
        read_json(path)
    elif kind == "text":
        _check_text(path)
    elif kind == "events":
        _check_events(path)
    else:
        raise DataError(f"{path} is of no kind that a run consists of")


def run_files(path: Path, *, events: bool = False) -> Iterator[Path]:
    """The files that make a run or a walk forward, sorted.

    Left out is what can be done without: hidden files, evaluations, and all checkpoints but the
    last. Links and files of unknown kinds are no part of a run.

    Args:
        path: its folder.
        events: those of TensorBoard too.
    """
    for file in sorted(path.rglob("*")):
        parts = file.relative_to(path).parts
        if any(part.startswith(".") or part == EVALUATION for part in parts):
            continue
        if file.is_symlink() or not file.is_file() or any(p.is_symlink() for p in file.parents):
            continue
        kind = kind_of(file.name)
        if kind is None or (kind == "events" and not events):
            continue
        numbered = file.parent.name == CHECKPOINTS and file.stem.isdigit()
        if not numbered or file == latest_checkpoint(file.parents[1]):
            yield file


def _check_text(path: Path) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is no text ({error})") from error
    if "\0" in text:
        raise DataError(f"{path} is damaged: it is no text")


def _check_events(path: Path) -> None:
    """The first record of a file of TensorBoard says so; the last may have been cut by a crash."""
    head = path.read_bytes()[:256]
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if not 0 < length < 200 or _FIRST_EVENT not in head[12 : 12 + length]:
        raise DataError(f"{path} is damaged: it holds no events of TensorBoard")
