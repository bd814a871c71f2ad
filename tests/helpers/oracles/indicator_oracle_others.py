"""Indicators of several assets, of states, of liquidity and of the clock, in plain Python."""

import math
from datetime import timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from helpers.oracles.arithmetic import (
    EXPECTED,
    NAN,
    average,
    before,
    correlation,
    covariance,
    divided,
    each,
    expects,
    is_known,
    known,
    log_if_positive,
    mean_of_known,
    midnight,
    over_known,
    sma,
    std,
    variance,
    windows,
)
from helpers.oracles.indicator_oracle import obv_change, return_, volatility

RATIO_BARS = 120  # of the variance ratio


# cross-asset


@expects
def market_corr(a, w):
    return a.in_line(lambda r, m: windows(correlation, w, r, m), a.r, a.market_since)


@expects
def market_beta(a, w):
    def slope(own, market):
        return divided(covariance(own, market), variance(market, 0), NAN)

    return a.in_line(lambda r, m: windows(slope, w, r, m), a.r, a.market_since)


@expects
def lead_lag_corr(a, w):
    return a.in_line(lambda r, m: windows(correlation, w, r, before(m, 1)), a.r, a.market_since)


@expects
def market_return(a, w):
    return windows(lambda x: math.prod(1 + r for r in x) - 1, w, a.market)


@expects
def return_dispersion(a, w):
    spread = []
    for row in zip(*(peer.r for peer in a.peers), strict=True):
        some = known(row)
        spread.append(math.sqrt(variance(some, 1)) if len(some) > 1 else NAN)
    return mean_of_known(spread, w)


def own_return(a, w):
    return a.by_itself(lambda own: return_(own, w))


@expects
def relative_strength(a, w):
    all_returns = zip(*(own_return(peer, w) for peer in a.peers), strict=True)
    mean = [average(known(row)) for row in all_returns]
    return each(lambda own, m: own - m, own_return(a, w), mean)


def rank(own, everybody):
    """-1 the lowest, 1 the highest, ties in the middle of the places they share; 0 alone."""
    others = known(everybody)
    if not is_known(own) or len(others) == 1:
        return 0.0 * own
    below = sum(x < own for x in others) + (sum(x == own for x in others) - 1) / 2
    return 2 * below / (len(others) - 1) - 1


def ranks(a, f):
    own, rows = f(a), zip(*(f(peer) for peer in a.peers), strict=True)
    return [rank(x, row) for x, row in zip(own, rows, strict=True)]


@expects
def return_rank(a, w):
    return ranks(a, lambda peer: own_return(peer, w))


@expects
def dollar_volume_rank(a, w):
    def money_traded(own):
        return sma(each(lambda p, v: p * v, own.typical, own.v), w)

    return ranks(a, lambda peer: peer.by_itself(money_traded))


# regime


@expects
def trend_regime(a):
    return each(lambda fast, slow: float(fast > slow), sma(a.c, 50), sma(a.c, 200))


@expects
def volatility_regime(a):
    return each(lambda fast, slow: float(fast > slow), volatility(a, 20), volatility(a, 60))


@expects
def momentum_regime(a, w):
    return each(lambda now, then: float(now > then), a.c, before(a.c, w))


@expects
def composite_regime(a):
    return each(
        lambda trend, turbulent, gain: (trend + (1 - turbulent) + gain) / 3,
        trend_regime(a),
        volatility_regime(a),
        momentum_regime(a, 63),
    )


@expects
def volatility_tercile(a, w):
    def third(x):
        *past, now = x
        smaller = sum(y < now for y in past) + sum(y == now for y in past) / 2
        share = smaller / len(past)
        return 0.0 if share < 1 / 3 else 0.5 if share < 2 / 3 else 1.0

    return windows(third, w, volatility(a, 20))


@expects
def vol_ret_corr(a, w):
    return windows(correlation, w, a.r, sma([abs(x) for x in a.r], w))


@expects
def risk_regime(a):
    return sma(vol_ret_corr(a, 20), 10)


# liquidity


def money(a):
    return each(lambda p, v: p * v if v > 0 else NAN, a.typical, a.v)


def illiquidity(a, w):
    """Amihud eq. 1: mean of |return| / money traded."""
    return over_known(lambda x: sma(x, w), each(lambda r, m: abs(r) / m, a.r, money(a)))


@expects
def dollar_volume_level(a):
    return each(math.log, money(a))


@expects
def dollar_volume_zscore(a, w):
    def scores(x):
        return each(lambda y, m, s: divided(y - m, s, NAN), x, sma(x, w), std(x, w, 0))

    return over_known(scores, dollar_volume_level(a))


@expects
def amihud(a, w):
    return each(
        lambda short, long: log_if_positive(divided(short, long, NAN)),
        illiquidity(a, w),
        illiquidity(a, 5 * w),
    )


@expects
def amihud_level(a, w):
    return each(lambda x: log_if_positive(1e6 * x), illiquidity(a, w))


@expects
def hl_spread(a):
    return each(lambda h, low, p: (h - low) / p, a.h, a.l, a.typical)


@expects
def corwin_schultz(a, w):
    """Corwin and Schultz: beta of two single bars, gamma of both together, alpha (18), S (14)."""
    k = 3 - 2 * math.sqrt(2)

    def spread(h, h1, low, l1):
        beta = math.log(h / low) ** 2 + math.log(h1 / l1) ** 2
        gamma = math.log(max(h, h1) / min(low, l1)) ** 2
        alpha = (math.sqrt(2 * beta) - math.sqrt(beta)) / k - math.sqrt(gamma / k)
        return max(0.0, 2 * (math.exp(alpha) - 1) / (1 + math.exp(alpha)))

    return sma(each(spread, a.h, before(a.h, 1), a.l, before(a.l, 1)), w)


@expects
def volume_volatility(a, w):
    return each(lambda s, m: divided(s, m, NAN), std(a.v, w, 1), sma(a.v, w))


@expects
def flow_toxicity(a, w):
    return each(abs, obv_change(a, w))


@expects
def variance_ratio(a, w):
    """Lo and MacKinlay: variance of w-bar log returns over w times that of one-bar returns."""
    one = each(lambda now, then: math.log(now / then), a.c, before(a.c, 1))
    many = each(lambda now, then: math.log(now / then), a.c, before(a.c, w))

    return each(
        lambda x, y: divided(x, w * y, NAN),
        windows(lambda x: variance(x, 1), RATIO_BARS, many),
        windows(lambda x: variance(x, 1), RATIO_BARS, one),
    )


@expects
def liquidity_resilience(a, w):
    return each(
        lambda m, v: math.log(m / v) if m > 0 and v > 0 else NAN,
        sma(a.v, w),
        before(a.v, w),
    )


# calendar


TURNS = {
    "hour": lambda t: (t - midnight(t)) / timedelta(days=1),
    "weekday": lambda t: t.weekday() / 7,
    "monthday": lambda t: (t.day - 1) / 31,
    "yearday": lambda t: (t.timetuple().tm_yday - 1) / 366,
}
for _name, _turn in TURNS.items():
    for _wave in (math.sin, math.cos):
        EXPECTED[f"{_name}_{_wave.__name__}"] = lambda a, turn=_turn, wave=_wave: [
            wave(2 * math.pi * turn(t)) for t in a.moments
        ]

SESSIONS = {
    "asia": ("Asia/Tokyo", (9, 0), (15, 30)),
    "europe": ("Europe/London", (8, 0), (16, 30)),
    "us": ("America/New_York", (9, 30), (16, 0)),
}


def in_session(moment, zone, opens, closes):
    local = moment.astimezone(ZoneInfo(zone))
    return float(local.weekday() <= 4 and opens <= (local.hour, local.minute) < closes)


for _name, _hours in SESSIONS.items():
    EXPECTED[f"session_{_name}"] = lambda a, hours=_hours: [
        in_session(t, *hours) for t in a.moments
    ]


@expects
def bar_gap(a):
    def logs(moments):
        days = ((now - then) / timedelta(days=1) for then, now in pairwise(moments))
        return [NAN, *map(math.log, days)]

    return a.in_line(logs, a.moments)
