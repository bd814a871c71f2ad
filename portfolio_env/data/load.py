"""Loading of markets: the bars of a source, cut, with additions, and their features."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from portfolio_env.checks import check_number
from portfolio_env.data.actions import Actions
from portfolio_env.data.adjust import Adjust
from portfolio_env.data.currencies import Rates, check_currencies, in_currency
from portfolio_env.data.exogenous import join
from portfolio_env.data.factor_frames import Factors
from portfolio_env.data.metadata import Labels, with_categories
from portfolio_env.data.opening import Source, opened
from portfolio_env.data.repair import Repair
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.features.pipeline import FeaturePipeline, build_market
from portfolio_env.market import Market, market
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import MOST_PERIODS, TimeLike, as_timestamp, row_of, time_text
from portfolio_env.names import indices_of
from portfolio_env.resampling import resample

_NAMED = 8  # assets that an error names


def load_market(
    source: Source,
    *,
    assets: Sequence[str] | None = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    features: str | Sequence[str] | FeaturePipeline = "minimal",
    fit_end: TimeLike | None = None,
    timeframe: str | None = None,
    metadata: str | os.PathLike[str] | Labels | None = None,
    exogenous: str | os.PathLike[str] | Factors | None = None,
    repair: Mapping[str, Any] | Repair | None = None,
    adjust: Adjust = "auto",
    actions: Actions | None = None,
    base_currency: str | None = None,
    exchange_rates: Rates | None = None,
    periods_per_year: float | None = None,
) -> Market:
    """Load a market by name, from a file, or from bars in memory.

    Args:
        source: A name in ``SOURCES`` (options follow as a query, e.g.
            ``"synthetic-momentum?seed=3&strength=weak"``); the path of a CSV or Parquet file or of
            a folder of them, a list of such paths or ``{asset: path}`` (see ``read_frame``), or of
            a market saved as ``.npz``; a frame: long (columns date, symbol, close and, where known,
            open, high, low and volume), wide (index dates, one column of closing prices per asset,
            NaN where there is no bar) or with two levels of columns as yfinance gives it; a list of
            frames or ``{asset: frame}``; a
            ``PricePanel``; a ``Market``; or a function that returns one of these three, given
            itself, as ``"my_prices:load?symbol=A"`` or as an entry point ``market.NAME``. By name,
            it must say what it returns, ``-> PricePanel`` for one, and options go to parameters
            of type str, int, float or bool.
        assets: The assets to keep, in this order; None keeps all.
        start: The first bar to keep, a row or a date; None is the first there is.
        end: The bar after the last one to keep, a row or a date; None keeps the last.
        features: A preset, names of features or a ``FeaturePipeline``.
        fit_end: Scalers are fitted on rows (of the loaded market) before this row or date; None
            leaves the features unscaled.
        timeframe: Make longer bars of those that are kept, e.g. "1d" (see ``resample``).
        metadata: Labels of the assets: a file, a frame with a row per symbol, a Series such as
            sectors by symbol, or a mapping (see ``with_categories``).
        exogenous: Further channels with their own times, such as factors: a file, a frame, or
            ``{name: frame of dates and symbols}`` (see ``join``).
        repair: Repairs of the bars of a file or folder before they are checked (see
            ``portfolio_env.data.repair``); what was done stands in ``panel.provenance["repairs"]``.
        adjust: Kind of prices of a file or frame: "all", adjusted for splits and dividends;
            "splits"; "none", as they are; "auto", adjusted as far as the source tells how (see
            ``portfolio_env.data.adjust``). What was done stands in ``provenance["adjust"]``.
        actions: Splits and dividends of a file or frame to adjust for: a table with the columns
            date, symbol, split and dividend (see ``portfolio_env.data.actions``). As with columns
            of the prices, ``adjust="all"`` adds dividends.
        base_currency: The currency that all prices are converted to, e.g. "USD"; None refuses
            assets that are quoted in different ones, as far as labels, names like BTC/USDT or a
            store tell.
        exchange_rates: Rates of exchange for it, by currency: numbers, Series, files, or assets of
            the source (see ``portfolio_env.data.currencies``).
        periods_per_year: Bars per year that yearly figures follow from, in (0, 1e9]; None for those
            that are counted in the range they are of, which ``repr(market)`` states for all of it.
            Interest accrues by the clock either way.

    Returns:
        The market, as if its source held nothing but the kept bars: assets and rows without any
        between ``start`` and ``end`` are dropped. Only a saved market keeps the features it was
        saved with, unless ``features``, ``fit_end``, ``timeframe``, ``metadata``, ``exogenous`` or
        ``base_currency`` say otherwise.

    Raises:
        ArgumentError: For unknown names, options or dates.
        DataError: If the data cannot be used; the message names file, row and fix.
    """
    if isinstance(features, pd.DataFrame | Mapping):
        raise ArgumentError(
            f"features is of type {type(features).__name__}: they are names or functions of bars; "
            "give values of your own as exogenous="
        )
    bars = _priced(opened(source, repair, adjust, actions), assets)
    additions = (timeframe, metadata, exogenous, base_currency, exchange_rates)
    if isinstance(bars, Market):
        if features == "minimal" and fit_end is None and all(item is None for item in additions):
            kept = _cut_market(bars, assets, start, end)
            return replace(kept, panel=_stated(kept.panel, periods_per_year))
        bars = bars.panel
    panel = _prepared(bars, assets, start, end, periods_per_year, *additions)
    return build_market(panel, features=features, fit_end=fit_end)


market._loaders.append(load_market)


def load_panel(
    source: Source,
    *,
    assets: Sequence[str] | None = None,
    start: TimeLike | None = None,
    end: TimeLike | None = None,
    timeframe: str | None = None,
    metadata: str | os.PathLike[str] | Labels | None = None,
    exogenous: str | os.PathLike[str] | Factors | None = None,
    repair: Mapping[str, Any] | Repair | None = None,
    adjust: Adjust = "auto",
    actions: Actions | None = None,
    base_currency: str | None = None,
    exchange_rates: Rates | None = None,
    periods_per_year: float | None = None,
) -> PricePanel:
    """Return the bars of which ``load_market`` computes features; same arguments and errors."""
    bars = _priced(opened(source, repair, adjust, actions), assets)
    panel = bars.panel if isinstance(bars, Market) else bars
    additions = (timeframe, metadata, exogenous, base_currency, exchange_rates)
    return _prepared(panel, assets, start, end, periods_per_year, *additions)


def _priced(bars: PricePanel | Market, assets: Sequence[str] | None) -> PricePanel | Market:
    """Return the bars of a source, whose assets must have prices, or be left out of ``assets``.

    Raises:
        DataError: For assets without any price, by name.
    """
    panel = bars.panel if isinstance(bars, Market) else bars
    unpriced = [
        panel.assets[place]
        for place in np.flatnonzero(np.isnan(panel.close).all(axis=0))
        if assets is None or panel.assets[place] in assets
    ]
    if unpriced:
        absent = ", ".join(unpriced[:_NAMED])
        more = f" (and {len(unpriced) - _NAMED} more)" if len(unpriced) > _NAMED else ""
        raise DataError(
            f"there is no price of {absent}{more}; delete the column, or leave it out of assets"
        )
    return bars


def _stated(panel: PricePanel, periods_per_year: float | None) -> PricePanel:
    """Return the panel with what was stated of its bars per year."""
    if periods_per_year is None:
        return panel
    check_number("periods_per_year", periods_per_year, above=0, high=MOST_PERIODS)
    return replace(panel, stated_periods_per_year=float(periods_per_year))


def _prepared(
    bars: PricePanel,
    assets: Sequence[str] | None,
    start: TimeLike | None,
    end: TimeLike | None,
    periods_per_year: float | None,
    timeframe: str | None,
    metadata: str | os.PathLike[str] | Labels | None,
    exogenous: str | os.PathLike[str] | Factors | None,
    base_currency: str | None,
    exchange_rates: Rates | None,
) -> PricePanel:
    """Return the bars that are kept, with the requested additions, in one currency."""
    if metadata is not None:
        bars = with_categories(bars, metadata)
    if base_currency is not None:
        bars = in_currency(bars, base_currency, exchange_rates, assets)
    elif exchange_rates is not None:
        raise ArgumentError("exchange_rates are for base_currency: give it, or leave them out")
    panel = _cut_panel(bars, assets, start, end)
    check_currencies(panel)
    if timeframe is not None:
        panel = resample(panel, timeframe)
    if exogenous is not None:
        panel = join(panel, exogenous, others=bars.assets)
    return _stated(panel, periods_per_year)


def _cut_panel(
    panel: PricePanel, assets: Sequence[str] | None, start: TimeLike | None, end: TimeLike | None
) -> PricePanel:
    """Return the panel of some assets and bars, without rows and assets that have none there."""
    if assets is None and start is None and end is None:
        return panel
    panel = panel.subset(
        _rows(panel, start, end),
        None if assets is None else indices_of("asset", assets, panel.assets),
    )
    rows, columns = (np.unique(places) for places in np.nonzero(np.isfinite(panel.close)))
    if assets is not None and len(columns) < len(assets):
        absent = [panel.assets[i] for i in np.setdiff1d(np.arange(len(assets)), columns)]
        raise DataError(f"no bar of {absent} from {start} to {end}: widen the range or drop them")
    panel = panel.subset(rows, columns.tolist())
    return replace(panel, periods_per_year=np.nan)


def _cut_market(
    market: Market, assets: Sequence[str] | None, start: TimeLike | None, end: TimeLike | None
) -> Market:
    """Return the rows and assets of a saved market, with the features it has."""
    chosen = market if assets is None else market.select(assets)
    return chosen.subset(_rows(market.panel, start, end))


def _rows(panel: PricePanel, start: TimeLike | None, end: TimeLike | None) -> slice:
    """Return the rows from ``start`` to before ``end``; dates may lie outside the data."""
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
            f"{time_text(panel.timestamps[0])} to {time_text(panel.timestamps[-1])}: "
            "keep at least 2"
        )
    return slice(first, last)
