"""Episodes: the ranges of a market, the assets and the weights that an environment can start in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.timeline import row_of
from portfolio_env.simulation.market_arrays import listed_rows

When = int | str | None
TOLERANCE = 1e-6  # rounding of float32


class Episodes:
    """The episodes of a half-open range ``[start, end)`` of bars.

    An episode that starts at bar t makes its first decision there, having seen bars up to and
    including t, and ends (is truncated) after ``episode_length`` steps, at the latest at bar ``end
    - 1``.

    Args:
        market: The market.
        window: Bars an observation shows; the first start is at ``market.warmup + window - 1``.
        start: Row, date or None for the earliest possible one.
        end: Row, date or None for the market's end.
        episode_length: Steps, or None for as many as the range has.
        random_start: Draw the first bar, else it is always ``start``.
        universe: Number of assets drawn among those listed throughout the episode; None is all
            assets.
        delay: Bars by which observations are late; the first start is as much later.

    Raises:
        ArgumentError: If the range holds no such episode.
    """

    def __init__(
        self,
        market: Market,
        window: int,
        start: When,
        end: When,
        episode_length: int | None,
        random_start: bool,
        universe: int | None,
        delay: int = 0,
    ) -> None:
        """Resolve the range and list the possible first bars."""
        self.market, self.universe, self.random_start = market, universe, bool(random_start)
        self._first, self._last = listed_rows(market.panel)
        earliest = market.warmup + window - 1 + delay
        self.start = earliest if start is None else market.row(start)
        self.end = (
            market.n_bars
            if end in (None, market.n_bars)
            else row_of(market.timestamps, end, end=True)
        )
        late = f", delay={delay}" if delay else ""
        if self.start < earliest:
            raise ArgumentError(
                f"start={start!r} is bar {self.start}, but window={window}{late} and "
                f"{market.warmup} warm-up bars of the features need a start at bar {earliest} or "
                "later; move start or shorten window."
            )
        steps = self.end - 1 - self.start
        if steps < 1:
            raise ArgumentError(
                f"start={start!r} to end={end!r}, bars {self.start} to {self.end}, leave no step; "
                f"a range needs at least 2 bars from its start (the market has {market.n_bars} "
                f"bars, the first {earliest} are history of the features, window={window}{late}): "
                "move start or end, or shorten window."
            )
        if episode_length is not None and episode_length > steps:
            raise ArgumentError(
                f"episode_length={episode_length} exceeds the {steps} steps between bars "
                f"{self.start} and {self.end}; shorten it or widen the range."
            )
        self.length = episode_length
        latest = self.end - 1 - (episode_length or 1) if self.random_start else self.start
        self.starts = np.arange(self.start, latest + 1)
        if universe is not None:
            if not 1 <= universe <= market.n_assets:
                raise ArgumentError(
                    f"universe={universe} must be in [1, {market.n_assets}], the market's assets."
                )
            counts = np.array([len(self.listed(int(t))) for t in self.starts])
            if counts.max() < universe:
                raise ArgumentError(
                    f"universe={universe}, but at most {counts.max()} assets are listed throughout "
                    "an episode; lower universe, shorten episode_length or change the range."
                )
            self.starts = self.starts[counts >= universe]

    @property
    def fixed(self) -> bool:
        """Return whether every episode is the same, so that nothing is drawn."""
        return len(self.starts) == 1 and self.universe is None

    def last_bar(self, t: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bar of the last observation of an episode that starts at bar t."""
        steps = self.end if self.length is None else self.length
        return np.minimum(np.asarray(t) + steps, self.end - 1)

    def listed(self, t: int) -> NDArray[np.int64]:
        """Return columns of the assets listed throughout an episode that starts at bar t."""
        return np.flatnonzero((self._first <= t) & (self._last >= self.last_bar(t)))

    def is_listed(self, t: int | NDArray[np.int64], assets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which assets are listed at t: from their first bar to their last one."""
        return (self._first[assets] <= t) & (self._last[assets] >= t)

    def draw_start(self, generator: np.random.Generator) -> int:
        """Draw the first bar of a new episode, uniform over the possible ones."""
        # ten times as fast as generator.integers, and lanes that end together reset together
        return int(self.starts[int(generator.random() * len(self.starts))])

    def shared_starts(
        self,
        groups: NDArray[np.int64],
        lanes: NDArray[np.bool_],
        goes_on: NDArray[np.bool_],
        clock: NDArray[np.int64],
        generator: Callable[[int], np.random.Generator],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return first bars, and the latest last ones, of lanes that start by groups.

        A group of which no lane goes on draws one start, from the generator of its first lane. Else
        its lanes rejoin it: they start at its bar and end with it.

        Args:
            groups: (B,) group of each lane.
            lanes: (B,) which lanes start; of the others nothing is said.
            goes_on: (B,) which lanes are within an episode.
            clock: (2, B) present and last bar of every lane.
            generator: Gives the random generator of a lane.
        """
        starts = np.full(len(groups), self.starts[0])
        last = np.full(len(groups), self.market.n_bars)
        for group in np.unique(groups[lanes]).tolist():
            joining = np.flatnonzero((groups == group) & lanes)
            others = np.flatnonzero((groups == group) & goes_on)
            if len(others) and len(self.listed(int(clock[0, others[0]]))) >= (self.universe or 0):
                starts[joining], last[joining] = clock[:, others[0]]
            else:
                starts[joining] = self.draw_start(generator(int(joining[0])))
        return starts, last

    def draw_assets(self, t: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw ``universe`` columns in random order from those listed throughout the episode."""
        listed = self.listed(t)
        if self.universe is None or len(listed) < self.universe:
            raise ArgumentError(
                f"only {len(listed)} assets are listed throughout an episode from bar {t}, "
                f"universe={self.universe} needs more; choose another t."
            )
        return generator.permutation(listed)[: self.universe]

    def check_starts(self, t: Any, num_lanes: int) -> NDArray[np.int64]:
        """Return (num_lanes,) first bars of the reset option ``t``: a row, a date, or one per lane.

        Raises:
            ArgumentError: If one lies outside the range.
        """
        rows = np.asarray(self.market.row(t) if isinstance(t, str) else t)
        inside = rows.dtype.kind in "iu" and rows.shape in ((), (num_lanes,))
        if not inside or not ((rows >= self.start) & (rows <= self.end - 2)).all():
            raise ArgumentError(
                f"options['t']={t!r} must be a row (or one per lane, or a date) in [{self.start}, "
                f"{self.end - 2}]: the range of this environment less its last bar."
            )
        return np.broadcast_to(rows, (num_lanes,)).astype(np.int64)


def weights_array(name: str, weights: Any) -> NDArray[np.float64]:
    """Return weights as float64.

    Raises:
        ArgumentError: If they are no numbers.
    """
    try:
        return np.array(weights, dtype=np.float64)
    except (
        TypeError,
        ValueError,
        RuntimeError,
        OverflowError,
    ) as error:  # raised by a tensor, among others
        raise ArgumentError(f"{name}={weights!r} must be numbers, cash first ({error}).") from None


def checked_weights(
    name: str, weights: Any, shape: tuple[int, ...], bounds: Any
) -> NDArray[np.float64]:
    """Return weights to start from, in float64 and summing to 1.

    Money that is borrowed, and shorts, are held to the constraints. Other bounds are not asked: an
    account that the market moved out of them may go on from where it is.

    Args:
        name: Name of the argument in messages.
        weights: (..., N + 1) weights, cash first.
        shape: The shape they must have.
        bounds: Record of ``constraints.BOUNDS``.

    Raises:
        ArgumentError: If they are not finite, do not sum to 1 within 1e-6, or borrow or sell short
            more than the account may.
    """
    array = weights_array(name, weights)
    whole = array.shape == shape and bool(np.isfinite(array).all())
    if not whole or (abs(array.sum(-1) - 1) > TOLERANCE).any():
        raise ArgumentError(
            f"{name}={weights!r} must be {shape[-1]} finite weights per lane, cash first, that sum "
            "to 1."
        )
    cash, assets = array[..., :1], array[..., 1:]
    least = min(0.0, float(bounds["min_cash"]))
    if bounds["long_only"]:
        if assets.size and assets.min() < -TOLERANCE:
            raise ArgumentError(
                f"{name}={weights!r} holds a short position of {assets.min():g}, but long_only is "
                "set; give 0 or more, or set long_only=False."
            )
        np.maximum(assets, 0.0, out=assets)
    if cash.min() < least - TOLERANCE:
        raise ArgumentError(
            f"{name}={weights!r} borrows: cash is {cash.min():g}, and this account must hold at "
            f"least {least:g}; give more cash, or constraints with max_leverage above 1 or a lower "
            "min_cash."
        )
    np.maximum(cash, least, out=cash)
    gross, most = abs(assets).sum(-1).max(), max(1.0, float(bounds["max_leverage"]))
    if gross > most + TOLERANCE:
        raise ArgumentError(
            f"{name}={weights!r} holds {gross:g} times the wealth in assets, long and short, and "
            f"this account may hold {most:g}; give less, or raise max_leverage."
        )
    normal: NDArray[np.float64] = array / array.sum(-1, keepdims=True)
    return normal
