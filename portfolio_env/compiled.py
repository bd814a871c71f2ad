"""Compilation of the hot loops: decorators, and arrays without reference counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import numpy as np
from numba import config, njit
from numba.core import types
from numba.extending import intrinsic

from portfolio_env.code_cache import CodeCache

# With ``NUMBA_DISABLE_JIT=1`` in the environment everything runs as plain Python.
PLAIN = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # numba sets it while it loads

Function = TypeVar("Function", bound=Callable[..., Any])


# A product and a sum may become one instruction that rounds once; nothing is reordered, so that
# one lane and thousands agree bit for bit.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}


def kernel(function: Function) -> Function:
    """Compile at first call and keep the machine code, see ``code_cache``."""
    return _compiled(function)


def inlined(function: Function) -> Function:
    """Compile like ``kernel``, and copy into callers: for small steps of a loop over lanes."""
    return _compiled(function, inline="always")


def _compiled(function: Function, **options: Any) -> Function:
    if PLAIN:  # silent about overflow, as machine code is
        return np.errstate(all="ignore")(function)
    compiled: Any = njit(**OPTIONS, **options)(function)
    with suppress(OSError):  # without sources there is nothing to compare
        compiled._cache = CodeCache(function)
    return cast(Function, compiled)


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
