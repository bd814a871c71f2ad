"""PPO in one file, as CleanRL writes it: a loop in plain torch over the native vector environment.

    python examples/cleanrl_ppo.py --policy per_asset --autoreset next_step

What the end of an episode asks for in each autoreset mode stands in ``stepped``. Episodes are cut
by their length, not ended by what happened: the value of their last observation counts.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch as th
from common import OPTIONS, Clock, judge, replay
from gymnasium.vector import AutoresetMode
from torch import nn
from torch.distributions import Normal

from agents import MarketRows, PerAssetActorCritic
from portfolio_env import PortfolioVectorEnv

STEPS, EPOCHS, MINIBATCHES = 32, 5, 4
GAMMA, LAMBDA, CLIP, LEARNING_RATE = 0.9, 0.95, 0.2, 1e-3
OBSERVATION = {"flat": "flat", "per_asset": "index"}


class FlatActorCritic(nn.Module):
    """One network over all assets at once, which needs more samples than one per asset."""

    def __init__(self, inputs: int, actions: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, actions))
        self.critic = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 1))
        self.log_std = nn.Parameter(th.full((actions,), -0.5))

    def forward(self, observation: Any) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Return means, log standard deviations and values of a batch."""
        x = th.as_tensor(observation)
        return self.actor(x), self.log_std.expand(len(x), -1), self.critic(x).squeeze(-1)


def network(env: PortfolioVectorEnv, policy: str) -> nn.Module:
    """Return the actor and critic of a name."""
    if policy == "per_asset":
        return PerAssetActorCritic(MarketRows.of(env))
    inputs, actions = env.single_observation_space.shape[0], env.single_action_space.shape[0]
    return FlatActorCritic(inputs, actions)


def mapped(function: Any, *observations: Any) -> Any:
    """Apply a function of arrays to every part of observations that are Dicts."""
    if isinstance(observations[0], dict):
        return {key: function(*(each[key] for each in observations)) for key in observations[0]}
    return function(*observations)


def stepped(env: PortfolioVectorEnv, action: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Step the lanes in any autoreset mode.

    Returns:
        The observation to act on next; rewards; which lanes were terminated; which ended; the last
        observations of those that ended, or None where the next one to act on is just that.
    """
    observation, reward, terminated, truncated, infos = env.step(action)
    ended, last = terminated | truncated, None
    if ended.any() and env.autoreset_mode is AutoresetMode.SAME_STEP:
        # the observation is the next episode's first
        last = mapped(lambda *parts: np.stack(parts), *infos["final_obs"][ended])
    elif ended.any() and env.autoreset_mode is AutoresetMode.DISABLED:
        last = mapped(lambda part: part[ended], observation)
        observation, _ = env.reset(options={"reset_mask": ended})
    # NEXT_STEP: the observation is the last; the step that follows resets, whatever the action
    return observation, reward, terminated, ended, last


@th.no_grad()
def collect(env: PortfolioVectorEnv, net: nn.Module, observation: Any, ended: Any) -> Any:
    """Return ``STEPS`` steps of all lanes as tensors (STEPS, B, ...), and where to continue.

    Args:
        env: The environment.
        net: Actor and critic.
        observation: First observations.
        ended: (B,) lanes whose episode ended in the step before.
    """
    resets_next = env.autoreset_mode is AutoresetMode.NEXT_STEP
    steps: dict[str, list[Any]] = {}
    lasts = []
    for step in range(STEPS):
        mean, log_std, value = net(observation)
        noise = Normal(mean, log_std.exp())
        action = noise.sample()
        now = {"observation": observation, "action": action, "value": value}
        now |= {"log_prob": noise.log_prob(action).sum(-1)}
        now |= {"valid": ~ended if resets_next else np.ones_like(ended)}
        observation, reward, terminated, ended, last = stepped(env, action.numpy())
        now |= {"reward": np.float32(reward), "terminated": terminated, "ended": ended}
        if last is not None:
            lasts.append((step, ended, last))
        for name, part in now.items():
            steps.setdefault(name, []).append(part)
    kept = {name: mapped(lambda *p: th.as_tensor(np.stack(p)), *steps[name]) for name in steps}
    following = th.cat([kept["value"][1:], net(observation)[2][None]])
    for step, lanes, last in lasts:
        following[step, th.as_tensor(lanes)] = net(last)[2]
    kept["advantage"] = advantages(kept, following)
    kept["return"] = kept["advantage"] + kept["value"]
    return kept, observation, ended


def advantages(kept: dict[str, th.Tensor], following: th.Tensor) -> th.Tensor:
    """Return generalised advantages (Schulman et al. 2016); the value is 0 only after ruin."""
    errors = kept["reward"] + GAMMA * following * ~kept["terminated"] - kept["value"]
    out, carried = th.empty_like(errors), th.zeros_like(errors[0])
    for step in reversed(range(STEPS)):
        carried = errors[step] + GAMMA * LAMBDA * carried * ~kept["ended"][step]
        out[step] = carried
    return out


def update(net: nn.Module, optimiser: th.optim.Optimizer, kept: dict[str, Any]) -> None:
    """Run the epochs of PPO over one collection, without the steps that only reset a lane."""
    valid = kept.pop("valid").flatten()
    data = {name: mapped(lambda x: x.flatten(0, 1)[valid], part) for name, part in kept.items()}
    for _ in range(EPOCHS):
        for rows in th.randperm(int(valid.sum())).tensor_split(MINIBATCHES):
            batch = {name: mapped(lambda x, r=rows: x[r], part) for name, part in data.items()}
            mean, log_std, value = net(batch["observation"])
            log_prob = Normal(mean, log_std.exp()).log_prob(batch["action"]).sum(-1)
            ratio = (log_prob - batch["log_prob"]).exp()
            gain = batch["advantage"]
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            surrogate = th.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
            loss = 0.5 * (batch["return"] - value).square().mean() - surrogate
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimiser.step()


def train(
    env: PortfolioVectorEnv, net: nn.Module, updates: int, seed: int, lane: int
) -> tuple[Any, ...]:
    """Train; return actions, rewards and ends of one lane as they were learnt from."""
    optimiser = th.optim.Adam(net.parameters(), LEARNING_RATE)
    observation, _ = env.reset(seed=seed)
    ended, record = np.zeros(env.num_envs, bool), []
    for number in range(updates):
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 - number / updates)
        kept, observation, ended = collect(env, net, observation, ended)
        record.append([kept[name][:, lane].numpy() for name in ("action", "reward", "ended")])
        update(net, optimiser, kept)
    return tuple(np.concatenate(part) for part in zip(*record, strict=True))


def main() -> None:
    """Train, replay one lane, compare with equal weight."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--policy", choices=OBSERVATION, default="per_asset")
    modes = [mode.name.lower() for mode in AutoresetMode]
    parser.add_argument("--autoreset", choices=modes, default="same_step")
    parser.add_argument("--lanes", type=int, default=256)
    parser.add_argument("--updates", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    th.manual_seed(args.seed)
    mode, observes = AutoresetMode[args.autoreset.upper()], OBSERVATION[args.policy]
    env = PortfolioVectorEnv(
        args.lanes, **OPTIONS, observation=observes, autoreset_mode=mode, stagger=True
    )
    net, lane, clock = network(env, args.policy), args.lanes // 3, Clock()
    record = train(env, net, args.updates, args.seed, lane)
    print(clock.speed(args.updates * STEPS * args.lanes))
    print(replay(*record, args.seed + lane, next_step=mode is AutoresetMode.NEXT_STEP))
    with th.no_grad():
        print(judge(lambda shown: net(shown)[0].numpy(), observes))


if __name__ == "__main__":
    main()
