"""Files that a run may consist of: their kinds, and checks of their content."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

from agents.tensors import SUFFIX, load_tensors
from agents.training.card_texts import is_intact
from agents.training.run_folder import CHECKPOINTS, latest_checkpoint
from portfolio_env.errors import DataError
from portfolio_env.files.atomic import read_json

_TEXTS = (".md", ".txt")
_EVENTS = re.compile(r"events\.out\.tfevents\.[\w.+-]+")
_FIRST_EVENT = b"brain.Event:"  # prefix of every TensorBoard file, before its numbers
EVALUATION = "evaluation"  # accounts and reports, which evaluate.py writes again


def kind_of(name: str) -> str | None:
    """Return the kind of a file by its name: "tensors", "json", "text" or "events"; else None."""
    if _EVENTS.fullmatch(name):
        return "events"
    suffix = Path(name).suffix
    return "text" if suffix in _TEXTS else {SUFFIX: "tensors", ".json": "json"}.get(suffix)


def check_file(path: Path) -> None:
    """Read a file according to its name; checksums are compared.

    Raises:
        DataError: If it is damaged, or of no known kind.
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
    """Return the files of a run or a walk forward, sorted.

    Left out is what can be done without: hidden files, evaluations, and all checkpoints but the
    last. Links and files of unknown kinds are no part of a run.

    Args:
        path: Folder of the run.
        events: Whether TensorBoard's event files are included.
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
        raise DataError(f"{path} is damaged: it is not text ({error})") from error
    if "\0" in text:
        raise DataError(f"{path} is damaged: it is not text")
    card = path.with_suffix(".json")
    # Cards of earlier versions have no format, and no checksum in their pages.
    sealed = path.name == "card.md" and card.is_file() and "format" in read_json(card)
    if sealed and not is_intact(text):
        raise DataError(
            f"{path} is damaged or edited by hand: its checksum does not fit; renew it with: "
            "python -m agents.store card"
        )


def _check_events(path: Path) -> None:
    """Check every record of a TensorBoard file by its checksums; a crash may have cut the last.

    Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
    """
    from tensorboard.summary.writer.record_writer import masked_crc32c

    content, at = path.read_bytes(), 0
    while at + 12 <= len(content):
        head = content[at : at + 8]
        (length,), (check,) = struct.unpack("<Q", head), struct.unpack_from("<I", content, at + 8)
        whole = check == masked_crc32c(head)
        data, end = content[at + 12 : at + 12 + length], at + 16 + length
        if at == 0 and not (whole and _FIRST_EVENT in data[:200]):
            break
        if whole and end > len(content):
            return
        if not whole or struct.unpack_from("<I", content, end - 4)[0] != masked_crc32c(data):
            raise DataError(f"{path} is damaged: its record at byte {at} is not what was written")
        at = end
    if at == 0:
        raise DataError(f"{path} is damaged: it holds no events of TensorBoard")
