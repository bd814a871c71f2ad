"""PPO of TorchRL over the native vector environment, with a network shared over assets.

    python examples/torchrl_ppo.py

TorchRL takes SAME_STEP and DISABLED and refuses NEXT_STEP. In SAME_STEP mode its wrapper puts the
last observation of an episode where it belongs, but resets the environment once more when all lanes
end in the same step: ``stagger=True`` keeps them from that.
"""

from __future__ import annotations

import torch as th
from common import OPTIONS, Clock, judge, replay
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper
from torchrl.modules import IndependentNormal, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from agents import MarketRows, PerAssetActorCritic
from portfolio_env import PortfolioVectorEnv

LANES, STEPS, UPDATES, SEED, LANE = 256, 32, 25, 0, 85
EPOCHS, MINIBATCHES, LEARNING_RATE = 5, 4, 1e-3


class Side(nn.Module):
    """One side of the network, for observations of any leading shape."""

    def __init__(self, net: PerAssetActorCritic) -> None:
        super().__init__()
        self.net = net

    def both(self, observation: th.Tensor) -> tuple[th.Tensor, ...]:
        """Return means, log standard deviations and values."""
        shape = observation.shape[:-1]
        parts = self.net(observation.reshape(-1, observation.shape[-1]))
        return tuple(part.unflatten(0, shape) for part in parts)


class Actor(Side):
    """Means and standard deviations of actions."""

    def forward(self, observation: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Return means and standard deviations, each (..., N + 1)."""
        mean, log_std, _ = self.both(observation)
        return mean, log_std.exp()


class Critic(Side):
    """Values."""

    def forward(self, observation: th.Tensor) -> th.Tensor:
        """Return values (..., 1)."""
        return self.both(observation)[2].unsqueeze(-1)


def main() -> None:
    """Train, replay one lane, compare with equal weight."""
    th.manual_seed(SEED)
    lanes = PortfolioVectorEnv(
        LANES, **OPTIONS, observation="flat", autoreset_mode="SameStep", stagger=True
    )
    env, net = GymWrapper(lanes), PerAssetActorCritic(MarketRows.of(lanes))
    actor = ProbabilisticActor(
        TensorDictModule(Actor(net), ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )
    critic = TensorDictModule(Critic(net), ["observation"], ["state_value"])
    estimate = GAE(gamma=0.9, lmbda=0.95, value_network=critic)
    loss_of = ClipPPOLoss(
        actor,
        critic,
        entropy_bonus=False,
        critic_coeff=0.5,
        loss_critic_type="l2",
        normalize_advantage=True,
        functional=False,  # the two share their parameters
    )
    optimiser = th.optim.Adam(net.parameters(), LEARNING_RATE)
    env.set_seed(SEED)  # resets; the collector resets again
    batch, record = LANES * STEPS, []
    collector = Collector(
        env,
        actor,
        frames_per_batch=batch,
        total_frames=UPDATES * batch,
        auto_register_policy_transforms=False,  # the policy needs none
    )
    clock = Clock()
    for number, data in enumerate(collector):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - number / UPDATES)
        lane = data[LANE]
        record.append((lane["action"], lane["next", "reward"][:, 0], lane["next", "done"][:, 0]))
        with th.no_grad():
            estimate(data)
        data = data.reshape(-1)
        for _ in range(EPOCHS):
            for rows in th.randperm(batch).tensor_split(MINIBATCHES):
                losses = loss_of(data[rows])
                optimiser.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"]).backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimiser.step()
    print(clock.speed(UPDATES * batch))
    collector.shutdown()

    parts = [th.cat(part).numpy() for part in zip(*record, strict=True)]
    print(replay(*parts, SEED + LANE, resets=2))
    with th.no_grad():
        print(judge(lambda shown: net(shown)[0].numpy()))


if __name__ == "__main__":
    main()
