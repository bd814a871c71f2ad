"""PPO of skrl over the native vector environment, with a network shared over assets.

    python examples/skrl_ppo.py

skrl takes the observation of a step for that in which the step ended, so lanes must be reset in the
step after (NEXT_STEP): in SAME_STEP mode ``time_limit_bootstrap`` would add the value of the next
episode's first observation. The steps that only reset a lane, one in 251, are learnt from.
"""

from __future__ import annotations

from typing import Any

import torch as th
from common import OPTIONS, Clock, judge, replay
from skrl.agents.torch.ppo import PPO, PPO_CFG
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model
from skrl.trainers.torch import SequentialTrainer
from skrl.utils import set_seed

from agents import MarketRows, PerAssetActorCritic
from portfolio_env import PortfolioVectorEnv

LANES, STEPS, UPDATES, SEED, LANE = 256, 32, 25, 0, 85


class PerAsset(GaussianMixin, DeterministicMixin, Model):
    """Policy and value in one model; skrl calls it once for each with the same observations."""

    def __init__(self, env: PortfolioVectorEnv) -> None:
        space, actions = env.single_observation_space, env.single_action_space
        Model.__init__(self, observation_space=space, action_space=actions, device="cpu")
        GaussianMixin.__init__(self)
        DeterministicMixin.__init__(self)
        self.net = PerAssetActorCritic(MarketRows.of(env))
        self._judged: tuple[Any, Any] = (None, None)

    def act(self, inputs: dict[str, Any], *, role: str = "") -> tuple[th.Tensor, dict[str, Any]]:
        """Return sampled actions for the role of the policy, values for that of the value."""
        kind = GaussianMixin if role == "policy" else DeterministicMixin
        return kind.act(self, inputs, role=role)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[th.Tensor, dict[str, Any]]:
        """Return means and log standard deviations, or values (batch, 1)."""
        observations = inputs["observations"]
        if role == "value" and self._judged[0] is observations:
            return self._judged[1], {}
        mean, log_std, value = self.net(observations)
        self._judged = observations, value.unsqueeze(-1)
        return (mean, {"log_std": log_std}) if role == "policy" else (self._judged[1], {})


class RecordingPPO(PPO):
    """PPO that records one lane's transitions, before it adds bootstrapped values to them."""

    def record_transition(self, **given: Any) -> None:
        """Record a transition of all lanes."""
        lane = {name: given[name][LANE].clone() for name in ("actions", "rewards", "truncated")}
        self.record.append(lane | {"ended": lane["truncated"] | given["terminated"][LANE]})
        super().record_transition(**given)

    record: list[dict[str, th.Tensor]]


def main() -> None:
    """Train, replay one lane, compare with equal weight."""
    set_seed(SEED)  # also the seed with which skrl resets the environment
    lanes = PortfolioVectorEnv(
        LANES, **OPTIONS, observation="flat", autoreset_mode="NextStep", stagger=True
    )
    env, model = wrap_env(lanes, wrapper="gymnasium", verbose=False), PerAsset(lanes)
    cfg = PPO_CFG(
        rollouts=STEPS,
        learning_epochs=5,
        mini_batches=4,
        discount_factor=0.9,
        learning_rate_scheduler=th.optim.lr_scheduler.LinearLR,
        # stepped once an epoch
        learning_rate_scheduler_kwargs={"end_factor": 0.01, "total_iters": 5 * UPDATES},
        value_clip=0,
        value_loss_scale=0.5,
        time_limit_bootstrap=True,
        experiment={"write_interval": 0, "checkpoint_interval": 0},
    )
    agent = RecordingPPO(
        models={"policy": model, "value": model},
        memory=RandomMemory(memory_size=STEPS, num_envs=LANES, device="cpu"),
        cfg=cfg,
        observation_space=env.observation_space,
        action_space=env.action_space,
        device="cpu",
    )
    agent.record = []
    settings = {"timesteps": UPDATES * STEPS, "headless": True, "disable_progressbar": True}
    clock = Clock()
    SequentialTrainer(env=env, agents=agent, cfg=settings).train()
    print(clock.speed(UPDATES * STEPS * LANES))

    names = ("actions", "rewards", "ended")
    parts = [th.stack([step[name] for step in agent.record]).numpy() for name in names]
    print(replay(parts[0], parts[1][:, 0], parts[2][:, 0], SEED + LANE, next_step=True))
    with th.no_grad():
        print(judge(lambda shown: model.net(shown)[0].numpy()))


if __name__ == "__main__":
    main()
