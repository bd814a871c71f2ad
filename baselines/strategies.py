"""Baselines as strategies of an evaluation."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from baselines.base import BASELINES, Baseline, PortfolioModel
from baselines.deep import DeepPortfolio
from baselines.ensemble import Ensemble
from baselines.plugins import (
    BaselineName,
    FunctionRule,
    found_baseline,
    full_name,
    make_baseline,
    short_name,
)
from portfolio_env import PortfolioConstraints
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import Policy
from portfolio_env.evaluation.comparison import BENCHMARK
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.task import TRADING, EvaluationFold
from portfolio_env.names import is_plugin
from portfolio_env.simulation.cost_models import made_costs

_LOGGER = logging.getLogger(__name__)


def baseline_strategies(
    names: str | Sequence[BaselineName | Baseline] | Mapping[str, BaselineName | Baseline],
) -> list[Strategy]:
    """Return the baselines of an evaluation, the benchmark first.

    Args:
        names: Comma-separated names, or "all" that are built in; or a list of names, classes,
            functions (see ``make_baseline``) and baselines that are built already; or a mapping to
            these from what the strategies are called. The benchmark (``BENCHMARK``) is always
            among them. In a list, ``"my_rules:TrendRule"`` becomes the strategy ``TrendRule``,
            unless another is called so.

    Raises:
        ArgumentError: If there is no baseline of a name.
    """
    if isinstance(names, str):
        names = list(BASELINES) if names == "all" else [each.strip() for each in names.split(",")]
    if isinstance(names, Mapping):
        again = [label for label, each in names.items() if _is_benchmark(each)]
        for label in again:
            if label != BENCHMARK:
                _LOGGER.warning(
                    "%s is the benchmark, %s: it is shown by that name", label, BENCHMARK
                )
        others = {label: each for label, each in names.items() if label not in again}
        called: Any = {BENCHMARK: BENCHMARK, **others}
    else:
        asked = list(dict.fromkeys([BENCHMARK, *names]))
        called = dict(zip(_labels(asked), asked, strict=True))
    for name in called.values():
        if not isinstance(name, Baseline):
            found_baseline(name)
    fitted = Fitted()
    mixed = partial(_mixture, fitted)
    return [
        Strategy(
            label,
            mixed if isinstance(name, str) and name == "ensemble" else partial(fitted, name),
            EvaluationFold.baseline_options,
            required=label == BENCHMARK,
            apart=isinstance(name, str) and name in NETWORKS,
            keep=partial(fitted.keep, name),
        )
        for label, name in called.items()
    ]


NETWORKS = (
    "deep_portfolio",
    "gat_portfolio",
    "tcn_gnn_lstm_portfolio",
    "lstm_mean_variance",
    "transformer_mean_variance",
    "state_space_mean_variance",
)
"""Baselines that take long to fit."""


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


def _labels(asked: Sequence[BaselineName | Baseline]) -> list[str]:
    """Return a name of each strategy: short where no other has it."""
    short = [short_name(each) for each in asked]
    labels = []
    for each, label in zip(asked, short, strict=True):
        is_own = not isinstance(each, str) or is_plugin(each)
        repeated = is_own and (label in BASELINES or short.count(label) > 1)
        labels.append(full_name(each) if repeated else label)
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
    build = found_baseline(name)
    cls: type[Baseline] = FunctionRule if isinstance(build, partial) else build
    options: dict[str, Any] = {}
    if issubclass(cls, PortfolioModel) and "constraints" in cls._options():
        options["constraints"] = PortfolioConstraints(**fold.options["constraints"])
    if "risk_free_rate" in cls._options():  # one rate in a report: what cash earns
        options["risk_free_rate"] = made_costs(fold.options["costs"]).cash_rate_annual
    if issubclass(cls, DeepPortfolio):
        options["environment"] = {name: fold.options[name] for name in TRADING}
    model = make_baseline(name, fold.market, **options)
    if not isinstance(model, PortfolioModel):
        return model
    return model.fit(fold.market.panel, fold.rows(split) if model.oracle else fold.ranges["train"])


def _mixture(
    fitted: Callable[[str, EvaluationFold, str], Policy], fold: EvaluationFold, split: str
) -> Ensemble:
    """Return equal thirds of an optimiser, a deep network and the agents; HRP if there are none.

    Agents that do not read index observations cannot be mixed.
    """
    options = {name: fold.agent_options(split, name) for name in fold.agents}
    agents = {n: a for n, a in fold.agents.items() if options[n]["observation"] == "index"}
    members = {name: fitted(name, fold, split) for name in ("mean_variance", "deep_portfolio")}
    last: dict[str, Policy] = {name: agent.policy for name, agent in agents.items()}
    last = last or {"hrp": fitted("hrp", fold, split)}
    return Ensemble(
        fold.market,
        members=members | last,
        shares=dict.fromkeys(members, 1 / 3) | dict.fromkeys(last, 1 / 3 / len(last)),
        paces={name: options[name]["adjustment"] for name in agents},
        constraints=PortfolioConstraints(**fold.options["constraints"]),
    )
