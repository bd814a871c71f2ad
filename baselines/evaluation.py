"""Evaluation from Python: baselines by name and trained agents over one range of a market.

It builds the task and the strategies that ``evaluate.py`` builds from files, and passes them to the
same ``portfolio_env.evaluation.evaluate``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines.base import Baseline
from baselines.plugins import BaselineName
from baselines.strategies import baseline_strategies
from portfolio_env.arguments import all_options, opened_market
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import evaluation
from portfolio_env.evaluation.comparison import BENCHMARK, Judge
from portfolio_env.evaluation.evaluation import Evaluation
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.task import RULES, EvaluationFold, EvaluationTask, TrainedAgent
from portfolio_env.market import Market
from portfolio_env.market.timeline import TimeLike, time_text
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.cost_models import CostSpec
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.fills import FillSpec, made_fills

_LOGGER = logging.getLogger(__name__)
INTERFACE = ("observation", "window", "action", "adjustment", "logits_scale")
"""Keywords that are an agent's own."""
FOLDER = Path("runs") / "evaluation"
UNCOUNTED = (
    "This use of the range is not counted; folder=... keeps a log of them, so that a later verdict "
    "allows for what was tried before."
)


def evaluate(
    strategies: Mapping[str, Any] | Sequence[BaselineName | Baseline] | str,
    market: Market | str | os.PathLike[str],
    *,
    start: TimeLike,
    end: TimeLike | None = None,
    validation: TimeLike | None = None,
    costs: CostSpec | None = None,
    constraints: PortfolioConstraints | Mapping[str, Any] | None = None,
    execution: str | None = None,
    fills: FillSpec | None = None,
    delay: int | None = None,
    initial_value: float | None = None,
    commissions: Sequence[float] = (),
    capital: float | None = None,
    lot: float = 1.0,
    benchmark: str | Path | None = None,
    reference: evaluation.Reference = "equal_weight",
    judge: Judge = "growth",
    n_resamples: int = 2000,
    folder: str | Path | None = None,
    progress: Callable[[Sequence[Strategy]], Iterable[Strategy]] = iter,
) -> Evaluation:
    """Backtest strategies over the same bars, in the same environment, and compare them.

    Baselines read the index of the bar and answer with weights; an agent trades in an environment
    like the one that it was trained in. Neither needs to be said.
    Costs, constraints, execution, fills, delay and initial value are the same for all: what is
    given here, else those of the agents' environment, else the defaults of ``PortfolioEnv``.

    Args:
        strategies: By the name to show, each one of:

            - a baseline: a name of ``BASELINES`` or ``"module:Name"``, each perhaps with options
              (``"momentum(lookback=120)"``), a class, a function of past prices (see
              ``make_baseline``), or one that is built already;
            - target weights that were computed elsewhere: a frame with a row per date and a column
              per asset (see ``DatedWeights``);
            - a trained agent: a model of SB3 with its environment, a ``DirectAgent``, the folder of
              a run, or a ``TrainedAgent`` with the ``options`` of its environment;
            - any other object with ``predict`` (see ``evaluation.Policy``); ``env_options``, if it
              has such an attribute, are keywords of its environment, which else shows the index of
              the bar and takes weights.

            A list or a comma-separated text names baselines alone. ``"equal_weight"`` is always
            among them.
        market: The market, or its name or path.
        start: First decision, a row or a date. Baselines are fitted to the bars before it.
        end: Bar after the last one, a row or a date; None is the end of the market.
        validation: First bar of a validation range that ends at ``start``: baselines are fitted to
            the bars before it, and each agent is shown behind the validation gate too.
        costs: See ``PortfolioEnv``.
        constraints: See ``PortfolioEnv``; baselines keep to them too.
        execution: See ``PortfolioEnv``.
        fills: See ``PortfolioEnv``; the draws are the same for all strategies.
        delay: See ``PortfolioEnv``.
        initial_value: See ``PortfolioEnv``.
        commissions: Further commissions in basis points to judge at.
        capital: Capital for which the orders at the end are worked out; None for none.
        lot: Smallest number of units that can be bought with it; 0 for any fraction.
        benchmark: Prices from outside of the market as a further line, such as those of an index
            fund: a file of one asset, or ``FILE:SYMBOL`` of several.
        reference: The account that all differences are to: "equal_weight", or "benchmark" for these
            prices.
        judge: Measure that the test of the best and the confidence set go by: "growth", "sharpe",
            or "equal_risk", growth at the volatility of equal weight.
        n_resamples: Number of resamples of every bootstrap.
        folder: Keeps the log of uses of the test range, and is where ``write_evaluation`` writes
            its report; None counts nothing, and writes to ``runs/evaluation``.
        progress: Yields the strategies one by one, e.g. ``rich.progress.track``.

    Returns:
        The evaluation; its ``comparison`` has the table and the backtests.

    Raises:
        ArgumentError: If a strategy is none, dates are outside of the market, or the environments
            of agents differ in what must be the same for all.
        PortfolioError: If an agent or equal weight cannot run.

    >>> market = "synthetic?bars=300&assets=3&seed=1"
    >>> found = evaluate("momentum,hrp", market, start=200, n_resamples=100)
    >>> sorted(found.comparison.results)
    ['equal_weight', 'hrp', 'momentum']
    """
    market = opened_market(market)
    given: dict[str, Any] = {
        "costs": costs,
        "constraints": constraints,
        "execution": execution,
        "fills": fills,
        "delay": delay,
        "initial_value": initial_value,
    }
    agents, baselines = _sorted(strategies)
    own = {name: _env_options(name, thing) for name, thing in agents.items()}
    rules = _rules({name: value for name, value in given.items() if value is not None}, own)
    ranges = _ranges(market, start, end, validation)
    trained = {
        name: _trained(
            thing,
            market if own[name].get("universe") is not None else None,
            {key: own[name][key] for key in INTERFACE if key in own[name]},
        )
        for name, thing in agents.items()
    }
    options = {
        "observation": "index",
        "action": "weights",
        "adjustment": 1.0,
        "window": max((agent.options.get("window", 1) for agent in trained.values()), default=1),
        **rules,
    }
    fold = EvaluationFold(market, ranges, options, trained)
    first = market.timestamps[ranges["test"][0]]
    warnings = [line for name, thing in agents.items() for line in _known(name, thing, first)]
    task = EvaluationTask(
        Path(folder) if folder is not None else FOLDER,
        fold,
        (fold,),
        warnings=warnings if folder is not None else [*warnings, UNCOUNTED],
        logged=folder is not None,
    )
    found = evaluation.evaluate(
        task,
        baseline_strategies(baselines),
        commissions=commissions,
        capital=capital,
        lot=lot,
        benchmark=benchmark,
        reference=reference,
        judge=judge,
        n_resamples=n_resamples,
        progress=progress,
    )
    for name, reason in found.comparison.failed.items():
        _LOGGER.warning("%s could not run: %s", name, reason)
    return found


def _sorted(strategies: Any) -> tuple[dict[str, Any], Any]:
    """Return agents and baselines by name; folders of runs are read."""
    if not isinstance(strategies, Mapping):
        if not isinstance(strategies, str | Sequence):
            raise ArgumentError(
                f"strategies of type {type(strategies).__name__}: give a mapping of names to "
                "strategies, e.g. {'mine': ...}, or a list of names of baselines"
            )
        return {}, strategies
    agents, baselines = {}, {}
    for name, thing in strategies.items():
        is_folder = isinstance(thing, Path) or (
            isinstance(thing, str) and (Path(thing) / "config.json").is_file()
        )
        if is_folder:
            from agents.training.run_folder import load_run

            agents[name] = load_run(thing)
        elif isinstance(thing, Baseline | str | type | pd.DataFrame) or not _is_agent(thing):
            baselines[name] = thing
        else:
            agents[name] = thing
    if BENCHMARK in agents:
        raise ArgumentError(
            f"{BENCHMARK!r} is the baseline that the others are compared with; call the agent "
            "something else."
        )
    return agents, baselines


def _is_agent(thing: Any) -> bool:
    """Return whether it is a policy, a trained agent or a run."""
    return isinstance(thing, TrainedAgent) or hasattr(thing, "predict") or hasattr(thing, "model")


def _policy(thing: Any) -> Any:
    """Return the policy: that of a trained agent, the model of a run, or the thing itself."""
    if isinstance(thing, TrainedAgent):
        return thing.policy
    return thing if hasattr(thing, "predict") else thing.model


def _env_options(name: str, thing: Any) -> dict[str, Any]:
    """Return keywords of the environment of an agent, as far as it says them."""
    if isinstance(thing, TrainedAgent) and thing.options:
        return dict(thing.options)
    if hasattr(thing, "env_options"):
        return dict(thing.env_options)
    policy = _policy(thing)
    if hasattr(policy, "env_options"):
        return dict(policy.env_options)
    if not hasattr(policy, "get_env"):
        return {"observation": "index", "action": getattr(policy, "action", "weights")}
    venv = policy.get_env()
    fix = "give TrainedAgent(model, options={...}) with the keywords of its environment"
    if venv is None:
        raise ArgumentError(f"{name!r} has no environment; call set_env(venv), or {fix}.")
    normalised = policy.get_vec_normalize_env()
    if normalised is not None and normalised.norm_obs:
        raise ArgumentError(
            f"{name!r} reads observations that VecNormalize scales; train it without norm_obs, or "
            "give a policy that scales them itself."
        )
    try:
        return dict(venv.get_attr("env_options")[0])
    except AttributeError as error:
        raise ArgumentError(f"{name!r} was trained in no PortfolioEnv; {fix}.") from error


def _trained(thing: Any, market: Market | None, options: dict[str, Any]) -> TrainedAgent:
    """Return the agent as an evaluation takes it.

    Args:
        thing: The agent.
        market: Market of which it was trained on some assets at a time; None if on all of them.
        options: Keywords of its environment.
    """
    if isinstance(thing, TrainedAgent):
        return replace(thing, options=options)
    policy = _policy(thing)
    if market is not None and hasattr(policy, "get_env"):
        from agents import make_sb3_vec_env, policy_for

        thing = policy = policy_for(policy, make_sb3_vec_env(market, **options))
    if policy is not thing:  # a run
        from agents.training.tasks import trained_agent

        return replace(trained_agent(thing, "final"), options=options)
    network: Any = getattr(policy, "network", getattr(policy, "policy", policy))
    parts = network.parameters() if hasattr(network, "parameters") else ()
    size = sum(part.numel() * part.element_size() for part in parts)
    return TrainedAgent(policy, parameter_bytes=size, options=options)


def _rules(given: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is the same for all strategies, in the form that folds hold."""
    defaults, found = all_options("index", {}), {}
    for rule in RULES:
        stated = {name: _plain(rule, each[rule]) for name, each in own.items() if rule in each}
        values = list(stated.values())
        if rule in given:
            found[rule] = _plain(rule, given[rule])
        elif any(value != values[0] for value in values):
            raise ArgumentError(
                f"the environments of {', '.join(stated)} differ in {rule}, which must be the same "
                f"for all strategies; give {rule}=..."
            )
        else:
            found[rule] = values[0] if values else _plain(rule, defaults[rule])
    return found


def _plain(rule: str, value: Any) -> Any:
    """Return costs, fills and constraints as mappings of all fields; others as they are."""
    if rule == "fills":
        return asdict(made_fills(value))
    if rule == "constraints":
        return asdict(PortfolioConstraints(**value) if isinstance(value, Mapping) else value)
    if rule == "costs" and isinstance(value, Mapping) and "model" not in value:
        return asdict(TransactionCosts(**value))
    return asdict(value) if type(value) is TransactionCosts else value


def _ranges(
    market: Market, start: TimeLike, end: TimeLike | None, validation: TimeLike | None
) -> dict[str, tuple[int, int]]:
    """Return the rows for fitting, validation and test."""
    first = market.row(start)
    last = market.n_bars if end is None else market.row(end)
    cut = first if validation is None else market.row(validation)
    if cut < 2 or cut > first or last - first < 2:
        raise ArgumentError(
            f"validation={validation!r}, start={start!r} and end={end!r} are the rows {cut}, "
            f"{first} and {last}: they must increase, with 2 bars or more before them to fit "
            "baselines to and 2 or more to judge."
        )
    ranges = {"train": (0, cut), "test": (first, last)}
    return ranges if validation is None else ranges | {"validation": (cut, first)}


def _known(name: str, thing: Any, first: np.datetime64) -> list[str]:
    """Return a warning if an agent was trained on bars from ``first`` on."""
    last = _last_seen(thing)
    if last is None or last < first:
        return []
    return [
        f"{name} was trained on bars up to {time_text(last)}, and the evaluation begins at "
        f"{time_text(first)}: its result is not out of sample. Give its training environment an "
        "earlier end."
    ]


def _last_seen(thing: Any) -> np.datetime64 | None:
    """Return the last bar that an agent was trained on; None if it does not say."""
    policy, last = _policy(thing), None
    if hasattr(thing, "ranges"):  # a run
        last = thing.market.timestamps[thing.ranges["train"][1] - 1]
    elif hasattr(policy, "get_env") and (venv := policy.get_env()) is not None:
        simulator = venv.get_attr("simulator")[0]
        last = simulator.market.timestamps[simulator.episodes.end - 1]
    return last
