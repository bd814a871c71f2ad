"""Orders of a given capital: from weights to amounts, whole units and remaining cash."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.task import EvaluationTask
from portfolio_env.simulation.cost_models import Costs, checked_rates
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.rebalancing import remainder_factor


def allocate(
    weights: ArrayLike,
    assets: Sequence[str],
    prices: ArrayLike,
    capital: float,
    *,
    lot: float = 1.0,
    costs: Costs | None = None,
) -> pd.DataFrame:
    """Turn weights into orders for an amount of cash.

    The amounts are what is left of the capital by buying the weights at exactly solved costs (see
    ``simulation.rebalancing.remainder_factor``; market impact is left out). Units are cut to whole
    lots, so that the orders never cost more than planned.

    Args:
        weights: (N + 1,) target weights, cash first, summing to 1.
        assets: N names.
        prices: (N,) prices per unit; NaN where the weight is 0.
        capital: Cash to invest, > 0.
        lot: Smallest tradable number of units; 0 for any fraction.
        costs: Commissions, half-spread and fixed fee; None is none.

    Returns:
        Columns ``weight``, ``amount`` (money meant for it), ``price``, ``units`` and ``invested``
        (units times price), one row per asset, then ``costs`` and ``cash``. The column
        ``invested`` adds up to the capital.

    Raises:
        ArgumentError: If the capital is not positive, ``lot`` is negative, a price is missing, or
            the fee is more than the capital.

    >>> allocate([0.1, 0.5, 0.4], ["A", "B"], [30.0, 100.0], 1000)["units"].dropna().tolist()
    [16.0, 4.0]
    """
    target = np.asarray(weights, np.float64)
    each = np.asarray(prices, np.float64)
    check_number("capital", capital, above=0)
    check_number("lot", lot, 0)
    held = target[1:] != 0
    if not (each[held] > 0).all():
        missing = [name for name, bad in zip(assets, held & ~(each > 0), strict=True) if bad]
        raise ArgumentError(f"{', '.join(missing)} should be held but has no price; give one.")
    costs = costs or TransactionCosts(commission_bps=0)
    buy, sell = checked_rates(costs, assets)
    fee = costs.fixed_fee / capital if held.any() else 0.0
    if fee >= 1:
        raise ArgumentError(f"the fixed fee of {costs.fixed_fee:g} eats capital={capital:g} up.")
    all_cash = np.eye(1, len(target))[0]
    amounts = capital * float(remainder_factor(all_cash, target, buy, sell, fee)) * target
    units = np.zeros(len(assets))
    units[held] = _whole(amounts[1:][held] / each[held], lot)
    invested = units * np.where(held, each, 0.0)
    paid = float(np.abs(invested) @ np.where(invested > 0, buy, sell))
    paid += costs.fixed_fee if invested.any() else 0.0
    last = pd.DataFrame(
        {
            "weight": [np.nan, target[0]],
            "amount": [capital - amounts.sum(), amounts[0]],
            "invested": [paid, capital - invested.sum() - paid],
        },
        ["costs", "cash"],
    )
    orders = {
        "weight": target[1:],
        "amount": amounts[1:],
        "price": each,
        "units": units,
        "invested": invested,
    }
    return pd.concat([pd.DataFrame(orders, list(assets)), last]).rename_axis("asset")


def _whole(units: NDArray[np.float64], lot: float) -> NDArray[np.float64]:
    """Round to lots, towards 0; a billionth of a lot short of a whole one is rounding."""
    if lot == 0:
        return units
    return np.sign(units) * np.floor(np.abs(units) / lot + 1e-9) * lot


def orders_at_end(
    task: EvaluationTask,
    split: str,
    results: Mapping[str, BacktestResult],
    capital: float | None,
    lot: float = 1.0,
) -> dict[str, pd.DataFrame]:
    """Return the orders of a capital by every strategy's weights at the last bar, see ``allocate``.

    Args:
        task: Gives the prices and the costs.
        split: The evaluated range.
        results: Backtests by name, over the range.
        capital: Cash to invest; None gives no orders.
        lot: See ``allocate``.
    """
    if capital is None:
        return {}
    prices = pd.DataFrame(task.whole.market.close[: task.whole.rows(split)[1]]).ffill().iloc[-1]
    return {
        name: allocate(result.last_weights, result.assets, prices.to_numpy(), capital,
                       lot=lot, costs=task.costs)
        for name, result in results.items()
    }  # fmt: skip


def check_capital(task: EvaluationTask, capital: float | None, lot: float) -> None:
    """Raise what ``allocate`` would raise once all backtests have run."""
    if capital is not None:
        market = task.whole.market
        equal = [0.0, *[1 / market.n_assets] * market.n_assets]
        prices = [1.0] * market.n_assets
        allocate(equal, market.assets, prices, capital, lot=lot, costs=task.costs)
