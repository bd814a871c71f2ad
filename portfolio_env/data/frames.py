"""Long frames (one row per date and symbol) of whatever holds bars."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.data.cells import Origin, read_numbers, read_times
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.panel import BAR_FIELDS, PricePanel

Source: TypeAlias = str | os.PathLike[str] | pd.DataFrame | PricePanel | Market
"""A name that `load_market` knows, a path, a long frame, a panel or a market."""

_REQUIRED = ("date", "symbol", "close")


def long_frame(source: Source) -> pd.DataFrame:
    """The bars of a source, as they are: duplicates, disorder and impossible bars included.

    Args:
        source: see `Source`; frames have columns date, symbol, close and, where known, open, high,
            low and volume, and keep any others.

    Returns:
        The frame, dates as datetime64[ns] (UTC, without a zone), prices and volume as float64.

    Raises:
        DataError: if there are no rows, or one lacks its date or symbol or holds no number.
    """
    if isinstance(source, pd.DataFrame):
        return _checked(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.exists() and path.suffix != ".npz":
            from portfolio_env.data.files import read_frame

            return _checked(read_frame(path), os.fspath(source))
        source = panel_of(source)
    if not isinstance(source, PricePanel | Market):
        raise ArgumentError(
            f"{type(source).__name__} is no source of bars: give a path, the name of a market, "
            "a long frame, a PricePanel or a Market"
        )
    return frame_of_panel(panel_of(source))


def panel_of(source: str | os.PathLike[str] | PricePanel | Market) -> PricePanel:
    """The panel of a market, of a saved one, or of one that `load_market` knows by name."""
    if isinstance(source, PricePanel):
        return source
    if isinstance(source, Market):
        return source.panel
    from portfolio_env.data import load_market

    return load_market(source).panel


def frame_of_panel(panel: PricePanel) -> pd.DataFrame:
    """A panel as a long frame, by date and symbol; a bar that does not exist has no row."""
    rows, columns = np.nonzero(np.isfinite(panel.close))
    fields = {name: getattr(panel, name) for name in BAR_FIELDS}
    return pd.DataFrame(
        {"date": panel.timestamps[rows], "symbol": np.array(panel.assets)[columns]}
        | {name: values[rows, columns] for name, values in fields.items() if values is not None}
    )


def _checked(frame: pd.DataFrame, name: str = "the frame") -> pd.DataFrame:
    origin = Origin(name)
    missing = [column for column in _REQUIRED if column not in frame.columns]
    if missing:
        origin.fail(f"lacks the columns {missing}; it has {list(frame.columns)}")
    if not len(frame):
        origin.fail("holds no rows; give at least one bar")
    nameless = frame["symbol"].isna().to_numpy() | (frame["symbol"] == "").to_numpy()
    origin.refuse(nameless, "there is no symbol", "name the asset")
    numbers = {
        column: read_numbers(frame[column], origin)
        for column in BAR_FIELDS
        if column in frame.columns
    }
    dates = read_times(frame["date"], origin)
    frame = frame.assign(date=dates, symbol=frame["symbol"].astype(str), **numbers)
    return frame.reset_index(drop=True)
