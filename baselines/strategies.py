"""Baselines as strategies of an evaluation."""

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeAlias

import pandas as pd

from baselines.base import BASELINES, Baseline
from baselines.ensemble import Ensemble
from baselines.networks.deep import DeepPortfolio
from baselines.plugins import (
    BaselineName,
    check_options,
    found_baseline,
    full_name,
    make_baseline,
    short_name,
)
from baselines.portfolio_model import PortfolioModel
from baselines.specs import Spec, spec_of, split_specs
from baselines.volatility_target import VolatilityTarget, unlevered
from portfolio_env import PortfolioConstraints
from portfolio_env.errors import ArgumentError, PortfolioError, user_code
from portfolio_env.evaluation import Policy
from portfolio_env.evaluation.comparison import BENCHMARK
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.task import TRADING, EvaluationFold
from portfolio_env.names import is_plugin
from portfolio_env.simulation.cost_models import made_costs

AGENTS = "agents"
"""What stands for the trained agents among the members of a mixture."""
Build: TypeAlias = Callable[[str, EvaluationFold, str], Policy]
NETWORKS = (
    "deep_momentum",
    "deep_portfolio",
    "eiie",
    "gat_portfolio",
    "tcn_gnn_lstm_portfolio",
    "lstm_mean_variance",
    "transformer_mean_variance",
    "state_space_mean_variance",
)
"""Baselines that train a network, which takes long."""
SLOW = frozenset(
    {
        *(*NETWORKS, "ensemble", "forecast_mean_variance", "random_forest_mean_variance"),
        *("cwmr_stdev", "cwmr_var", "eg", "olmar1", "olmar2", "ons", "pamr", "rmr"),
        *("herc", "nested_clusters"),
    }
)
"""Baselines that a quick evaluation leaves out: networks, forecasts, online portfolio selection and
what else takes long."""

_LOGGER = logging.getLogger(__name__)


def baseline_strategies(
    names: str | Sequence[BaselineName | Baseline] | Mapping[str, BaselineName | Baseline],
) -> list[Strategy]:
    """Return the baselines of an evaluation, the benchmark first.

    Args:
        names: Comma-separated names, or "all" that are built in; or a list of names, classes,
            functions (see ``make_baseline``) and baselines that are built already; or a mapping to
            these from what the strategies are called. A name may have options,
            ``"momentum(lookback=120)"``, which are then part of what it is called. The benchmark
            (``BENCHMARK``) is always among them. In a list, ``"my_rules:TrendRule"`` becomes the
            strategy ``TrendRule``, unless another is called so.

    Raises:
        ArgumentError: If there is no baseline of a name, or it has no such option.
    """
    if isinstance(names, str):
        names = list(BASELINES) if names == "all" else split_specs(names)
    if isinstance(names, Mapping):
        again = [label for label, each in names.items() if _is_benchmark(each)]
        for label in again:
            if label != BENCHMARK:
                _LOGGER.warning(
                    "%s is the benchmark, %s: it is shown by that name", label, BENCHMARK
                )
        others = {label: each for label, each in names.items() if label not in again}
        called: Any = {BENCHMARK: BENCHMARK, **others}
    elif any(isinstance(each, pd.DataFrame) for each in names):
        raise ArgumentError("a table of weights needs a name: give {name: table}")
    else:
        asked = list(dict.fromkeys([BENCHMARK, *names]))
        called = dict(zip(_labels(asked), asked, strict=True))
    for name in called.values():
        if not isinstance(name, Baseline):
            _check(name)
    fitted = Fitted()
    mixed = partial(_mixture, fitted)

    def builder(name: BaselineName | Baseline) -> Callable[[EvaluationFold, str], Policy]:
        if isinstance(name, pd.DataFrame):  # it has no hash
            return partial(baseline, name)
        return mixed if isinstance(name, str) and name == "ensemble" else partial(fitted, name)

    return [
        Strategy(
            label,
            builder(name),
            EvaluationFold.baseline_options,
            required=label == BENCHMARK,
            apart=isinstance(name, str) and _spec(name).name in NETWORKS,
            keep=partial(fitted.keep, name),
            check=partial(check_values, name),
        )
        for label, name in called.items()
    ]


def without_slow(strategies: Sequence[Strategy]) -> tuple[list[Strategy], list[str]]:
    """Return the strategies that are not among ``SLOW``, and the names of those that are."""
    slow = [each.name for each in strategies if each.name.partition("(")[0] in SLOW]
    return [each for each in strategies if each.name not in slow], slow


class Fitted:
    """Baselines fitted so far, so that members of the ensemble are fitted once; pickled empty."""

    def __init__(self) -> None:
        self._policies: dict[tuple[Any, EvaluationFold, str], Policy] = {}

    def __call__(self, name: BaselineName | Baseline, fold: EvaluationFold, split: str) -> Policy:
        """Return a baseline for a fold and a range, see ``baseline``."""
        key = (name, fold, split)
        if key not in self._policies:
            self._policies[key] = baseline(name, fold, split)
        return self._policies[key]

    def keep(
        self, name: BaselineName | Baseline, fold: EvaluationFold, split: str, policy: Policy
    ) -> None:
        """Keep a baseline that another process fitted."""
        self._policies[name, fold, split] = policy

    def __reduce__(self) -> Any:
        return Fitted, ()


def _is_benchmark(name: BaselineName | Baseline) -> bool:
    return isinstance(name, str) and name == BENCHMARK


def _spec(name: BaselineName | Baseline) -> Spec:
    """Return name and options of a text; of anything else the thing itself, without options."""
    return spec_of(name) if isinstance(name, str) else Spec(name, {})  # type: ignore[arg-type]


def _check(name: BaselineName) -> None:
    """Reject unknown baselines and options.

    Raises:
        ArgumentError: If there is no such baseline or option.
    """
    spec = _spec(name)
    build = found_baseline(spec.name)
    if "constraints" in spec.options:
        raise ArgumentError(
            f"{name!r}: constraints are those of the evaluation, the same for all; leave them out."
        )
    check_options(f"baseline {short_name(spec.name)}", build, spec.options)
    members = spec.options.get("members", ())
    if not isinstance(members, list | tuple) or not all(isinstance(m, str) for m in members):
        raise ArgumentError(f"{name!r}: members must be a list of names, e.g. ['hrp', 'momentum'].")
    for member in members:
        if member != AGENTS:
            _check(member)


def check_values(name: BaselineName | Baseline, fold: EvaluationFold) -> None:
    """Reject values of options that a baseline does not take, without fitting anything.

    Raises:
        ArgumentError: If it cannot be built with them, and can be without.
    """
    spec = _spec(name)
    if not spec.options:
        return

    def unfitted(member: Any, fold: EvaluationFold, split: str) -> Policy:
        check_values(member, fold)
        own = _spec(member)
        return make_baseline(own.name, fold.market, **own.options)

    options = dict(spec.options)
    if "members" in options:
        options["members"] = _members(options["members"], unfitted, fold, "test")[0]
    try:
        make_baseline(spec.name, fold.market, **options)
    except ArgumentError:
        try:
            make_baseline(spec.name, fold.market)
        except PortfolioError:  # a missing extra, say: it is not the options
            return
        raise


def _labels(asked: Sequence[BaselineName | Baseline]) -> list[str]:
    """Return a name of each strategy: short where no other has it."""
    specs = [_spec(each) for each in asked]
    short = [spec.label(short_name(spec.name)) for spec in specs]
    labels = []
    for spec, label in zip(specs, short, strict=True):
        is_own = not isinstance(spec.name, str) or is_plugin(spec.name)
        repeated = is_own and (short_name(spec.name) in BASELINES or short.count(label) > 1)
        labels.append(spec.label(full_name(spec.name)) if repeated else label)
    if same := [label for label in labels if labels.count(label) > 1]:
        raise ArgumentError(
            f"several baselines are called {same[0]!r}: leave one out, or derive a class of "
            "another name"
        )
    return labels


def baseline(name: BaselineName | Baseline, fold: EvaluationFold, split: str) -> Policy:
    """Return a baseline, fitted to the training range, or an oracle fitted to the evaluated range.

    It keeps to the constraints of the fold; where it is trained on accounts, they trade by its
    rules. One that is built already answers as it is.
    """
    if isinstance(name, Baseline):
        return name
    spec = _spec(name)
    build = found_baseline(spec.name)
    cls: type[Baseline] = build.func if isinstance(build, partial) else build  # type: ignore[assignment]
    options: dict[str, Any] = {}
    if issubclass(cls, PortfolioModel) and "constraints" in cls._options():
        options["constraints"] = PortfolioConstraints(**fold.options["constraints"])
    if "risk_free_rate" in {*cls._options()} - spec.options.keys():  # by default what cash earns
        options["risk_free_rate"] = made_costs(fold.options["costs"]).cash_rate_annual
    if issubclass(cls, DeepPortfolio):
        rules = {name: fold.options[name] for name in TRADING}
        options["environment"] = rules | dict(spec.options.get("environment", {}))
    if issubclass(cls, Ensemble):
        default = inspect.signature(cls).parameters["members"].default
        limits = PortfolioConstraints(**fold.options["constraints"])
        inner = unlevered(limits) if issubclass(cls, VolatilityTarget) else limits
        own = replace(fold, options={**fold.options, "constraints": asdict(inner)})
        members, paces = _members(spec.options.get("members", default), baseline, own, split)
        options |= {"members": members, "paces": paces, "constraints": limits}
    model = make_baseline(spec.name, fold.market, **dict(spec.options) | options)
    if not isinstance(model, PortfolioModel):
        return model
    period = fold.rows(split) if model.oracle else fold.ranges["train"]
    with nullcontext() if model._built_in else user_code(f"fit of {short_name(model)}"):
        return model.fit(fold.market.panel, period)


def _mixture(fitted: Build, fold: EvaluationFold, split: str) -> Ensemble:
    """Return equal thirds of an optimiser, a deep network and the agents; HRP if there are none."""
    first = ("mean_variance", "deep_portfolio")
    members, paces = _members([*first, AGENTS], fitted, fold, split)
    if len(members) == len(first):
        members["hrp"] = fitted("hrp", fold, split)
    others = [name for name in members if name not in first]
    return Ensemble(
        fold.market,
        members=members,
        shares=dict.fromkeys(first, 1 / 3) | dict.fromkeys(others, 1 / 3 / len(others)),
        paces=paces,
        constraints=PortfolioConstraints(**fold.options["constraints"]),
    )


def _members(
    names: Iterable[str], fitted: Build, fold: EvaluationFold, split: str
) -> tuple[dict[str, Policy], dict[str, float]]:
    """Return members of a mixture by name, and the paces of agents.

    Agents that do not read index observations cannot be mixed.

    Args:
        names: Baselines, perhaps with options; ``AGENTS`` stands for the agents of the fold.
        fitted: Gives a baseline.
        fold: The fold.
        split: The range that is evaluated.
    """
    members: dict[str, Policy] = {}
    options = {name: fold.agent_options(split, name) for name in fold.agents}
    agents = [name for name, own in options.items() if own["observation"] == "index"]
    for name in names:
        if name == AGENTS:
            members |= {agent: fold.agents[agent].policy for agent in agents}
        else:
            members[name] = fitted(name, fold, split)
    return members, {name: options[name]["adjustment"] for name in agents if name in members}
