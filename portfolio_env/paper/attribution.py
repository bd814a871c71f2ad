"""Attribution: why a paper account is worth another amount than its ideal account.

The ideal account carries out the same decisions at once, in any fraction of a unit, as a backtest
does. What the paper account holds otherwise, and what it pays otherwise, add up to the difference
of the two values. At bar t both trade, hold units until bar t + 1, and are valued at closes ``c``;
the ideal account trades at prices ``p``, the paper account at fills. With the gap of units
``g = held - ideal`` in parts by cause, a cause makes

    sum over t of g_t (c_{t+1} - c_t) + (g_t - g_{t-1}) (c_t - p_t)

and every fill of ``q`` units (sales negative) at a price ``f``, with the price ``r`` when its order
was sent and the mid ``m`` when it was filled, costs, in this order,

    q (r - p) timing,  q (m - r) delay,  |q| s spread,  q (f - m) - |q| s impact,  and its fee,

``s`` being half the spread. Each term changes one thing, so that their sum is exact. The idea of
comparing with a paper portfolio at decision prices is that of Perold (1988), "The Implementation
Shortfall: Paper versus Reality".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.names import indices_of

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]

UNITS = ("missed", "size", "risk", "rounding", "unfilled")
"""Causes of other holdings: no decision at a bar; another wish, as the account is worth something
else by then; limits of risk; lots and least orders; orders that were not filled."""
PRICES = ("timing", "delay", "spread", "impact", "fees")
"""Causes of other prices and costs; the last three beyond those of the ideal account."""
KINDS = (*UNITS, *PRICES, "interest")
"""All causes, in the order in which they are taken."""
FILL_COLUMNS = ("bar", "asset", "units", "reference", "mid", "half_spread", "price", "fee")
CASH = "cash"
_EXACT = 1e-9  # of the largest value


@dataclass(frozen=True, eq=False)
class IdealAccount:
    """Account that carries out all decisions at once, over K bars and N assets.

    Attributes:
        values: (K + 1,) money at the closes, before trading.
        units: (K, N) units held after the trade of each bar.
        prices: (K, N) prices of its trades: the closes, or the next opens.
        spread: (K, N) money that it pays as half-spreads.
        impact: (K, N) money that it pays as market impact.
        fees: (K, N) money that it pays as commissions and fees.
        interest: (K,) interest earned less interest paid, from each bar to the next.
    """

    values: Float
    units: Float
    prices: Float
    spread: Float
    impact: Float
    fees: Float
    interest: Float


@dataclass(frozen=True, eq=False)
class PaperAccount:
    """Account of the same decisions as it is traded, and what became of them on the way.

    Attributes:
        values: (K + 1,) money at the closes, before trading.
        decided: (K,) whether there was a decision at the bar; where not, ``wished``, ``allowed``
            and ``ordered`` are not read.
        wished: (K, N) units to hold by the decision, for what this account is worth.
        allowed: (K, N) units to hold after limits of risk.
        ordered: (K, N) units to hold if all orders are filled: after lots and least orders.
        held: (K, N) units held after the fills of the bar.
        interest: (K,) interest earned less interest paid, from each bar to the next.
    """

    values: Float
    decided: Bool
    wished: Float
    allowed: Float
    ordered: Float
    held: Float
    interest: Float


def ideal_account(
    result: BacktestResult, close: Float, prices: Float | None = None
) -> IdealAccount:
    """Return the account of a backtest as an ideal account; its costs count as fees.

    Args:
        result: The backtest, of K steps. No asset that it holds may be delisted in them.
        close: (K + 1, N) closing prices of its assets.
        prices: (K, N) prices of its trades: opens of the next bars with ``execution="next_open"``;
            None is the closes.
    """
    at = close[:-1] if prices is None else prices
    begun = _ratio(result.drifted[:1, 1:] * result.values[0], close[:1])
    notional = np.abs(result.trades[:, 1:])
    whole = notional.sum(axis=1, keepdims=True)
    none = np.zeros_like(notional)
    return IdealAccount(
        values=result.values,
        units=begun + np.cumsum(_ratio(result.trades[:, 1:], at), axis=0),
        prices=at,
        spread=none,
        impact=none,
        fees=result.costs[:, None] * _ratio(notional, np.broadcast_to(whole, notional.shape)),
        interest=result.carries,
    )


def shortfall(
    paper: PaperAccount,
    ideal: IdealAccount,
    fills: pd.DataFrame,
    close: Float,
    assets: Sequence[str],
    start: Float | None = None,
) -> pd.DataFrame:
    """Return what each cause adds to the value of a paper account, less that of its ideal account.

    Money that is paid in or out goes into both accounts. Units of both change by trades alone:
    after a split, give earlier units and prices in the new units.

    Args:
        paper: The paper account.
        ideal: Its ideal account.
        fills: The fills, a row each, with the columns of ``FILL_COLUMNS``: row of the bar, name of
            the asset, units (sales negative), prices per unit, and the fee in money.
        close: (K + 1, N) closing prices; NaN only where neither account holds or trades.
        assets: The N names.
        start: (N,) units that both accounts begin with; None is none.

    Returns:
        Money by bar and asset, "cash" for interest: K (N + 1) rows and a column for each of
        ``KINDS``, negative where the paper account loses. The sum of all is the change of the
        difference of the values.

    Raises:
        ArgumentError: If shapes do not fit, fills are not those of the units held, a price that is
            needed is missing, or the sum is off by more than 1e-9 of the value.

    >>> one, none = np.ones((1, 1)), np.zeros((1, 1))
    >>> ideal = IdealAccount(np.array([100.0, 110.0]), one, 10 * one, none, none, none, np.zeros(1))
    >>> paper = PaperAccount(
    ...     np.array([100.0, 109.2]), np.ones(1, bool), one, one, one, one, np.zeros(1)
    ... )
    >>> fills = pd.DataFrame([[0, "A", 1, 10.0, 10.5, 0.25, 10.75, 0.05]], columns=FILL_COLUMNS)
    >>> table = shortfall(paper, ideal, fills, np.array([[10.0], [20.0]]), ["A"])
    >>> {name: round(float(money), 9) for name, money in table.sum().items() if money}
    {'delay': -0.5, 'spread': -0.25, 'fees': -0.05}
    """
    bars, count = len(paper.decided), len(assets)
    _check_shapes(paper, ideal, close, bars, count)
    begun = np.zeros(count) if start is None else np.asarray(start, np.float64)
    where = _places(fills, assets, bars)
    traded = _summed(fills["units"], where, (bars, count))
    _check_trades(traded, paper.held, begun, assets)
    gaps = _gaps(paper, ideal, traded)
    moves = np.diff(close, axis=0)
    parts: dict[str, Float] = {}
    for name, gap in gaps.items():
        late = np.diff(gap, axis=0, prepend=0.0)
        parts[name] = _times(gap, moves) + _times(late, close[:-1] - ideal.prices)
    units, size = fills["units"].to_numpy(np.float64), fills["units"].abs().to_numpy(np.float64)
    reference, mid, price, half, fee = (
        fills[name].to_numpy(np.float64)
        for name in ("reference", "mid", "price", "half_spread", "fee")
    )
    paid = {
        "timing": units * (reference - ideal.prices[where]),
        "delay": units * (mid - reference),
        "spread": size * half,
        "impact": units * (price - mid) - size * half,
        "fees": fee,
    }
    own = {"spread": ideal.spread, "impact": ideal.impact, "fees": ideal.fees}
    for name, money in paid.items():
        parts[name] = own.get(name, 0.0) - _summed(money, where, (bars, count))
    table = _table(parts, paper.interest - ideal.interest, assets)
    _check_sum(table, paper.values, ideal.values)
    return table


def by_kind(table: pd.DataFrame, fills: pd.DataFrame) -> pd.DataFrame:
    """Return the money of each cause, and the same in basis points of the traded notional.

    Args:
        table: See ``shortfall``.
        fills: The fills.

    Returns:
        By cause: ``money`` and ``bp``, NaN where nothing was traded; last the ``total``.
    """
    notional = float((fills["units"].abs() * fills["price"]).sum())
    money = table.sum()
    money["total"] = money.sum()
    bp = 1e4 * money / notional if notional else money * np.nan
    return pd.DataFrame({"money": money, "bp": bp}).rename_axis("kind")


def _gaps(paper: PaperAccount, ideal: IdealAccount, traded: Float) -> dict[str, Float]:
    """Return the parts (K, N) of the units that the paper account holds beyond the ideal one."""
    gaps = {name: np.zeros_like(paper.held) for name in UNITS}
    steps = (
        ("size", paper.wished, ideal.units),
        ("risk", paper.allowed, paper.wished),
        ("rounding", paper.ordered, paper.allowed),
        ("unfilled", paper.held, paper.ordered),
    )
    for bar in range(len(paper.decided)):
        if paper.decided[bar]:
            for name, after, before in steps:
                gaps[name][bar] = after[bar] - before[bar]
        elif bar:
            for gap in gaps.values():
                gap[bar] = gap[bar - 1]
            gaps["missed"][bar] -= ideal.units[bar] - ideal.units[bar - 1]
            gaps["unfilled"][bar] += traded[bar]  # of orders of earlier bars
        else:
            gaps["missed"][bar] = paper.held[bar] - ideal.units[bar]
    return gaps


def _ratio(numbers: Float, of: Float) -> Float:
    """Return quotients, 0 where the numerator is."""
    return np.where(numbers == 0.0, 0.0, numbers / np.where(numbers == 0.0, 1.0, of))


def _times(units: Float, prices: Float) -> Float:
    """Return units times prices, 0 where there are no units."""
    return np.where(units == 0.0, 0.0, units * np.where(units == 0.0, 0.0, prices))


def _places(
    fills: pd.DataFrame, assets: Sequence[str], bars: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the fills."""
    lacking = [name for name in FILL_COLUMNS if name not in fills]
    if lacking:
        raise ArgumentError(f"the fills lack the columns {', '.join(lacking)}; add them.")
    rows = fills["bar"].to_numpy(np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= bars):
        raise ArgumentError(
            f"the fills are of bars {rows.min()} to {rows.max()}; give rows in [0, {bars - 1}]."
        )
    columns = np.array(indices_of("asset", list(fills["asset"]), list(assets)), np.int64)
    return rows, columns


def _summed(
    money: pd.Series | Float,
    where: tuple[NDArray[np.int64], NDArray[np.int64]],
    shape: tuple[int, int],
) -> Float:
    out = np.zeros(shape)
    np.add.at(out, where, np.asarray(money, np.float64))
    return out


def _table(parts: dict[str, Float], interest: Float, assets: Sequence[str]) -> pd.DataFrame:
    bars = len(interest)
    index = pd.MultiIndex.from_product([range(bars), [*assets, CASH]], names=["bar", "asset"])
    columns = {name: np.c_[parts[name], np.zeros(bars)].ravel() for name in (*UNITS, *PRICES)}
    of_cash = np.c_[np.zeros((bars, len(assets))), interest]
    return pd.DataFrame({**columns, "interest": of_cash.ravel()}, index)


def _check_shapes(
    paper: PaperAccount, ideal: IdealAccount, close: Float, bars: int, count: int
) -> None:
    shapes = {
        **{f"paper.{name}": (bars, count) for name in ("wished", "allowed", "ordered", "held")},
        **{
            f"ideal.{name}": (bars, count)
            for name in ("units", "prices", "spread", "impact", "fees")
        },
        **{f"{name}.values": (bars + 1,) for name in ("paper", "ideal")},
        **{f"{name}.interest": (bars,) for name in ("paper", "ideal")},
        "close": (bars + 1, count),
    }
    owners = {"paper": paper, "ideal": ideal}
    for name, shape in shapes.items():
        owner, _, field = name.partition(".")
        given = np.shape(getattr(owners[owner], field) if field else close)
        if given != shape:
            raise ArgumentError(
                f"{name} has shape {given}, expected {shape}: {bars} bars and {count} assets."
            )


def _check_trades(traded: Float, held: Float, start: Float, assets: Sequence[str]) -> None:
    """Reject fills that do not lead from one bar's holdings to the next's."""
    changes = np.diff(held, axis=0, prepend=start[None])
    off = np.abs(traded - changes) > _EXACT * np.maximum(1.0, np.abs(held))
    if off.any():
        bar, place = np.argwhere(off)[0]
        raise ArgumentError(
            f"at bar {bar} the fills of {assets[place]} sum to {traded[bar, place]:g} units, and "
            f"its holdings change by {changes[bar, place]:g}; give all fills, and units after "
            "splits alone."
        )


def _check_sum(table: pd.DataFrame, paper: Float, ideal: Float) -> None:
    total = float(table.to_numpy().sum())
    expected = float((paper[-1] - ideal[-1]) - (paper[0] - ideal[0]))
    scale = max(float(np.abs(paper).max()), float(np.abs(ideal).max()))
    if not abs(total - expected) <= _EXACT * scale:
        raise ArgumentError(
            f"the causes sum to {total:g}, and the values differ by {expected:g}: a price of what "
            "is held is missing, or money was paid into one account alone."
        )
