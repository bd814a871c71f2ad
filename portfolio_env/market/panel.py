"""Aligned price bars of several assets: ``PricePanel``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, reduce
from mmap import mmap
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.html import card
from portfolio_env.market import overview
from portfolio_env.market import sessions as trading_hours
from portfolio_env.market.growing import Room
from portfolio_env.market.timeline import (
    TimeLike,
    Timestamps,
    bars_per_year,
    periods_per_year,
    time_text,
)
from portfolio_env.names import unknown

FloatArray = npt.NDArray[np.float64]
BAR_FIELDS = overview.BAR_FIELDS
ROUNDING = 1e-9
"""Prices that differ by this share are equal but for rounding, as after an adjustment."""
_UP = 1 + ROUNDING
_FAR = 1e100  # ratios of larger numbers, and products of price and volume, leave float64


def bar_faults(
    bars: Mapping[str, FloatArray | None],
) -> Iterator[tuple[npt.NDArray[np.bool_], str]]:
    """Return faults of price bars, as (mask of the offending bars, description).

    A high or low that is wrong by ``ROUNDING`` at most is none of it; see ``contained``.

    Args:
        bars: The arrays of ``BAR_FIELDS``, all of one shape; NaN close means that there is no bar.
    """
    close = bars["close"]
    if close is None:
        raise ArgumentError("close prices are required; pass an array for close")
    present = ~np.isnan(close)
    known = {name: values for name, values in bars.items() if values is not None}
    for name, values in known.items():
        if name != "close":
            yield np.isnan(values) & present, f"{name} is missing where close is given"
            yield ~np.isnan(values) & ~present, f"{name} is given where close is missing"
        yield np.isinf(values), f"{name} is infinite"
        yield (values > _FAR) & ~np.isinf(values), f"{name} is above {_FAR:g}"
        if name == "volume":
            yield values < 0, "volume is negative"
        else:
            yield values <= 0, f"{name} is not positive"
            yield (values > 0) & (values < 1 / _FAR), f"{name} is below {1 / _FAR:g}"
    high, low = known.get("high"), known.get("low")
    if high is not None and low is not None:
        yield high * _UP < low, "high is below low"
    for name in ("open", "close"):
        if name in known and high is not None:
            yield known[name] > high * _UP, f"{name} is above high"
        if name in known and low is not None:
            yield known[name] * _UP < low, f"{name} is below low"


def suspected_returns(close: FloatArray) -> str:
    """Return the fix for closing prices that look like returns, "" for others.

    >>> suspected_returns(np.array([0.01, -0.02, 0.003, -0.01, 0.02]))
    'these look like returns; give prices, e.g. (1 + returns).cumprod()'
    """
    known = close[np.isfinite(close)]
    alike = len(known) >= 5 and np.mean(known < 0) > 0.2 and np.abs(known).max() < 1
    return "these look like returns; give prices, e.g. (1 + returns).cumprod()" if alike else ""


def contained(
    bars: Mapping[str, FloatArray | None],
) -> tuple[dict[str, FloatArray], npt.NDArray[np.bool_]]:
    """Highs and lows that contain open and close, where only rounding says otherwise.

    Args:
        bars: The arrays of ``BAR_FIELDS``, all of one shape.

    Returns:
        New arrays by name, of those that change; and the mask of the bars that do.
    """
    known = (bars.get(name) for name in BAR_FIELDS if name != "volume")
    prices = [values for values in known if values is not None]
    changed: npt.NDArray[np.bool_] = np.zeros(prices[0].shape, np.bool_)
    made: dict[str, FloatArray] = {}
    for name, outer in (("high", reduce(np.fmax, prices)), ("low", reduce(np.fmin, prices))):
        own = bars.get(name)
        if own is not None:
            near = own != outer
            if near.any():
                near &= (own * _UP >= outer) & (own <= outer * _UP)
            if near.any():
                made[name] = np.where(near, outer, own)
                changed |= near
    return made, changed


def frozen(values: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return a C-contiguous array that stays read-only; a copy unless the input is one already."""
    array = np.asarray(values, dtype)
    owner = array.base if isinstance(array.base, np.ndarray) else array
    owned = owner.flags.owndata or isinstance(owner.base, mmap)
    if owner.flags.writeable or not owned or not array.flags.c_contiguous:
        array = np.array(array, dtype, order="C")
        if array.dtype.kind == "f":
            array[np.isnan(array)] = np.nan  # one bit pattern, so that equal data have equal hashes
    return read_only(array)


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array, made read-only, as a view, which ``setflags`` cannot make writable again."""
    if array.flags.writeable or array.flags.owndata:
        array.setflags(write=False)
        return array.view()
    return array


class Immutable:
    """Immutable base: copies are the object itself, and unpickled arrays are read-only again."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_room"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for held in (state, state.get("exogenous", {})):
            for name, value in held.items():
                if isinstance(value, np.ndarray):
                    held[name] = read_only(value)
        self.__dict__.update(state)


@dataclass(frozen=True, eq=False, repr=False)
class PricePanel(Immutable):
    """Aligned price bars of several assets; a bar is complete or absent, never filled.

    A high or low that misses open or close by rounding (a share of 1e-9) is moved to contain them.

    Attributes:
        timestamps: (T,) datetime64[ns], strictly increasing; UTC, or the exchange's date.
        assets: N >= 1 unique names; beside a single one there is cash.
        close: (T, N) closing prices > 0; NaN exactly where the asset has no bar.
        open, high, low: (T, N) prices, or None where the source has none.
        volume: (T, N) units traded, >= 0, or None.
        exogenous: Further channels (T, N) by name, e.g. a sentiment score; NaN where unknown. Row t
            must have been known at the close of bar t.
        categories: Static labels of the assets: N labels by name, e.g. sector; "" where
            unknown.
        periods_per_year: Bars per year of the calendar (365, 252, 8760, ...), by which sessions and
            weekends are recognised; worked out from the timestamps when not given.
        stated_periods_per_year: Basis of yearly figures in place of the bars that are
            counted in a year (``bars_per_year``); NaN where nothing was stated.
        provenance: JSON-able record of where the data come from.
        tradable: (T, N) bool: the bar exists, and volume > 0 where volume is known.

    Raises:
        DataError: Naming the first asset and time at fault.
    """

    timestamps: Timestamps
    assets: tuple[str, ...]
    close: FloatArray
    open: FloatArray | None = None
    high: FloatArray | None = None
    low: FloatArray | None = None
    volume: FloatArray | None = None
    exogenous: Mapping[str, FloatArray] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    periods_per_year: float = math.nan
    stated_periods_per_year: float = math.nan
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tradable: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        """Freeze, check, and derive ``tradable`` and ``periods_per_year``."""
        put = object.__setattr__
        put(self, "timestamps", frozen(self.timestamps, "datetime64[ns]"))
        put(self, "assets", tuple(self.assets))
        for name in BAR_FIELDS:
            if getattr(self, name) is not None:
                put(self, name, frozen(getattr(self, name), np.float64))
        put(self, "exogenous", {k: frozen(v, np.float64) for k, v in self.exogenous.items()})
        put(self, "categories", {k: tuple(map(str, v)) for k, v in self.categories.items()})
        put(self, "provenance", dict(self.provenance))
        self._check()
        rounded, _ = contained({name: getattr(self, name) for name in BAR_FIELDS})
        for name, values in rounded.items():
            put(self, name, frozen(values, np.float64))
        tradable = np.isfinite(self.close)
        if self.volume is not None:
            tradable &= np.nan_to_num(self.volume) > 0
        put(self, "tradable", frozen(tradable, np.bool_))
        if math.isnan(self.periods_per_year):
            put(self, "periods_per_year", periods_per_year(self.timestamps))

    def _check(self) -> None:
        if not self.assets:
            raise DataError("there is no asset: a panel needs the bars of one at least")
        if len(set(self.assets)) < len(self.assets):
            raise DataError(
                f"asset names are not unique: {list(self.assets)}; rename the duplicates"
            )
        times = self.timestamps
        if times.ndim != 1 or not len(times):
            raise DataError(f"timestamps have shape {times.shape}: give one per bar, at least one")
        if np.isnat(times).any() or (np.diff(times) <= np.timedelta64(0)).any():
            raise DataError(
                "timestamps are not strictly increasing: sort the bars, drop duplicates"
            )
        shape = (len(times), len(self.assets))
        channels = {name: getattr(self, name) for name in BAR_FIELDS} | dict(self.exogenous)
        for name, values in channels.items():
            if values is not None and values.shape != shape:
                raise DataError(
                    f"{name} has shape {values.shape}: expected (bars, assets) = {shape}"
                )
        for name, labels in self.categories.items():
            if len(labels) != len(self.assets):
                raise DataError(
                    f"category {name!r} has {len(labels)} labels for {len(self.assets)} assets: "
                    'give one per asset, "" where it is unknown'
                )
        for name, values in self.exogenous.items():
            if np.isinf(values).any():
                raise DataError(f"{name} is infinite somewhere: use NaN where it is unknown")
        for mask, text in bar_faults({name: getattr(self, name) for name in BAR_FIELDS}):
            if mask.any():
                t, i = np.argwhere(mask)[0]
                fix = suspected_returns(self.close) or (
                    "correct the bar, or set all its fields to NaN if it does not exist"
                )
                raise DataError(f"{self.assets[i]} at {time_text(times[t])}: {text}; {fix}")

    def __repr__(self) -> str:
        return f"PricePanel({overview.summary(self)}; {', '.join(overview.fields_of(self))})"

    def _repr_html_(self) -> str | None:
        return card("PricePanel", overview.facts(self), overview.by_asset(self))

    @property
    def fields(self) -> dict[str, FloatArray]:
        """Return (T, N) the bar fields that are known, by name."""
        found = {name: getattr(self, name) for name in BAR_FIELDS}
        return {name: values for name, values in found.items() if values is not None}

    def to_frame(self, field: str | None = None) -> pd.DataFrame:
        """Return the bars as a long frame, as ``load_market`` reads it.

        Args:
            field: One field, e.g. "close", as a wide frame: a row per bar, a column per asset, NaN
                where there is no bar.

        Returns:
            Columns date, symbol and the bar fields that are known; one row per bar, by date and
            symbol. A bar that does not exist has no row.

        Raises:
            ArgumentError: If the field is not known.
        """
        if field is None:
            return overview.long_frame(self)
        if field not in self.fields:
            raise unknown("field", field, self.fields)
        index = pd.DatetimeIndex(self.timestamps, name="date")
        return pd.DataFrame(self.fields[field], index, list(self.assets))

    def status(self, asset: str, when: TimeLike) -> str:
        """Return a sentence on whether an asset can be traded at a bar, and why not.

        Args:
            asset: Its name.
            when: A row, or a date: the first bar at or after it.

        Returns:
            A sentence.

        Raises:
            ArgumentError: If there is no such asset or bar.
        """
        return overview.status(self, asset, when)

    def sessions(self, exchanges: Mapping[str, str] | None = None) -> npt.NDArray[np.bool_]:
        """Return in which rows each asset's market is open, to tell closing times from lost bars.

        It follows from the bars of the whole panel, later ones too: nothing to be observed.

        Args:
            exchanges: Exchanges by asset, by the names of the library exchange_calendars ("XNYS"),
                whose hours and holidays are taken for these assets in place of what bars tell.

        Returns:
            (T, N) bool: whether the asset has a bar, or one would be expected, since it has bars at
            this hour of the week in the weeks around, and another asset of the same hours has one.

        Raises:
            ArgumentError: If there is no such asset or exchange.
            DataError: If the library is needed and missing.
        """
        return trading_hours.sessions(self, exchanges)

    def bars_per_year(self, start: int = 0, end: int | None = None) -> float:
        """Return the bars per year of the rows from ``start`` to before ``end``.

        Yearly figures follow from it.

        What was stated, else the steps there over the years that they take.
        """
        if not math.isnan(self.stated_periods_per_year):
            return self.stated_periods_per_year
        return bars_per_year(self.timestamps[start:end])

    @cached_property
    def first_bars(self) -> npt.NDArray[np.intp]:
        """Rows (N,) of the first bars of the assets; T where there is none.

        Negative if it is among rows that ``without`` has left out.
        """
        present = ~np.isnan(self.close)
        return np.where(present.any(axis=0), present.argmax(axis=0), len(present))

    def extended(self, later: PricePanel) -> PricePanel:
        """Return this panel followed by later bars of the same assets, fields and channels.

        What was checked is not checked or copied again, so this takes the same time for any panel;
        only when its spare rows are used up, at every eighth of its length, is it copied.

        Raises:
            DataError: If they do not continue it.
        """
        fields = {name: (getattr(self, name), getattr(later, name)) for name in BAR_FIELDS}
        if self.assets != later.assets or list(self.exogenous) != list(later.exogenous):
            raise DataError(
                f"the new bars have assets {later.assets} and channels {list(later.exogenous)}, "
                f"the panel has {self.assets} and {list(self.exogenous)}: give the same"
            )
        odd = [name for name, (old, new) in fields.items() if (old is None) != (new is None)]
        if odd:
            raise DataError(f"only one of panel and new bars has {odd}: give the same fields")
        if later.timestamps[0] <= self.timestamps[-1]:
            raise DataError(
                f"the new bars start at {time_text(later.timestamps[0])}, the panel ends at "
                f"{time_text(self.timestamps[-1])}: give later bars only"
            )

        old, new = self.arrays(), later.arrays()
        room = Room.of(old, len(later.timestamps), self.__dict__.get("_room"))
        made, room = room.appended(new, len(self.timestamps) + len(later.timestamps))
        born = np.where(
            self.first_bars == len(self.timestamps),
            len(self.timestamps) + later.first_bars,
            self.first_bars,
        )
        panel = self._with_arrays(made)
        panel.__dict__.update(_room=room, first_bars=born)
        return panel

    def without(self, rows: int) -> PricePanel:
        """Return the panel without its first rows, as views, at the same cost for any panel.

        Unlike in ``subset``, ``first_bars`` before them are negative, and the bars per year stay.
        """
        panel = self._with_arrays({name: own[rows:] for name, own in self.arrays().items()})
        panel.__dict__["first_bars"] = self.first_bars - rows
        if "_room" in self.__dict__:
            panel.__dict__["_room"] = self.__dict__["_room"]
        return panel

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of one row per bar by name."""
        known = {name: getattr(self, name) for name in ("timestamps", *BAR_FIELDS, "tradable")}
        channels = {f"exogenous {name}": values for name, values in self.exogenous.items()}
        return {name: values for name, values in known.items() if values is not None} | channels

    def _with_arrays(self, arrays: Mapping[str, npt.NDArray[Any]]) -> PricePanel:
        """Return the panel with other rows, which were checked before."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values |= {name: rows for name, rows in arrays.items() if name in values}
        values["exogenous"] = {name: arrays[f"exogenous {name}"] for name in self.exogenous}
        panel = object.__new__(type(self))
        panel.__dict__.update(values)
        return panel

    def with_provenance(self, provenance: Mapping[str, Any]) -> PricePanel:
        """Return the panel with another record of where its data come from, unchecked as it is."""
        panel = self._with_arrays(self.arrays())
        panel.__dict__["provenance"] = dict(provenance)
        return panel

    def past(self, t: int, *, copy: bool = False) -> PricePanel:
        """Return the panel as it was known at the close of bar ``t``: rows 0 to t, as views.

        What was checked is not checked again, so this takes the same few microseconds for any t.
        With ``copy`` the arrays are copies: the array that a view is of reaches later rows.
        """
        if not 0 <= t < len(self.timestamps):
            raise ArgumentError(f"t is {t}: give a row in [0, {len(self.timestamps) - 1}]")
        rows = {name: values[: t + 1] for name, values in self.arrays().items()}
        if copy:
            rows = {name: read_only(values.copy()) for name, values in rows.items()}
        return self._with_arrays(rows)

    def subset(
        self, rows: slice | npt.NDArray[Any] = slice(None), columns: Sequence[int] | None = None
    ) -> PricePanel:
        """Return the panel of some rows (a view for slices) and some assets, in the given order."""

        def cut(values: Any) -> Any:
            if values is None:
                return None
            values = values[rows]
            return values if columns is None else values[:, list(columns)]

        def cut_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
            return labels if columns is None else tuple(labels[i] for i in columns)

        return replace(
            self,
            timestamps=self.timestamps[rows],
            assets=cut_labels(self.assets),
            exogenous={name: cut(values) for name, values in self.exogenous.items()},
            categories={name: cut_labels(labels) for name, labels in self.categories.items()},
            **{name: cut(getattr(self, name)) for name in BAR_FIELDS},
        )
