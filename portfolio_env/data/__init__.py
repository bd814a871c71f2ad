"""Where markets come from: bundled real prices, generators and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd

from portfolio_env.data.bundled import sp500_panel
from portfolio_env.data.exogenous import join
from portfolio_env.data.files import panel_from_frame, read_frame, read_panel
from portfolio_env.data.lead_lag import lead_lag_panel
from portfolio_env.data.metadata import with_categories
from portfolio_env.data.planted import momentum_panel, null_panel
from portfolio_env.data.synthetic import synthetic_panel
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market import Market
from portfolio_env.names import positions, unknown
from portfolio_env.panel import PricePanel
from portfolio_env.resampling import resample
from portfolio_env.timeline import Moment, as_timestamp, row_of

if TYPE_CHECKING:
    from portfolio_env.data.repair import Repair
    from portfolio_env.features import FeaturePipeline

__all__ = ["SOURCES", "load_market"]

SOURCES: dict[str, Callable[..., PricePanel]] = {
    "sp500": sp500_panel,
    "synthetic": synthetic_panel,
    "synthetic-null": null_panel,
    "synthetic-momentum": momentum_panel,
    "synthetic-lead-lag": lead_lag_panel,
}
"""Panels by name; the keyword arguments of the function are the options of the name."""

_PARSERS: dict[str, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "bool": {"true": True, "false": False}.__getitem__,
    "str": str,
}


def load_market(
    name_or_path: str | os.PathLike[str],
    *,
    assets: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    features: str | Sequence[str] | FeaturePipeline = "minimal",
    fit_end: Moment | None = None,
    timeframe: str | None = None,
    metadata: str | os.PathLike[str] | Mapping[str, Mapping[str, str]] | None = None,
    exogenous: str | os.PathLike[str] | pd.DataFrame | None = None,
    repair: Mapping[str, Any] | Repair | None = None,
) -> Market:
    """Load a market by name or from a file.

    Args:
        name_or_path: a name in `SOURCES` (options follow as a query, e.g.
            ``"synthetic-momentum?seed=3&strength=weak"``), or the path of a CSV or Parquet file or
            of a folder of them (see `read_frame`), or of a market saved as ``.npz``.
        assets: the assets to keep, in this order; None keeps all.
        start: the first bar to keep, a row or a date; None is the first there is.
        end: the bar after the last one to keep, a row or a date; None keeps the last.
        features: a preset, names of features or a `FeaturePipeline`.
        fit_end: scalers are fitted on rows (of the loaded market) before this row or date; None
            leaves the features unscaled.
        timeframe: make longer bars of those that are kept, e.g. "1d" (see `resample`).
        metadata: labels of the assets, a file or a mapping (see `with_categories`).
        exogenous: further channels with their own times, a file or a frame (see `join`).
        repair: what to mend in the bars of a file or folder before they are checked (see
            `portfolio_env.data.repair`); what was done stands in ``panel.provenance["repairs"]``.

    Returns:
        The market, as if its source held nothing but the kept bars: assets and rows without any are
        dropped. Only a saved market keeps the features it was saved with, unless ``features``,
        ``fit_end``, ``timeframe``, ``metadata`` or ``exogenous`` say otherwise.

    Raises:
        ArgumentError: for unknown names, options or dates.
        DataError: if the data cannot be used; the message names the file, the row and the mend.
    """
    source = source_of(name_or_path, repair)
    additions = (timeframe, metadata, exogenous)
    if isinstance(source, Market):
        if features == "minimal" and fit_end is None and all(item is None for item in additions):
            return _cut_market(source, assets, start, end)
        source = source.panel
    if metadata is not None:
        source = with_categories(source, metadata)
    panel = _cut_panel(source, assets, start, end)
    if timeframe is not None:
        panel = resample(panel, timeframe)
    if exogenous is not None:
        panel = join(panel, exogenous, others=source.assets)
    return Market.from_panel(panel, features=features, fit_end=fit_end)


def source_of(
    name_or_path: str | os.PathLike[str], repair: Mapping[str, Any] | Repair | None = None
) -> PricePanel | Market:
    """What a name or a path stands for; a market if it is a saved one."""
    text = os.fspath(name_or_path)
    name, _, query = text.partition("?")
    is_saved = Path(text).suffix == ".npz"
    if name not in SOURCES and not Path(text).exists():
        raise unknown("market (nor is there such a file)", name, SOURCES)
    if repair is not None and (name in SOURCES or is_saved):
        raise ArgumentError(f"repair is for files of bars, {text} is none: leave it out")
    if name in SOURCES:
        return SOURCES[name](**_options(name, query))
    if is_saved:
        return Market.load(text)
    return read_panel(text) if repair is None else _repaired(text, repair)


def _repaired(path: str, options: Mapping[str, Any] | Repair) -> PricePanel:
    """The panel of a file or folder after repairs, which its provenance records."""
    from portfolio_env.data.repair import repair

    frame = read_frame(path)
    source = {str(key): value for key, value in frame.attrs.items()}
    mended, record = repair(frame, options)
    panel = panel_from_frame(mended, f"{path}, repaired")
    return replace(panel, provenance={**source, "repairs": record})


def _options(name: str, query: str) -> dict[str, Any]:
    """The options of a named source, as its function takes them."""
    parameters = signature(SOURCES[name]).parameters
    options: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in parameters:
            raise unknown(f"option of {name!r}", key, parameters)
        kind = str(parameters[key].annotation).split(" | ")[0]
        try:
            options[key] = _PARSERS[kind](text)
        except (ValueError, KeyError) as error:
            raise ArgumentError(
                f"{key}={text!r} of {name!r}: give a value of type {kind}"
            ) from error
    return options


def _cut_panel(
    panel: PricePanel, assets: Sequence[str] | None, start: Moment | None, end: Moment | None
) -> PricePanel:
    """The panel of some assets and bars, without rows and assets that have none there."""
    if assets is None and start is None and end is None:
        return panel
    panel = panel.subset(
        _rows(panel, start, end),
        None if assets is None else positions("asset", assets, panel.assets),
    )
    rows, columns = (np.unique(places) for places in np.nonzero(np.isfinite(panel.close)))
    if assets is not None and len(columns) < len(assets):
        absent = [panel.assets[i] for i in np.setdiff1d(np.arange(len(assets)), columns)]
        raise DataError(f"no bar of {absent} from {start} to {end}: widen the range or drop them")
    panel = panel.subset(rows, columns.tolist())
    return replace(panel, periods_per_year=np.nan)


def _cut_market(
    market: Market, assets: Sequence[str] | None, start: Moment | None, end: Moment | None
) -> Market:
    """The rows and assets of a saved market, with the features it has."""
    chosen = market if assets is None else market.select(assets)
    return chosen.subset(_rows(market.panel, start, end))


def _rows(panel: PricePanel, start: Moment | None, end: Moment | None) -> slice:
    """The rows from ``start`` to before ``end``; dates may lie outside the data."""
    first, last = (
        default
        if when is None
        else row_of(panel.timestamps, when)
        if isinstance(when, int | np.integer)
        else int(np.searchsorted(panel.timestamps, as_timestamp(when)))
        for when, default in ((start, 0), (end, len(panel.timestamps)))
    )
    if last - first < 2:
        raise ArgumentError(
            f"start={start}, end={end} keep {max(0, last - first)} of the bars from "
            f"{panel.timestamps[0]} to {panel.timestamps[-1]}: keep at least 2"
        )
    return slice(first, last)
