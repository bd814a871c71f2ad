"""Baselines as strategies of an evaluation."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from baselines.base import BASELINES, PortfolioModel, make_baseline
from baselines.deep import DeepPortfolio
from baselines.ensemble import Ensemble
from portfolio_env import PortfolioConstraints
from portfolio_env.evaluation import Policy
from portfolio_env.evaluation.comparison import REFERENCE
from portfolio_env.evaluation.runner import Strategy
from portfolio_env.evaluation.task import TRADING, EvaluationFold
from portfolio_env.names import indices_of


def baseline_strategies(names: str) -> list[Strategy]:
    """Baselines, the benchmark first.

    Args:
        names: Comma-separated names, or "all"; the benchmark (``REFERENCE``) is always among them.

    Raises:
        ArgumentError: If there is no baseline of a name.
    """
    asked = list(BASELINES) if names == "all" else names.split(",")
    indices_of("baseline", asked, list(BASELINES))
    fitted = cache(baseline)  # members of the ensemble are fitted once
    mixed = partial(_mixture, fitted)
    return [
        Strategy(
            name,
            mixed if name == "ensemble" else partial(fitted, name),
            EvaluationFold.baseline_options,
            required=name == REFERENCE,
        )
        for name in dict.fromkeys([REFERENCE, *asked])
    ]


def baseline(name: str, fold: EvaluationFold, split: str) -> Policy:
    """A baseline: fitted to the training range, or an oracle to the range it is judged on.

    It keeps to the constraints of the fold; where it is trained on accounts, they trade by its
    rules.
    """
    cls = BASELINES[name]
    if not issubclass(cls, PortfolioModel):
        return make_baseline(name, fold.market)
    options: dict[str, Any] = {"constraints": PortfolioConstraints(**fold.options["constraints"])}
    if issubclass(cls, DeepPortfolio):
        options["environment"] = {name: fold.options[name] for name in TRADING}
    model = cls(fold.market, **options)
    return model.fit(fold.market.panel, fold.rows(split) if cls.oracle else fold.ranges["train"])


def _mixture(
    fitted: Callable[[str, EvaluationFold, str], Policy], fold: EvaluationFold, split: str
) -> Ensemble:
    """Equal thirds of an optimiser, a deep network, and the agents; HRP where there are none.

    Agents that do not read index observations cannot be mixed.
    """
    agents = fold.agents if fold.options["observation"] == "index" else {}
    members = {name: fitted(name, fold, split) for name in ("mean_variance", "deep_portfolio")}
    last: dict[str, Policy] = {name: agent.policy for name, agent in agents.items()}
    last = last or {"hrp": fitted("hrp", fold, split)}
    return Ensemble(
        fold.market,
        members=members | last,
        shares=dict.fromkeys(members, 1 / 3) | dict.fromkeys(last, 1 / 3 / len(last)),
        paces=dict.fromkeys(agents, fold.options["adjustment"]),
        constraints=PortfolioConstraints(**fold.options["constraints"]),
    )
