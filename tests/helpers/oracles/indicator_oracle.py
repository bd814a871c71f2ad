"""Every indicator once more in plain Python, written from the formulas of their sources.

Here those of an asset's own bars; the others are in `indicator_oracle_others`.
"""

import math
from itertools import accumulate

from helpers.oracles.arithmetic import (
    NAN,
    before,
    divided,
    each,
    ema,
    expects,
    is_known,
    log_if_positive,
    sign,
    sma,
    std,
    summed,
    wilder,
    windows,
)

# returns


@expects
def return_(a, w):
    return each(lambda now, then: (now - then) / then, a.c, before(a.c, w))


@expects
def close_location(a):
    return each(lambda c, low, h: divided(c - low, h - low, 0.5), a.c, a.l, a.h)


@expects
def gap(a):
    return each(lambda o, c: (o - c) / c, a.o, before(a.c, 1))


@expects
def intraday_return(a):
    return each(lambda c, o: (c - o) / o, a.c, a.o)


@expects
def drawdown(a, w):
    return windows(lambda c: (c[-1] - max(c)) / max(c), w, a.c)


@expects
def roc(a, w):
    return return_(a, w)


@expects
def momentum(a, w):
    return return_(a, w)


# trend


@expects
def sma_ratio(a, w):
    return each(lambda c, m: (c - m) / m, a.c, sma(a.c, w))


@expects
def ema_ratio(a, w):
    return each(lambda c, m: (c - m) / m, a.c, ema(a.c, w))


@expects
def macd_level(a):
    return each(lambda fast, slow: fast - slow, ema(a.c, 12), ema(a.c, 26))


@expects
def macd_signal_level(a):
    return ema(macd_level(a), 9)


@expects
def macd(a):
    return each(lambda m, c: m / c, macd_level(a), a.c)


@expects
def macd_signal(a):
    return each(lambda s, c: s / c, macd_signal_level(a), a.c)


@expects
def macd_diff(a):
    return each(lambda m, s, c: (m - s) / c, macd_level(a), macd_signal_level(a), a.c)


def true_range(a):
    """Wilder: the greatest of h - low and the distances of h and low to the close before."""
    return each(
        lambda h, low, c: max(h - low, abs(h - c), abs(low - c)),
        a.h,
        a.l,
        before(a.c, 1),
    )


def directional(a, w):
    """Wilder's +DI and -DI: the greater of the two movements counts, if it is outward."""
    plus, minus = [], []
    for h, h1, low, l1 in zip(a.h, before(a.h, 1), a.l, before(a.l, 1), strict=True):
        up, down = h - h1, l1 - low
        unknown = not is_known(up + down)
        plus.append(NAN if unknown else up if up > down and up > 0 else 0.0)
        minus.append(NAN if unknown else down if down > up and down > 0 else 0.0)
    span = wilder(true_range(a), w)
    return tuple(
        each(lambda d, s: divided(d, s, 0.0), wilder(moves, w), span) for moves in (plus, minus)
    )


@expects
def adx_pos(a, w):
    return directional(a, w)[0]


@expects
def adx_neg(a, w):
    return directional(a, w)[1]


@expects
def adx(a, w):
    dx = each(lambda p, m: divided(abs(p - m), p + m, 0.0), *directional(a, w))
    return wilder(dx, w)


# momentum


@expects
def rsi(a, w):
    """Wilder: 1 - 1 / (1 + RS), RS the average rise over the average fall."""
    steps = each(lambda now, then: now - then, a.c, before(a.c, 1))
    rise = wilder([x if not is_known(x) else max(x, 0.0) for x in steps], w)
    fall = wilder([x if not is_known(x) else max(-x, 0.0) for x in steps], w)

    def index(u, d):
        if d == 0:
            return 0.5 if u == 0 else 1.0
        return 1 - 1 / (1 + u / d)

    return each(index, rise, fall)


@expects
def stoch_k(a, w):
    return windows(
        lambda c, low, h: divided(c[-1] - min(low), max(h) - min(low), 0.5),
        w,
        a.c,
        a.l,
        a.h,
    )


@expects
def stoch_d(a, w):
    return sma(stoch_k(a, w), 3)


@expects
def williams_r(a, w):
    """Williams: minus the distance to the highest high as a share of the range."""
    return windows(
        lambda c, low, h: -divided(max(h) - c[-1], max(h) - min(low), 0.5),
        w,
        a.c,
        a.l,
        a.h,
    )


# volatility


@expects
def volatility(a, w):
    return std(a.r, w, 1)


@expects
def atr_level(a, w):
    return wilder(true_range(a), w)


@expects
def atr(a, w):
    return each(lambda x, c: x / c, atr_level(a, w), a.c)


@expects
def bb_high_level(a, w):
    return each(lambda m, s: m + 2 * s, sma(a.c, w), std(a.c, w, 0))


@expects
def bb_low_level(a, w):
    return each(lambda m, s: m - 2 * s, sma(a.c, w), std(a.c, w, 0))


@expects
def bb_high(a, w):
    return each(lambda b, c: (b - c) / c, bb_high_level(a, w), a.c)


@expects
def bb_low(a, w):
    return each(lambda b, c: (b - c) / c, bb_low_level(a, w), a.c)


@expects
def bb_width(a, w):
    return each(lambda m, s: (m + 2 * s - (m - 2 * s)) / m, sma(a.c, w), std(a.c, w, 0))


@expects
def bb_percent(a, w):
    high, low, spread = bb_high_level(a, w), bb_low_level(a, w), std(a.c, w, 0)
    return each(
        lambda c, b, h, s: (c - b) / (h - b) if s > 0 else 0.5,
        a.c,
        low,
        high,
        spread,
    )


@expects
def parkinson(a, w):
    """Parkinson: variance = mean of the squared log range / (4 ln 2)."""
    span = each(lambda h, low: (math.log(h) - math.log(low)) ** 2, a.h, a.l)
    return each(lambda m: math.sqrt(m / (4 * math.log(2))), sma(span, w))


@expects
def garman_klass(a, w):
    """Garman and Klass: 0.5 u^2 - (2 ln 2 - 1) d^2, u the log range, d the log body."""
    one = each(
        lambda o, h, low, c: (
            0.5 * math.log(h / low) ** 2 - (2 * math.log(2) - 1) * math.log(c / o) ** 2
        ),
        a.o,
        a.h,
        a.l,
        a.c,
    )
    return each(math.sqrt, sma(one, w))


# volume


@expects
def volume_change(a):
    return each(lambda v, u: math.log(v / u) if v * u > 0 else NAN, a.v, before(a.v, 1))


@expects
def volume_ratio(a, w):
    return each(lambda v, m: log_if_positive(divided(v, m, NAN)), a.v, sma(a.v, w))


@expects
def volume_strength(a, w):
    return volume_ratio(a, w)


@expects
def volume_sma_change(a, w):
    m = sma(a.v, w)
    return each(lambda x, y: log_if_positive(divided(x, y, NAN)), m, before(m, w))


def signed_volume(a):
    steps = zip(a.c, before(a.c, 1), a.v, strict=True)
    return [v * sign(c - c1) if is_known(c + c1 + v) else NAN for c, c1, v in steps]


@expects
def obv_level(a):
    """Granville: all volume of rising bars less that of falling ones; unknown steps add nothing."""
    steps = signed_volume(a)
    sums = accumulate(x if is_known(x) else 0.0 for x in steps)
    return [s if is_known(x) else NAN for s, x in zip(sums, steps, strict=True)]


@expects
def obv_change(a, w):
    return each(lambda s, v: divided(s, v, NAN), summed(signed_volume(a), w), summed(a.v, w))


@expects
def mfi(a, w):
    """Quong and Soudack: money flow p v counts as positive where p rose, as negative where not."""
    rows = list(zip(a.typical, before(a.typical, 1), a.v, strict=True))
    gain = [p * v if p > q else 0.0 if is_known(p + q) else NAN for p, q, v in rows]
    loss = [p * v if p < q else 0.0 if is_known(p + q) else NAN for p, q, v in rows]
    return each(lambda u, d: divided(u, u + d, 0.5), summed(gain, w), summed(loss, w))


@expects
def vwap_level(a, w):
    money = each(lambda p, v: p * v, a.typical, a.v)
    return each(lambda m, v: divided(m, v, NAN), summed(money, w), summed(a.v, w))


@expects
def vwap_ratio(a, w):
    return each(lambda c, p: (c - p) / p, a.c, vwap_level(a, w))


# levels


@expects
def close_level(a):
    return a.c


@expects
def volume_level(a):
    return a.v


@expects
def sma_level(a, w):
    return sma(a.c, w)


@expects
def ema_level(a, w):
    return ema(a.c, w)


@expects
def momentum_level(a, w):
    return each(lambda now, then: now - then, a.c, before(a.c, w))


@expects
def volume_sma_level(a, w):
    return sma(a.v, w)
