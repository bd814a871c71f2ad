"""Adapter of the library ``ta``, applied to each asset's runs of bars without a gap."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.errors import DataError
from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import indicator
from portfolio_env.market.panel import FloatArray

Run = SimpleNamespace
"""Series of the bar fields of one run of bars, by name."""


def ta() -> ModuleType:
    """Return the library.

    Raises:
        DataError: If it is not installed.
    """
    try:
        import ta as library
    except ImportError as error:
        raise DataError(
            "the features of the group 'ta' need the library ta, which is missing: pip install ta"
        ) from error
    module: ModuleType = library
    return module


def _by_run(
    bars: Bars,
    fields: list[str],
    compute: Callable[[Run], Any],
    lookback: int,
    pad: int,
) -> FloatArray:
    """Apply a computation to each asset's runs of bars without a gap, (T, N); NaN in first rows.

    Args:
        bars: The bars.
        fields: Names of the series it reads.
        compute: Series of a run -> its values.
        lookback: Rows of a run that are not known.
        pad: Bars of NaN that are put before a run.
    """
    out = np.full_like(bars.close, np.nan)
    void = np.full(pad, np.nan)
    arrays = {name: getattr(bars, name) for name in fields}
    for i in range(out.shape[1]):
        present = np.concatenate([[False], ~np.isnan(bars.close[:, i]), [False]])
        edges = np.flatnonzero(present[1:] != present[:-1])
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            if end - first <= lookback:
                continue
            run = {
                name: pd.Series(np.concatenate([void, array[first:end, i]]))
                for name, array in arrays.items()
            }
            values = np.asarray(compute(Run(**run)), np.float64)
            out[first + lookback : end, i] = values[pad + lookback :]
    return np.where(np.isfinite(out), out, np.nan)


def from_ta(
    formula: str,
    *,
    inputs: str = "close",
    pad: Callable[[int], int] = lambda _: 0,
    lookback: Callable[[int], int] = lambda w: w - 1,
    **options: Any,
) -> Callable[[Callable[..., Any]], Callable[..., FloatArray]]:
    """Declare a function (run, w) of the series of one run of bars as an indicator.

    Args:
        formula: See ``indicator``, as for the rest.
        inputs: The series it reads.
        pad: Window -> bars of NaN that it needs before a run.
        lookback: Window -> rows.
        options: Further arguments of ``indicator``.
    """

    def declare(function: Callable[..., Any]) -> Callable[..., FloatArray]:
        @wraps(function)
        def compute(bars: Bars, w: int = 0) -> FloatArray:
            def of_run(run: Run) -> Any:
                return function(run, w)

            return _by_run(bars, inputs.split(), of_run, lookback(w), pad(w))

        return indicator("ta", formula, inputs=inputs, lookback=lookback, **options)(compute)

    return declare
