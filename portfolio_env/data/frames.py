"""Long frames (one row per date and symbol) of whatever holds bars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.data.cells import Origin
from portfolio_env.data.files import read_frame, typed_frame
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.panel import BAR_FIELDS, PricePanel

Source: TypeAlias = str | os.PathLike[str] | pd.DataFrame | PricePanel | Market
"""A name that `load_market` knows, a path, a long frame, a panel or a market."""


def long_frame(source: Source) -> pd.DataFrame:
    """The bars of a source, as they are: duplicates, disorder and impossible bars included.

    Args:
        source: see `Source`; frames have columns date, symbol, close and, where known, open, high,
            low and volume; others are ignored.

    Returns:
        A frame with those columns, dates as datetime64[ns] (UTC, without a zone), prices and volume
        as float64, in the order given.

    Raises:
        ArgumentError: if it is no source, or an unknown name.
        DataError: if there are no rows, or one lacks its date or symbol or holds no number.
    """
    bars = resolved(source)
    return bars if isinstance(bars, pd.DataFrame) else frame_of_panel(bars)


def resolved(source: Source) -> pd.DataFrame | PricePanel:
    """The bars of a source: a long frame of what has not been checked, else a panel."""
    if isinstance(source, Market):
        return source.panel
    if isinstance(source, PricePanel):
        return source
    if isinstance(source, pd.DataFrame):
        return typed_frame(source, Origin("the frame"))
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(
            f"{type(source).__name__} is no source of bars: give a path, the name of a market, "
            "a long frame, a PricePanel or a Market"
        )
    path = Path(source)
    if path.exists() and path.suffix != ".npz":
        return read_frame(path)
    from portfolio_env.data import source_of

    found = source_of(source)
    return found.panel if isinstance(found, Market) else found


def frame_of_panel(panel: PricePanel) -> pd.DataFrame:
    """A panel as a long frame, by date and symbol; a bar that does not exist has no row."""
    rows, columns = np.nonzero(np.isfinite(panel.close))
    fields = {name: getattr(panel, name) for name in BAR_FIELDS}
    return pd.DataFrame(
        {"date": panel.timestamps[rows], "symbol": np.array(panel.assets)[columns]}
        | {name: values[rows, columns] for name, values in fields.items() if values is not None}
    )
