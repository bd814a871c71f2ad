"""The per-asset policies by name, ``PPO("PerAssetPolicy", env)``.

SB3 looks names up in a table of the algorithm's class. Importing this module enters these, as
importing ``agents.policies`` does.
"""

from typing import Any, Self

from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from agents.policies.dirichlet import PerAssetDirichletPolicy
from agents.policies.off_policy import PerAssetSACPolicy, PerAssetTD3Policy
from agents.policies.on_policy import PerAssetActorCriticPolicy
from portfolio_env.errors import ArgumentError

PER_ASSET, DIRICHLET = "PerAssetPolicy", "PerAssetDirichletPolicy"


def _refused(reason: str) -> type[BasePolicy]:
    """Return a policy that raises an error naming what to use instead."""

    class Refused(BasePolicy):
        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            raise ArgumentError(reason)

    return Refused


def _register(policies: dict[str, type[BasePolicy]], *algorithms: type[BaseAlgorithm]) -> None:
    for algorithm in algorithms:
        algorithm.policy_aliases.update(policies)


_BOX = _refused(f"{DIRICHLET} is for PPO, A2C and TRPO: the others need actions in a box")
_LSTM = _refused(
    "RecurrentPPO has no per-asset policy; use PPO with encoder='lstm', which reads the window, or "
    "'MultiInputLstmPolicy' ('MlpLstmPolicy' for flat observations) with "
    "features_extractor_class=MarketExtractor"
)
_CROSSQ = _refused(
    "CrossQ has no per-asset policy; use SAC or TQC, or flat observations and 'MlpPolicy' with "
    "features_extractor_class=MarketExtractor"
)

_register({PER_ASSET: PerAssetActorCriticPolicy, DIRICHLET: PerAssetDirichletPolicy}, PPO, A2C)
_register({PER_ASSET: PerAssetSACPolicy, DIRICHLET: _BOX}, SAC)
_register({PER_ASSET: PerAssetTD3Policy, DIRICHLET: _BOX}, TD3, DDPG)
try:
    from sb3_contrib import TQC, TRPO, CrossQ, RecurrentPPO

    from agents.policies.quantile import PerAssetTQCPolicy
except ImportError:  # sb3-contrib is optional
    pass
else:
    _register({PER_ASSET: PerAssetActorCriticPolicy, DIRICHLET: PerAssetDirichletPolicy}, TRPO)
    _register({PER_ASSET: PerAssetTQCPolicy, DIRICHLET: _BOX}, TQC)
    _register({PER_ASSET: _CROSSQ, DIRICHLET: _CROSSQ}, CrossQ)
    _register({PER_ASSET: _LSTM, DIRICHLET: _LSTM}, RecurrentPPO)
