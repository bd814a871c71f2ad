"""The vector environment as a Stable-Baselines3 ``VecEnv``."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from portfolio_env import Market, PortfolioVectorEnv
from portfolio_env.errors import ArgumentError

Info = dict[str, Any]


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment in SAME_STEP autoreset mode as the VecEnv that SB3 expects.

    Step by step equal to SB3's ``DummyVecEnv`` over single environments seeded ``s, s + 1, ...``:
    on a done lane the observation is that of the next episode, ``info`` is that of the last step
    with ``terminal_observation`` and ``TimeLimit.truncated``, and the next episode's info is in
    ``reset_infos``.

    Args:
        venv: An environment whose infos have the same scalar keys for every lane, at every step
            and reset.

    Raises:
        ArgumentError: If its autoreset mode is not SAME_STEP.
    """

    def __init__(self, venv: VectorEnv[Any, Any, Any]) -> None:
        mode = venv.metadata.get("autoreset_mode")
        if mode != AutoresetMode.SAME_STEP:
            raise ArgumentError(
                f"SB3 resets a lane in the step that ends its episode, autoreset_mode={mode} does "
                "not; build the environment with autoreset_mode=AutoresetMode.SAME_STEP"
            )
        self.venv = venv
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset every lane with the seeds and options given before, which are then forgotten."""
        if any(options != self._options[0] for options in self._options):
            raise ArgumentError(
                "options differ between lanes; pass one dict, it holds for all of them"
            )
        seeds: Any = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        obs, infos = self.venv.reset(seed=seeds, options=self._options[0] or None)
        self.reset_infos = _rows(infos)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions (lanes, 1 + assets) for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step every lane; rewards are float32 as in SB3's own VecEnvs."""
        obs, rewards, terminated, truncated, infos = self.venv.step(self._actions)
        dones = terminated | truncated
        time_limit = (truncated & ~terminated).tolist()
        rows = _rows(infos, time_limit)
        if dones.any():
            final_rows = _rows(infos["final_info"], time_limit)
            for lane in np.flatnonzero(dones):
                self.reset_infos[lane] = rows[lane]
                del self.reset_infos[lane]["TimeLimit.truncated"]
                rows[lane] = final_rows[lane] | {"terminal_observation": infos["final_obs"][lane]}
        return obs, rewards.astype(np.float32), dones, rows

    def close(self) -> None:
        """Close the environment."""
        self.venv.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return one RGB array per lane where ``render_mode="rgb_array"``."""
        frames: Any = self.venv.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return each lane's attribute: its element of a per-lane array, else the shared value."""
        if attr_name in ("observation_space", "action_space"):
            attr_name = f"single_{attr_name}"
        value = getattr(self.venv, attr_name)
        per_lane = isinstance(value, np.ndarray | tuple | list) and len(value) == self.num_envs
        return [value[lane] if per_lane else value for lane in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute that all lanes share.

        Raises:
            ArgumentError: If ``indices`` names some of the lanes only.
        """
        if set(self._get_indices(indices)) != set(range(self.num_envs)):
            raise ArgumentError(f"lanes share {attr_name!r}; set it without indices")
        setattr(self.venv, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method of the environment once and return each lane's part of the result."""
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        per_lane = isinstance(result, np.ndarray | tuple | list) and len(result) == self.num_envs
        return [result[lane] if per_lane else result for lane in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Return False for each lane: lanes are rows of arrays, which no wrapper can wrap."""
        return [False for _ in self._get_indices(indices)]


def _rows(infos: Info, time_limit: list[bool] | None = None) -> list[Info]:
    """Return a vector environment's info arrays as one dict per lane, in plain Python numbers."""
    keys = [
        key for key in infos if not key.startswith("_") and key not in ("final_obs", "final_info")
    ]
    columns = [infos[key].tolist() for key in keys]
    if time_limit is not None:
        keys.append("TimeLimit.truncated")
        columns.append(time_limit)
    return _row_builder(tuple(keys))(columns)


@cache
def _row_builder(keys: tuple[str, ...]) -> Callable[[list[list[Any]]], list[Info]]:
    """Compile a function from columns to one dict per row, as dataclasses generate their methods.

    A dict display with fixed keys takes half the time of ``dict(zip(keys, row))``, and these dicts
    are most of what a step costs.
    """
    values = ", ".join(f"v{i}" for i in range(len(keys)))
    items = ", ".join(f"{key!r}: v{i}" for i, key in enumerate(keys))
    builder: Callable[[list[list[Any]]], list[Info]] = eval(
        f"lambda columns: [{{{items}}} for {values}, in zip(*columns)]"
    )
    return builder


def make_sb3_vec_env(
    market: Market | str, num_envs: int = 1, *, seed: int | None = None, **env_options: Any
) -> VecMonitor:
    """Build ``num_envs`` lanes of the portfolio environment for SB3, monitored for episode returns.

    Args:
        market: A market, or the name or path of one.
        num_envs: Number of lanes, at least 1.
        seed: Lane i draws from seed + i at the first reset; None for fresh randomness.
        env_options: Further keywords of ``PortfolioVectorEnv``, such as ``observation="index"``.

    Returns:
        The VecEnv; ``venv.unwrapped.venv`` is the vector environment itself.
    """
    if "autoreset_mode" in env_options:
        raise ArgumentError("SB3 resets lanes in the step that ends them; leave autoreset_mode out")
    lanes = PortfolioVectorEnv(
        num_envs, market=market, autoreset_mode=AutoresetMode.SAME_STEP, **env_options
    )
    venv = VecMonitor(SB3VecEnv(lanes))
    if seed is not None:
        venv.seed(seed)
    return venv
