"""Agents in PyTorch and Stable-Baselines3 for the portfolio environment.

Names are imported when they are asked for: networks need torch alone, the rest Stable-Baselines3.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.actor_critic import PerAssetActorCritic
    from agents.encoding.market_rows import MarketRows
    from agents.market_extractor import MarketExtractor
    from agents.policies import PerAssetActorCriticPolicy, PerAssetSACPolicy
    from agents.saving import export_zip, load_agent, load_zip, save_agent
    from agents.sb3.algorithms import bind_market, make_agent, policy_for
    from agents.sb3.buffers import IndexReplayBuffer, bytes_per_transition
    from agents.sb3.vec_env import SB3VecEnv, make_sb3_vec_env
    from agents.training.run_folder import Run, load_run

__all__ = [
    "IndexReplayBuffer",
    "MarketExtractor",
    "MarketRows",
    "PerAssetActorCritic",
    "PerAssetActorCriticPolicy",
    "PerAssetSACPolicy",
    "Run",
    "SB3VecEnv",
    "bind_market",
    "bytes_per_transition",
    "export_zip",
    "load_agent",
    "load_run",
    "load_zip",
    "make_agent",
    "make_sb3_vec_env",
    "policy_for",
    "save_agent",
]

_MODULES = {
    "actor_critic": ("PerAssetActorCritic",),
    "encoding.market_rows": ("MarketRows",),
    "market_extractor": ("MarketExtractor",),
    "policies": ("PerAssetActorCriticPolicy", "PerAssetSACPolicy"),
    "saving": ("export_zip", "load_agent", "load_zip", "save_agent"),
    "sb3.algorithms": ("bind_market", "make_agent", "policy_for"),
    "sb3.buffers": ("IndexReplayBuffer", "bytes_per_transition"),
    "sb3.vec_env": ("SB3VecEnv", "make_sb3_vec_env"),
    "training.run_folder": ("Run", "load_run"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _MODULE_OF[name] not in ("actor_critic", "encoding.market_rows"):
        import_module("agents.policies")  # enters their names into SB3's tables, too
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
