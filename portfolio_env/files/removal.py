"""Removal of runs: only files that a run consists of, and never through a link."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from portfolio_env.errors import DataError

_RUN_FILES = re.compile(
    r"""(fold_\d+/)?(seed_\d+/)?                      # where a walk forward keeps its runs
    ( [^./][^/]*\.(jsonl?|md|safetensors|txt)
    | (\w+_model|model)\.zip | \w+\.pt | replay_buffer\.npz   # of the first format
    | checkpoints/(\d+/)?[^./][^/]*\.(safetensors|pt|zip|npz)
    | tb/(.+/)?events\.out\.tfevents\.[^/]+
    | (evaluation|figures)/.+\.(csv|html|json|parquet|png)
    | (.+/)?\.([\w-]+\.)?lock
    | (.+/)?\.writing-[^/]+
    )""",
    re.VERBOSE,
)


def is_link(path: Path) -> bool:
    """Return whether a path leads elsewhere: a symbolic link, or a junction of Windows."""
    return path.is_symlink() or getattr(path, "is_junction", bool)()


def refuse_links(folder: Path) -> None:
    """Reject a folder that holds a link at any depth, whose target lies elsewhere.

    Raises:
        DataError: With the link.
    """
    for path in _below(folder):
        if is_link(path):
            raise DataError(
                f"{path} is a link, and a run folder holds none: what is behind it could be "
                "changed or removed; put the files themselves there, or remove the link"
            )


def refuse_foreign_files(folder: Path) -> None:
    """Reject a folder that is a link, or holds links or files that do not belong to a run.

    Raises:
        DataError: With the first of them.
    """
    if is_link(folder) or not folder.is_dir():
        raise DataError(f"{folder} is not a folder of its own; nothing was removed")
    refuse_links(folder)
    for path in _below(folder):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and not (path.is_file() and _RUN_FILES.fullmatch(name)):
            raise DataError(
                f"{path} is not a file that a run consists of, so {folder} is not removed; "
                "move it elsewhere first"
            )


def remove_folder(folder: Path) -> None:
    """Remove a run folder with all it holds, or a part of one.

    Raises:
        DataError: As ``refuse_foreign_files``, or if the system refuses.
    """
    refuse_foreign_files(folder)
    try:
        shutil.rmtree(folder)  # follows no links
    except OSError as error:
        raise DataError(f"{folder} cannot be removed ({error.strerror or error})") from error


def _below(folder: Path) -> Iterator[Path]:
    """Return everything in a folder and its subfolders, without following links."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(root, name)
