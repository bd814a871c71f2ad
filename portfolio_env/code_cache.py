"""Cache of compiled machine code that processes share.

Numba's own cache compares the one source file that a function stands in: after a change in
``projection.py`` the step of ``dynamics.py`` goes on with the old projection. It numbers its
files, so that two processes at once may give one number to two functions, and an installation
where it can write nowhere does not even import. Here a file is named by everything that its code
depends on, and a process that can write nowhere compiles for itself.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from portfolio_env.errors import DataError
from portfolio_env.files.atomic import replacing

_logger = logging.getLogger(__name__)
# Numba has few type annotations for these.
_config: Any = numba.config
_rebuild: Any = CompileResult._rebuild
_dumps: Any = dumps
_app_dirs: Any = AppDirs
_DIGEST = sha256().digest_size
_SETTINGS = ("NUMBA_BOUNDSCHECK", "NUMBA_LOOP_VECTORIZE", "NUMBA_OPT", "NUMBA_SLP_VECTORIZE")


class CodeCache(FunctionCache):
    """The machine code of one function, a file for every signature.

    A file is looked for in all folders of ``cache_folders`` and written to the first that takes it.
    It begins with the SHA-256 of the rest: a damaged one is as good as none. What it replaces, code
    of the same function from other sources, is removed when it is written.

    Args:
        function: The function, before it is compiled.

    Raises:
        OSError: If its source cannot be read.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        # Not numba's constructor: it looks for a folder that can be written, and raises.
        source = Path(function.__code__.co_filename)
        self._py_func = function
        self._stamp = source_stamp(source)
        self._folders = cache_folders(source.parent)
        self._base = f"{source.stem}.{function.__qualname__.replace('<', '').replace('>', '')}"
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """Return the folder that is searched first."""
        return str(self._folders[0])

    def flush(self) -> None:
        """Do nothing: files of other sources are never read."""

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        name = self._file_name(sig, target_context.codegen())
        for folder in self._folders:
            with suppress(OSError):
                content = (folder / name).read_bytes()
                digest, payload = content[:_DIGEST], content[_DIGEST:]
                if sha256(payload).digest() == digest:
                    return _rebuild(target_context, *pickle.loads(payload))
        return None

    def _save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or data.library.has_dynamic_globals:
            return
        name, payload = self._file_name(sig, data.codegen), _dumps(data._reduce())
        for folder in self._folders:
            with suppress(OSError, DataError):
                with replacing(folder / name) as beside:
                    beside.write_bytes(sha256(payload).digest() + payload)
                self._remove_superseded(folder)
                return
        _report_once(", ".join(map(str, self._folders)))

    def _file_name(self, sig: Any, codegen: Any) -> str:
        """Return a name that depends on source, signature, processor, compiler and Python."""
        settings = [os.environ.get(name) for name in _SETTINGS]
        index_key: Any = self._index_key
        versions = (numba.__version__, llvmlite.__version__, sys.version)
        key = repr((self._stamp, index_key(sig, codegen), versions, settings))
        return f"{self._base}-{self._stamp[:12]}-{sha256(key.encode()).hexdigest()[:24]}.nbc"

    def _remove_superseded(self, folder: Path) -> None:
        for file in folder.glob(f"{self._base}-*.nbc"):
            if not file.name.startswith(f"{self._base}-{self._stamp[:12]}-"):
                with suppress(OSError):  # not ours, or already gone
                    file.unlink()


@cache
def source_stamp(source: Path) -> str:
    """Return SHA-256 of a source file with kernels and of those whose kernels it may call.

    These are the modules beside this one, of the simulation and of the features: numba compiles
    what a function calls, and the constants that it reads, into the function.
    """
    package, digest = Path(__file__).parent, sha256()
    folders = (package, package / "simulation", package / "features")
    for file in sorted({source, *(file for folder in folders for file in folder.glob("*.py"))}):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def cache_folders(source: Path) -> list[Path]:
    """Return the folders of code compiled from a folder of sources, in numba's order.

    That is ``NUMBA_CACHE_DIR``, ``__pycache__`` beside the sources, and the user's own cache.
    """
    name = f"{source.name}_{sha256(str(source).encode()).hexdigest()[:16]}"  # copies are kept apart
    given = [Path(_config.CACHE_DIR) / name] if _config.CACHE_DIR else []
    own = Path(_app_dirs("numba", False).user_cache_dir)  # relative where there is no home
    return [*given, source / "__pycache__", *([own / name] if own.is_absolute() else [])]


@cache
def _report_once(folders: str) -> None:
    _logger.info(
        "machine code is compiled again by every process, as none of these folders can be written: "
        "%s; set NUMBA_CACHE_DIR to one that can",
        folders,
    )
