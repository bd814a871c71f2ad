"""From an action to the target, slowly, in plain Python: the rules of the documentation, in order.

Nothing is taken from the package. Weights are lists with cash first; fields of the constraints are
those of ``PortfolioConstraints``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

Rounding = Callable[[list[float]], list[float]]


class Limits:
    """Bounds of weights, resolved for a number of assets."""

    def __init__(self, fields: dict, n: int) -> None:
        self.long_only = fields.get("long_only", True)
        self.leverage = fields.get("max_leverage", 1.0)
        self.high = fields.get("max_weight", 1.0)
        low, cash_low, cash_high = (
            fields.get(name) for name in ("min_weight", "min_cash", "max_cash")
        )
        self.low = low if low is not None else 0.0 if self.long_only else -self.high
        self.cash_low = 1 - self.leverage if cash_low is None else cash_low
        if self.long_only:  # what is not invested is cash
            self.cash_low = max(self.cash_low, 1 - self.leverage)
        top = 1.0 if self.long_only else 1 + self.leverage
        self.cash_high = top if cash_high is None else cash_high
        self.k = min(fields.get("top_k") or n, n)
        self.band = fields.get("no_trade_band", 0.0)
        self.may_borrow = not self.long_only or self.cash_low < 0
        labels = fields.get("labels") or [""] * n
        self.groups = [
            ([i + 1 for i in range(n) if labels[i] == label], *pair)
            for label, pair in (fields.get("group_bounds") or {}).items()
        ]

    def of(self, slot: int) -> tuple[float, float]:
        return (self.low, self.high) if slot else (self.cash_low, self.cash_high)


def clipped_to_box(asked: list[float], limits: Limits) -> list[float]:
    """Asked weights within the space of actions: float32 bounds that leave nothing allowed out."""
    low = min(limits.low, 0.0) if limits.k < len(asked) - 1 else limits.low
    high = min(limits.high, limits.leverage)
    bounds = [(limits.cash_low, limits.cash_high)] + [(low, high)] * (len(asked) - 1)
    pairs = zip(asked, bounds, strict=True)
    return [min(max(w, beyond(low, -1)), beyond(high, 1)) for w, (low, high) in pairs]


def beyond(number: float, way: int) -> float:
    """The nearest float32 number that is not on the inner side."""
    single = in_float32(number)
    if (single - number) * way >= 0:
        return single
    return float(np.nextafter(np.float32(single), np.float32(way * math.inf)))


def in_float32(number: float) -> float:
    return float(np.float32(number))


def scored(scores: list[float], scale: float, limits: Limits) -> list[float]:
    """The weights of scores: shares of slots for cash, for buying and for selling each asset."""
    logits = [scale * min(max(x, -1.0), 1.0) for x in scores]
    above = [x - logits[0] for x in logits[1:]]
    sides = (1,) if limits.long_only else (1, -1)
    slots = {(i, side): math.exp(side * x) for i, x in enumerate(above) for side in sides}
    total = 1 + math.fsum(slots.values())
    times = 1 - min(limits.cash_low, 0.0) if limits.long_only else limits.leverage
    risky = [
        times * math.fsum(side * slots[i, side] for side in sides) / total
        for i in range(len(above))
    ]
    return [1 - math.fsum(risky), *risky]


def project(w: list[float], frozen: list[bool], limits: Limits) -> list[float]:
    """The nearest portfolio within the limits; frozen assets keep their weight."""
    n = len(w) - 1
    w, stuck = list(w), list(frozen)
    if limits.k < n:
        places = limits.k - sum(frozen[i] and w[i + 1] != 0 for i in range(n))
        order = sorted((i for i in range(n) if not frozen[i]), key=lambda i: -abs(w[i + 1]))
        for i in order[max(places, 0) :]:
            w[i + 1], stuck[i] = 0.0, True
    free = 1 - math.fsum(w[i + 1] for i in range(n) if stuck[i])
    slots = [0] + [i + 1 for i in range(n) if not stuck[i]]
    total = math.fsum(w[s] for s in slots)
    if 1e-13 < abs(total - free) <= 1e-6 and total > 0:  # rounding of float32
        for s in slots:
            w[s] *= free / total
        total = free
    inside = all(limits.of(s)[0] - 1e-13 <= w[s] <= limits.of(s)[1] + 1e-13 for s in slots)
    inside &= all(
        low - 1e-13 <= math.fsum(w[s] for s in own) <= high + 1e-13
        for own, low, high in limits.groups
    )
    if (abs(total - free) > 1e-13 or not inside) and limits.groups:
        nearest_within_groups(w, slots, free, limits)
    elif abs(total - free) > 1e-13 or not inside:
        nearest_of_sum(w, slots, free, limits)
    if not limits.long_only:
        shrink_to_leverage(w, slots, limits)
    return w


def nearest_of_sum(w: list[float], slots: list[int], total: float, limits: Limits) -> None:
    """Clip after a common shift that meets the sum."""
    low_sum = math.fsum(limits.of(s)[0] for s in slots)
    high_sum = math.fsum(limits.of(s)[1] for s in slots)
    if high_sum <= total or low_sum >= total:
        for s in slots[1:]:
            w[s] = limits.high if high_sum <= total else limits.low
        leave_rest_to_cash(w, slots, total, limits, lowest=low_sum >= total)
        return
    shift_to_sum(w, slots, total, limits)


def leave_rest_to_cash(
    w: list[float], slots: list[int], total: float, limits: Limits, lowest: bool
) -> None:
    """Cash takes what the assets leave of the sum; their least weights shrink to what there is."""
    assets, scale = math.fsum(w[s] for s in slots[1:]), 1.0
    if lowest and assets > 0 and total - assets < limits.cash_low:
        scale = max(0.0, total - min(limits.cash_low, max(total, 0.0))) / assets
    for s in slots[1:]:
        w[s] *= scale
    w[0] = total - assets * scale


def nearest_within_groups(w: list[float], slots: list[int], total: float, limits: Limits) -> None:
    """Halve the range of the common shift; groups that reach a bound share it among themselves."""
    groups = []  # free slots, and the sums that they may have beside what is frozen
    for own, low, high in limits.groups:
        free = [s for s in own if s in slots]
        held = math.fsum(w[s] for s in own if s not in slots)
        least, most = limits.low * len(free), limits.high * len(free)
        groups.append((free, min(max(low - held, least), most), min(max(high - held, least), most)))
    others = [s for s in slots if not any(s in free for free, _, _ in groups)]

    def clipped(slot: int, shift: float) -> float:
        low, high = limits.of(slot)
        return min(max(w[slot] - shift, low), high)

    def sums(shift: float) -> list[float]:
        return [
            min(max(math.fsum(clipped(s, shift) for s in free), low), high)
            for free, low, high in groups
        ]

    def level(shift: float) -> float:
        return math.fsum(sums(shift) + [clipped(s, shift) for s in others])

    reach = max(abs(w[s]) + max(map(abs, limits.of(s))) for s in slots) + 1
    left, right = -reach, reach
    while left < (middle := (left + right) / 2) < right:
        left, right = (middle, right) if level(middle) > total else (left, middle)
    full, empty = level(-reach) <= total, level(reach) >= total
    shift = -reach if full else reach if empty else right
    at = {s: clipped(s, shift) for s in others}
    for (free, _, _), own in zip(groups, sums(shift), strict=True):
        if abs(math.fsum(clipped(s, shift) for s in free) - own) > 1e-15:
            shift_to_sum(w, free, own, limits)
        else:
            at |= {s: clipped(s, shift) for s in free}
    for s, weight in at.items():
        w[s] = weight
    if full or empty:
        leave_rest_to_cash(w, slots, total, limits, lowest=not full)


def shift_to_sum(w: list[float], slots: list[int], total: float, limits: Limits) -> None:
    """Clip slots after the shift that meets the sum: found exactly, walking along its kinks."""
    kinks = []
    for s in slots:
        low, high = map(Fraction, limits.of(s))
        kinks += [(Fraction(w[s]) - high, 1), (Fraction(w[s]) - low, -1)]
    kinks.sort()
    at, moving = kinks[0][0], 0
    level = sum((Fraction(limits.of(s)[1]) for s in slots), Fraction(0))
    shift = kinks[-1][0]
    for place, change in kinks:
        after = level - moving * (place - at)
        if after <= total:
            shift = at + (level - Fraction(total)) / moving if moving else at
            break
        at, level, moving = place, after, moving + change
    for s in slots:
        low, high = limits.of(s)
        w[s] = min(max(float(Fraction(w[s]) - shift), low), high)


def shrink_to_leverage(w: list[float], slots: list[int], limits: Limits) -> None:
    """Longs and shorts by one factor, or by two that leave cash at the bound it would break."""
    longs = math.fsum(max(w[s], 0.0) for s in slots[1:])
    shorts = math.fsum(max(-w[s], 0.0) for s in slots[1:])
    room = max(0.0, limits.leverage - math.fsum(abs(x) for x in w[1:]) + longs + shorts)
    if longs + shorts <= room + 1e-13 or longs + shorts == 0:
        return
    wealth = w[0] + longs - shorts
    up = down = room / (longs + shorts)
    cash = wealth - up * longs + down * shorts
    if not limits.cash_low - 1e-13 <= cash <= limits.cash_high + 1e-13:
        cash = min(max(cash, limits.cash_low), limits.cash_high)
        net = min(max(wealth - cash, -room), room)  # of longs that sum with shorts to the room
        up = min((room + net) / 2 / longs, 1.0) if longs else 0.0
        down = min((room - net) / 2 / shorts, 1.0) if shorts else 0.0
    for s in slots[1:]:
        kept = w[s] * (up if w[s] > 0 else down)
        w[0] += w[s] - kept
        w[s] = kept


def violation(w: list[float], limits: Limits) -> float:
    """Largest amount by which weights break a bound."""
    held = [x for x in w[1:] if abs(x) > 1e-13]
    faults = [limits.cash_low - w[0], w[0] - limits.cash_high]
    faults += [x - limits.high for x in w[1:]]
    faults += [limits.low - x for x in (w[1:] if limits.k >= len(w) - 1 else held)]
    for own, low, high in limits.groups:
        together = math.fsum(w[s] for s in own)
        faults += [low - together, together - high]
    faults.append(math.fsum(map(abs, w[1:])) - limits.leverage)
    faults.append(math.fsum(sorted(map(abs, held))[: max(len(held) - limits.k, 0)]))
    return max(0.0, *faults)


def kept_as_observed(asked: list[float], observed: list[float]) -> list[bool]:
    """Holdings of which exactly what was observed, in float32, is asked for."""
    pairs = zip(asked[1:], observed[1:], strict=True)
    return [d != 0 and in_float32(a) == in_float32(d) for a, d in pairs]


def target(
    wanted: list[float],
    d: list[float],
    frozen: list[bool],
    kept: list[bool],
    limits: Limits,
    adjustment: float,
    rounded: Rounding = list,
) -> tuple[list[float], list[bool]]:
    """The feasible target, and which assets are to be traded for it.

    ``rounded`` stands for what arithmetic may do to weights of the size of 1.
    """
    n = len(d) - 1
    a = rounded(project(wanted, [False] * n, limits))
    if adjustment < 1:
        a = [y + adjustment * (x - y) for x, y in zip(a, d, strict=True)]
    still = [
        frozen[i] or kept[i] or (limits.band > 0 and abs(a[i + 1] - d[i + 1]) <= limits.band)
        for i in range(n)
    ]
    if any(still):
        free = 1 - math.fsum(d[i + 1] for i in range(n) if still[i])
        free = 0.0 if abs(free) <= 1e-13 else free
    if any(still) and limits.may_borrow:
        assets = [d[i + 1] if still[i] else a[i + 1] for i in range(n)]
        a = [1 - math.fsum(assets), *assets]
    elif any(still):
        asked = a[0] + math.fsum(a[i + 1] for i in range(n) if not still[i])
        scale = free / asked if asked > 1e-12 and free > 0 else 0.0
        a = [a[0] * scale if scale > 0 else free] + [
            d[i + 1] if still[i] else a[i + 1] * scale for i in range(n)
        ]
    if adjustment < 1 or any(still):
        a = project(a, frozen, limits)  # the bounds win over what is merely kept
        still = [still[i] and (frozen[i] or abs(a[i + 1] - d[i + 1]) < 1e-13) for i in range(n)]
    return a, [not s for s in still]
