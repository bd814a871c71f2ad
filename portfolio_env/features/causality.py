"""Look-ahead test of user-defined features, which changes the future and compares.

No proof: a leak must show within some hundred bars of some dozen assets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import ArgumentError
from portfolio_env.features.bars import Bars
from portfolio_env.features.registry import ALL, Feature
from portfolio_env.market.panel import BAR_FIELDS, FloatArray, PricePanel

BARS = 300  # bars beside twice the feature's memory
MOST_BARS = 3000
ASSETS = 32
CUTS = 5  # bars after which the future is changed
_ROUNDING = 1e-7  # running sums of a library drift by this much
_checked: set[tuple[str, Callable[..., Any] | None, int]] = set()


def check_once(feature: Feature, panel: PricePanel, reference: str | None) -> None:
    """Check a feature at its first use, and again while there are few bars.

    Args:
        feature: One that is not built in.
        panel: The bars it is used on.
        reference: See ``Bars``.

    Raises:
        ArgumentError: If what it gives at a row depends on later rows, or is not what it declares
            to look back on or to remember.
    """
    reach = max(feature.lookback, 0 if feature.memory == ALL else feature.memory)
    bars = min(len(panel.timestamps), MOST_BARS, BARS + 2 * reach)
    key = (feature.name, feature.function, bars)
    if bars > 3 and key not in _checked:
        _check(feature, _sample(panel, bars, reference), reference, len(panel.timestamps) - bars)
        _checked.add(key)


def _sample(panel: PricePanel, bars: int, reference: str | None) -> PricePanel:
    """Return the last bars of the assets that have most of them, in their order."""
    recent = panel.subset(slice(len(panel.timestamps) - bars, None))
    most = np.argsort(-np.isfinite(recent.close).sum(0), kind="stable")[:ASSETS]
    own = {panel.assets.index(reference)} if reference in panel.assets else set()
    return recent.subset(columns=sorted({*most.tolist(), *own}))


def _check(feature: Feature, panel: PricePanel, reference: str | None, offset: int) -> None:
    def values(of: PricePanel) -> FloatArray:
        found = np.broadcast_to(feature.compute(Bars(of, reference)), of.close.shape)
        return np.where(np.isfinite(found), found, np.nan)

    def compare(what: str, whole: FloatArray, t: int, now: FloatArray, fix: str) -> None:
        rows = slice(t + 1 - len(now), t + 1)
        if not (odd := _differing(whole[rows], now, _usual(whole))).any():
            return
        row, column = np.argwhere(odd)[0]
        at = rows.start + row
        raise ArgumentError(
            f"feature {feature.name!r} {what}: its value of {panel.assets[column]} at row "
            f"{offset + at} ({str(panel.timestamps[at])[:16]}) is {whole[at, column]:.6g}, and "
            f"{now[row, column]:.6g} {fix}"
        )

    whole, last = values(panel), len(panel.timestamps) - 1
    compare(
        "is not the same twice",
        whole,
        last,
        values(panel),
        "when computed again; it may draw no random numbers",
    )
    gaps = _with_gaps(panel)
    for bars, own in ((panel, whole), (gaps, values(gaps))):
        for t, how, changed in _futures(bars, feature.lookback):
            compare(
                "knows the future" + " where bars are missing" * (bars is gaps),
                own,
                t,
                values(changed)[: t + 1],
                f"when bars after row {offset + t} {how}; a row may be computed from rows up to it "
                "only: no shift(-1), no centred window, no mean or scale of the whole sample",
            )
    _check_lookback(feature, panel, whole)
    if feature.memory == ALL:
        return
    panel = Bars(panel).own.panel  # where memory is so many rows, not own bars
    whole = values(panel)
    for t in (last, (last + feature.memory) // 2):
        first = t - feature.memory
        if first > 0:
            compare(
                f"remembers more than the {feature.memory} rows that it declares",
                whole,
                t,
                values(panel.subset(slice(first, t + 1)))[-1:],
                "when computed from those alone; declare memory= of @indicator as so many rows, or "
                "as lambda w: ALL if it depends on all",
            )


def _check_lookback(feature: Feature, panel: PricePanel, whole: FloatArray) -> None:
    """Reject a value that comes later than declared where no bar is missing."""
    complete = panel.tradable.all(0)
    rows = np.flatnonzero(np.isfinite(whole[:, complete]).any(1))
    undeclared = feature.memory == ALL and feature.lookback == 0
    if len(rows) and rows[0] > feature.lookback and not undeclared:
        raise ArgumentError(
            f"feature {feature.name!r} looks back on more than the {feature.lookback} rows that it "
            f"declares: {rows[0]} rows must be there before its first value; declare lookback= of "
            f"@indicator as so many"
        )


def _usual(values: FloatArray) -> float:
    """Return the size of a usual value, against which rounding is small."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.median(known)) if known.any() else 1.0


def _differing(before: FloatArray, now: FloatArray, usual: float) -> npt.NDArray[np.bool_]:
    """Return where two arrays of values differ by more than rounding, (T, N)."""
    with np.errstate(invalid="ignore"):
        close = np.abs(now - before) <= _ROUNDING * np.maximum(np.abs(before), usual)
    same: npt.NDArray[np.bool_] = close | (now == before) | (np.isnan(now) & np.isnan(before))
    return ~same


def _with_gaps(panel: PricePanel) -> PricePanel:
    """Return the panel without every tenth bar or so."""
    drawn = np.random.default_rng(1).random(panel.close.shape) < 0.1
    kept = np.where(drawn, np.nan, 1.0)
    bars = {name: _later(getattr(panel, name), -1, kept) for name in BAR_FIELDS}
    return replace(panel, **bars)


def _futures(panel: PricePanel, lookback: int) -> Iterator[tuple[int, str, PricePanel]]:
    """Yield rows, panels that differ after them, and the difference in words."""
    rng = np.random.default_rng(0)
    end = len(panel.timestamps) - 1
    first = min(lookback, end // 2)
    drawn = rng.integers(first, end, CUTS - 1).tolist()
    for t in sorted({*drawn, end - 1}):
        yield t, "are cut off", panel.subset(slice(0, t + 1))
        yield t, "have other prices and volumes", _rewritten(panel, t, rng)
        yield t, "are missing or untraded", _halted(panel, t)


def _rewritten(panel: PricePanel, t: int, rng: np.random.Generator) -> PricePanel:
    shape = panel.close[t + 1 :].shape
    prices, traded = np.exp(rng.normal(0, 1, (2, *shape)))
    factors = dict.fromkeys(BAR_FIELDS, prices) | {"volume": traded}
    bars = {name: _later(getattr(panel, name), t, factors[name]) for name in BAR_FIELDS}
    channels = {
        name: _later(values, t, rng.normal(1, 1, shape)) for name, values in panel.exogenous.items()
    }
    return replace(panel, **bars, exogenous=channels)


def _halted(panel: PricePanel, t: int) -> PricePanel:
    """Return a panel in which every second asset ends at a row and the others stop trading."""
    gone = np.where(np.arange(len(panel.assets)) % 2, 1.0, np.nan)
    factors = dict.fromkeys(BAR_FIELDS, gone) | {"volume": 0 * gone}
    bars = {name: _later(getattr(panel, name), t, factors[name]) for name in BAR_FIELDS}
    return replace(panel, **bars)


def _later(values: FloatArray | None, t: int, factor: FloatArray) -> Any:
    """Return a copy whose rows after t are multiplied; None stays."""
    if values is None:
        return None
    changed = values.copy()
    changed[t + 1 :] *= factor
    return changed
