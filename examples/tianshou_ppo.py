"""PPO of Tianshou over single environments, with a network shared over assets.

    python examples/tianshou_ppo.py

Tianshou has vector environments of its own and takes none of Gymnasium's, so the native lanes are
not used, and there is nothing to stagger. It wants pandas 2, which this package takes as well.
"""

from __future__ import annotations

from typing import Any

import torch as th
from common import OPTIONS, Clock, judge, replay
from tianshou.algorithm import PPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from torch import nn
from torch.distributions import Independent, Normal

from agents import MarketRows, PerAssetActorCritic
from portfolio_env import PortfolioEnv

LANES, STEPS, UPDATES, SEED, LANE = 64, 128, 12, 0, 21


class Actor(nn.Module):
    """Means and standard deviations of actions, and no state."""

    def __init__(self, net: PerAssetActorCritic) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Any, Any]:
        """Return ((batch, N + 1), (batch, N + 1)) and the state as it was."""
        mean, log_std, _ = self.net(obs)
        return (mean, log_std.exp()), state


class Critic(nn.Module):
    """Values (batch, 1)."""

    def __init__(self, net: PerAssetActorCritic) -> None:
        super().__init__()
        self.net = net

    def forward(self, obs: Any) -> th.Tensor:
        """Return the values of a batch."""
        return self.net(obs)[2].unsqueeze(-1)


def main() -> None:
    """Train, replay one lane, compare with equal weight."""
    th.manual_seed(SEED)
    made = [PortfolioEnv(**OPTIONS, observation="flat") for _ in range(LANES)]
    envs = DummyVectorEnv([lambda env=env: env for env in made])
    net = PerAssetActorCritic(MarketRows.of(made[0]))
    policy = ProbabilisticActorPolicy(
        actor=Actor(net),
        dist_fn=lambda parts: Independent(Normal(*parts), 1),
        action_space=made[0].action_space,
        action_scaling=False,
        action_bound_method=None,  # the environment clips
    )
    algorithm = PPO(
        policy=policy,
        critic=Critic(net),
        optim=AdamOptimizerFactory(lr=1e-3),
        ent_coef=0.0,
        max_grad_norm=0.5,
        max_batchsize=LANES * STEPS,
        gamma=0.9,
    )
    buffer = VectorReplayBuffer(LANES * STEPS, LANES)
    collector = Collector(algorithm, envs, buffer)
    envs.seed(SEED)  # resets, and so does the collector
    collector.reset()
    clock, record = Clock(), []
    for _ in range(UPDATES):
        collector.collect(n_step=LANES * STEPS)
        lane = buffer.buffers[LANE]
        record.append([th.as_tensor(part.copy()) for part in (lane.act, lane.rew, lane.done)])
        with policy_within_training_step(algorithm.policy):
            algorithm.update(buffer, batch_size=LANES * STEPS // 4, repeat=5)
        collector.reset_buffer(keep_statistics=True)
    print(clock.speed(UPDATES * STEPS * LANES))

    parts = [th.cat(part).numpy() for part in zip(*record, strict=True)]
    print(replay(*parts, SEED + LANE, resets=2))
    with th.no_grad():
        print(judge(lambda shown: net(shown)[0].numpy()))


if __name__ == "__main__":
    main()
