"""Who takes part in an evaluation: agents, gated agents and baselines; and what was tried by it."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal

from agents.training.evaluation import GATED, Setting, Stage
from agents.training.run_folder import Run, model_file
from baselines import BASELINES, PortfolioModel, make_baseline
from baselines.deep import DeepPortfolio
from baselines.ensemble import Ensemble
from portfolio_env import PortfolioConstraints, PortfolioEnv
from portfolio_env.evaluation import GateDecision, GatedPolicy, Policy, backtest, gate_decision
from portfolio_env.evaluation.comparison import REFERENCE
from portfolio_env.evaluation.runner import Contest, Entry, Leg
from portfolio_env.evaluation.usage_log import Trial

TRADING = ("costs", "execution", "initial_value")
"""Keywords of `PortfolioEnv` that say what trading costs, when it is done and with how much."""


def contestants(
    setting: Setting, split: str, baselines: Sequence[str]
) -> tuple[list[Entry], dict[str, list[GateDecision]]]:
    """Everything that takes part, and what the gate said of each agent in each stage.

    An agent takes part twice, by itself and behind the gate, which decides anew in every stage, on
    the validation range before it. (Where the validation range is what is judged there is no gate.)
    """
    entries, decisions = [], {}
    for name in setting.agents:
        legs = [
            Leg(partial(_agent, stage.runs[name]), stage.agent_options(split))
            for stage in setting.stages
        ]
        entries.append(Entry(name, legs))
        if split != "validation":  # the gate must not be judged where it decides
            decisions[name] = [_decision(stage, stage.runs[name]) for stage in setting.stages]
            pairs = zip(setting.stages, decisions[name], strict=True)
            gated = [_gated(stage, stage.runs[name], d, split) for stage, d in pairs]
            entries.append(Entry(f"{name}{GATED}", gated))
    fitted = [cache(partial(baseline, stage=stage, split=split)) for stage in setting.stages]
    for name in baselines:
        legs = [
            Leg(partial(_mixture, stage, of) if name == "ensemble" else partial(of, name),
                stage.baseline_options(split))
            for stage, of in zip(setting.stages, fitted, strict=True)
        ]  # fmt: skip
        entries.append(Entry(name, legs))
    return entries, decisions


def baseline(name: str, stage: Stage, split: str) -> Policy:
    """A baseline: fitted to the training range, or an oracle to the range it is judged on.

    It keeps to the constraints of the stage; where it is trained on accounts, they trade by its
    rules.
    """
    cls = BASELINES[name]
    if not issubclass(cls, PortfolioModel):
        return make_baseline(name, stage.market)
    options: dict[str, Any] = {"constraints": PortfolioConstraints(**stage.options["constraints"])}
    if issubclass(cls, DeepPortfolio):
        options["environment"] = {name: stage.options[name] for name in TRADING}
    model = cls(stage.market, **options)
    return model.fit(stage.market.panel, stage.rows(split) if cls.oracle else stage.ranges["train"])


def _mixture(stage: Stage, fitted: Callable[[str], Policy]) -> Ensemble:
    """Equal thirds of an optimiser, a deep network, and the agents; HRP where there are none.

    Agents that do not read index observations cannot be mixed.
    """
    agents = stage.runs if stage.options["observation"] == "index" else {}
    members = {name: fitted(name) for name in ("mean_variance", "deep_portfolio")}
    last: dict[str, Policy] = {name: run.model for name, run in agents.items()}
    last = last or {"hrp": fitted("hrp")}
    return Ensemble(
        stage.market,
        members=members | last,
        shares=dict.fromkeys(members, 1 / 3) | dict.fromkeys(last, 1 / 3 / len(last)),
        paces=dict.fromkeys(agents, stage.options["adjustment"]),
        constraints=PortfolioConstraints(**stage.options["constraints"]),
    )


def trials(
    setting: Setting, contest: Contest, model: Literal["final", "best"]
) -> tuple[Trial, ...]:
    """What was tried on the range: everything but oracles, and but what repeats an agent."""
    options = setting.whole.options
    shared = {name: options[name] for name in ("constraints", *TRADING)}
    found = []
    for name, result in contest.results.items():
        policies = contest.policies[name]
        if getattr(policies[0], "oracle", False) or isinstance(policies[0], GatedPolicy):
            continue
        agent = name in setting.agents
        digest = hashlib.sha256()
        members = getattr(policies[0], "members", {})  # other agents make another mixture
        for stage in setting.stages:
            for own in [name] if agent else [each for each in setting.agents if each in members]:
                digest.update(model_file(stage.runs[own].path, model).read_bytes())
        if not agent:
            infos = [p.model_info() if isinstance(p, PortfolioModel) else name for p in policies]
            digest.update(json.dumps([*infos, shared]).encode())
        sharpe = result.metrics()["sharpe"]
        known = sharpe if math.isfinite(sharpe) else None
        found.append(Trial(name, digest.hexdigest(), agent, known))
    return tuple(found)


def _agent(run: Run) -> Policy:
    return run.model


def _decision(stage: Stage, run: Run) -> GateDecision:
    """The gate, on the validation range."""
    own = backtest(run.model, PortfolioEnv(**stage.agent_options("validation")))
    benchmark = make_baseline(REFERENCE, stage.market)
    other = backtest(benchmark, PortfolioEnv(**stage.baseline_options("validation")))
    return gate_decision(own, other)


def _gated(stage: Stage, run: Run, decision: GateDecision, split: str) -> Leg:
    policy = GatedPolicy(run.model, make_baseline(REFERENCE, stage.market), decision)
    options = stage.agent_options if decision else stage.baseline_options
    return Leg(lambda: policy, options(split))
