"""Agents in PyTorch and Stable-Baselines3 for the portfolio environment."""

from agents.algorithms import bind_market, load_agent, make_agent, policy_for
from agents.buffers import IndexReplayBuffer, bytes_per_transition
from agents.policies import PerAssetActorCriticPolicy, PerAssetSACPolicy
from agents.run_folder import Run, load_run
from agents.vec_env import SB3VecEnv, make_sb3_vec_env

__all__ = [
    "IndexReplayBuffer",
    "PerAssetActorCriticPolicy",
    "PerAssetSACPolicy",
    "Run",
    "SB3VecEnv",
    "bind_market",
    "bytes_per_transition",
    "load_agent",
    "load_run",
    "make_agent",
    "make_sb3_vec_env",
    "policy_for",
]
