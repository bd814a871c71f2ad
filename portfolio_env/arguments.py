"""Arguments of both environments: keywords, the action space, and descriptions of them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
from gymnasium import spaces

from portfolio_env.checks import check_choice, check_integer, shortened
from portfolio_env.data import load_market
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.timeline import time_text
from portfolio_env.names import check_keywords
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.cost_models import CostSpec
from portfolio_env.simulation.episodes import When
from portfolio_env.simulation.fills import FillSpec
from portfolio_env.simulation.rewards import RewardSpec
from portfolio_env.simulation.simulator import InitialWeights, Simulator

_ELSEWHERE = {  # keywords that belong elsewhere, and where
    "num_envs": "lanes are of PortfolioVectorEnv.",
    "autoreset_mode": "it belongs to PortfolioVectorEnv; this one is reset by its caller.",
    "max_episode_steps": "gym.make and PortfolioVectorEnv take it; here, give episode_length.",
    "stagger": "lanes are of PortfolioVectorEnv.",
    "start_groups": "lanes are of PortfolioVectorEnv.",
    "obs": "the mode is observation: 'window', 'flat' or 'index'.",
    **dict.fromkeys(
        ("assets", "symbols", "tickers", "features", "fit_end"),
        "it belongs to the market: market=load_market(NAME, features=..., fit_end=...).",
    ),
}


def action_space(simulator: Simulator) -> spaces.Box:
    """Return the action space of a lane: scores in [-1, 1], or bounded weights, cash first."""
    if simulator.action == "logits":
        return spaces.Box(-1.0, 1.0, (simulator.n_assets + 1,), np.float32)
    return spaces.Box(*simulator.box, dtype=np.float32)


class EnvOptions(TypedDict, total=False):
    """Keywords that both environments pass on to the Simulator, which documents them."""

    window: int
    action: str
    reward: RewardSpec
    costs: CostSpec
    constraints: PortfolioConstraints | Mapping[str, Any]
    execution: str
    fills: FillSpec
    delay: int
    start: When
    end: When
    episode_length: int | None
    random_start: bool
    universe: int | None
    adjustment: float
    initial: InitialWeights
    initial_value: float
    logits_scale: float


_OPTIONS = {
    name: each
    for name, each in inspect.signature(Simulator).parameters.items()
    if each.kind is each.KEYWORD_ONLY
}


def shows_options(init: Callable[..., None]) -> Callable[..., None]:
    """Add the keywords of ``EnvOptions``, with their defaults, to a constructor's signature."""
    signature = inspect.signature(init)
    own = list(signature.parameters.values())[:-1]  # all but **options
    shown = signature.replace(parameters=[*own, *_OPTIONS.values()])
    init.__signature__ = shown  # type: ignore[attr-defined]
    return init


def check_options(environment: type, options: Mapping[str, Any]) -> None:
    """Reject keywords that the environment does not have; ``options`` are passed on."""
    own = inspect.signature(environment).parameters.values()
    named = [each.name for each in own if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    known = list(dict.fromkeys([*named, *_OPTIONS]))
    for name in options:
        if name in _ELSEWHERE and name not in known:
            raise ArgumentError(
                f"{environment.__name__} has no keyword {name!r}; {_ELSEWHERE[name]}"
            )
    check_keywords(environment.__name__, "keyword", options, known)


def all_options(observation: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the observation mode and all keywords of ``EnvOptions``, with their defaults."""
    defaults = {name: each.default for name, each in _OPTIONS.items()}
    return {"observation": observation, **defaults, **options}


def checked_render_mode(render_mode: str | None, metadata: dict[str, Any]) -> str | None:
    """Return the render mode, if it exists."""
    if render_mode is not None:
        check_choice("render_mode", render_mode, metadata["render_modes"])
    return render_mode


def read_reset_options(options: Any, *names: str) -> tuple[Any, ...]:
    """Return the values of the reset options of these names, None where one is not given.

    Raises:
        ArgumentError: If they are no mapping, or hold another name.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ArgumentError(
            f"options={shortened(options)} must be a mapping of reset options, such as "
            '{"t": "2020-01-31"}, or None.'
        )
    given = dict(options or {})
    values = tuple(given.pop(name, None) for name in names)
    if given:
        known = ", ".join(map(repr, names))
        raise ArgumentError(f"unknown reset options {list(given)}; this environment knows {known}.")
    return values


def read_seed(seed: Any) -> int | None:
    """Return a seed as an int; None, which draws one, stays None.

    Raises:
        ArgumentError: If it is no integer of 0 or more.
    """
    return None if seed is None else check_integer("seed", seed, 0)


def opened_market(market: Market | str | os.PathLike[str]) -> Market:
    """Return the market itself, or the one of a name or path (see ``load_market``)."""
    if isinstance(market, Market):
        return market
    if isinstance(market, str | os.PathLike):
        return _named_market(os.fspath(market))
    raise ArgumentError(
        f"market of type {type(market).__name__} must be a Market, a name or a path; load_market "
        "makes a Market of a frame, a panel or a list of files."
    )


@lru_cache(maxsize=8)
def _named_market(name: str) -> Market:
    """Return one copy of a named market per process, however many environments use it."""
    return load_market(name)


def summary(simulator: Simulator, options: Mapping[str, Any]) -> str:
    """Return an environment in a few words: its market, observations and actions."""
    return (
        f"{simulator.market!r}; observation {options['observation']!r}, window "
        f"{simulator.window}, action {simulator.action!r}; {_range(simulator)}"
    )


def facts(
    simulator: Simulator,
    options: Mapping[str, Any],
    observation: spaces.Space[Any],
    action: spaces.Space[Any],
) -> dict[str, str]:
    """Return the main facts of an environment by name."""
    defaults = all_options("window", {})
    changed = {n: v for n, v in options.items() if n in _OPTIONS and repr(v) != repr(defaults[n])}
    parts = observation.spaces.items() if isinstance(observation, spaces.Dict) else ()
    shapes = ", ".join(f"{name} {part.shape}" for name, part in parts) or f"{observation.shape}"
    return {
        "market": repr(simulator.market),
        "range": _range(simulator),
        "observation": f"{options['observation']}: {shapes}",
        "action": f"{simulator.action}: {action.shape}, cash first",
        "arguments": ", ".join(f"{n}={shortened(v)}" for n, v in changed.items()) or "defaults",
    }


def _range(simulator: Simulator) -> str:
    episodes, times = simulator.episodes, simulator.market.timestamps
    return f"{time_text(times[episodes.start])} to {time_text(times[episodes.end - 1])}"
