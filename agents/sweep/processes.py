"""Processes that train: copies of one that has imported everything, which end with their parent.

This module imports next to nothing, so that the process to copy can be started before all else.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from threading import Thread, current_thread, main_thread

PRELOADED = [
    "agents.sweep.workers",
    "agents.policies",
    "torch._dynamo",  # which the first optimizer imports
    "portfolio_env.plotting.figures",
    "matplotlib.figure",
]
"""Modules that the process to copy imports."""
_COMMANDS = ("run", "search")
_ELSEWHERE = {"-h", "--help", "--plan-only", "--executor"}
"""Options of commands that train nothing, or not here."""


def process_context() -> BaseContext:
    """Return the way to start processes: from one that has imported all, where there is one.

    It has no threads that compute and has touched no GPU, unlike this process, so its copies may
    do both. It is started here, leaves Ctrl-C to this process, and ends with it.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with one_thread(), _without_interrupts():
        forkserver.ensure_running()
    atexit.register(_end_server)
    return context


def begin(words: Sequence[str]) -> None:
    """Start the process to copy if a command line of ``sweep.py`` will want it on other cores.

    It takes seconds to import everything, in which this process imports the same and checks the
    plan. Where it is not started here ``process_context`` starts it.

    Args:
        words: The command line without the program.
    """
    alone = "--workers 1" in " ".join(words).replace("=", " ") or os.cpu_count() == 1
    elsewhere = _ELSEWHERE & {word.partition("=")[0] for word in words}
    if sys.platform == "win32" or alone or elsewhere or not set(words[:1]) & set(_COMMANDS):
        return
    process_context()


def _end_server() -> None:
    """End the process to copy, which looks for its parent's end only once it has imported all.

    Until then it would keep this command's output open, and so a reader of it (``... | cat``).
    """
    pid = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Have the processes that start here ignore Ctrl-C, from their first moment on."""
    if current_thread() is not main_thread():  # where Python sets no handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have the processes that start here compute in one thread each: the cells share the cores."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


def end_with_parent() -> None:
    """Have this process end with its parent, and leave Ctrl-C to that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
