"""Moving windows over (T, N) arrays, compiled: the arithmetic under every feature.

Each value is computed from its own window alone, not updated from the one before: it is the same
to the last bit whatever came earlier, so that a market that grows by a bar agrees with one that is
computed again, and an outlier leaves no rounding errors behind. A NaN in a window makes the value
NaN; recursive averages restart after it. ``Bars.own`` has none between an asset's bars.
"""

from __future__ import annotations

import numpy as np

from portfolio_env.compiled import inlined, kernel
from portfolio_env.market.panel import FloatArray

_AT_ONCE = 256  # windows that are summed side by side, in vector instructions and in the cache


@inlined
def cleared(squares: float, center: float, w: int) -> float:
    """Return a sum of w squared deviations, 0 where rounding explains it, as for a constant."""
    return 0.0 if squares <= w * (1e-14 * center) ** 2 else squares


@kernel
def total(x: FloatArray, w: int) -> FloatArray:
    """Return the sum of the last w rows, (T, N)."""
    bars, lanes = x.shape
    out = np.full((bars, lanes), np.nan)
    for i in range(lanes):
        column = x[:, i].copy()
        for first in range(0, bars - w + 1, _AT_ONCE):
            n = min(_AT_ONCE, bars - w + 1 - first)
            s = np.zeros(n)
            for k in range(first, first + w):
                own = column[k : k + n]
                for j in range(n):
                    s[j] += own[j]
            out[first + w - 1 : first + w - 1 + n, i] = s
    return out


@kernel
def deviation(x: FloatArray, w: int, ddof: int) -> FloatArray:
    """Return the standard deviation of the last w rows, divisor w - ddof, (T, N)."""
    bars, lanes = x.shape
    out = np.full((bars, lanes), np.nan)
    for i in range(lanes):
        column = x[:, i].copy()
        for first in range(0, bars - w + 1, _AT_ONCE):
            n = min(_AT_ONCE, bars - w + 1 - first)
            center, squares = np.zeros(n), np.zeros(n)
            for k in range(first, first + w):
                own = column[k : k + n]
                for j in range(n):
                    center[j] += own[j]
            center /= w
            for k in range(first, first + w):
                own = column[k : k + n]
                for j in range(n):
                    squares[j] += (own[j] - center[j]) ** 2
            for j in range(n):
                s = cleared(squares[j], center[j], w)
                out[first + w - 1 + j, i] = np.sqrt(s / (w - ddof))
    return out


@kernel
def highest(x: FloatArray, w: int) -> FloatArray:
    """Return the maximum of the last w rows, (T, N)."""
    bars, lanes = x.shape
    out = np.full((bars, lanes), np.nan)
    for i in range(lanes):
        column = x[:, i].copy()
        for t in range(w - 1, bars):
            top = column[t]
            for k in range(t - w + 1, t):
                if column[k] > top or np.isnan(column[k]):
                    top = column[k]
            out[t, i] = top
    return out


@kernel
def covariance(x: FloatArray, y: FloatArray, w: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return covariance of x and y, variances of x and of y over the last w rows, each (T, N)."""
    bars, lanes = x.shape
    out = np.full((3, bars, lanes), np.nan)
    for i in range(lanes):
        a, b = x[:, i].copy(), y[:, i].copy()
        for first in range(0, bars - w + 1, _AT_ONCE):
            n = min(_AT_ONCE, bars - w + 1 - first)
            sa, sb = np.zeros(n), np.zeros(n)
            for k in range(first, first + w):
                own_a, own_b = a[k : k + n], b[k : k + n]
                for j in range(n):
                    sa[j] += own_a[j]
                    sb[j] += own_b[j]
            sa /= w
            sb /= w
            saa, sab, sbb = np.zeros(n), np.zeros(n), np.zeros(n)
            for k in range(first, first + w):
                own_a, own_b = a[k : k + n], b[k : k + n]
                for j in range(n):
                    da, db = own_a[j] - sa[j], own_b[j] - sb[j]
                    saa[j] += da**2
                    sab[j] += da * db
                    sbb[j] += db**2
            for j in range(n):
                t = first + w - 1 + j
                out[0, t, i] = sab[j] / w
                out[1, t, i] = cleared(saa[j], sa[j], w) / w
                out[2, t, i] = cleared(sbb[j], sb[j], w) / w
    return out[0], out[1], out[2]


@kernel
def standing(x: FloatArray, w: int) -> FloatArray:
    """Return the share of the w - 1 rows before that are smaller, ties half, (T, N) in [0, 1]."""
    bars, lanes = x.shape
    out = np.full((bars, lanes), np.nan)
    for i in range(lanes):
        column = x[:, i].copy()
        for t in range(w - 1, bars):
            below = 0.0
            for k in range(t - w + 1, t):
                if column[k] < column[t]:
                    below += 1.0
                elif column[k] == column[t]:
                    below += 0.5
                else:
                    below += 0.0 * (column[k] + column[t])  # NaN if either is
            out[t, i] = below / (w - 1)
    return out


@kernel
def smoothed(x: FloatArray, alpha: float, seed: int, ready: int) -> FloatArray:
    """Return the exponential average e_t = e_(t-1) + alpha (x_t - e_(t-1)), (T, N).

    It starts as the mean of ``seed`` rows and counts as known once it has seen ``ready`` rows.
    """
    bars, lanes = x.shape
    out = np.full((bars, lanes), np.nan)
    for i in range(lanes):
        seen = 0
        average = 0.0
        for t in range(bars):
            value = x[t, i]
            if np.isnan(value):
                seen = 0
                continue
            seen += 1
            if seen == 1:
                average = value
            elif seen <= seed:
                average += (value - average) / seen
            else:
                average += alpha * (value - average)
            if seen >= ready:
                out[t, i] = average
    return out


def mean(x: FloatArray, w: int) -> FloatArray:
    """Return the mean of the last w rows, (T, N)."""
    return total(x, w) / w


def mean_of_known(x: FloatArray, w: int) -> FloatArray:
    """Return the mean of what is known of the last w rows, if that is half or more, (T, N).

    It is unknown in the first w rows, as of a series whose first value is.
    """
    known = ~np.isnan(x)
    count = total(known.astype(np.float64), w)
    some = np.where(count >= w / 2, count, np.nan)
    out = total(np.where(known, x, 0.0), w) / some
    out[:w] = np.nan
    return out


def lowest(x: FloatArray, w: int) -> FloatArray:
    """Return the minimum of the last w rows, (T, N)."""
    return -highest(-x, w)


def ema(x: FloatArray, w: int) -> FloatArray:
    """Return the exponential moving average of span w, alpha = 2 / (w + 1), from row 0, (T, N)."""
    return smoothed(x, 2 / (w + 1), 1, w)


def wilder(x: FloatArray, w: int) -> FloatArray:
    """Return Wilder's average: alpha = 1 / w, started by the mean of w rows, (T, N)."""
    return smoothed(x, 1 / w, w, w)


def lagged(x: FloatArray, periods: int) -> FloatArray:
    """Return the values ``periods`` rows before, (T, N)."""
    out = np.full_like(x, np.nan)
    out[periods:] = x[: max(0, len(x) - periods)]
    return out


def change(x: FloatArray, periods: int) -> FloatArray:
    """Return x_t / x_(t - periods) - 1, (T, N)."""
    return x / lagged(x, periods) - 1


def correlation(x: FloatArray, y: FloatArray, w: int) -> FloatArray:
    """Return Pearson's correlation over w rows, (T, N) in [-1, 1]; NaN if either is constant."""
    both, own, other = covariance(x, y, w)
    spread = np.sqrt(own * other)
    return np.clip(both / np.where(spread > 0, spread, np.nan), -1, 1)
