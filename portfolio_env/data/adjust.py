"""Prices before and after splits and dividends."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.data.tables.fields import ADJUSTED
from portfolio_env.data.tables.origin import Origin
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import FloatArray

Adjust: TypeAlias = Literal["auto", "none", "splits", "all"]
"""Which prices are meant: see ``adjusted``."""

_PRICES = ("open", "high", "low", "close")
_ACTIONS = (ADJUSTED, "split", "dividend")
_NEAR = 0.06  # log distance of a jump from the ratio of a split
_RATIOS = np.array([*range(2, 11), 12, 15, 20, 25, 30, 40, 50, 100, 1.5])


def check_adjust(adjust: str) -> None:
    """Refuse what is no ``Adjust``."""
    if adjust not in get_args(Adjust):
        raise ArgumentError(f"adjust={adjust!r} must be one of {', '.join(get_args(Adjust))}.")


def adjusted(
    frame: pd.DataFrame, origin: Origin, adjust: Adjust = "auto"
) -> tuple[pd.DataFrame, str | None]:
    """Return bars with their prices adjusted, without the columns that say how.

    Open, high, low and close are multiplied by the same factor, and volume is divided by it, so
    that the money traded stays what it was.

    Args:
        frame: Date, symbol, bar fields and, where known, adj_close, split (new shares for each old
            one on that date) and dividend (cash per share); numbers.
        origin: Names rows in errors.
        adjust: "all" takes adj_close where there is one, else splits and dividends; "splits" takes
            splits only; "none" takes prices as they are. "auto" takes adj_close where there is one,
            else splits which the prices show.

    Returns:
        The frame, and what was done: "all", "splits" or "none"; None where there was no choice.

    Raises:
        DataError: If what is asked for is not there, or an adjusted close is missing or not
            positive.
    """
    check_adjust(adjust)
    there = [name for name in _ACTIONS if name in frame.columns and frame[name].notna().any()]
    bars = frame.drop(columns=[name for name in _ACTIONS if name in frame.columns])
    if not there:
        if adjust in ("splits", "all"):
            origin.fail(
                f"has neither an adjusted close nor splits, which adjust={adjust!r} needs; add a "
                "column adj_close or split, or give adjust='none'"
            )
        return bars, None
    if adjust == "none":
        return bars, "none"
    if ADJUSTED in there and adjust != "splits":
        return _by_adjusted_close(bars, frame[ADJUSTED].to_numpy(np.float64), origin), "all"
    if "split" not in there and adjust == "splits":
        origin.fail("has no column of splits, which adjust='splits' needs; add split, or leave it")
    factor, done = _by_actions(frame, "dividend" in there and adjust == "all", origin)
    if "dividend" in there and adjust == "auto" and (frame["dividend"].fillna(0) != 0).any():
        origin.warn(
            "dividends are not added to prices, which may hold them already; "
            "adjust='all' adds them, adjust='none' says that it is right so"
        )
    return _scaled(bars, factor), done


def _by_adjusted_close(bars: pd.DataFrame, target: FloatArray, origin: Origin) -> pd.DataFrame:
    close = bars["close"].to_numpy()
    fix = "give it, or take the prices as they are with adjust='none'"
    of = bars["symbol"].iloc.__getitem__ if "symbol" in bars else None
    lack = "there is no adjusted close" + " of" * (of is not None)
    origin.refuse(~np.isnan(close) & np.isnan(target), lack, fix, of)
    target = np.where(close <= 0, close, target)  # the bar itself is refused later
    origin.refuse((target <= 0) & ~(close <= 0), "the adjusted close is not positive", fix)
    if np.array_equal(target, close, equal_nan=True):
        return bars
    with np.errstate(all="ignore"):
        made = _scaled(bars, np.where(close <= 0, 1, target / close))
    for name in _PRICES:  # what was equal to the close stays so, what contained it still does
        if name in bars:
            old, new = bars[name].to_numpy(), made[name].to_numpy()
            new = np.where(old == close, target, new)
            bound = np.maximum if name == "high" else np.minimum if name == "low" else None
            if bound is not None:
                contains = old >= close if name == "high" else old <= close
                new = np.where(contains, bound(new, target), new)
            made[name] = new
    origin.warn("prices are adjusted: adj_close is the close, open, high and low are scaled alike")
    return made


def _scaled(bars: pd.DataFrame, factor: FloatArray) -> pd.DataFrame:
    """Prices times a factor, volume divided by it; unchanged where it is 1."""
    if (factor == 1).all():
        return bars
    made = {name: bars[name].to_numpy() * factor for name in _PRICES if name in bars}
    if "volume" in bars:
        made["volume"] = bars["volume"].to_numpy() / factor
    return bars.assign(**made)


def _by_actions(
    frame: pd.DataFrame, with_dividends: bool, origin: Origin
) -> tuple[FloatArray, str]:
    """Return the factor of each row by later splits and dividends, and what that adjusts for."""
    codes = pd.factorize(frame["symbol"])[0]
    order = np.lexsort((frame["date"].to_numpy(), codes))
    close = frame["close"].to_numpy(np.float64)[order]
    begins = np.append(True, np.diff(codes[order]) != 0)
    before = _before(close, begins)
    after = _filled(close[::-1], np.append(True, begins[:0:-1]))[::-1]
    step = np.ones(len(frame))
    units = np.ones(len(frame))  # shares that one of the first row has become
    done = "none"
    if "split" in frame:
        split = frame["split"].to_numpy(np.float64)[order]
        split = np.where(np.isnan(split) | (split <= 0) | begins, 1, split)
        shown = _shown(split, before / after)
        if shown is None:
            origin.fail(
                "some prices jump with their splits and some do not; give adj_close, or say "
                "adjust='none'"
            )
        if shown:
            step /= split
            units = pd.Series(split).groupby(codes[order]).cumprod().to_numpy()
            done = "splits"
            origin.warn("prices before splits are divided by them")
    if with_dividends:
        cash = np.nan_to_num(frame["dividend"].to_numpy(np.float64)[order])
        # a share before this row, although its last known close may be older than a split
        worth = _before(close * units, begins) / np.append(1.0, units[:-1])
        paid = np.where(begins | np.isnan(worth), 0, cash / worth)
        lost = np.zeros(len(frame), np.bool_)
        lost[order] = paid >= 1
        fix = "correct it, or say adjust='splits' or 'none'"
        origin.refuse(lost, "the dividend is not below the close before it:", fix,
                      frame["dividend"].iloc.__getitem__)  # fmt: skip
        step *= 1 - paid
        done = "all"
        origin.warn("prices before dividends are reduced by them")
    factor = np.ones(len(frame))
    for rows in np.split(np.arange(len(step)), np.flatnonzero(begins)[1:]):
        later = np.cumprod(step[rows][:0:-1])[::-1]  # of each row, the steps of those after it
        factor[order[rows[:-1]]] = later
    return factor, done


def _before(close: FloatArray, begins: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the last close before each row, NaN where an asset begins."""
    filled = np.append(np.nan, _filled(close, begins)[:-1])
    filled[begins] = np.nan
    return filled


def _filled(close: FloatArray, begins: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the closes with the last known one of the asset where there is none."""
    rows = np.where(~np.isnan(close) | begins, np.arange(len(close)), 0)
    filled: FloatArray = close[np.maximum.accumulate(rows)]
    return filled


def _shown(split: FloatArray, jump: FloatArray) -> bool | None:
    """Return whether prices jump with their splits; None if some do and some do not."""
    at = np.flatnonzero((split != 1) & np.isfinite(jump))
    if not len(at):
        return False
    jumps = np.log(jump[at])
    with_them = np.abs(jumps - np.log(split[at])) < np.abs(jumps)
    return bool(with_them[0]) if (with_them == with_them[0]).all() else None


def split_like(frame: pd.DataFrame) -> pd.DataFrame:
    """Jumps that look like splits: symbol, date, ratio (new shares for each old one).

    A price that falls (or rises) to a whole part (or multiple) of the last close before, or to two
    thirds, within 6 % (2 %), and at the opening already where openings are known.
    """
    codes = pd.factorize(frame["symbol"])[0]
    order = np.lexsort((frame["date"].to_numpy(), codes))
    close = frame["close"].to_numpy(np.float64)[order]
    with np.errstate(all="ignore"):
        before = _before(close, np.append(True, np.diff(codes[order]) != 0))
        jump = np.log(before / close)
        ratio = _nearest(jump)
        if "open" in frame:
            gap = np.log(before / frame["open"].to_numpy(np.float64)[order])
            ratio = np.where(np.abs(gap - np.log(ratio)) < _NEAR, ratio, np.nan)
    at = np.flatnonzero(np.isfinite(ratio))
    rows = frame.iloc[order[at]]
    return pd.DataFrame(
        {"symbol": rows["symbol"].to_numpy(), "date": rows["date"].to_numpy(), "ratio": ratio[at]}
    )


def _nearest(jump: FloatArray) -> FloatArray:
    """Return the ratio of the split that a log jump looks like, NaN if it looks like none."""
    near = np.full(len(jump), np.nan)
    large: npt.NDArray[Any] = np.flatnonzero(np.abs(jump) > np.log(1.5) - _NEAR)
    if len(large):
        distance = np.abs(np.abs(jump[large])[:, None] - np.log(_RATIOS))
        best = distance.argmin(axis=1)
        ratio = _RATIOS[best]
        limit = np.where(ratio < 2, _NEAR / 3, _NEAR)  # news moves prices by a third, too
        ratio **= np.sign(jump[large])
        near[large] = np.where(distance.min(axis=1) < limit, ratio, np.nan)
    return near
