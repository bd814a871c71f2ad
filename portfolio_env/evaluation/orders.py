"""Orders at the end of an evaluation: what each strategy decides at the last bar, as trades."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from portfolio_env.checks import check_number
from portfolio_env.env import PortfolioEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import Policy
from portfolio_env.evaluation.comparison import Judge
from portfolio_env.evaluation.gate import ValidationGate
from portfolio_env.evaluation.runner import Strategy, agent_strategies
from portfolio_env.evaluation.summary import gate_sentences
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask
from portfolio_env.live.account import AccountOptions, check_fee, orders_at, read_account
from portfolio_env.live.holdings import Holdings
from portfolio_env.live.instruments import instruments_of, uniform
from portfolio_env.live.money import decimal_of
from portfolio_env.live.orders import Orders, orders_of
from portfolio_env.live.planning import Plan
from portfolio_env.live.predictor import Predictor
from portfolio_env.simulation.cost_models import Costs, checked_rates
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.rebalancing import remainder_factor


def predictor_of(
    strategy: Strategy, fold: EvaluationFold, split: str, policy: Policy | None = None
) -> Predictor:
    """Return the predictor of a strategy, for any bar of a fold's market.

    Args:
        strategy: The strategy.
        fold: The fold.
        split: Range that its policy is built for.
        policy: The policy, where it is built already.

    Raises:
        ArgumentError: If the strategy knows the future.
    """
    own = strategy.build(fold, split) if policy is None else policy
    if getattr(own, "oracle", False):
        raise ArgumentError(f"{strategy.name} knows the future: it decides nothing at a last bar.")
    # the newest bar decides what is sent now, and a delay comes with sending it
    options = {**strategy.options(fold, split), "start": None, "end": None, "delay": 0}
    return Predictor(own, PortfolioEnv(**options))


def deciding(
    task: EvaluationTask,
    baselines: Sequence[Strategy],
    *,
    agent: bool = True,
    judge: Judge = "growth",
) -> tuple[str, Predictor, list[str]]:
    """Return who decides on new data: name, predictor, and what a reader must know of it.

    Args:
        task: The task, of newest data.
        baselines: Equal weight, which is the benchmark of the validation gate, and perhaps the
            baseline that decides.
        agent: The agent decides; else the last baseline.
        judge: Measure that the validation gate goes by: "growth", "sharpe" or "equal_risk".

    Raises:
        ArgumentError: If several baselines are named, or the one knows the future.
    """
    fold, notes = task.folds[-1], list(task.warnings)
    split = "after" if "after" in fold.ranges else "test"
    if not agent:
        if len(baselines) > 2:
            raise ArgumentError("several baselines are named: one decides, name one.")
        chosen = baselines[-1]
    else:
        chosen = agent_strategies(task)[0]
        gate = ValidationGate(chosen, fallback=baselines[0], judge=judge)
        notes += (
            gate_sentences(task, [gate])
            if "validation" in fold.ranges
            else ["The state of the validation gate is not known: its range is not in the data."]
        )
    return chosen.name, predictor_of(chosen, fold, split), notes


def orders_at_end(
    task: EvaluationTask,
    split: str,
    strategies: Iterable[Strategy],
    policies: Mapping[str, Sequence[Policy]],
    options: AccountOptions,
) -> dict[str, Orders]:
    """Return the orders of an account by what strategies decide at the last bar of a range.

    Args:
        task: The market; of a walk forward the policies of the last fold decide.
        split: The range.
        strategies: The strategies; those that know the future are left out.
        policies: Their policies by name, one per fold; a strategy without any is left out.
        options: The account; without capital and holdings there are no orders.
    """
    if not options.given:
        return {}
    fold, row = task.folds[-1], task.whole.rows(split)[1] - 1
    row = fold.market.row(task.whole.market.timestamps[row])
    found = {}
    for strategy in strategies:
        own = policies.get(strategy.name)
        if own and not getattr(own[-1], "oracle", False):
            found[strategy.name] = orders_at(
                predictor_of(strategy, fold, split, own[-1]), options, row
            )
    return found


def check_account(task: EvaluationTask, split: str, options: AccountOptions) -> None:
    """Raise what is wrong with an account before all backtests have run."""
    if not options.given:
        return
    market, row = task.whole.market, task.whole.rows(split)[1] - 1
    long_only = task.whole.options["constraints"].get("long_only", True)
    read_account(options, market, row, task.costs, long_only=long_only)


def allocate(
    weights: ArrayLike,
    assets: Sequence[str],
    prices: ArrayLike,
    capital: float,
    *,
    lot: float = 1.0,
    costs: Costs | None = None,
) -> Orders:
    """Turn given weights into orders for an amount of cash.

    What is left of the capital after buying is at exactly solved costs (see
    ``simulation.rebalancing.remainder_factor``; market impact is left out).

    Args:
        weights: (N + 1,) target weights, cash first, summing to 1.
        assets: N names.
        prices: (N,) prices per unit; NaN where the weight is 0.
        capital: Cash to invest, > 0.
        lot: Smallest tradable number of units; 0 for any fraction.
        costs: Commissions, half-spread and fixed fee; None for no costs.

    Raises:
        ArgumentError: If the capital is not positive, ``lot`` is negative, a price is missing, or
            the fee is more than the capital.

    >>> allocate([0.1, 0.5, 0.4], ["A", "B"], [30.0, 100.0], 1000).table()["units_after"].tolist()
    [16.0, 4.0, 120.0]
    """
    target, each = np.asarray(weights, np.float64), np.asarray(prices, np.float64)
    check_number("capital", capital, above=0)
    check_number("lot", lot, 0)
    held = target[1:] != 0
    if not (each[held] > 0).all():
        missing = [name for name, bad in zip(assets, held & ~(each > 0), strict=True) if bad]
        raise ArgumentError(f"{', '.join(missing)} should be held but has no price; give one.")
    costs = costs or TransactionCosts(commission_bps=0)
    check_fee(costs, capital)
    rates = checked_rates(costs, assets)
    cash = np.eye(1, len(target))[0]
    fee = costs.fixed_fee / capital if held.any() else 0.0
    mu = float(remainder_factor(cash, target, rates[0], rates[1], fee))
    planned = Plan(
        assets=tuple(assets),
        timestamp=np.datetime64("NaT"),
        prices=each,
        tradable=np.isfinite(each),
        value=float(capital),
        weights=cash,
        held=target,
        cost=(1 - mu) * capital,
        turnover=float(mu * np.abs(target[1:]).sum()),
        rates=rates,
        impact=np.zeros(len(each)),
        fee=costs.fixed_fee,
        min_cash=min(0.0, float(target[0])),
    )
    holdings = Holdings.of_cash(assets, capital)
    instruments = instruments_of(uniform(lot), assets)
    return orders_of(planned, holdings, instruments, tuple(map(decimal_of, each)))
