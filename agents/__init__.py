"""Agents in PyTorch and Stable-Baselines3 for the portfolio environment."""

from agents.policies import PerAssetActorCriticPolicy, PerAssetSACPolicy
from agents.saving import export_zip, load_agent, load_zip, save_agent
from agents.sb3.algorithms import bind_market, make_agent, policy_for
from agents.sb3.buffers import IndexReplayBuffer, bytes_per_transition
from agents.sb3.vec_env import SB3VecEnv, make_sb3_vec_env
from agents.training.run_folder import Run, load_run

__all__ = [
    "IndexReplayBuffer",
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
