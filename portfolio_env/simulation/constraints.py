"""PortfolioConstraints, and the projection of target weights onto them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_fields, check_integer, check_number, known_fields, short_repr
from portfolio_env.errors import ArgumentError
from portfolio_env.simulation.projection import BOUNDS, project_lane

NO_LIMIT = np.inf


@known_fields
@dataclass(frozen=True, repr=False)
class PortfolioConstraints:
    """Constraints on holdings and on trading; frozen, validated, JSON-able.

    The environment projects the weights that are asked for, by agents and whatever else acts in it
    (baselines place theirs within what they selected before, see ``baselines.selection``): the
    ``top_k`` largest targets are kept, then the Euclidean projection onto ``{sum w = 1, min <= w_i
    <= max, min_cash <= w_0 <= max_cash}`` (exact), then risky weights are scaled towards zero if
    their gross sum exceeds ``max_leverage`` (longs and shorts alike where cash stays within its
    bounds), and last the trades are cut short, along the segment from drifted to target weights,
    where they exceed a turnover limit (purchases by more where a fee would else take cash below its
    bound). Turnover limits win over the others: a portfolio that the market moved out of its bounds
    returns only as fast as they allow. Costs are paid after the projection: beside holdings that
    keep their value, weights may miss a bound by as much as the trade costs, and
    ``constraint_violation`` says so.

    Attributes:
        long_only: No short positions.
        top_k: At most this many assets are held; None is all.
        min_weight: Lower bound of every asset (of every *held* asset with ``top_k``); None means 0,
            or
            ``-max_weight`` where shorts are allowed.
        max_weight: Upper bound of every asset, in (0, ...].
        max_turnover: Largest traded notional of one step over wealth (a full switch is 2); None is
            no limit.
        max_period_turnover: Largest sum of turnovers over any ``turnover_period`` consecutive
            steps.
        turnover_period: Steps of the rolling period, needed with ``max_period_turnover``.
        max_leverage: Largest gross exposure ``sum |w_i|`` of the assets; above 1, cash may be
            negative.
        min_cash: Lower bound of the cash weight; None means ``1 - max_leverage`` (0 if unlevered).
        max_cash: Upper bound of the cash weight; None means no bound.
        no_trade_band: An asset whose target is within this distance of its drifted weight is not
            traded.
    """

    long_only: bool = True
    top_k: int | None = None
    min_weight: float | None = None
    max_weight: float = 1.0
    max_turnover: float | None = None
    max_period_turnover: float | None = None
    turnover_period: int | None = None
    max_leverage: float = 1.0
    min_cash: float | None = None
    max_cash: float | None = None
    no_trade_band: float = 0.0

    __repr__ = short_repr

    def __post_init__(self) -> None:
        """Check each field by itself and against the others."""
        check_fields(self)
        for name in ("max_weight", "max_leverage", "max_turnover", "max_period_turnover"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, above=0)
        for name in ("top_k", "turnover_period"):
            value = getattr(self, name)
            if value is not None:
                check_integer(name, value)
        if (self.max_period_turnover is None) != (self.turnover_period is None):
            raise ArgumentError(
                f"max_period_turnover={self.max_period_turnover!r} and "
                f"turnover_period={self.turnover_period!r} go together; give both or neither."
            )
        check_number("no_trade_band", self.no_trade_band, 0, below=1)
        low = 0.0 if self.long_only else -self.max_weight
        if self.min_weight is not None and not low <= self.min_weight <= self.max_weight:
            raise ArgumentError(
                f"min_weight={self.min_weight!r} must be in [{low:g}, "
                f"max_weight={self.max_weight:g}]" + (" (long_only)." if self.long_only else ".")
            )
        if not self.long_only and self.min_weight is not None and self.min_weight > 0:
            raise ArgumentError(
                f"min_weight={self.min_weight!r} must not be positive with long_only=False; use "
                "long_only."
            )

    def bounds(self, n_assets: int) -> NDArray[np.void]:
        """Return the numbers for compiled code, once the number of assets is known.

        Args:
            n_assets: Assets a lane trades.

        Returns:
            (1,) record array of ``BOUNDS``.

        Raises:
            ArgumentError: If no portfolio of that many assets satisfies the constraints.

        >>> float(PortfolioConstraints(max_weight=0.4).bounds(5)["max_cash"][0])
        1.0
        """
        held = n_assets if self.top_k is None else min(self.top_k, n_assets)
        floor = 0.0 if self.long_only else -self.max_weight
        low = floor if self.min_weight is None else self.min_weight
        min_cash = 1.0 - self.max_leverage if self.min_cash is None else self.min_cash
        unbounded = 1.0 if self.long_only else 1.0 + self.max_leverage
        max_cash = unbounded if self.max_cash is None else self.max_cash
        if min_cash > max_cash:
            raise ArgumentError(
                f"min_cash={min_cash:g} exceeds max_cash={max_cash:g}; swap or widen them."
            )
        if self.long_only:  # the same limit in terms of cash
            min_cash = max(min_cash, 1.0 - self.max_leverage)
        if held * low + min_cash > 1 + 1e-12:
            raise ArgumentError(
                f"min_weight={low:g} x {held} assets + min_cash={min_cash:g} = "
                f"{held * low + min_cash:g} exceeds 1; lower min_weight to at most "
                f"{(1 - min_cash) / held:g}."
            )
        reach = min(held * self.max_weight, self.max_leverage)
        if reach + max_cash < 1 - 1e-12:
            raise ArgumentError(
                f"{held} assets x max_weight={self.max_weight:g} (leverage {self.max_leverage:g}) "
                f"+ max_cash={max_cash:g} = {reach + max_cash:g} cannot reach 1; raise max_weight "
                "or max_cash."
            )
        trivial = (
            self.long_only
            and held == n_assets
            and low <= 0
            and self.max_weight >= 1
            and self.max_leverage >= 1
            and min_cash == 0  # below, debt is a choice
            and max_cash >= 1
        )
        record = np.zeros(1, BOUNDS)
        record[0] = (
            low,
            self.max_weight,
            min_cash,
            max_cash,
            self.max_leverage,
            held,
            self.long_only,
            trivial,
        )
        return record

    def box(self, n_assets: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the least float32 box that holds every portfolio within the constraints.

        It is the action space of an environment with ``action="weights"``: such an action is
        clipped to it and then projected, so that it means the same whoever clips it first.

        Args:
            n_assets: Assets a lane trades.

        Returns:
            (N + 1,) lowest and (N + 1,) highest weights, cash first, rounded outwards.

        Raises:
            ArgumentError: If no portfolio of that many assets satisfies the constraints.

        >>> low, high = PortfolioConstraints(max_weight=0.75).box(2)
        >>> low.tolist(), high.tolist()
        ([0.0, 0.0, 0.0], [1.0, 0.75, 0.75])
        """
        bounds = self.bounds(n_assets)[0]
        low = np.full(n_assets + 1, bounds["min_weight"])
        high = np.full(n_assets + 1, min(bounds["max_weight"], bounds["max_leverage"]))
        if bounds["top_k"] < n_assets:  # those that are not held have weight 0
            low = np.minimum(low, 0.0)
        low[0], high[0] = bounds["min_cash"], bounds["max_cash"]
        return _rounded(low, -np.inf), _rounded(high, np.inf)

    def project(self, weights: ArrayLike, fixed: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return the nearest weights that satisfy all constraints but the turnover limits.

        Args:
            weights: (..., N + 1) asked weights, cash first, finite, any sum.
            fixed: (..., N) bool, assets whose given weight must stay as it is (they cannot be
                traded).

        Returns:
            (..., N + 1) float64, summing to 1. Weights that already satisfy the constraints return
            unchanged.

        Raises:
            ArgumentError: If the weights are not finite, or no portfolio satisfies the constraints.

        >>> PortfolioConstraints(max_weight=0.4).project([0.0, 1.0, 0.0]).round(12).tolist()
        [0.3, 0.4, 0.3]
        """
        out = np.array(weights, dtype=np.float64)
        if out.ndim == 0 or out.shape[-1] < 2 or not np.isfinite(out).all():
            raise ArgumentError("weights must be a finite (..., N + 1) array, cash first.")
        rows = out.reshape(-1, out.shape[-1])
        kept = np.zeros((len(rows), rows.shape[1] - 1), dtype=np.bool_)
        settled = np.zeros(kept.shape[1], dtype=np.bool_)
        if fixed is not None:
            kept[:] = np.asarray(fixed, dtype=np.bool_).reshape(-1, kept.shape[1])
        bounds = self.bounds(kept.shape[1])[0]
        for row, keep in zip(rows, kept, strict=True):
            project_lane(row, keep, bounds, settled)
        return rows.reshape(out.shape)


def _rounded(values: NDArray[np.float64], towards: float) -> NDArray[np.float32]:
    """Return the nearest float32 numbers on one side, so that no valid weight is cut off."""
    out = values.astype(np.float32)
    short = out < values if towards > 0 else out > values
    return np.where(short, np.nextafter(out, np.float32(towards)), out)
