"""Interface between decision and money: a policy decides, an executor trades.

The protocol says how accounts are read and not how they trade: an environment hands the actions to
its executor in its own ``step``, in whatever way that takes them, and shows it as
``env.unwrapped.executor``. The simulator is one; an environment that trades with a broker has
another. ``evaluation.backtest`` acts through the environment and reads the accounts here.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


class Account(NamedTuple):
    """B accounts between two steps; weights put cash first and sum to 1.

    Attributes:
        timestamps: (B,) time of the last closed bar.
        values: (B,) account values, in money.
        weights: (B, N + 1) weights that the market left.
        held: (B, N + 1) weights right after the last trade.
        money: (B, N + 1) money in every slot when the next trade starts: at the close, or as far
            as it is known at the next open.
        turnovers: (B,) traded notional of the last trade over wealth.
        costs: (B,) money that it cost.
        carries: (B,) money earned on cash less interest paid, in the last step.
        cash_returns: (B,) what a unit of cash earned in the last step; ratios of reward over risk
            are of returns in excess of it.
        unfilled: (B,) orders of the last trade that were not filled, in sum over wealth.
    """

    timestamps: NDArray[np.datetime64]
    values: Float
    weights: Float
    held: Float
    money: Float
    turnovers: Float
    costs: Float
    carries: Float
    cash_returns: Float | float = 0.0
    unfilled: Float | float = 0.0


class Executor(Protocol):
    """Executor protocol: trades the decisions of a policy, called by ``step`` of its environment.

    Attributes:
        action: Kind of action that it takes, "weights" or "logits".
        num_lanes: Number B of accounts.
    """

    action: str
    num_lanes: int

    @property
    def asset_names(self) -> list[tuple[str, ...]]:
        """Names of the N assets of every account, without cash."""
        ...

    @property
    def periods_per_year(self) -> float | None:
        """Steps per year where they were stated; None to count them by the timestamps."""
        ...

    def account(self) -> Account:
        """Return the accounts as they are now, in arrays that later steps do not change."""
        ...
