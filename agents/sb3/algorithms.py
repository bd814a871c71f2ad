"""Learning algorithms with the measured defaults, for any market."""

import warnings
from contextlib import nullcontext
from copy import deepcopy
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.utils import LinearSchedule, get_device
from stable_baselines3.common.vec_env import VecEnv

from agents.encoding.market_encoder import market_tensors
from agents.encoding.market_rows import market_encoders
from agents.networks.plugins import Maker, user_code
from agents.policies import LOG_STD_INIT
from agents.policies.common import MarketExtractor
from agents.sb3.buffers import GroupedRolloutBuffer, IndexReplayBuffer
from agents.sb3.classes import (
    ALGORITHMS,
    Algorithm,
    algorithm_class,
    is_on_policy,
    parameters_of,
    policy_class,
)
from portfolio_env import Market
from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError
from portfolio_env.names import check_keywords

DEVICES = ("cpu", "cuda", "mps")
ROLLOUT = 8192  # transitions between two PPO updates: 256 lanes x 32 steps
LEARNING_RATE = 1e-3


def torch_device(name: str, *, available: bool = True) -> th.device:
    """Return the torch device of a name; ``"auto"`` is a GPU where there is one.

    Args:
        name: "auto", "cpu", "cuda", ...
        available: False takes the CPU for a GPU that is not there.

    Raises:
        ArgumentError: For what torch cannot compute on here.
    """
    try:
        device = get_device(name)
    except RuntimeError:
        device = th.device("meta")
    if device.type not in DEVICES:  # "meta" among others: it computes nothing
        raise ArgumentError(
            f"device {shortened(name)} is not available to torch here; give auto, cpu or cuda"
        )
    if available and device.type == "cpu" and str(name).startswith("cuda"):
        raise ArgumentError(
            f"device={shortened(name)} must be a device of this machine: torch finds no GPU here; "
            "give cpu or auto, or install a build of torch with CUDA"
        )
    return device


def make_agent(
    algo: Algorithm,
    venv: VecEnv,
    *,
    policy: str = "per_asset",
    window: int = 1,
    encoder: str | Maker = "per_asset",
    encoder_kwargs: dict[str, Any] | None = None,
    embedding_kwargs: dict[str, Any] | None = None,
    policy_kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> BaseAlgorithm:
    """Build an agent for the portfolio environment, bound to its market.

    Args:
        algo: ``"ppo"``, ``"a2c"``, ``"sac"``, ``"td3"``, ``"ddpg"``, sb3-contrib's ``"tqc"`` and
            ``"trpo"``, or a subclass of SB3's on-policy or off-policy algorithms, as
            ``"module:Class"`` or the class itself, with the defaults of its base class.
        venv: The training environment, see ``make_sb3_vec_env``.
        policy: ``"per_asset"``; ``"dirichlet"`` for PPO and A2C in an environment with
            ``action="weights"``; or ``"flat_mlp"`` for SB3's own network over all assets at once.
        window: Bars the encoder sees, at most the environment's window.
        encoder: Name or class of the encoder, see ``agents.networks.make_encoder``.
        encoder_kwargs: Further options of the encoder, JSON-able.
        embedding_kwargs: Options of the encoder's evaluation, see
            ``agents.encoding.market_encoder.MarketEncoder``, JSON-able.
        policy_kwargs: Further options of the policy, e.g. ``net_arch``, ``log_std_init``,
            ``critic_gradient`` or ``share_features_extractor``.
        options: Arguments of SB3's class that replace the defaults (``device``, ``seed``,
            ``gamma``, ...).

    Raises:
        ArgumentError: For an unknown algorithm, policy or option, or a policy that the
            observations do not suit.
    """
    cls = algorithm_class(algo)
    own = signature(make_agent).parameters.keys() - {"venv", "options"}
    known = {*own, *parameters_of(cls)} - {"env", "_init_setup_model"}
    inherited = set().union(*map(parameters_of, cls.__mro__[1:]))
    if algo not in ALGORITHMS and (lacking := sorted(options.keys() & inherited - known)):
        raise ArgumentError(
            f"__init__ of algo {shortened(algo)} lacks {', '.join(lacking)}, which its base class "
            "takes: let it take **kwargs and hand them on to super().__init__."
        )
    check_keywords(f"make_agent({shortened(algo)}, ...)", "keyword", options, sorted(known))
    if not isinstance(venv, VecEnv):
        raise ArgumentError(
            f"venv of type {type(venv).__name__} must be a VecEnv of Stable-Baselines3, as "
            "make_sb3_vec_env(market, num_envs=...) makes it."
        )
    settings = _defaults(cls, venv) | options
    steps = options.get("n_steps")
    if steps == 1 and issubclass(cls, PPO):
        raise ArgumentError(
            f"n_steps=1 must be at least 2: {cls.__name__} normalises advantages, and its file is "
            "read with a single environment."
        )
    if isinstance(steps, int) and "batch_size" in settings and "batch_size" not in options:
        settings["batch_size"] = _minibatch(steps, venv)
    network = {
        "window": window,
        "encoder": encoder,
        "encoder_kwargs": encoder_kwargs or {},
        "embedding_kwargs": embedding_kwargs or {},
    }
    policy_kwargs = dict(policy_kwargs or {})
    if is_on_policy(algo) and encoder != "per_asset" and policy != "flat_mlp":
        policy_kwargs.setdefault("critic_gradient", 0.0)  # so that it is written with the agent
    recipe = {"algo": algo, "policy": policy, "policy_kwargs": policy_kwargs, **network, **settings}
    recipe = deepcopy(recipe)  # SB3 adds to the options that it is given
    recipe.pop("device", None)
    settings = _buffers(cls, encoder, venv) | settings
    if policy == "flat_mlp":
        noise = {"log_std_init": LOG_STD_INIT} if is_on_policy(algo) else {}
        agent = _built(algo, _flat_mlp(venv), venv, noise | policy_kwargs, settings)
    else:
        market = market_of(venv)
        extractor = {"n_features": market.n_features, **network}
        policy_kwargs = {"features_extractor_kwargs": extractor} | policy_kwargs
        agent = _built(algo, policy_class(algo, policy), venv, policy_kwargs, settings)
        bind_market(agent, market)
    agent.recipe = recipe  # type: ignore[attr-defined]  # what ``agents.saving`` writes
    return agent


def _built(
    algo: Algorithm,
    policy: str | type[BasePolicy],
    venv: VecEnv,
    policy_kwargs: dict[str, Any],
    settings: dict[str, Any],
) -> BaseAlgorithm:
    """Build the agent; errors in a user's class are attributed to it."""
    cls = algorithm_class(algo)
    with nullcontext() if algo in ALGORITHMS else user_code(f"algo {algo!r:.60}"):
        agent = cls(policy, venv, policy_kwargs=policy_kwargs, **settings)
    if not isinstance(getattr(agent, "policy", None), BasePolicy):
        raise ArgumentError(
            f"algo {algo!r:.60} has no policy once it is made: a _setup_model of its own must call "
            "super()._setup_model()."
        )
    return agent


def _buffers(cls: type[BaseAlgorithm], encoder: str | Maker, venv: VecEnv) -> dict[str, Any]:
    """Return the buffer class and its options for an observation mode."""
    if issubclass(cls, OffPolicyAlgorithm):
        return {"replay_buffer_class": IndexReplayBuffer if _reads_index(venv) else None}
    if issubclass(cls, PPO) and encoder != "per_asset" and _reads_index(venv):
        return {"rollout_buffer_class": GroupedRolloutBuffer, "normalize_advantage": False}
    return {}


def policy_for(agent: BaseAlgorithm, venv: VecEnv) -> BasePolicy:
    """Return a copy of an agent's policy that acts in another environment, e.g. with more assets.

    Training goes on undisturbed; load ``agent.policy.state_dict()`` into the copy to bring it up to
    date.
    """
    with th.random.fork_rng(devices=[]):  # its first weights are drawn
        policy = type(agent.policy)(
            venv.observation_space, venv.action_space, agent.lr_schedule, **agent.policy_kwargs
        ).to(agent.device)
    policy.load_state_dict(agent.policy.state_dict())
    _bind_features(policy, market_of(venv))
    return policy


def bind_market(agent: BaseAlgorithm, market: Market) -> None:
    """Attach the market that index observations refer to, to networks and replay buffer.

    The features go once to the agent's device and are shared by all its networks; they are part
    of no checkpoint.
    """
    _bind_features(agent.policy, market)
    if isinstance(buffer := getattr(agent, "replay_buffer", None), IndexReplayBuffer):
        buffer.bind(market)
    found = [one for one in market_encoders(agent.policy) if one.encoder.block]
    if found and isinstance(
        rollouts := getattr(agent, "rollout_buffer", None), GroupedRolloutBuffer
    ):
        rollouts.groups = found[0].groups


def _bind_features(policy: BasePolicy, market: Market) -> None:
    modules = policy.modules()
    extractors = [m for m in modules if isinstance(m, MarketExtractor) and m.needs_market]
    if extractors:
        tensors = market_tensors(market, policy.device)
        for extractor in extractors:
            extractor.bind(*tensors, market)


def market_of(venv: VecEnv) -> Market:
    """Return the market of an environment of ``make_sb3_vec_env``."""
    market: Market = venv.get_attr("simulator")[0].market
    return market


def _flat_mlp(venv: VecEnv) -> str:
    if _reads_index(venv):
        raise ArgumentError(
            "policy 'flat_mlp' cannot read index observations, it would memorise dates; "
            'build the environment with observation="flat"'
        )
    warnings.warn(
        "a flat network over all assets memorises the training history: on planted signals it "
        "keeps 0.1 to 0.5 of what a per-asset policy keeps out of sample; use it for comparison",
        stacklevel=3,
    )
    return "MultiInputPolicy" if isinstance(venv.observation_space, spaces.Dict) else "MlpPolicy"


def _reads_index(venv: VecEnv) -> bool:
    space = venv.observation_space
    return isinstance(space, spaces.Dict) and "t" in space.spaces


def n_actions(venv: VecEnv) -> int:
    """Return the length of an action, cash included."""
    return spaces.flatdim(venv.action_space)


def _minibatch(n_steps: int, venv: VecEnv) -> int:
    """Return a quarter of the transitions between two updates, or all of fewer than 8."""
    transitions = n_steps * venv.num_envs
    return transitions // 4 if transitions >= 8 and transitions % 4 == 0 else transitions


def _ppo_defaults(venv: VecEnv) -> dict[str, Any]:
    n_steps = max(16, ROLLOUT // venv.num_envs // 4 * 4)
    return {
        "learning_rate": LinearSchedule(LEARNING_RATE, 0.0, 1.0),
        "n_steps": n_steps,
        "batch_size": _minibatch(n_steps, venv),
        "n_epochs": 5,
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
    }


def _a2c_defaults(venv: VecEnv) -> dict[str, Any]:
    return {
        "learning_rate": LinearSchedule(LEARNING_RATE, 0.0, 1.0),
        "n_steps": 8,
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "ent_coef": 0.0,
        "normalize_advantage": True,
        "use_rms_prop": False,
    }


def _off_policy_defaults(venv: VecEnv) -> dict[str, Any]:
    return {
        "learning_rate": LinearSchedule(LEARNING_RATE, 0.0, 1.0),
        "learning_starts": 10 * venv.num_envs,
        "batch_size": 512,
        "gamma": 0.9,
        "tau": 0.05,  # some 600 updates in all: slower targets would hardly move
        # One update for every 64 transitions.
        "train_freq": max(1, 64 // venv.num_envs),
        "gradient_steps": max(1, venv.num_envs // 64),
    }


def _soft_defaults(venv: VecEnv) -> dict[str, Any]:
    # Automatic tuning keeps the policy noisy: it learns nothing here.
    return _off_policy_defaults(venv) | {"ent_coef": 0.005}


def _sac_defaults(venv: VecEnv) -> dict[str, Any]:
    # Fewer samples per update are three times as fast and capture .82 of a planted edge, not .88.
    return _soft_defaults(venv) | {"batch_size": 2048}


class LogitNoise(ActionNoise):
    """Independent Gaussian noise on the logits of one lane; SB3 copies it for every lane.

    Args:
        std: Standard deviation, on logits in [-1, 1] to which the sum is clipped.
        n_actions: Number of logits, cash included.
    """

    def __init__(self, std: float, n_actions: int) -> None:
        if not 0 <= std < np.inf or n_actions < 1:
            raise ArgumentError(f"std={std}, n_actions={n_actions}: need std >= 0, n_actions >= 1")
        super().__init__()
        self.std = std
        self.n_actions = n_actions

    def __call__(self) -> npt.NDArray[np.float32]:
        """Draw (n_actions,) from NumPy's global generator, which SB3 seeds."""
        return np.random.normal(0.0, self.std, self.n_actions).astype(np.float32)

    def __repr__(self) -> str:
        return f"LogitNoise(std={self.std}, n_actions={self.n_actions})"


def _deterministic_defaults(venv: VecEnv) -> dict[str, Any]:
    noise = LogitNoise(float(np.exp(LOG_STD_INIT)), n_actions(venv))
    return _off_policy_defaults(venv) | {"action_noise": noise}


_DEFAULTS = {
    "PPO": _ppo_defaults,
    "A2C": _a2c_defaults,
    "SAC": _sac_defaults,
    "TD3": _deterministic_defaults,  # and DDPG
    "TQC": _soft_defaults,
    "OnPolicyAlgorithm": _ppo_defaults,  # e.g. TRPO
    "OffPolicyAlgorithm": _off_policy_defaults,
}
_LIBRARIES = ("stable_baselines3", "sb3_contrib")


def _defaults(cls: type[BaseAlgorithm], venv: VecEnv) -> dict[str, Any]:
    """Return the defaults of the nearest base class that has some, as far as a class takes them."""
    bases = (base for base in cls.__mro__ if base.__module__.startswith(_LIBRARIES))
    nearest = next(base.__name__ for base in bases if base.__name__ in _DEFAULTS)
    taken = parameters_of(cls)
    return {name: value for name, value in _DEFAULTS[nearest](venv).items() if name in taken}
