"""Sources of bars: names, paths, frames and functions, opened as a panel or a saved market."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import pandas as pd

from portfolio_env.data.actions import Actions
from portfolio_env.data.adjust import Adjust, check_adjust
from portfolio_env.data.bars import (
    frame_of_panel,
    panel_from_frame,
    panel_from_prices,
    read_frame,
    read_panel,
)
from portfolio_env.data.currencies import with_stored_currencies
from portfolio_env.data.generators.lead_lag import lead_lag_panel
from portfolio_env.data.generators.planted import momentum_panel, null_panel
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.data.repair import Repair
from portfolio_env.data.repair import repair as repaired_bars
from portfolio_env.data.tables.sources import as_frame
from portfolio_env.errors import ArgumentError, DataError, user_code
from portfolio_env.features import plugins
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import check_keywords, find, is_entry_point, is_plugin, unknown


def sp500_panel() -> PricePanel:
    """Return adjusted daily closes of 20 large S&P 500 companies, 1990-01-02 to 2022-12-28.

    The file is part of the wheel of skfolio (https://skfolio.org), which is found but not imported
    (its import takes seconds). The companies were chosen in hindsight: all of them survived.

    Raises:
        DataError: If skfolio is not installed.
    """
    found = importlib.util.find_spec("skfolio")
    folders = (found and found.submodule_search_locations) or []
    paths = [Path(folder) / "datasets" / "data" / "sp500_dataset.csv.gz" for folder in folders]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise DataError("the prices of 'sp500' are not here; pip install 'skfolio>=1.12,<1.13'")
    frame = pd.read_csv(path, index_col=0)
    return panel_from_prices(frame, "sp500 (skfolio)", adjusted=True)


SOURCES: dict[str, Callable[..., PricePanel]] = {
    "sp500": sp500_panel,
    "synthetic": synthetic_panel,
    "synthetic-null": null_panel,
    "synthetic-momentum": momentum_panel,
    "synthetic-lead-lag": lead_lag_panel,
}
"""Panels by name; the keyword arguments of the function are the options of the name."""

Bars: TypeAlias = pd.DataFrame | PricePanel | Market
Source: TypeAlias = (
    str | os.PathLike[str] | Bars | Callable[[], Bars] | Mapping[str, Any] | Sequence[Any] | Any
)
"""A name that ``load_market`` knows, a path, a frame, a panel, a market, a function of one; or
several files or frames, as a list or by asset; or a table of another library."""

_NO_SOURCE = (
    "{} is not a source of bars: give a path, the name of a market, a frame, a PricePanel or a "
    "Market; of an array, pd.DataFrame(closes, index=dates, columns=symbols)"
)

_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"true": True, "false": False}.__getitem__,
    "str": str,
}


def opened(
    source: Source,
    repair: Mapping[str, Any] | Repair | None,
    adjust: Adjust,
    actions: Actions | None,
) -> PricePanel | Market:
    """Return the bars of a source, checked; a market if it is one."""
    check_adjust(adjust)
    if isinstance(source, str | os.PathLike):
        return source_of(source, repair, adjust, actions)
    if _is_table(source):
        return _read(source, repair, adjust, actions)
    if repair is None and adjust == "auto" and actions is None:
        return _given(source)
    if not isinstance(source, PricePanel | Market) and not callable(source):
        raise ArgumentError(_NO_SOURCE.format(type(source).__name__))
    what = "repair" if repair is not None else "actions" if actions is not None else "adjust"
    raise ArgumentError(f"{what} is for files and frames of bars: leave it out")


def source_of(
    name_or_path: str | os.PathLike[str],
    repair: Mapping[str, Any] | Repair | None = None,
    adjust: Adjust = "auto",
    actions: Actions | None = None,
) -> PricePanel | Market:
    """Return the source of a name or a path; a market if it is a saved one."""
    text = os.fspath(name_or_path)
    if not text:  # as a path it would be the present folder
        raise unknown("market or file", text, SOURCES)
    name, _, query = text.partition("?")
    is_saved = Path(text).suffix == ".npz"
    is_file = name not in SOURCES and Path(text).exists()  # C:x may be one, and a module's name
    is_function = not is_file and (is_plugin(name) or is_entry_point("market", name))
    if not is_file and not is_function and name not in SOURCES:
        if Path(text).suffix or Path(text).name != text:
            raise ArgumentError(
                f"market {text!r}: there is no such file or folder, nor a market of this name; "
                f"names are {', '.join(SOURCES)}"
            )
        raise unknown("market or file", name, SOURCES)
    options = {
        "repair": repair is not None,
        "adjust": adjust != "auto",
        "actions": actions is not None,
    }
    for what, asked in options.items():
        if asked and (not is_file or is_saved):
            raise ArgumentError(f"{what} is for files of bars, {text} is none: leave it out")
    if name in SOURCES:
        return SOURCES[name](**_options(name, SOURCES[name], query))
    if is_function:
        load = _function(name)
        return _called(name, load, _options(name, load, query))
    if is_saved:
        saved = Market.load(text)
        plugins.say_changes(saved.panel.provenance.get("features"), Path(text))
        return saved
    return with_stored_currencies(_read(text, repair, adjust, actions), Path(text))


def _options(name: str, load: Callable[..., Any], query: str) -> dict[str, Any]:
    """Return the options of a named source, as its function takes them."""
    parameters = inspect.signature(load).parameters
    options: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in parameters:
            check_keywords(f"market {name!r}", "option", [key], parameters)
        hint = parameters[key].annotation
        kind = str(getattr(hint, "__name__", hint)).split(" | ")[0]
        try:
            options[key] = _PARSERS[kind](text)
        except (ValueError, KeyError) as error:
            wanted = (
                f"give a value of type {kind}"
                if kind in _PARSERS
                else f"by name go options of type {', '.join(_PARSERS)}; call the function itself"
            )
            raise ArgumentError(f"{key}={text!r} of {name!r}: {wanted}") from error
    return options


def _function(name: str) -> Callable[..., Any]:
    """Return the function of bars of a name, which must declare its return type."""
    load = find("market", name, SOURCES)
    hint = inspect.signature(load).return_annotation if isinstance(load, FunctionType) else None
    declared = str(getattr(hint, "__name__", hint)).rpartition(".")[2]
    if declared not in ("PricePanel", "Market", "DataFrame"):
        raise ArgumentError(
            f"market {name!r} must be a function that says what it returns: write "
            "def load() -> PricePanel, -> Market or -> pd.DataFrame"
        )
    return load


def _called(name: str, load: Callable[..., Any], options: Mapping[str, Any]) -> PricePanel | Market:
    """Return the bars of a user's function."""
    with user_code(f"market {name!r}", DataError):
        bars = load(**options)
    if not isinstance(bars, Bars):
        raise DataError(
            f"market {name!r} returned {type(bars).__name__}: it must return a PricePanel, a "
            "Market or a frame"
        )
    return _given(bars)


def _is_table(source: Any) -> bool:
    """Return whether a source holds bars: frames of any library, or several of them."""
    if isinstance(source, PricePanel | Market):
        return False
    return isinstance(source, Mapping | list | tuple) or as_frame(source) is not None


def _given(bars: Any) -> PricePanel | Market:
    """Return bars in memory, or the result of a function, checked."""
    if isinstance(bars, PricePanel | Market):
        return bars
    if _is_table(bars):
        return _read(bars, None, "auto")
    if callable(bars):
        return _called(getattr(bars, "__qualname__", type(bars).__name__), bars, {})
    raise ArgumentError(_NO_SOURCE.format(type(bars).__name__))


def _read(
    source: Any,
    repair: Mapping[str, Any] | Repair | None,
    adjust: Adjust,
    actions: Actions | None = None,
) -> PricePanel:
    """Return the panel of files or frames, after repairs, which its provenance records."""
    is_path = isinstance(source, str | os.PathLike)
    if repair is None:
        frame = None if is_path or isinstance(source, Mapping | list | tuple) else as_frame(source)
        if frame is None:
            return read_panel(source, adjust, actions)
        return panel_from_frame(frame, adjust=adjust, actions=actions)
    frame = read_frame(source, adjust, actions)
    about = {str(key): value for key, value in frame.attrs.items()}
    mended, record = repaired_bars(frame, repair)
    name = os.fspath(source) if is_path else about["source"]
    panel = panel_from_frame(mended, f"{'the ' * (name == 'frame')}{name}, repaired")
    return panel.with_provenance({**about, "repairs": record})


def long_frame(source: Source) -> pd.DataFrame:
    """Return the bars of a source, unchecked: duplicates, disorder and impossible bars included.

    Args:
        source: See ``Source``; frames have columns date, symbol, close and, where known, open,
            high, low and volume; others are ignored.

    Returns:
        A frame with those columns, dates as datetime64[ns] (UTC, without a zone), prices and volume
        as float64, in the order given.

    Raises:
        ArgumentError: If it is not a source, or an unknown name.
        DataError: If there are no rows, or one lacks its date or symbol or holds no number.
    """
    bars = resolved(source)
    return bars if isinstance(bars, pd.DataFrame) else frame_of_panel(bars)


def resolved(
    source: Source, adjust: Adjust = "auto", actions: Actions | None = None
) -> pd.DataFrame | PricePanel:
    """Return the bars of a source: a long frame if unchecked, else a panel."""
    if isinstance(source, str | os.PathLike):
        is_table = Path(source).exists() and Path(source).suffix != ".npz"
    else:
        is_table = _is_table(source)
    if is_table:
        return read_frame(source, adjust, actions)
    bars = opened(source, None, adjust, actions)
    return bars.panel if isinstance(bars, Market) else bars
