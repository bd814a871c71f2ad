"""Buffers for index observations, which do not store the market again; rollouts grouped by bar."""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, DictRolloutBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from agents.encoding.market_rows import ON_CPU
from agents.encoding.memory import copied_to
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.fingerprints import check_fingerprints, fingerprints_in

FIX = "call agents.bind_market(agent, market)"
FORGET = (
    "the replay buffer holds transitions of one market; agents.policy_for(agent, venv) gives a "
    "copy of the policy that acts in the other, agent.replay_buffer.reset() forgets it"
)


class IndexReplayBuffer(ReplayBuffer):
    """Replay buffer of ``"index"`` observations: a few hundred bytes per transition at any window.

    Time and universe are stored once: the next observation is at ``t + 1`` with the same assets.
    Which of them trade is read from the market at sampling, see ``bind``. All it holds is of one
    market, known by the fingerprint of the first observation: no other's are taken, bound or not.
    Samples equal those of SB3's ``DictReplayBuffer``.

    Args:
        buffer_size: Transitions over all lanes.
        observation_space: Dict with ``t``, ``market``, ``tradable``, ``weights`` and, where the
            universe is sampled, ``assets``.
        action_space: Box of logits or weights.
        device: Torch device of the samples.
        n_envs: Number of lanes.
        optimize_memory_usage: SB3's option; there is nothing left to optimise, so it must be False.
        handle_timeout_termination: Bootstrap at time limits.
    """

    observation_space: spaces.Dict
    market: Market | None = None
    fingerprint: int | None = None  # fingerprint of the stored market

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Dict,
        action_space: spaces.Box,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        known = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
        if not {"t", "market"} <= known.keys():
            raise ArgumentError(
                f"IndexReplayBuffer stores index observations, got {observation_space}; build the "
                'environment with observation="index"'
            )
        if optimize_memory_usage:
            raise ArgumentError("optimize_memory_usage=True is not available here; leave it out")
        # Not ReplayBuffer's constructor: it would allocate the observations.
        super(ReplayBuffer, self).__init__(
            buffer_size, observation_space, action_space, device, n_envs=n_envs
        )
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = False
        self.handle_timeout_termination = handle_timeout_termination
        lanes = (self.buffer_size, n_envs)
        n_weights = spaces.flatdim(observation_space["weights"])
        self.columns: dict[str, npt.NDArray[Any]] = {
            "t": np.zeros(lanes, np.int32),
            "weights": np.zeros((*lanes, n_weights), np.float32),
            "next_weights": np.zeros((*lanes, n_weights), np.float32),
            "actions": np.zeros((*lanes, self.action_dim), np.float32),
            "rewards": np.zeros(lanes, np.float32),
            "dones": np.zeros(lanes, np.bool_),
            "timeouts": np.zeros(lanes, np.bool_),
        }
        if "assets" in observation_space.spaces:
            space = observation_space["assets"]
            # Typed as any space; the environment gives a Box.
            dtype = np.min_scalar_type(int(space.high.max()))  # type: ignore[attr-defined]
            self.columns["assets"] = np.zeros((*lanes, spaces.flatdim(space)), dtype)

    def bind(self, market: Market) -> None:
        """Attach the market of the transitions, shared, not copied.

        Raises:
            ArgumentError: If it holds transitions of another.
        """
        if self.fingerprint is not None:
            check_fingerprints(np.array([self.fingerprint]), market.fingerprint, FORGET)
        self.market = market

    def reset(self) -> None:
        """Forget what is stored, and the market it belongs to."""
        super().reset()
        self.fingerprint = None

    def add(  # type: ignore[override]  # dictionaries, as in SB3's DictReplayBuffer
        self,
        obs: dict[str, npt.NDArray[Any]],
        next_obs: dict[str, npt.NDArray[Any]],
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition of every lane.

        Raises:
            ArgumentError: If an observation is of another market than what is bound or stored.
        """
        seen = [np.asarray(fingerprints_in(each)) for each in (obs, next_obs)]
        held = self.fingerprint
        if self.market is not None:
            held = self.market.fingerprint
        elif held is None:
            first = float(seen[0].flat[0])
            held = int(first) if first.is_integer() else -1
        for numbers in seen:
            check_fingerprints(numbers, held, FIX if self.market is not None else FORGET)
        self.fingerprint = held
        row = {
            "t": obs["t"][:, 0],
            "weights": obs["weights"],
            "next_weights": next_obs["weights"],
            "actions": action.reshape(self.n_envs, self.action_dim),
            "rewards": reward,
            "dones": done,
        }
        if "assets" in self.columns:
            row["assets"] = obs["assets"]
        if self.handle_timeout_termination:
            row["timeouts"] = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        for name, values in row.items():
            self.columns[name][self.pos] = values
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0

    def _get_samples(  # type: ignore[override]  # dictionaries, as in SB3's DictReplayBuffer
        self, batch_inds: npt.NDArray[np.int_], env: VecNormalize | None = None
    ) -> DictReplayBufferSamples:
        lanes = np.random.randint(0, self.n_envs, size=len(batch_inds))
        row = {name: column[batch_inds, lanes] for name, column in self.columns.items()}
        obs = self._observation(row, row["t"].astype(np.int64), "weights")
        next_obs = self._observation(row, row["t"].astype(np.int64) + 1, "next_weights")
        dones = (row["dones"] & ~row["timeouts"]).astype(np.float32)
        rewards = self._normalize_reward(row["rewards"].reshape(-1, 1), env)
        return DictReplayBufferSamples(
            observations=self._to_tensors(obs, env),
            actions=self.to_torch(row["actions"]),
            next_observations=self._to_tensors(next_obs, env),
            dones=self.to_torch(dones.reshape(-1, 1)),
            rewards=self.to_torch(rewards),
        )

    def _observation(
        self, row: dict[str, npt.NDArray[Any]], t: npt.NDArray[np.int64], weights: str
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the observation at bar ``t``, as the environment gave it."""
        if self.market is None:
            raise ArgumentError(
                "the replay buffer does not know the market; call agents.bind_market(model, market)"
            )
        obs = {"t": t[:, None], "weights": row[weights]}
        obs["market"] = np.full((len(t), 1), self.market.fingerprint)
        tradable = self.market.tradable
        if "assets" in row:
            obs["assets"] = row["assets"].astype(np.int64)
            obs["tradable"] = tradable[t[:, None], obs["assets"]].astype(np.int8)
        else:
            obs["tradable"] = tradable[t].astype(np.int8)
        return obs

    def _to_tensors(
        self, obs: dict[str, npt.NDArray[Any]], env: VecNormalize | None
    ) -> dict[str, th.Tensor]:
        normalised: Any = self._normalize_obs(obs, env)
        return {
            key: copied_to(value, "cpu" if key in ON_CPU else self.device)
            for key, value in normalised.items()
        }

    def to_torch(self, array: npt.NDArray[Any], copy: bool = True) -> th.Tensor:
        """Return an array that was made for one sample, without waiting for a GPU."""
        return copied_to(array, self.device)


def buffer_state(buffer: ReplayBuffer) -> dict[str, Any]:
    """Return what has been stored so far, not copied: an array per column, and the position.

    Args:
        buffer: An ``IndexReplayBuffer`` or one of SB3's own.
    """
    stored = {name: column[: buffer.size()] for name, column in _columns(buffer).items()}
    market = buffer.fingerprint if isinstance(buffer, IndexReplayBuffer) else None
    return {"pos": buffer.pos, "full": buffer.full, "market": market, "columns": stored}


def restore_buffer(buffer: ReplayBuffer, state: dict[str, Any]) -> None:
    """Restore a ``buffer_state``.

    Raises:
        ArgumentError: If it is of a buffer of another size or shape, or of another market than the
            one that is bound.
    """
    pos, full, size = int(state["pos"]), bool(state["full"]), buffer.buffer_size
    market = state.get("market")  # absent in older states
    if isinstance(buffer, IndexReplayBuffer) and buffer.market is not None:
        held = buffer.market.fingerprint
        if market is not None:
            check_fingerprints(np.array([market]), held, FIX)
        market = held
    for name, column in _columns(buffer).items():
        stored = state["columns"].get(name, np.empty(0))
        if full and 0 < len(stored) < size:  # of a smaller buffer: its oldest rows come first
            stored = np.roll(stored, -pos, axis=0)
        rows = min(len(stored), size) if full else pos
        if stored.shape != (rows, *column.shape[1:]) or stored.dtype != column.dtype:
            raise ArgumentError(
                f"column {name!r} has shape {stored.shape} and type {stored.dtype}, this buffer "
                f"holds {column.shape}, {column.dtype}; build it with the same lanes, assets and "
                "size"
            )
        column[:rows] = stored
    if isinstance(buffer, IndexReplayBuffer):
        buffer.fingerprint = market if pos or full else None
    buffer.pos, buffer.full = (pos, full) if not full or rows == size else (rows, False)


def bytes_per_transition(buffer: ReplayBuffer) -> float:
    """Return the bytes per transition of an ``IndexReplayBuffer`` or of one of SB3's buffers."""
    lanes = buffer.buffer_size * buffer.n_envs
    return sum(column.nbytes for column in _columns(buffer).values()) / lanes


def _columns(buffer: ReplayBuffer) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays (steps, lanes, ...) of an ``IndexReplayBuffer`` or SB3's, by name."""
    if isinstance(buffer, IndexReplayBuffer):
        return buffer.columns
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, value in vars(buffer).items():
        if isinstance(value, dict):
            columns |= {f"{name}.{key}": part for key, part in value.items()}
        else:
            columns[name] = value
    lanes = (buffer.buffer_size, buffer.n_envs)
    return {
        name: column
        for name, column in columns.items()
        if isinstance(column, np.ndarray) and column.shape[:2] == lanes
    }


class GroupedRolloutBuffer(DictRolloutBuffer):
    """Rollouts of ``"index"`` observations in minibatches grouped by bar, or by block of bars.

    All samples of a bar share one window of the market. A shuffled minibatch of 512 samples out of
    1,000 bars holds some 400 windows; one that takes bars in random order, and all samples of each,
    holds 32. Each sample still comes once per epoch. With blocks (``history="stream"``) the samples
    of one are taken together, and minibatches of several blocks end where a block does.

    Advantages are normalised over the rollout, since a bar's samples are alike and a minibatch of
    them is not: build the algorithm with ``normalize_advantage=False``.

    Raises:
        ArgumentError: For other observations.
    """

    observation_space: spaces.Dict
    # groups of bars; None makes every bar its own
    groups: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] | None = None

    def reset(self) -> None:
        """Empty the buffer, and check the spaces."""
        if "t" not in self.observation_space.spaces:
            raise ArgumentError(
                f"GroupedRolloutBuffer groups index observations, got {self.observation_space}; "
                'build the environment with observation="index"'
            )
        super().reset()

    def compute_returns_and_advantage(
        self, last_values: th.Tensor, dones: npt.NDArray[np.bool_]
    ) -> None:
        """Compute advantages as SB3 does, then bring them to mean 0 and standard deviation 1."""
        super().compute_returns_and_advantage(last_values, dones)
        self.advantages -= self.advantages.mean()
        self.advantages /= self.advantages.std() + 1e-8

    def get(  # type: ignore[override]  # as SB3's own buffer of dictionaries
        self, batch_size: int | None = None
    ) -> Generator[DictRolloutBufferSamples, None, None]:
        """Yield every sample once, bar by bar or block by block, in random order."""
        if not self.generator_ready:
            next(super().get(1))  # flattens what is stored
        t = self.observations["t"].ravel()
        bars, place = np.unique(t if self.groups is None else self.groups(t), return_inverse=True)
        order = np.argsort(np.random.permutation(len(bars))[place.ravel()], kind="stable")
        size = batch_size or len(order)
        cuts = np.arange(size, len(order), size)
        if self.groups is not None:
            # A block in two minibatches is encoded twice, so they end with the nearest block.
            ends = np.flatnonzero(np.diff(place.ravel()[order])) + 1
            if len(ends) >= 4 * len(cuts) > 0:
                cuts = ends[np.abs(ends[:, None] - cuts).argmin(0)]
        for part in np.split(order, cuts):
            yield self._get_samples(part)

    def _get_samples(  # type: ignore[override]  # as SB3's own buffer of dictionaries
        self, batch_inds: npt.NDArray[np.int_], env: VecNormalize | None = None
    ) -> DictRolloutBufferSamples:
        samples = super()._get_samples(batch_inds, env)
        on_cpu = {
            name: copied_to(column[batch_inds], "cpu")
            for name, column in self.observations.items()
            if name in ON_CPU
        }
        return samples._replace(observations=samples.observations | on_cpu)

    def to_torch(self, array: npt.NDArray[Any], copy: bool = True) -> th.Tensor:
        """Return an array that was made for one minibatch, without waiting for a GPU."""
        return copied_to(array, self.device)
