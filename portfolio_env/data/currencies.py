"""Prices in one currency: what assets are quoted in, and conversion by rates of exchange."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.checks import check_number
from portfolio_env.data.bars import panel_from_frame, read_panel
from portfolio_env.data.metadata import with_categories
from portfolio_env.data.tables.quotes import PARTS, code_of
from portfolio_env.data.tables.sources import as_frame
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps, bar_spacing, time_text

Rates: TypeAlias = (
    str | os.PathLike[str] | pd.DataFrame | Mapping[str, float | str | os.PathLike[str] | pd.Series]
)
"""Rates of exchange by currency: units of the base currency that one unit of it costs.

A number, a Series over dates, a file of dates and rates, or the name of an asset of the market
(EURUSD, EUR/USD; USDJPY is turned over). Also one table for all, with a column per currency or
pair; or a text such as ``"EUR=EURUSD,JPY=jpy.csv,USDT=1"``.
"""

_PRICES = ("open", "high", "low", "close")
_QUOTED = re.compile(r"[^/]+/([A-Za-z0-9]{2,10})(:.+)?|[A-Za-z]{3}([A-Za-z]{3})=X")
_PAIR = re.compile(r"[A-Z]{6}|DEX[A-Z]{4}")  # or as FRED calls one: DEXJPUS is yen for a dollar
_GIVEN = re.compile(r"\s*([A-Za-z0-9]{2,10})=(.+)")
_DAY = np.timedelta64(1, "D")
_OLDEST = 7 * _DAY
_SHOWN = 3


def currencies_of(panel: PricePanel) -> list[str]:
    """Return what each asset is quoted in: its label "currency", else what its bars say.

    Bars say it by a column currency, by their store, or by a name such as BTC/USDT.

    What a market was converted to is the currency of all of it; "" is unknown.
    """
    base = panel.provenance.get("base_currency")
    if base:
        return [str(base)] * len(panel.assets)
    labels = panel.categories.get("currency", ("",) * len(panel.assets))
    stored = panel.provenance.get("currencies", {})
    found = []
    for asset, label in zip(panel.assets, labels, strict=True):
        match = _QUOTED.fullmatch(asset)
        named = (match[1] or match[3]).upper() if match else ""
        found.append(code_of(label or stored.get(asset) or named))
    return found


def check_currencies(panel: PricePanel) -> None:
    """Refuse assets that are quoted in different currencies.

    Raises:
        DataError: Naming them and the fix.
    """
    groups: dict[str, list[str]] = {}
    for asset, currency in zip(panel.assets, currencies_of(panel), strict=True):
        if currency:
            groups.setdefault(PARTS.get(currency, currency), []).append(asset)
    if len(groups) < 2:
        return
    listed = "; ".join(
        f"{currency}: {', '.join(own[:_SHOWN])}{', ...' * (len(own) > _SHOWN)}"
        for currency, own in sorted(groups.items())
    )
    base = max(groups, key=lambda name: len(groups[name]))
    other = next(name for name in sorted(groups) if name != base)
    raise DataError(
        f"assets are quoted in different currencies ({listed}): load some of them, or give "
        f"base_currency={base!r} and exchange_rates={{{other!r}: ...}}, a number, a series or an "
        f"asset such as {other}{base}"
    )


def in_currency(
    panel: PricePanel, base: str, rates: Rates | None = None, assets: Sequence[str] | None = None
) -> PricePanel:
    """Return the panel with all prices in one currency, so that returns are those of its owner.

    Every price of a bar is multiplied by the rate known at its close: the last one, which may be
    seven days old, or a bar. Daily rates are known at the end of their day. Volume stays in units.
    An asset that is a rate turned over (USDJPY for dollars) would always be worth 1 and is left
    out, unless it is named.

    Args:
        panel: The bars.
        base: The currency, e.g. "USD".
        rates: Rates of the other currencies.
        assets: The assets that are wanted; None means all.

    Raises:
        ArgumentError: If the currency or a rate is none, or the panel is in another one already.
        DataError: If the currency of an asset or its rate at a bar is unknown, with the fix.
    """
    _check_code(base)
    before = panel.provenance.get("base_currency")
    if before:
        if before != base:
            raise ArgumentError(
                f"the prices are in {before} already: give base_currency={before!r}"
            )
        return panel
    given = _given(rates)
    wanted = [a for a in panel.assets if assets is None or a in assets]
    quoted = dict(zip(panel.assets, currencies_of(panel), strict=True))
    turned = []
    for currency, own in given.items() if isinstance(given, dict) else ():
        if isinstance(own, str) and own in panel.assets:
            way = _way(own, currency, base)
            quoted[own] = base if way > 0 else currency
            turned += [own] * (way < 0)
    unknown = [name for name in wanted if not quoted[name]]
    if unknown:
        raise DataError(
            f"the currency of {unknown[:_SHOWN]} ({len(unknown)}) is unknown: give "
            "metadata={'NAME': {'currency': 'EUR'}, ...}, or leave these assets out"
        )
    factors: dict[str, FloatArray] = {}
    about = {}
    scale = np.ones(panel.close.shape)
    for at, name in enumerate(panel.assets):
        if name not in wanted:
            continue
        code = PARTS.get(quoted[name], quoted[name])
        if code not in factors:
            factors[code], about[code] = _factor(panel, code, base, given)
        scale[:, at] = factors[code] * (0.01 if quoted[name] in PARTS else 1.0)
        lost = np.isnan(scale[:, at]) & ~np.isnan(panel.close[:, at])
        if lost.any():
            when = time_text(panel.timestamps[int(lost.argmax())])
            raise DataError(
                f"there is no rate of {code} for {name} at {when} (and at {int(lost.sum()) - 1} "
                f"more bars), nor one less than {_OLDEST / _DAY:g} days older: give more rates, or "
                "a later start"
            )
    scale = np.where(np.isnan(scale), 1.0, scale)
    prices = {name: getattr(panel, name) for name in _PRICES}
    made = {name: own * scale for name, own in prices.items() if own is not None}
    sources = {code: text for code, text in about.items() if code != base}
    provenance = {**panel.provenance, "base_currency": base, "exchange_rates": sources}
    panel = replace(panel, **made, provenance=provenance)
    if assets is not None or not turned:
        return panel
    return panel.subset(columns=[k for k, a in enumerate(panel.assets) if a not in turned])


def _check_code(base: str) -> None:
    if not isinstance(base, str) or not re.fullmatch(r"[A-Z0-9]{2,10}", base) or base in PARTS:
        whole = f"; give {PARTS[base]!r}" if base in PARTS else ""
        raise ArgumentError(
            f"base_currency={base!r} must be the code of a currency, e.g. 'USD'{whole}."
        )


def with_stored_currencies(panel: PricePanel, folder: Path) -> PricePanel:
    """Return the panel of a folder of a store with the currencies that the store knows."""
    path = folder.parent / "metadata.csv"
    if not path.is_file():
        return panel
    try:
        labels = with_categories(panel, path, columns=["currency"]).categories["currency"]
    except (ArgumentError, DataError):  # any other file of that name
        return panel
    known = {name: own for name, own in zip(panel.assets, labels, strict=True) if own}
    known |= panel.provenance.get("currencies", {})
    return panel.with_provenance({**panel.provenance, "currencies": known}) if known else panel


def parsed(rates: str) -> dict[str, str] | str:
    """Return the rates of a text by currency; a path as it is.

    >>> parsed("EUR=EURUSD, JPY=jpy.csv"), parsed("rates.csv")
    ({'EUR': 'EURUSD', 'JPY': 'jpy.csv'}, 'rates.csv')
    """
    found = [_GIVEN.fullmatch(part) for part in rates.split(",")]
    if Path(rates).exists() or not all(found):
        return rates
    return {match[1]: match[2].strip() for match in found if match}


def absolute(rates: str) -> str:
    """Return the rates of a text with the paths of its files absolute, as settings keep it."""
    found = parsed(rates)
    if isinstance(found, str):
        return str(Path(found).resolve())
    files = {code: Path(own) for code, own in found.items() if Path(own).is_file()}
    return ",".join(f"{code}={files[code].resolve() if code in files else own}"
                    for code, own in found.items())  # fmt: skip


def _given(rates: Rates | None) -> dict[str, Any] | PricePanel:
    """Return rates by currency, or the table of all of them."""
    if rates is None:
        return {}
    if isinstance(rates, str):
        rates = parsed(rates)
    if isinstance(rates, Mapping):
        for code in rates.keys() & PARTS:
            raise ArgumentError(
                f"exchange_rates: {code} is a hundredth of {PARTS[code]}: give the rate of "
                f"{PARTS[code]}"
            )
        return {code_of(code): own for code, own in rates.items()}
    return _table("exchange_rates", rates)


def _table(name: str, source: Any) -> PricePanel:
    if isinstance(source, str | os.PathLike):
        if not Path(source).exists():
            raise ArgumentError(
                f"{name}={os.fspath(source)!r} must be a number, an asset or a file of rates."
            )
        return read_panel(source)
    frame = as_frame(source)
    if frame is None:
        raise ArgumentError(f"{name}={source!r} must be a number, an asset, a Series or a file.")
    return panel_from_frame(frame, name)


def _factor(
    panel: PricePanel, code: str, base: str, given: dict[str, Any] | PricePanel
) -> tuple[FloatArray, str]:
    """Return the (T,) base units that one unit of a currency costs at each bar, and from where."""
    times = panel.timestamps
    if code == base:
        return np.ones(len(times)), base
    fix = f"give exchange_rates={{{code!r}: ...}}, a number, a series or an asset {code}{base}"
    if isinstance(given, PricePanel):
        pairs = [(name, _way(name, code, base, alone=True)) for name in given.assets]
        found = [(name, way) for name, way in pairs if way]
        if len(found) != 1:
            raise DataError(
                f"exchange_rates has {len(found)} columns of {code} among {list(given.assets)}: "
                f"call one of them {code} or {code}{base}"
            )
        name, way = found[0]
        return _known_at(given, name, way, times), name
    if code not in given:
        raise DataError(f"there is no rate of {code} in {base}: {fix}")
    own = given[code]
    if isinstance(own, str) and own in panel.assets:
        way = _way(own, code, base)
        if not way:
            raise ArgumentError(
                f"exchange_rates: {own} is no rate of {code} in {base} by its name: call it "
                f"{code}{base}, or give a series"
            )
        return _known_at(panel, own, way, times), own
    try:
        number = float(own)
    except (TypeError, ValueError):
        number = np.nan
    if np.isfinite(number):
        check_number(f"exchange_rates[{code!r}]", number, above=0)
        return np.full(len(times), number), f"{number:g}"
    if isinstance(own, pd.Series):
        own = own.to_frame(code if own.name is None else str(own.name))
    table = _table(f"exchange_rates[{code!r}]", own)
    name = table.assets[0]
    if len(table.assets) > 1:
        return _factor(panel, code, base, table)
    way = _way(name, code, base, alone=True)
    if not way and _PAIR.fullmatch(re.sub(r"=X$|[^A-Za-z0-9]", "", name)):
        raise ArgumentError(
            f"exchange_rates: {name} is no rate of {code} in {base} by its name: call it "
            f"{code}{base}, or {base}{code} if it is what one {base} costs"
        )
    way = way or 1
    source = os.fspath(own) if isinstance(own, str | os.PathLike) else "series"
    return _known_at(table, name, way, times), source


def _way(name: str, code: str, base: str, *, alone: bool = False) -> int:
    """Return 1 if a pair's price is base units per unit of a currency, -1 if turned over, else 0.

    >>> [_way(name, "EUR", "USD") for name in ("EURUSD", "EUR/USD", "USDEUR=X", "EUR=X", "FXE")]
    [1, 1, -1, -1, 0]
    """
    plain = re.sub(r"=X$", "", name)
    key = re.sub(r"[^A-Za-z0-9]", "", plain)
    if plain != name and len(key) == 3:
        key = f"USD{key}"  # Yahoo's JPY=X is yen for a dollar
    ways = {f"{code}{base}": 1, f"{base}{code}": -1}
    if alone:
        ways[code] = 1
    return ways.get(key, 0)


def _known_at(panel: PricePanel, name: str, way: int, times: Timestamps) -> FloatArray:
    """Return the (T,) rates known at the close of bars, from the closes of an asset."""
    close = panel.close[:, panel.assets.index(name)]
    rows = np.isfinite(close)
    dated, values = panel.timestamps[rows], close[rows] ** way
    if _are_days(dated) and not _are_days(times):
        dated = dated + _DAY
    elif _are_days(times) and not _are_days(dated):
        times = times + _DAY - np.timedelta64(1, "ns")  # a day's last rate is known at its close
    place = np.searchsorted(dated, times, side="right")
    age = times - np.r_[np.datetime64("NaT", "ns"), dated][place]
    oldest = max(_OLDEST, bar_spacing(times)[0])
    return np.where(age <= oldest, np.r_[np.nan, values][place], np.nan)


def _are_days(times: Iterable[Any]) -> bool:
    stamps = np.asarray(times)
    return bool((stamps == stamps.astype("datetime64[D]")).all())
