"""Plain Python arithmetic on lists of floats, for computing indicators slowly and obviously.

Nothing is taken from the package. Conventions: NaN is an unknown value, a window that holds one is
unknown, a recursive average starts anew after one. An asset's own bars are those it has:
``Asset.in_line`` computes on those alone.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

NAN = math.nan
EXPECTED = {}
"""Values of an asset by the name of the indicator: functions of (asset) or (asset, window)."""


class Asset:
    """Bars of one asset as lists, its moments and its peers (itself included, in order)."""

    def __init__(self, moments, o, h, low, c, v):
        self.moments, self.o, self.h, self.l, self.c, self.v = moments, o, h, low, c, v
        self.peers = [self]
        self.reference = None  # the asset that is the market; None means the mean of the peers
        self.typical = [(a + b + d) / 3 for a, b, d in zip(h, low, c, strict=True)]
        self.present = [is_known(x) for x in c]
        self.r = self.in_line(lambda x: [NAN, *(now / then - 1 for then, now in pairwise(x))], c)

    def in_line(self, f, *series):
        """f of the values at its own bars, as it were at these bars, NaN elsewhere."""
        rows = [t for t, there in enumerate(self.present) if there]
        values = f(*([x[t] for t in rows] for x in series)) if rows else []
        found = dict(zip(rows, values, strict=True))
        return [found.get(t, NAN) for t in range(len(self.c))]

    def by_itself(self, f):
        """f of an asset made of its own bars only."""

        def computed(*fields):
            return f(Asset(*fields))

        return self.in_line(computed, self.moments, self.o, self.h, self.l, self.c, self.v)

    @property
    def market(self):
        """Returns of the reference, or the mean return of the peers that have one; 0 for none."""
        if self.reference is not None:
            found, seen = self.reference.r, self.reference.present
        else:
            rows = zip(*(peer.r for peer in self.peers), strict=True)
            found = [average(known(row)) for row in rows]
            seen = [any(row) for row in zip(*(peer.present for peer in self.peers), strict=True)]
        begun = [any(seen[:t]) for t in range(len(seen))]
        return [0.0 if b and not is_known(x) else x for x, b in zip(found, begun, strict=True)]

    @property
    def market_since(self):
        """Return of the market since the own bar before, or of the row at the first one."""
        market, last, out = self.market, None, []
        for t, there in enumerate(self.present):
            first = t if last is None else last + 1
            grown = math.prod(1 + x for x in market[first : t + 1]) - 1
            out.append(grown if there else NAN)
            last = t if there else last
        return out


def assets_of(panel, reference=None):
    """The assets of a panel."""
    moments = [datetime.fromtimestamp(int(t) / 1e9, UTC) for t in panel.timestamps.astype(int)]
    fields = [getattr(panel, name) for name in ("open", "high", "low", "close", "volume")]
    assets = [Asset(moments, *(x[:, i].tolist() for x in fields)) for i in range(len(panel.assets))]
    for asset in assets:
        asset.peers = assets
        asset.reference = assets[panel.assets.index(reference)] if reference else None
    return assets


def expects(function):
    """Enter a function of (asset) or (asset, window)."""
    EXPECTED[function.__name__.removesuffix("_")] = function
    return function


def is_known(x):
    return x == x


def known(values):
    return [x for x in values if is_known(x)]


def average(values):
    return math.fsum(values) / len(values) if values else NAN


def variance(values, ddof):
    if max(values) == min(values):
        return 0.0
    center = average(values)
    return math.fsum((x - center) ** 2 for x in values) / (len(values) - ddof)


def windows(f, w, *series):
    """f of the last w values of the series at each bar, NaN where one of them is unknown."""
    out = []
    for t in range(len(series[0])):
        parts = [s[t - w + 1 : t + 1] for s in series] if t >= w - 1 else [[NAN]]
        is_unknown = any(any(map(math.isnan, part)) for part in parts)
        out.append(NAN if is_unknown else f(*parts))
    return out


def sma(x, w):
    return windows(average, w, x)


def summed(x, w):
    return windows(math.fsum, w, x)


def std(x, w, ddof):
    return windows(lambda part: math.sqrt(variance(part, ddof)), w, x)


def ema(x, w):
    alpha, out, seen, e = 2 / (w + 1), [], 0, NAN
    for value in x:
        if not is_known(value):
            seen = 0
        else:
            seen += 1
            e = value if seen == 1 else alpha * value + (1 - alpha) * e
        out.append(e if seen >= w else NAN)
    return out


def wilder(x, w):
    """Mean of the first w values; from then on the old average counts w - 1 times."""
    out, first, e = [], [], NAN
    for value in x:
        if not is_known(value):
            first, e = [], NAN
        elif len(first) < w:
            first.append(value)
            e = average(first) if len(first) == w else NAN
        else:
            e = ((w - 1) * e + value) / w
        out.append(e)
    return out


def mean_of_known(x, w):
    """Mean of what is known of the last w values, where that is half; nothing in the first w."""
    parts = [known(x[t - w + 1 : t + 1]) if t >= w else [] for t in range(len(x))]
    return [average(part) if len(part) >= w / 2 else NAN for part in parts]


def over_known(f, x):
    """f of the values that are known, as it were at their rows, NaN elsewhere."""
    values = iter(f(known(x)))
    return [next(values) if is_known(one) else NAN for one in x]


def before(x, k):
    return ([NAN] * k + x)[: len(x)]


def each(f, *series):
    """f at each bar, NaN where an argument is unknown."""
    rows = zip(*series, strict=True)
    return [f(*row) if all(is_known(x) for x in row) else NAN for row in rows]


def divided(part, whole, if_zero):
    return part / whole if whole != 0 else if_zero


def log_if_positive(x):
    return math.log(x) if x > 0 else NAN


def correlation(x, y):
    vx, vy = variance(x, 0), variance(y, 0)
    if vx == 0 or vy == 0:
        return NAN
    return covariance(x, y) / math.sqrt(vx * vy)


def covariance(x, y):
    mx, my = average(x), average(y)
    return average([(a - mx) * (b - my) for a, b in zip(x, y, strict=True)])


def sign(x):
    return (x > 0) - (x < 0)


def midnight(moment):
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def period(moment, timeframe, business):
    """First and last + 1 moment of the period: hours from midnight, weeks, months.

    On business days a week ends with Friday and a month with its last weekday.
    """
    day = midnight(moment)
    if timeframe in ("1h", "4h", "1d"):
        hours = {"1h": 1, "4h": 4, "1d": 24}[timeframe]
        start = day + timedelta(hours=moment.hour // hours * hours)
        return start, start + timedelta(hours=hours)
    if timeframe == "1w":
        start = day - timedelta(days=(day.weekday() + 2) % 7 if business else day.weekday())
        return start, start + timedelta(days=7)
    month = day.replace(day=1)
    following = (month + timedelta(days=31)).replace(day=1)
    if business and following.weekday() in (6, 0):  # it ended with days of a weekend
        last = following - timedelta(days={6: 1, 0: 2}[following.weekday()])
        assert day < last, "bars on weekends are not foreseen here"
        return month, last
    return month, following


def longer(asset, timeframe, length, business):
    """The asset on bars of closed periods, and the number of bars closed at each row."""
    periods = [period(t, timeframe, business) for t in asset.moments]
    starts = sorted({start for start, _ in periods})
    rows = {start: [] for start in starts}
    for t, (start, _) in enumerate(periods):
        rows[start].append(t)
    n_closed = []
    for t, (start, end) in enumerate(periods):
        is_over = asset.moments[t] + length >= end
        n_closed.append(starts.index(start) + is_over)
    whole = starts[: n_closed[-1]]
    closed = [[t for t in rows[start] if is_known(asset.c[t])] for start in whole]

    def column(f, x):
        return [f([x[t] for t in some]) if some else NAN for some in closed]

    first, last = (lambda x: x[0]), (lambda x: x[-1])
    fields = ((first, asset.o), (max, asset.h), (min, asset.l), (last, asset.c), (sum, asset.v))
    moments = [asset.moments[rows[start][-1]] for start in starts[: len(closed)]]
    return Asset(moments, *(column(f, x) for f, x in fields)), n_closed


def on_longer_bars(asset, timeframe, length, business, f):
    """f on longer bars, held from the row at which its bar is closed until the next one is."""
    upper, n_closed = longer(asset, timeframe, length, business)
    values = upper.by_itself(f)
    own = [[t for t in range(n) if upper.present[t]] for n in n_closed]
    return [values[rows[-1]] if rows else NAN for rows in own]
