"""Complete state of a simulator as arrays, from which it continues exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.simulation.rewards import Reward
from portfolio_env.simulation.simulator import Simulator

State = Mapping[str, Mapping[str, NDArray[Any]]]


def simulator_state(simulator: Simulator) -> dict[str, dict[str, NDArray[Any]]]:
    """Return the arrays of the lanes and of the reward by name, copied.

    A reward that is no ``Reward`` must remember nothing.
    """
    lanes = {name: array.copy() for name, array in simulator.lanes._asdict().items()}
    reward = simulator.reward
    return {"lanes": lanes, "reward": reward.state() if isinstance(reward, Reward) else {}}


def restore_simulator(simulator: Simulator, state: State) -> None:
    """Restore the state of a simulator with the same market, lanes and rules.

    Raises:
        ArgumentError: If it is of another one.
    """
    given, lanes, market = state["lanes"], simulator.lanes._asdict(), simulator.market
    for name, array in lanes.items():
        if given[name].shape != array.shape or given[name].dtype != array.dtype:
            raise ArgumentError(
                f"the state's {name} is {given[name].dtype} {given[name].shape}, these lanes have "
                f"{array.dtype} {array.shape}; restore it with the same lanes and assets."
            )
    # compiled code does not check indices
    for name, end in (("clock", market.n_bars), ("assets", market.n_assets)):
        if given[name].min() < 0 or given[name].max() >= end:
            raise ArgumentError(f"the state's {name} leaves [0, {end}), the range of the market's.")
    going = ~given["ended"].any(axis=0)
    if (given["clock"][0] >= given["clock"][1])[going].any():
        raise ArgumentError("the state has lanes that are past the end of their episode.")
    for name, array in lanes.items():
        np.copyto(array, given[name])
    if isinstance(simulator.reward, Reward):
        simulator.reward.restore(state["reward"])
