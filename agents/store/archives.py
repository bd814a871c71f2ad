"""Runs in one file for exchange: equal runs give equal files, which are read without trust.

An archive is a zip whose members are stored as they are. So it cannot grow when it is read, and
equal runs make equal archives. Its first member, ``manifest.json``, names every file with its size
and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from contextlib import ExitStack
from pathlib import Path
from shutil import copyfileobj
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from agents.store.changes import changing, coming, put_in_place
from agents.store.content import check_file, kind_of, run_files
from agents.supervised import config as supervised
from agents.training.cards import make_card
from agents.training.run_folder import IDENTITY, WALK_FORWARD, one_process, read_config
from agents.training.run_records import (
    folders,
    id_of,
    is_old,
    is_supervised,
    member_runs,
    read_record,
    refuse_old,
)
from portfolio_env.errors import MALFORMED, ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import parse_json, replacing
from portfolio_env.files.removal import remove_folder

MANIFEST = "manifest.json"
FORMAT = 1
MOST_FILES = 10_000
MOST_BYTES = 64 << 30
_PART = re.compile(r"\w[\w@%+=,. -]{0,127}")  # part of a path; hidden names are invalid
_CHUNK = 1 << 20
_BROKEN = (*MALFORMED, BadZipFile, EOFError, NotImplementedError, RuntimeError)


def export_run(path: Path, file: Path, *, events: bool = False) -> int:
    """Write a run or a walk forward to an archive, which is complete or absent.

    The last checkpoint goes with it: a run that was stopped can be resumed from the archive.

    Args:
        path: Folder of the run.
        file: The archive; one of that name is replaced.
        events: Write the events of TensorBoard too.

    Returns:
        How many files of the run it holds.

    Raises:
        ArgumentError: If the archive would lie in the run, where it could replace a file.
        DataError: If a process is at work in the run, a file of it is damaged, or it holds what
            ``import_run`` refuses.
    """
    if path.resolve() in file.resolve().parents:
        raise ArgumentError(f"{file} lies in the run itself: write the archive elsewhere")
    refuse_old(path)
    record = read_record(path)
    if not record.id:
        raise DataError(f"{path} has lost its {IDENTITY}, which identifies it; restore it")
    with ExitStack() as locks:
        for folder in (path, *member_runs(path)):
            locks.enter_context(one_process(folder))
        files = {each.relative_to(path).as_posix(): each for each in run_files(path, events=events)}
        for each in files.values():
            check_file(each)
        manifest = {
            "format": FORMAT,
            "id": record.id,
            "name": path.resolve().name,
            "files": {name: _summary(each) for name, each in files.items()},
        }
        with replacing(file) as beside:
            with ZipFile(beside, "w", ZIP_STORED) as archive:
                archive.writestr(_member(MANIFEST), json.dumps(manifest, indent=2) + "\n")
                for name, each in files.items():
                    with each.open("rb") as source, archive.open(_member(name), "w") as target:
                        copyfileobj(source, target, _CHUNK)
            try:  # the run may be deleted next: only what can be imported is an archive
                with ZipFile(beside) as archive:
                    _manifest(archive, beside.stat().st_size)
            except ValueError as error:
                raise DataError(
                    f"{path} cannot be exported: {error}; move what is no part of the run elsewhere"
                ) from error
    return len(files)


def import_run(file: Path, store: Path, *, name: str | None = None) -> Path:
    """Import a run or a walk forward from an archive into a store, whole or not at all.

    Nothing in it is executed. Every name, size, checksum and content is checked before the folder
    appears under its name.

    Args:
        file: Archive of ``export_run``, from any source.
        store: The folder of runs.
        name: Name of the new folder; None keeps the old one.

    Returns:
        The new folder.

    Raises:
        DataError: If the archive is damaged or holds what no run consists of, or the run or a
            folder of that name is there already.
    """
    try:
        with ZipFile(file) as archive:
            manifest = _manifest(archive, file.stat().st_size)
            name = name or manifest["name"]
            if not isinstance(name, str) or not _PART.fullmatch(name):
                raise ArgumentError(f"{name!r} is not a name for a folder; give another --name")
            with changing(store):
                _refuse_known(manifest["id"], store)
                beside = coming(store, name)
                try:
                    for member, expected in manifest["files"].items():
                        _extract(archive, member, expected, beside)
                    _check_run(beside, manifest, file)
                    put_in_place(beside, store / name)
                finally:
                    if beside.exists():
                        remove_folder(beside)
    except FileNotFoundError:
        raise DataError(f"there is no file {file}") from None
    except PortfolioError:
        raise
    except (*_BROKEN, OSError) as error:
        raise DataError(f"{file} is not an archive of a run, or damaged ({error})") from error
    return store / name


def _manifest(archive: ZipFile, size: int) -> dict[str, Any]:
    """Return the manifest of an archive, once every member is known to be harmless.

    Raises:
        ValueError: With what is wrong.
    """
    members = archive.infolist()
    if not members or len(members) > MOST_FILES:
        raise ValueError(f"it has {len(members)} members; a run has up to {MOST_FILES:,}")
    for member in members:
        _refuse_odd(member)
    if min(member.header_offset for member in members):
        raise ValueError("something stands before its first member")
    if sum(member.file_size for member in members) > min(size, MOST_BYTES):
        raise ValueError("its members say that they are larger than it is")
    names = [member.filename for member in members]
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("it has two members of one name")
    manifest = parse_json(archive.read(MANIFEST))
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']!r}; this version reads {FORMAT}")
    if {*manifest["files"], MANIFEST} != {*names}:
        raise ValueError("its manifest names other files")
    if not re.fullmatch("[0-9a-f]{12}", manifest["id"]):
        raise ValueError("its id is none")
    found: dict[str, Any] = manifest
    return found


def _refuse_odd(member: ZipInfo) -> None:
    """Reject members that ``export_run`` never writes.

    Raises:
        ValueError: With what is wrong.
    """
    name, mode = member.filename, member.external_attr >> 16
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        raise ValueError(f"{name[:80]!r} is not a name within a folder")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ValueError(f"{name!r} is a link, a folder or a device")
    if kind_of(Path(name).name) is None:
        raise ValueError(f"{name!r} is of no kind that a run consists of")
    if member.compress_type != ZIP_STORED or member.compress_size != member.file_size:
        raise ValueError(f"{name!r} is compressed")
    if member.flag_bits & 1:
        raise ValueError(f"{name!r} is encrypted")


def _extract(archive: ZipFile, name: str, expected: dict[str, Any], folder: Path) -> None:
    """Write one member under a folder, and compare it with the manifest.

    Raises:
        ValueError: If it differs.
        DataError: If the system refuses to write.
    """
    target = folder / name
    digest, left = hashlib.sha256(), int(expected["size"])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(name) as source, target.open("xb") as out:
            while chunk := source.read(min(_CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    break
                digest.update(chunk)
                out.write(chunk)
    except OSError as error:  # error of the disk: the archive was opened
        raise DataError(
            f"{target} cannot be written ({error.strerror or error}); give room or rights"
        ) from error
    if left or digest.hexdigest() != expected["sha256"]:
        raise ValueError(f"{name!r} is not what its manifest says")


def _check_run(folder: Path, manifest: dict[str, Any], archive: Path) -> None:
    """Reject a folder whose files have other contents than their names say, or that is another run.

    Raises:
        DataError: With what is wrong, of the archive that the folder was made from.
    """
    try:
        for name in manifest["files"]:
            check_file(folder / name)
        record = read_record(folder)
        if is_old(folder) or record.id != manifest["id"]:
            raise DataError(f"{folder} is not an archive of the run {manifest['id']}")
        for run in record.runs or [folder] * (not (folder / WALK_FORWARD).is_file()):
            read = supervised.read_config if is_supervised(run) else read_config
            read(run, importing=False)
            make_card(run)
    except PortfolioError as error:
        raise DataError(str(error).replace(str(folder), str(archive))) from error


def _refuse_known(id: str, store: Path) -> None:
    for path in folders(store):
        if id_of(path) == id:
            raise DataError(f"the run {id} is in the store already, as {path}")


def _summary(file: Path) -> dict[str, Any]:
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _member(name: str) -> ZipInfo:
    """Return a zip member dated 1980 with usual rights, so that equal runs make equal archives."""
    member = ZipInfo(name)
    member.external_attr = (stat.S_IFREG | 0o644) << 16
    return member
