"""Agents as tensors and JSON: saved and loaded without code, for any market of the same features.

A file holds the recipe that ``make_agent`` built the agent by, and what it has learned: parameters
and optimisers. SB3's own zips hold pickles, which run code when they are loaded; they can be
written, and are read only on trust.
"""

from __future__ import annotations

import warnings
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from agents.sb3.algorithms import (
    LogitNoise,
    bind_market,
    make_agent,
    market_of,
    n_actions,
    torch_device,
)
from agents.sb3.classes import RANGES, Algorithm, algorithm_class, is_on_policy, parameters_of
from agents.tensors import check_finite, load_tensors, reason_of, save_tensors
from portfolio_env.checks import check_range, checked, shortened
from portfolio_env.errors import MALFORMED, ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import replacing
from portfolio_env.files.plugins import admit, plugins_within, record
from portfolio_env.names import check_keywords, plugin_name

KIND = "agent"
COUNTERS = ("num_timesteps", "_total_timesteps", "_n_updates", "_episode_num")
_TORCH = {"$nn": (th.nn, th.nn.Module), "$optim": (th.optim, th.optim.Optimizer)}
_OPTIONS: dict[str, Any] = {
    "policy": str,
    "window": int,
    "encoder": str,
    "encoder_kwargs": dict | None,
    "embedding_kwargs": dict | None,
    "policy_kwargs": dict | None,
    "learning_rate": float | LinearSchedule,
    "gamma": float,
    "gae_lambda": float,
    "tau": float,
    "ent_coef": float | str,
    "vf_coef": float,
    "max_grad_norm": float,
    "seed": int | None,
    "n_steps": int,
    "batch_size": int,
    "n_epochs": int,
    "buffer_size": int,
    "learning_starts": int,
    "gradient_steps": int,
    "normalize_advantage": bool,
    "target_kl": float | None,
    "clip_range": float | LinearSchedule,
}
_RANGES = (("window", 1, 2**31 - 1), ("seed", 0, 2**32 - 1), *RANGES)


def save_agent(agent: BaseAlgorithm, path: str | Path) -> None:
    """Write an agent of ``make_agent`` to one file, which is complete or absent.

    Args:
        agent: Agent to save; see ``agent_tree``.
        path: The file; it holds neither code nor market.

    Raises:
        ArgumentError: As of ``agent_tree``.
    """
    save_tensors(path, agent_tree(agent), kind=KIND)


def agent_tree(agent: BaseAlgorithm) -> dict[str, Any]:
    """Return recipe, parameters and counters of an agent, for ``save_tensors``.

    Raises:
        ArgumentError: If ``make_agent`` did not build it, or with an option that is neither JSON
            nor known here.
    """
    recipe = getattr(agent, "recipe", None)
    if recipe is None:
        raise ArgumentError(
            f"this {type(agent).__name__} was not built by make_agent, so its settings are not "
            "known; build it so, or write SB3's own format with export_zip"
        )
    _, names = agent._get_torch_save_params()
    described = _described(recipe, "")
    plugins = record(_named(described))
    return {
        "recipe": described,
        **({"plugins": plugins} if plugins else {}),
        "parameters": agent.get_parameters(),
        "variables": {name: getattr(agent, name) for name in names},
        "counters": {name: getattr(agent, name) for name in COUNTERS},
    }


def load_agent(
    path: str | Path, venv: VecEnv, *, device: str = "auto", within: Path | None = None
) -> BaseAlgorithm:
    """Load a saved agent for ``venv``, which may hold another market, universe or observation mode.

    The per-asset policies have no parameter that depends on the number of assets, so a model
    trained on 5 assets loads for 20. The features must be those it was trained on.

    Args:
        path: File of ``save_agent``, or a checkpoint of a run; nothing in it is executed.
        venv: The environment to act in.
        device: Torch device.
        within: Folder that the file came in, e.g. that of a run: no code in it is imported.

    Raises:
        ArgumentError: If the network does not fit the environment.
        DataError: If the file is damaged, or holds no agent.
    """
    tree = load_tensors(path, kind=KIND)
    return agent_of(tree, venv, path, device=device, within=within)


def agent_of(
    tree: dict[str, Any],
    venv: VecEnv,
    path: str | Path,
    *,
    device: str = "auto",
    within: Path | None = None,
) -> BaseAlgorithm:
    """Return the agent of an ``agent_tree`` that was read from ``path``; see ``load_agent``."""
    device = str(torch_device(device))
    try:
        admit(_named(tree["recipe"]), tree.get("plugins", {}), Path(path), within=within)
        recipe = _rebuilt(tree["recipe"], venv)
        _check_recipe(recipe, path)
        _tell_sharing(recipe)
        agent = _made(recipe, venv, path, device)
        restore_agent(agent, tree, path)
    except PortfolioError:
        raise
    except Exception as error:  # any error of the libraries for a recipe that never worked
        raise DataError(
            f"{path} holds no agent ({reason_of(error)}); restore it from a copy"
        ) from error
    return agent


def _named(recipe: Any) -> dict[str, list[str]]:
    """Return the names in a recipe by kind; other names like a plug-in's count as encoders."""
    algo, encoder = recipe["algo"], recipe["encoder"]
    others = {key: value for key, value in recipe.items() if key != "algo"}
    return {"algorithm": [algo], "encoder": [encoder, *plugins_within(others)]}


def _made(recipe: dict[str, Any], venv: VecEnv, path: str | Path, device: str) -> BaseAlgorithm:
    try:
        with warnings.catch_warnings():  # warnings about options of training
            warnings.simplefilter("ignore", UserWarning)
            return make_agent(venv=venv, device=device, **recipe)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error


def _check_recipe(recipe: dict[str, Any], path: str | Path) -> None:
    """Reject an option that the algorithm does not have, or of a type that it does not take."""
    try:
        cls = algorithm_class(recipe["algo"])
        known = {*parameters_of(cls), *signature(make_agent).parameters}
        known -= {"env", "venv", "device", "options"}
        check_keywords(f"algo {recipe['algo']!r}", "option", recipe, known)
        for name, annotation in _OPTIONS.items():
            if name in recipe:
                checked(name, recipe[name], annotation)
        for name, low, high in _RANGES:
            check_range(name, recipe.get(name), low, high)
    except ArgumentError as error:
        raise DataError(f"{path} holds no agent ({error}); restore it from a copy") from error


def _tell_sharing(recipe: dict[str, Any]) -> None:
    """Complete the recipe of an agent written when actor and critic had an encoder each."""
    if is_on_policy(recipe["algo"]) and recipe["encoder"] != "per_asset":
        options = recipe.setdefault("policy_kwargs", {})
        if recipe["policy"] != "flat_mlp" and "critic_gradient" not in options:
            options["critic_gradient"] = 1.0
            options.setdefault("share_features_extractor", False)


def restore_agent(agent: BaseAlgorithm, tree: dict[str, Any], path: str | Path) -> None:
    """Restore an agent that was built by the same recipe to the state of an ``agent_tree``."""
    give_parameters(agent, tree["parameters"], tree["variables"], path)
    for name in COUNTERS:
        count = tree["counters"][name]
        if type(count) is not int or count < 0:
            raise DataError(f"{path}: {name} is {shortened(count)}; restore it from a copy")
        setattr(agent, name, count)


def give_parameters(
    agent: BaseAlgorithm, parameters: dict[str, Any], variables: dict[str, Any], path: str | Path
) -> None:
    """Load the parameters and optimisers that were read from a file into an agent.

    Raises:
        ArgumentError: If their shapes differ.
        DataError: If a weight is not a finite number.
    """
    if not isinstance(parameters, dict):  # SB3 would open a text as the path of a pickle's zip
        raise DataError(f"{path} holds no parameters; restore it from a copy")
    check_finite(parameters, path)
    check_finite(variables, path)
    try:
        agent.set_parameters(parameters, exact_match=True, device=agent.device)
        for name, value in variables.items():
            if value is not None:
                getattr(agent, name).data.copy_(value)
    except RuntimeError as error:  # torch: sizes of parameters differ
        raise ArgumentError(
            f"{path} does not fit this environment ({reason_of(error)}); a flat network "
            "needs the market it was trained on, a per-asset one the same features"
        ) from error


def export_zip(agent: BaseAlgorithm, path: str | Path) -> None:
    """Write an agent in SB3's own format, for other programs; see ``load_zip``.

    Args:
        agent: Any agent of SB3.
        path: The file, ending in .zip.
    """
    with replacing(path) as beside:
        agent.save(beside)


def load_zip(
    algo: Algorithm, path: str | Path, venv: VecEnv, *, trust: bool = False, device: str = "auto"
) -> BaseAlgorithm:
    """Load an agent in SB3's own format, as SB3 does.

    Args:
        algo: The algorithm it was saved by.
        path: Zip file of the agent.
        venv: An environment of the observations that it was trained on, of any market.
        trust: Its settings are pickles: loading them runs whatever code the author of the file has
            put there. True says that you know where the file comes from.
        device: Torch device.

    Raises:
        ArgumentError: Without trust.
        DataError: If the file is damaged, or does not fit the algorithm or the environment.
    """
    if not trust:
        raise ArgumentError(
            f"{path} is a zip of Stable-Baselines3, whose settings are pickles: loading it runs "
            "any code that its author has put there. Pass trust=True if you know its author; an "
            "agent saved by save_agent needs no trust"
        )
    of_env = {"observation_space": venv.observation_space, "action_space": venv.action_space}
    try:
        agent = algorithm_class(algo).load(path, env=venv, device=device, custom_objects=of_env)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (*MALFORMED, AssertionError, EOFError, OSError, RuntimeError, UnpicklingError) as error:
        raise DataError(
            f"{path} is damaged, or no agent of {algo} for these observations ({reason_of(error)})"
        ) from error
    bind_market(agent, market_of(venv))
    return agent


def _described(value: Any, where: str) -> Any:
    """Return a recipe as JSON: schedules, noise and torch's classes become objects with one tag."""
    if isinstance(value, dict):
        return {key: _described(item, f"{where}{key} ") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_described(item, where) for item in value)
    if isinstance(value, LinearSchedule):
        return {"$linear": [value.start, value.end, value.end_fraction]}
    if isinstance(value, LogitNoise):
        return {"$logit_noise": value.std}
    if where in ("algo ", "encoder ") and not isinstance(value, str):
        return plugin_name(value)
    for tag, (module, _) in _TORCH.items():
        name = getattr(value, "__name__", "")
        if name and vars(module).get(name) is value:
            return {tag: name}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ArgumentError(
        f"the option {where.strip()} is {value!r}, which cannot be saved without a pickle; write "
        "SB3's own format with export_zip"
    )


def _rebuilt(value: Any, venv: VecEnv) -> Any:
    """Invert ``_described``, for an environment."""
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(item, venv) for item in value)
    if not isinstance(value, dict):
        return value
    if "$linear" in value:
        return LinearSchedule(*value["$linear"])
    if "$logit_noise" in value:
        return LogitNoise(value["$logit_noise"], n_actions(venv))
    for tag, (module, base) in _TORCH.items():
        if tag in value:
            found = vars(module).get(value[tag])
            if not (isinstance(found, type) and issubclass(found, base)):
                raise ValueError(f"{value[tag]} is no {base.__name__}")
            return found
    return {key: _rebuilt(item, venv) for key, item in value.items()}
