"""Classes of the algorithms by name, and the options that they take."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, get_type_hints

import torch as th
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.sac.policies import SACPolicy
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from agents.policies import (
    PerAssetActorCriticPolicy,
    PerAssetDirichletPolicy,
    PerAssetSACPolicy,
    PerAssetTD3Policy,
)
from portfolio_env.checks import check_range, checked, shortened
from portfolio_env.errors import ArgumentError
from portfolio_env.names import check_keywords, find

Algorithm = str | type[BaseAlgorithm]
ALGORITHMS = ("ppo", "a2c", "sac", "td3", "ddpg", "tqc", "trpo")
ON_POLICY = ("ppo", "a2c", "trpo")
"""Those of ``ALGORITHMS`` that learn from what the present policy does alone."""
POLICIES = ("per_asset", "dirichlet", "flat_mlp")
RANGES = (
    ("gamma", 0, 1),
    ("gae_lambda", 0, 1),
    ("tau", 0, 1),
    ("n_steps", 1, 2**31 - 1),
    ("batch_size", 2, 2**31 - 1),
    ("n_epochs", 1, 2**31 - 1),
    ("buffer_size", 1, 2**53),
)
"""The least and the largest that options of algorithms may be."""

_CLASSES: dict[str, type[BaseAlgorithm]] = {
    "ppo": PPO,
    "a2c": A2C,
    "sac": SAC,
    "td3": TD3,
    "ddpg": DDPG,
}
_CONTRIB = {"tqc": "TQC", "trpo": "TRPO"}
_PER_ASSET: dict[type[BasePolicy], type[BasePolicy]] = {
    ActorCriticPolicy: PerAssetActorCriticPolicy,
    SACPolicy: PerAssetSACPolicy,
    TD3Policy: PerAssetTD3Policy,
}
_OF_SETTINGS = {
    *("self", "policy", "env", "policy_kwargs", "device", "seed", "action_noise"),
    *("tensorboard_log", "verbose", "monitor_wrapper", "_init_setup_model"),
    *("supported_action_spaces", "support_multi_env", "use_sde", "sde_sample_freq"),
    *("rollout_buffer_class", "replay_buffer_class", "use_sde_at_warmup"),
}
_OF_POLICY = {
    *("self", "observation_space", "action_space", "lr_schedule", "use_sde", "device"),
    *("features_extractor_class", "features_extractor_kwargs", "_init_setup_model"),
}
_NAMED_IN_TORCH = {
    "activation_fn": (nn, nn.Module),
    "optimizer_class": (th.optim, th.optim.Optimizer),
}


def algorithm_class(algo: Algorithm) -> type[BaseAlgorithm]:
    """Return the class of an algorithm.

    Args:
        algo: One of ``ALGORITHMS``, the name of an installed package's entry point
            ``algorithm.NAME``, ``"module:Class"``, or the class itself.

    Raises:
        ArgumentError: For an unknown name, what is no on-policy or off-policy algorithm of SB3, or
            ``"tqc"`` and ``"trpo"`` without sb3-contrib.
    """
    if isinstance(algo, str) and algo in _CONTRIB:
        return _of_contrib(algo)
    found: Any = algo
    if isinstance(algo, str):
        found = find("algorithm", algo, dict.fromkeys(ALGORITHMS, BaseAlgorithm) | _CLASSES)
    kinds = (OnPolicyAlgorithm, OffPolicyAlgorithm)
    if not (isinstance(found, type) and issubclass(found, kinds)):
        raise ArgumentError(
            f"algo {shortened(algo)} is {found!r:.60}; give a subclass of Stable-Baselines3's "
            "OnPolicyAlgorithm or OffPolicyAlgorithm"
        )
    return found


def _of_contrib(algo: str) -> type[BaseAlgorithm]:
    try:
        import sb3_contrib
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f"algo {algo!r} needs the library {error.name}; pip install 'sb3-contrib>=2.9,<2.10'"
        ) from error
    found: type[BaseAlgorithm] = getattr(sb3_contrib, _CONTRIB[algo])
    return found


def is_on_policy(algo: Algorithm) -> bool:
    """Return whether an algorithm is on-policy; False for "direct"."""
    if isinstance(algo, str) and (algo in ALGORITHMS or algo == "direct"):
        return algo in ON_POLICY
    return issubclass(algorithm_class(algo), OnPolicyAlgorithm)


def policy_class(algo: Algorithm, policy: str) -> type[BasePolicy]:
    """Return the class of a per-asset policy, ``"per_asset"`` or ``"dirichlet"``, for an algorithm.

    Raises:
        ArgumentError: For an unknown policy, or one that the algorithm cannot train.
    """
    if policy not in POLICIES:
        raise ArgumentError(
            f"policy {shortened(policy)} is unknown; choose one of {sorted(POLICIES)}"
        )
    if policy == "dirichlet" and not is_on_policy(algo):
        raise ArgumentError(
            f"policy 'dirichlet' cannot be trained by {algo!r}, which needs actions in a box; "
            f"choose one of {sorted(ON_POLICY)}"
        )
    usual = algorithm_class(algo).policy_aliases.get("MlpPolicy")
    if policy == "dirichlet" and usual is ActorCriticPolicy:
        return PerAssetDirichletPolicy
    if usual in _PER_ASSET:
        return _PER_ASSET[usual]
    if getattr(usual, "__module__", "") == "sb3_contrib.tqc.policies":
        from agents.policies.quantile import PerAssetTQCPolicy

        return PerAssetTQCPolicy
    raise ArgumentError(
        f"policy {policy!r} stands in for SB3's {', '.join(one.__name__ for one in _PER_ASSET)} "
        f"and TQCPolicy, algo {shortened(algo)} trains {getattr(usual, '__name__', 'another')}: "
        "choose policy 'flat_mlp'"
    )


def parameters_of(cls: type) -> set[str]:
    """Return the names of a constructor's parameters, those passed on to base classes included."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = signature(vars(base)["__init__"]).parameters.values()
        names |= {
            one.name
            for one in parameters
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        }
        if not any(one.kind is Parameter.VAR_KEYWORD for one in parameters):
            break
    return names - {"self"}


def sorted_options(
    algo: Algorithm, policy: str, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sort options of an algorithm, as JSON, into its own and those of its policy.

    Args:
        algo: See ``algorithm_class``.
        policy: One of ``POLICIES``.
        options: Values by name; classes of torch (``activation_fn``, ``optimizer_class``) are names
            in ``torch.nn`` and ``torch.optim``.

    Returns:
        Keywords of the algorithm's class, and of its policy's, as ``make_agent`` takes them.

    Raises:
        ArgumentError: For a name that neither has, with the nearest, or a value of another type or
            outside of its range.
    """
    cls = algorithm_class(algo)
    aliases = cls.policy_aliases
    flat: Any = aliases.get("MlpPolicy", aliases.get("MultiInputPolicy", BasePolicy))
    behind = flat if policy == "flat_mlp" else policy_class(algo, policy)
    own, of_policy = parameters_of(cls) - _OF_SETTINGS, parameters_of(behind) - _OF_POLICY
    check_keywords(f"algo {shortened(algo)}", "option", options, own | of_policy)
    given = {name: _from_json(name, value) for name, value in options.items()}
    widths = given.get("net_arch")
    if isinstance(widths, list) and policy != "flat_mlp" and is_on_policy(algo):
        given["net_arch"] = {"pi": widths, "vf": widths}
    for names, kind in ((own, cls), (of_policy - own, behind)):
        hints = _hints(kind)
        for name in names & given.keys() & hints.keys():
            checked(name, given[name], hints[name])
    for name, low, high in RANGES:
        check_range(name, given.get(name), low, high)
    return (
        {name: value for name, value in given.items() if name in own},
        {name: value for name, value in given.items() if name not in own},
    )


def _from_json(name: str, value: Any) -> Any:
    """Convert JSON values to what JSON cannot express: classes of torch, and pairs."""
    if name in _NAMED_IN_TORCH:
        module, base = _NAMED_IN_TORCH[name]
        found = vars(module).get(value) if isinstance(value, str) else None
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ArgumentError(
                f"{name} is {shortened(value)}; give the name of a class of {module.__name__}"
            )
        return found
    return tuple(value) if name == "train_freq" and isinstance(value, list) else value


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of a constructor's parameters, as far as they are known."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if "__init__" in vars(base):
            try:
                found |= get_type_hints(vars(base)["__init__"])
            except (NameError, TypeError):  # names imported only for annotations
                continue
    return found
