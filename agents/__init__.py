"""Agents in PyTorch and Stable-Baselines3 for the portfolio environment."""

from agents.algorithms import bind_market, make_agent, policy_for
from agents.buffers import IndexReplayBuffer, bytes_per_transition
from agents.policies import PerAssetActorCriticPolicy, PerAssetSACPolicy
from agents.run_folder import Run, load_run
from agents.saving import export_zip, load_agent, load_zip, save_agent
from agents.vec_env import SB3VecEnv, make_sb3_vec_env

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
