"""Cost model protocol, and the conversion of ``costs=`` to a cost model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from portfolio_env.checks import as_dataclass
from portfolio_env.errors import ArgumentError, user_code
from portfolio_env.market import PricePanel
from portfolio_env.market.rates import Rate, checked_rate
from portfolio_env.market.timeline import time_text
from portfolio_env.names import find
from portfolio_env.simulation.costs import LARGEST_VALUE, TransactionCosts

Float = NDArray[np.float64]


class CostModel(Protocol):
    """Cost model protocol: the methods that the simulator reads.

    Derive from it and write ``rates``; the rest is free until it is overridden. A trade of notional
    q, in units of the wealth V, costs ``(rate + impact coefficient * sqrt(|q| V)) |q|``. Nothing
    else may vary over time.

    Attributes:
        fixed_fee: Money charged once per rebalancing in which anything is traded, in [0, 1e15] and
            below the initial value of an account.
        cash_rate_annual: Yearly simple rate that positive cash earns, as of ``TransactionCosts``.
        margin_rate_annual: Yearly simple rate that negative cash pays, in [-1, 10].
        borrow_rate_annual: Yearly simple rate paid on the value of short positions, likewise.
        delisting_haircut: Fraction in [0, 1] of the last price lost when a holding is delisted.

    >>> class Tiered(CostModel):
    ...     def __init__(self, coins_bps=20.0, shares_bps=2.0):
    ...         self.coins, self.shares = coins_bps / 1e4, shares_bps / 1e4
    ...
    ...     def rates(self, assets):
    ...         is_coin = np.char.endswith(np.array(assets), "USDT")
    ...         rate = np.where(is_coin, self.coins, self.shares)
    ...         return rate, rate
    >>> made_costs(Tiered(30)).rates(("BTCUSDT", "SPY"))[0].tolist()
    [0.003, 0.0002]
    """

    fixed_fee: float = 0.0
    cash_rate_annual: Rate = 0.0
    margin_rate_annual: float = 0.0
    borrow_rate_annual: float = 0.0
    delisting_haircut: float = 0.0

    def rates(self, assets: Sequence[str]) -> tuple[Float, Float]:
        """Return the cost per traded notional of purchases and of sales, each (N,) in [0, 1)."""
        raise ArgumentError(f"{type(self).__name__} must define rates(assets).")

    def impact_coefficients(self, panel: PricePanel) -> Float:
        """Return (T, N) coefficients of sqrt(money traded), from bars up to each row; or (0, 0).

        They are within [0, 1e9].
        """
        return np.zeros((0, 0))


LARGEST_COEFFICIENT = 1e9  # far beyond it the cost of a trade is lost in rounding
CUTS = 8  # bars after which the future is cut off, to see whether impact knows it
_METHODS = ("rates", "impact_coefficients")
_NUMBERS = {
    "fixed_fee": (0.0, LARGEST_VALUE),
    "margin_rate_annual": (-1.0, 10.0),
    "borrow_rate_annual": (-1.0, 10.0),
    "delisting_haircut": (0.0, 1.0),
}
Costs = TransactionCosts | CostModel
CostSpec = Costs | type[CostModel] | Mapping[str, Any] | str
"""What ``costs=`` takes."""


def made_costs(spec: CostSpec) -> Costs:
    """Return the cost model of a specification.

    Args:
        spec: ``TransactionCosts`` or a mapping of its fields; a ``CostModel`` or its class; its
            name ``"module:Name"``; or ``{"model": "module:Name", **options}``. Options reach
            classes with the methods of ``CostModel`` and nothing else.

    Raises:
        ArgumentError: If it is none of these.
    """
    if isinstance(spec, TransactionCosts) or (isinstance(spec, Mapping) and "model" not in spec):
        return as_dataclass(TransactionCosts, spec, "costs")
    options = dict(spec) if isinstance(spec, Mapping) else {"model": spec}
    named = options.pop("model")
    thing: Any = find("costs", named, {}) if isinstance(named, str) else named
    if not all(callable(getattr(thing, method, None)) for method in _METHODS):
        raise ArgumentError(
            f"costs={named!r} must be a TransactionCosts, a mapping of its fields, or a CostModel: "
            "derive from portfolio_env.simulation.cost_models.CostModel."
        )
    if isinstance(thing, type):
        with user_code(f"costs={named!r} with the options {sorted(options)}"):
            thing = thing(**options)
    elif options:
        raise ArgumentError(f"costs={named!r} is not a class and takes no {sorted(options)}.")
    for name, (low, high) in _NUMBERS.items():
        value = getattr(thing, name, None)
        if not isinstance(value, int | float | np.number) or not low <= value <= high:
            raise ArgumentError(
                f"{name} of {type(thing).__name__} is {value!r}; it must be a finite number in "
                f"[{low:g}, {high:g}]."
            )
    checked_rate(f"cash_rate_annual of {type(thing).__name__}", thing.cash_rate_annual)
    made: CostModel = thing
    return made


def checked_rates(costs: Costs, assets: Sequence[str]) -> Float:
    """Return (2, N) cost per traded notional of purchases and sales.

    Raises:
        ArgumentError: If the model gives anything else.
    """
    if type(costs) is TransactionCosts:  # a subclass may answer anything
        return np.stack(costs.rates(assets))
    found = _asked(costs, "rates", tuple(assets))
    if found.shape != (2, len(assets)) or not ((found >= 0) & (found < 1)).all():
        raise ArgumentError(
            f"rates of {type(costs).__name__} must be two arrays ({len(assets)},) of fractions in "
            f"[0, 1), of purchases and of sales; they are {found.tolist()!r:.200}."
        )
    return found


def half_spreads(costs: Costs, assets: Sequence[str]) -> Float:
    """Return (2, N) the part of ``checked_rates`` that is half the spread between bid and ask.

    A cost model with rates of its own names none: all of its rate is commission then.
    """
    if not isinstance(costs, TransactionCosts) or (type(costs).rates is not TransactionCosts.rates):
        return np.zeros((2, len(assets)))
    return np.stack(
        TransactionCosts(slippage_bps=costs.slippage_bps, commission_bps=0).rates(assets)
    )


def checked_impact(costs: Costs, panel: PricePanel) -> Float:
    """Return (T, N) impact coefficients, or (0, 0).

    Raises:
        ArgumentError: If the model gives anything else, or what it gives at a bar changes when
            later bars are cut off.
    """
    found = _asked(costs, "impact_coefficients", panel)
    if found.size == 0:
        return found
    whose = f"impact_coefficients of {type(costs).__name__}"
    if found.shape != panel.close.shape:
        raise ArgumentError(
            f"{whose} must have the shape {panel.close.shape}; they have the shape {found.shape}."
        )
    check_bound(costs, found, panel)
    if type(costs) is TransactionCosts:
        return found
    drawn = np.random.default_rng(0).integers(0, len(found), CUTS).tolist()
    for t in sorted({*drawn, len(found) // 2, len(found) - 2} - {-1}):
        past = _asked(costs, "impact_coefficients", panel.past(t))
        own = found[: t + 1]
        if past.shape == own.shape and np.allclose(past, own, rtol=1e-7, atol=0):
            continue
        raise ArgumentError(
            f"{whose} know the future: those up to row {t} change when later bars are cut off; "
            "compute row t from bars up to it."
        )
    return found


def check_bound(costs: Costs, found: Float, panel: PricePanel) -> None:
    """Reject (T, N) impact coefficients of a panel that are not within [0, 1e9]."""
    wrong = ~((found >= 0) & (found <= LARGEST_COEFFICIENT))
    if wrong.any():
        row, asset = np.argwhere(wrong)[0]
        raise ArgumentError(
            f"impact_coefficients of {type(costs).__name__} must be within "
            f"[0, {LARGEST_COEFFICIENT:g}], the rate that a trade of 1 in money pays; that of "
            f"{panel.assets[asset]} at {time_text(panel.timestamps[row])} is "
            f"{found[row, asset]:g}. Check its units: volatility over the square root of the money "
            "traded in a bar is far below 1."
        )


def _asked(costs: Costs, method: str, argument: Any) -> Float:
    with user_code(f"{method} of {type(costs).__name__}"):
        found = np.asarray(getattr(costs, method)(argument))
    if found.dtype.kind not in "fiub":
        raise ArgumentError(
            f"{method} of {type(costs).__name__} returned values of type {found.dtype}: they must "
            "be numbers."
        )
    return np.array(found, np.float64)
