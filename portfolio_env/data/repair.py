"""Repairs of bars: each one requested, and each one recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.checks import check_integer, check_number
from portfolio_env.data.bars import typed_frame
from portfolio_env.data.reports.sorted_bars import bar_fields, iso, lacking, order_faults
from portfolio_env.data.tables.origin import Origin
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import BAR_FIELDS, bar_faults
from portfolio_env.names import unknown

BoolArray = npt.NDArray[np.bool_]

_HISTORY = 250  # returns before a bar that define usual ones
_SHORTEST = 30  # with fewer returns, nothing is called a jump
_NORMAL_MAD = 1.4826  # standard deviation over median absolute deviation


@dataclass(frozen=True)
class Repair:
    """Repairs to apply to bars; none by default. Applied in the order given here.

    No repair of a bar uses later ones: repairing the bars up to the date of any bar that is
    kept gives the repaired bars up to that date.

    Attributes:
        sort: Put rows in order of date and symbol.
        drop_faulty: Drop bars that cannot be true (``bar_faults``) or lack a field.
        drop_duplicates: Row to keep of one date and symbol, the "first" or the "last".
        drop_jumps: Drop bars whose close lies more than this many robust sigmas (1.4826 times the
            median absolute log return of the 250 bars before; at least 30) away from the last kept
            close. The bar after a dropped one is kept if it lies within that distance of the last
            kept close (the jump was an error) or of the dropped one (it was news): so a true jump
            loses its first bar, and enters at its second.
        fill_gaps: Largest number of missing bars over which the last close is carried:
            open, high, low and close are the last close, volume is 0. Bars filled in this way
            cannot be traded (``PricePanel.tradable``). Of a longer gap the rest stays missing, as
            does everything after; an asset that has ended is carried as well, since nobody knew.
            The rows then are in order of date and symbol.
        spacing: The time between bars of a market that never closes, e.g. "1h": dates on which no
            asset has a bar then count as missing, too. None: only dates count on which some asset
            has a bar.

    Raises:
        ArgumentError: For values out of range.
    """

    sort: bool = False
    drop_faulty: bool = False
    drop_duplicates: Literal["first", "last"] | None = None
    drop_jumps: float | None = None
    fill_gaps: int = 0
    spacing: str | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if self.drop_duplicates not in (None, "first", "last"):
            raise ArgumentError(
                f"drop_duplicates is {self.drop_duplicates!r}: give 'first', 'last' or None"
            )
        if self.drop_jumps is not None:
            check_number("drop_jumps", self.drop_jumps, above=0)
        check_integer("fill_gaps", self.fill_gaps, 0)
        if self.spacing is not None:
            _spacing(self.spacing)
            if not self.fill_gaps:
                raise ArgumentError(
                    f"spacing is {self.spacing!r} and fill_gaps is 0: say how many bars to fill"
                )

    @classmethod
    def of(cls, options: Repair | Mapping[str, Any] | None) -> Repair:
        """Return the options, also from a mapping of them; None repairs nothing.

        Raises:
            ArgumentError: For unknown options, and values out of range.
        """
        if isinstance(options, Repair):
            return options
        known = [option.name for option in fields(cls)]
        if options is not None and not isinstance(options, Mapping):
            raise ArgumentError(
                f"repair={options!r} must be a mapping of options, e.g. "
                f"{{'drop_duplicates': 'last'}}; they are {', '.join(known)}."
            )
        for name in options or {}:
            if name not in known:
                raise unknown("repair", name, known)
        return cls(**(options or {}))


def repair(
    frame: pd.DataFrame, options: Repair | Mapping[str, Any] | None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Repair bars in long form.

    Args:
        frame: Columns date, symbol, close and, where known, open, high, low and volume (see
            ``typed_frame``); others are dropped.
        options: See ``Repair``.

    Returns:
        The repaired frame, and what was done, JSON-able: the options, and for each one in use the
        number of rows it touched, in all and per symbol, with the date of the first.

    Raises:
        ArgumentError: For unknown options.
        DataError: If rows are out of order or repeat a date and a repair needs that they do not.
    """
    options = Repair.of(options)
    frame = typed_frame(frame, Origin("the frame"))
    steps: dict[str, Any] = {}
    if options.sort:
        _, disorder, _ = order_faults(*_keys(frame))
        steps["sort"] = _touched(frame[disorder])
        frame = frame.sort_values(["date", "symbol"], kind="stable", ignore_index=True)
    if options.drop_faulty:
        frame, steps["drop_faulty"] = _without(frame, _faulty(frame))
    if options.drop_duplicates is not None:
        extra = frame.duplicated(["date", "symbol"], keep=options.drop_duplicates).to_numpy()
        frame, steps["drop_duplicates"] = _without(frame, extra)
    if options.drop_jumps is not None:
        frame, steps["drop_jumps"] = _without(frame, _jumps(frame, options.drop_jumps))
    if options.fill_gaps:
        filled = _filled(frame, options.fill_gaps, options.spacing)
        steps["fill_gaps"] = _touched(filled)
        frame = pd.concat([frame, filled], ignore_index=True) if len(filled) else frame
        frame = frame.sort_values(["date", "symbol"], kind="stable", ignore_index=True)
    return frame, {"options": asdict(options), "steps": steps}


def _keys(frame: pd.DataFrame) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.intp]]:
    """Return dates, and the asset of each row."""
    codes, _ = pd.factorize(frame["symbol"], sort=True)
    return frame["date"].to_numpy("datetime64[ns]"), codes


def _without(frame: pd.DataFrame, dropped: BoolArray) -> tuple[pd.DataFrame, dict[str, Any]]:
    return frame[~dropped].reset_index(drop=True), _touched(frame[dropped])


def _touched(rows: pd.DataFrame) -> dict[str, Any]:
    first = rows.groupby("symbol")["date"].agg(["size", "min"])
    symbols = {
        str(symbol): {"rows": int(size), "first": iso(np.datetime64(date))}
        for symbol, size, date in zip(first.index, first["size"], first["min"], strict=True)
    }
    return {"rows": len(rows), "symbols": symbols}


def _faulty(frame: pd.DataFrame) -> BoolArray:
    """Return which rows break a rule of ``bar_faults`` or lack a field."""
    bars = bar_fields(frame)
    return np.logical_or.reduce([lacking(bars), *(mask for mask, _ in bar_faults(bars))])


def _in_order(frame: pd.DataFrame, need: str) -> npt.NDArray[np.intp]:
    """Return the order by asset and time of rows that have one."""
    duplicates, disorder, order = order_faults(*_keys(frame))
    for faulty, problem, fix in (
        (duplicates, "repeats a date", "drop_duplicates='first'"),
        (disorder, "is dated before the one above", "sort=True"),
    ):
        if faulty.any():
            row = frame.iloc[int(faulty.argmax())]
            raise DataError(
                f"{row['symbol']} at {row['date']} {problem}: {need} needs rows in order; "
                f"add {fix} to the repair"
            )
    return order


def _jumps(frame: pd.DataFrame, sigmas: float) -> BoolArray:
    """Return which rows ``Repair.drop_jumps`` drops."""
    order = _in_order(frame, "drop_jumps")
    codes = _keys(frame)[1][order]
    close = frame["close"].to_numpy()[order]
    level = np.log(np.where(close > 0, close, np.nan))
    moves = pd.Series(np.append(np.nan, np.diff(level)))
    moves[np.append(True, np.diff(codes) != 0)] = np.nan
    usual = (
        moves.abs()
        .groupby(codes)
        .transform(lambda sizes: sizes.rolling(_HISTORY, min_periods=_SHORTEST).median().shift())
    )
    limit = sigmas * _NORMAL_MAD * usual.to_numpy()
    away = (np.abs(moves.to_numpy()) > limit) & (limit > 0)

    dropped = np.zeros(len(frame), bool)
    for t in np.flatnonzero(away):  # a bar near the one before it is kept, whatever that one was
        if not dropped[t - 1]:
            kept = t - 1
        dropped[t] = abs(level[t] - level[kept]) > limit[t]
    rows = np.zeros(len(frame), bool)
    rows[order] = dropped
    return rows


def _filled(frame: pd.DataFrame, limit: int, spacing: str | None) -> pd.DataFrame:
    """Return the bars that ``Repair.fill_gaps`` adds."""
    if "volume" not in frame.columns:
        raise ArgumentError(
            "fill_gaps needs volume: without it nothing would tell that a filled bar cannot be "
            "traded; add the column, or leave the gaps"
        )
    order = _in_order(frame, "fill_gaps")
    times, codes = _keys(frame)
    times, codes = times[order], codes[order]
    calendar = np.unique(times)
    if spacing is not None:
        calendar = _with_regular(calendar, _spacing(spacing), limit)
    place = np.searchsorted(calendar, times)
    last = np.append(np.diff(codes) != 0, True)
    following = np.where(last, len(calendar), np.append(place[1:], len(calendar)))
    count = np.minimum(following - place - 1, limit)

    source = np.repeat(np.arange(len(times)), count)
    step = np.arange(len(source)) - np.repeat(np.cumsum(count) - count, count) + 1
    carried = frame.iloc[order[source]]
    close = carried["close"].to_numpy()
    prices = {n: close for n in BAR_FIELDS if n in frame.columns and n != "volume"}
    new = {"date": calendar[place[source] + step], "symbol": carried["symbol"].to_numpy()}
    added = pd.DataFrame(new | prices | {"volume": np.zeros(len(source))})
    return added.astype({"date": frame["date"].dtype, "symbol": frame["symbol"].dtype})


def _with_regular(
    calendar: npt.NDArray[np.datetime64], spacing: np.timedelta64, limit: int
) -> npt.NDArray[np.datetime64]:
    """Return the dates and those missing between them, up to ``limit`` in a row."""
    missing = np.minimum(-(-np.diff(calendar) // spacing) - 1, limit)
    begin = np.repeat(calendar[:-1], missing)
    step = np.arange(len(begin)) - np.repeat(np.cumsum(missing) - missing, missing) + 1
    return np.sort(np.concatenate([calendar, begin + step * spacing]))


def _spacing(text: str) -> np.timedelta64:
    try:
        spacing = pd.Timedelta(text)
    except ValueError as error:
        raise ArgumentError(f"spacing is {text!r}: give a time such as '1h' or '1D'") from error
    if not spacing > pd.Timedelta(0):
        raise ArgumentError(f"spacing is {text!r}: give a time above 0 such as '1h' or '1D'")
    return spacing.to_timedelta64().astype("timedelta64[ns]")
