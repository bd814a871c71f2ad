"""Compilation of the hot loops: decorators, and arrays without reference counts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Timer
from typing import Any, TypeVar, cast

import numpy as np
from numba import config, njit
from numba.core import ir, types
from numba.extending import intrinsic

from portfolio_env.code_cache import CodeCache

# With ``NUMBA_DISABLE_JIT=1`` in the environment everything runs as plain Python.
PLAIN = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # numba sets it while it loads

Function = TypeVar("Function", bound=Callable[..., Any])
PATIENCE = 2.0  # seconds of compiling before a line says so
_logger = logging.getLogger(__name__)
_Scope: Any = ir.Scope  # numba says nothing about its types

# A product and a sum may become one instruction that rounds once; nothing is reordered, so that
# one lane and thousands agree bit for bit.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}


def kernel(function: Function) -> Function:
    """Compile at first call and keep the machine code, see ``code_cache``."""
    return _compiled(function)


def inner(function: Function) -> Function:
    """Compile like ``kernel``, without what Python needs to call it: for calls by kernels alone."""
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def inlined(function: Function) -> Function:
    """Compile like ``kernel``, and copy into callers: for small steps of a loop over lanes."""
    return _compiled(function, inline="always")


def _compiled(function: Function, **options: Any) -> Function:
    if PLAIN:  # silent about overflow, as machine code is
        return np.errstate(all="ignore")(function)
    compiled: Any = njit(**OPTIONS, **options)(function)
    with suppress(OSError):  # without sources there is nothing to compare
        compiled._cache = CodeCache(function)
    compile_it = compiled._compiler.compile

    def compile_and_say_so(*signature: Any) -> Any:
        with _announced(function.__name__), _cheap_copies():
            return compile_it(*signature)

    compiled._compiler.compile = compile_and_say_so
    return cast(Function, compiled)


@contextmanager
def _announced(name: str) -> Iterator[None]:
    """Log a line, once for a process, if compiling takes longer than a moment."""
    timer = Timer(PATIENCE, _say_once, [name])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_SAID = "_PORTFOLIO_ENV_COMPILING"  # in the environment, which processes started later inherit
_unsaid = Lock()


def _say_once(name: str) -> None:
    """Log a warning that is seen without any set-up of logs: compilation is not a hang."""
    if _unsaid.acquire(blocking=False) and _SAID not in os.environ:  # of several timers, one
        os.environ[_SAID] = "1"
        _logger.warning("compiling %s to machine code, once for an installation (up to 30 s)", name)


@contextmanager
def _cheap_copies() -> Iterator[None]:
    """Let numba copy the names of a function's variables once and not with every block of it.

    ``inline="always"`` copies the callee block by block, and with each block all the variables of
    the function, one by one: a third of the time that the step takes to compile. The copies are
    renamed one by one anyway, so they may share their variables. Numba compiles in one thread at a
    time, and elsewhere it copies as before.
    """
    before = getattr(_Scope, "__deepcopy__", None)
    _Scope.__deepcopy__ = _shallow_copy
    try:
        yield
    finally:
        if before is None:
            del _Scope.__deepcopy__
        else:  # of the function that calls this one
            _Scope.__deepcopy__ = before


def _shallow_copy(scope: Any, memo: dict[int, Any]) -> Any:
    copy = memo[id(scope)] = _Scope(scope.parent, scope.loc)
    copy.localvars._con.update(scope.localvars._con)
    copy.redefined.update(scope.redefined)
    for name, versions in scope.var_redefinitions.items():
        copy.var_redefinitions[name] = set(versions)
    return copy


def record(**fields: type[np.generic]) -> np.dtype[np.void]:
    """Return a type of records whose fields are read as attributes, compiled or not."""
    return np.dtype((np.record, list(fields.items())))


def _borrow(typing_context: Any, arrays: Any) -> Any:
    """Return an array or named tuple of arrays without an owner, for compiled code.

    Numba counts references to the owner of an array by atomic operations, at every slice and call;
    in a loop over lanes, each a handful of numbers, they took most of the time. The caller keeps
    its arguments alive, so within the call they need no owner.
    """
    fields: Any = arrays if isinstance(arrays, types.BaseTuple) else (arrays,)
    if not all(isinstance(field, types.Array) for field in fields):
        raise TypeError(f"only arrays and named tuples of arrays can be borrowed, not {arrays}")

    def strip(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        array = context.make_array(kind)(context, builder, value=value)
        array.meminfo = array.meminfo.type(None)
        array.parent = array.parent.type(None)
        return array._getvalue()

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(arrays, types.Array):
            return strip(context, builder, arrays, args[0])
        values = [builder.extract_value(args[0], i) for i in range(len(fields))]
        pairs = zip(fields, values, strict=True)
        return context.make_tuple(
            builder, arrays, [strip(context, builder, *pair) for pair in pairs]
        )

    return arrays(arrays), codegen


borrowed: Callable[..., Any] = (lambda arrays: arrays) if PLAIN else intrinsic(_borrow)
