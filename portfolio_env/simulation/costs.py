"""TransactionCosts: costs of trading and holding, as rates for the compiled simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.checks import (
    check_fields,
    check_integer,
    check_number,
    known_fields,
    short_repr,
    shortened,
)
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market import PricePanel
from portfolio_env.market.rates import Rate, checked_rate
from portfolio_env.names import indices_of

Bps = float | Sequence[float] | Mapping[str, float]
OTHERS = "*"  # stands for every asset that a mapping does not name
LARGEST_VALUE = 1e15  # of an account or a fee in money, whose cents float64 still tells apart
LARGEST_IMPACT = 1e3  # far beyond it the cost of a trade is lost in rounding


@known_fields
@dataclass(frozen=True, repr=False)
class TransactionCosts:
    r"""Costs of trading and of holding; frozen, validated, JSON-able.

    A trade of notional ``|q|`` (in units of the wealth ``V`` before trading) in asset ``i`` costs

    .. math:: (c_i + s_i + b \sigma_i \sqrt{|q| V / D_i}) \, |q|

    with the commission ``c`` of its side, the half-spread ``s``, and the square-root market impact
    of Boyd et al. (2017), "Multi-Period Trading via Convex Optimization", ch. 2.3: ``sigma`` the
    volatility
    per bar and ``D`` the money traded per bar, both trailing means up to the bar of the decision.
    Rates are per traded notional, as an exchange charges them (buying 1,000 at 10 bp costs 1,001).

    Interest accrues by the time that passes from bar to bar, in years of 365.25 days.

    Attributes:
        commission_bps: Commission of both sides in basis points (1 bp = 0.01 %), in [0, 10,000):
            one number, one per asset of the market in its order, or numbers by asset, where ``"*"``
            stands for all others.
        buy_commission_bps: Commission of purchases where it differs; None means ``commission_bps``.
        sell_commission_bps: Commission of sales where it differs; None means ``commission_bps``.
        slippage_bps: Half the bid-ask spread, paid on both sides, in basis points; as above.
        impact: Coefficient ``k`` of the square-root impact, in [0, 1000]; about 1 in the
            literature; 0 is none. Needs a market with volumes. It makes ``initial_value`` matter:
            it is money, not a unit.
        impact_window: Bars over which volatility and money volume are averaged (>= 2); fewer are
            used while an asset's history is shorter, and none is charged at its very first bar.
        fixed_fee: Money charged once per rebalancing in which anything is traded, in [0, 1e15] and
            below the initial value of an account.
        cash_rate_annual: Yearly simple rate that positive cash earns: one number, or numbers by
            date of which the last one known at bar t is earned until bar t + 1: a Series, a mapping
            from ISO dates, or the path of a CSV file (``market.rates.Rate``).
        margin_rate_annual: Yearly simple rate that negative cash pays; a rate of its own, nothing
            is added to that of cash.
        borrow_rate_annual: Yearly simple rate paid on the value of short positions.
        delisting_haircut: Fraction in [0, 1] of the last price lost when a holding is delisted
            (0.3 in Shumway 1997, "The Delisting Bias in CRSP Data", for bad performance).
    """

    commission_bps: Bps = 10.0
    buy_commission_bps: Bps | None = None
    sell_commission_bps: Bps | None = None
    slippage_bps: Bps = 0.0
    impact: float = 0.0
    impact_window: int = 20
    fixed_fee: float = 0.0
    cash_rate_annual: Rate = 0.0
    margin_rate_annual: float = 0.0
    borrow_rate_annual: float = 0.0
    delisting_haircut: float = 0.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        """Validate every field and store sequences as tuples."""
        rate = checked_rate("cash_rate_annual", self.cash_rate_annual)
        object.__setattr__(self, "cash_rate_annual", rate)
        check_fields(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_bps") and value is not None:
                object.__setattr__(self, field.name, _checked_bps(field.name, value))
        check_number("impact", self.impact, 0, LARGEST_IMPACT)
        check_number("fixed_fee", self.fixed_fee, 0, LARGEST_VALUE)
        for name in ("margin_rate_annual", "borrow_rate_annual"):
            check_number(name, getattr(self, name), -1, 10)
        check_number("delisting_haircut", self.delisting_haircut, 0, 1)
        check_integer("impact_window", self.impact_window, 2)

    def rates(self, assets: int | Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the linear cost per traded notional of each side, commission plus half-spread.

        Args:
            assets: Names of the N assets of the market; per-asset fields must have as many. Their
                number will do where no field is by asset's name.

        Returns:
            ``(buy, sell)``, each (N,) float64 fractions.

        Raises:
            ArgumentError: If a per-asset field has another length, lacks an asset or names one that
                is not there, or commission plus half-spread reaches 100 %.

        >>> buy, sell = TransactionCosts(commission_bps=10, sell_commission_bps=[20, 30]).rates(2)
        >>> buy.tolist(), sell.tolist()
        ([0.001, 0.001], [0.002, 0.003])
        >>> TransactionCosts(commission_bps={"BTC": 5, "*": 10}).rates(["BTC", "ETH"])[0].tolist()
        [0.0005, 0.001]
        """
        slippage = _per_asset("slippage_bps", self.slippage_bps, assets)
        sides = []
        for name in ("buy_commission_bps", "sell_commission_bps"):
            own = getattr(self, name)
            commission = (
                _per_asset("commission_bps", self.commission_bps, assets)
                if own is None
                else _per_asset(name, own, assets)
            )
            rate = (commission + slippage) / 1e4
            if (rate >= 1).any():
                raise ArgumentError(
                    f"commission plus slippage_bps reaches {rate.max() * 1e4:g} bp; a side must "
                    "stay under 10,000 bp (100 %). Lower one of them."
                )
            sides.append(rate)
        return sides[0], sides[1]

    def impact_coefficients(self, panel: PricePanel) -> NDArray[np.float64]:
        """Return ``k sigma / sqrt(D)`` of the square-root impact, from bars up to each row.

        Args:
            panel: Prices and volumes; ``D`` is the trailing mean of close times volume.

        Returns:
            (T, N) float64; (0, 0) if ``impact`` is zero. The rate of a trade of ``q`` in wealth
            ``V`` is the coefficient times ``sqrt(|q| V)``.

        Raises:
            DataError: If the market has no volumes.
        """
        if self.impact == 0:
            return np.zeros((0, 0))
        if panel.volume is None:
            raise DataError(
                f"impact={self.impact:g} needs traded volumes, which this market lacks (closing "
                "prices only); use data with a volume column, or impact=0 with slippage_bps."
            )
        close = pd.DataFrame(panel.close)
        returns = close.ffill().pct_change().where(close.notna())
        sigma = returns.rolling(self.impact_window, min_periods=2).std()
        money = (close * panel.volume).rolling(self.impact_window, min_periods=1).mean()
        rate = (self.impact * sigma).to_numpy() / np.sqrt(money.where(money > 0).to_numpy())
        return np.nan_to_num(rate)


def _checked_bps(name: str, value: Bps) -> float | tuple[float, ...] | dict[str, float]:
    by_asset = dict(value) if isinstance(value, Mapping) else None
    array = np.asarray(value if by_asset is None else list(by_asset.values()), dtype=np.float64)
    if not ((array >= 0) & (array < 1e4)).all():
        raise ArgumentError(
            f"{name}={shortened(value)} must be a number, one number per asset, or numbers by "
            "asset, in [0, 10,000) basis points."
        )
    if by_asset is not None:
        return {str(asset): float(number) for asset, number in by_asset.items()}
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def _per_asset(name: str, value: Any, assets: int | Sequence[str]) -> NDArray[np.float64]:
    n_assets = assets if isinstance(assets, int) else len(assets)
    if isinstance(value, Mapping):
        if isinstance(assets, int):
            raise ArgumentError(f"{name} is by asset: give rates() the names of the assets.")
        indices_of(f"asset of {name}", [each for each in value if each != OTHERS], assets)
        missing = [each for each in assets if each not in value]
        if missing and OTHERS not in value:
            raise ArgumentError(
                f'{name} has no number for {", ".join(missing[:5])}; give one, or one for "*", all '
                "others."
            )
        return np.array([value.get(each, value.get(OTHERS)) for each in assets], np.float64)
    array = np.asarray(value, dtype=np.float64)
    if array.ndim and len(array) != n_assets:
        raise ArgumentError(
            f"{name} has {len(array)} values but the market has {n_assets} assets; give one value "
            "per asset, a single number, or numbers by asset's name."
        )
    return np.broadcast_to(array, (n_assets,)).copy()
