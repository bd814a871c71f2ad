"""Fills: the part of each order that is executed at its bar; seeded options of the economics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.checks import (
    as_dataclass,
    check_fields,
    check_number,
    known_fields,
    short_repr,
)
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market import PricePanel

Float = NDArray[np.float64]
Keys = NDArray[np.uint64]


@known_fields
@dataclass(frozen=True, repr=False)
class Fills:
    r"""Shares of orders that are executed; by default all of every order. Frozen, JSON-able.

    An order of notional ``q`` in one asset, which the policy's target asks for, is executed as

    .. math:: \mathrm{sign}(q) \, \min(u \, |q|, \; \phi \, v \, p)

    with a random share ``u``, the participation ``phi``, and the volume ``v`` and the price ``p``
    of the bar at which the order is executed. The rest of the order lapses: it is not worked on at
    later bars, where the policy decides again. Prices and rates of what is executed are those of
    ``TransactionCosts``, half-spread and market impact included.

    A draw depends on the key that an episode draws from its environment's generator, on the bar and
    on the asset, and on nothing else: ``reset(seed=...)`` repeats it, whatever is ordered.

    Attributes:
        participation: Largest share in (0, 1] of an asset's volume in a bar that an order is filled
            from; None is no limit. Needs a market with volumes.
        failure: Probability in [0, 1] that an order fails: nothing of it is executed.
        partial: Probability in [0, 1] that an order is executed in part: a share of it, uniform in
            (0, 1). At most 1 together with ``failure``.
    """

    participation: float | None = None
    failure: float = 0.0
    partial: float = 0.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self)
        if self.participation is not None:
            check_number("participation", self.participation, above=0, high=1)
        for name in ("failure", "partial"):
            check_number(name, getattr(self, name), 0, 1)
        if self.failure + self.partial > 1:
            raise ArgumentError(
                f"failure={self.failure:g} and partial={self.partial:g} are probabilities of "
                "different orders and sum to more than 1; lower one of them."
            )

    @property
    def complete(self) -> bool:
        """Return whether every order is executed as a whole: nothing is limited or drawn."""
        return self.participation is None and not self.random

    @property
    def random(self) -> bool:
        """Return whether anything is drawn."""
        return self.failure > 0 or self.partial > 0

    def capacity(self, panel: PricePanel, next_open: bool) -> Float:
        """Return the money that an order can be filled with in each step from t to t + 1.

        Args:
            panel: Prices and volumes.
            next_open: Orders of step t are executed at the open of bar t + 1, within the volume of
                that bar; else at the close of bar t, within that of bar t.

        Returns:
            (T - 1, N) float64, 0 where there is no bar; (0, 0) without a limit.

        Raises:
            DataError: If the market has no volumes.
        """
        if self.participation is None:
            return np.zeros((0, 0))
        if panel.volume is None:
            raise DataError(
                f"participation={self.participation:g} needs traded volumes, which this market "
                "lacks; use data with a volume column, or leave participation out."
            )
        bars = slice(1, None) if next_open else slice(-1)
        prices = panel.open if next_open and panel.open is not None else panel.close
        return np.nan_to_num(self.participation * panel.volume[bars] * prices[bars], posinf=np.inf)

    def shares(self, keys: Keys, rows: NDArray[np.int64], assets: NDArray[np.int64]) -> Float:
        """Return (B, N) largest shares in [0, 1] of orders that are executed.

        One uniform number decides: in [0, ``failure``) the order fails, in the interval of length
        ``partial`` above it the place within it is the share.

        Args:
            keys: (B,) keys of the episodes.
            rows: (B,) bars of the market.
            assets: (B, N) columns of the market.
        """
        streams = _mixed(keys + _STEP * (rows + 1).astype(np.uint64))
        drawn = _mixed(streams[:, None] + _STEP * (assets + 1).astype(np.uint64))
        uniform = (drawn >> np.uint64(11)) * 2.0**-53
        if self.partial == 0:
            return (uniform >= self.failure).astype(np.float64)
        shares: Float = np.clip((uniform - self.failure) / self.partial, 0.0, 1.0)
        return shares


FillSpec = Fills | Mapping[str, Any]
"""What ``fills=`` takes."""


def draw_key(generator: np.random.Generator) -> int:
    """Return the key of an episode's fills."""
    return int(generator.random() * 2**53)


def made_fills(spec: FillSpec) -> Fills:
    """Return the fills of a specification: themselves, or a mapping of their fields.

    Raises:
        ArgumentError: If it is neither, or a field is unknown or out of its range.

    >>> made_fills({"participation": 0.05, "failure": 0.01})
    Fills(participation=0.05, failure=0.01)
    """
    return as_dataclass(Fills, spec, "fills")


# Of splitmix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"): it
# mixes a counter, so that any draw can be had alone.
_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _mixed(state: Keys) -> Keys:
    """Return the outputs of splitmix64 at its states; arithmetic is modulo 2**64."""
    z = (state ^ (state >> np.uint64(30))) * _FACTORS[0]
    z = (z ^ (z >> np.uint64(27))) * _FACTORS[1]
    return z ^ (z >> np.uint64(31))
