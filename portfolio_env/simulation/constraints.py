"""PortfolioConstraints, and the projection of target weights onto them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import (
    check_fields,
    check_integer,
    check_number,
    check_range,
    known_fields,
    short_repr,
    shortened,
)
from portfolio_env.errors import ArgumentError
from portfolio_env.market import PricePanel
from portfolio_env.names import unknown
from portfolio_env.simulation.projection import (
    BOUNDS,
    NO_GROUPS,
    GroupBounds,
    groups_of,
    project_lane,
)

NO_LIMIT = np.inf
LARGEST_WEIGHT = 1e6  # no account comes near it, and much larger ones leave nothing but rounding


@known_fields
@dataclass(frozen=True, repr=False)
class PortfolioConstraints:
    """Constraints on holdings and on trading; frozen, validated, JSON-able.

    The environment projects the weights that are asked for, by agents and whatever else acts in it
    (baselines place theirs within what they selected before, see ``baselines.selection``): the
    ``top_k`` largest targets are kept, then the Euclidean projection onto ``{sum w = 1, min <= w_i
    <= max, min_cash <= w_0 <= max_cash}`` and the bounds of groups (exact), then risky weights are
    scaled towards zero if their gross sum exceeds ``max_leverage`` (longs and shorts alike where
    cash stays within its bounds), and last the trades are cut short, along the segment from drifted
    to target weights, where they exceed a turnover limit (purchases by more where a fee would else
    take cash below its bound). Turnover limits win over the others: a portfolio that the market
    moved out of its bounds returns only as fast as they allow. Costs are paid after the projection:
    beside holdings that keep their value, weights may miss a bound by as much as the trade costs,
    and ``constraint_violation`` says so.

    Attributes:
        long_only: No short positions.
        top_k: At most this many assets are held; None is all.
        min_weight: Lower bound of every asset (of every *held* asset with ``top_k``); None means 0,
            or ``-max_weight`` where shorts are allowed.
        max_weight: Upper bound of every asset, in (0, 1e6].
        max_turnover: Largest traded notional of one step over wealth (a full switch is 2); None is
            no limit.
        max_period_turnover: Largest sum of turnovers over any ``turnover_period`` consecutive
            steps.
        turnover_period: Steps of the rolling period, needed with ``max_period_turnover``.
        max_leverage: Largest gross exposure ``sum |w_i|`` of the assets, in (0, 1e6]; above 1,
            cash may be negative.
        min_cash: Lower bound of the cash weight, in [-1e6, 1e6]; None means
            ``1 - max_leverage`` (0 if unlevered).
        max_cash: Upper bound of the cash weight, likewise; None means no bound.
        no_trade_band: An asset whose target is within this distance of its drifted weight is not
            traded.
        group_by: Category of the market whose labels are the groups of ``group_bounds``, e.g.
            ``"sector"``; see ``data.metadata.with_categories``.
        group_bounds: Least and largest sum of the weights of a group by its label, e.g. ``{"Tech":
            (0.0, 0.3)}``; other groups, and assets without a label, have none. With short positions
            the sum is that of longs less shorts, and the bounds hold 0 between them: where both
            ``max_leverage`` and a bound of cash bind, the group may be off, and
            ``constraint_violation`` says so, as it does where ``top_k`` keeps too few of a group.
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
    group_by: str | None = None
    group_bounds: Mapping[str, tuple[float, float]] | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        """Check each field by itself and against the others."""
        object.__setattr__(self, "group_bounds", _checked_pairs(self.group_bounds))
        check_fields(self)
        for name in ("max_weight", "max_leverage"):
            check_number(name, getattr(self, name), above=0, high=LARGEST_WEIGHT)
        for name in ("min_cash", "max_cash"):
            check_range(name, getattr(self, name), -LARGEST_WEIGHT, LARGEST_WEIGHT)
        for name in ("max_turnover", "max_period_turnover"):
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
        self._check_groups()

    def _check_groups(self) -> None:
        if (self.group_by is None) != (self.group_bounds is None):
            raise ArgumentError(
                f"group_by={self.group_by!r} and group_bounds={self.group_bounds!r} go together; "
                "give both or neither."
            )
        most = max(1.0, self.max_leverage)
        for label, (low, high) in (self.group_bounds or {}).items():
            name = f"group_bounds[{label!r}]"
            least, top = (0.0, most) if self.long_only else (-most, 0.0)
            check_number(f"{name}[0]", low, least, top)
            check_number(f"{name}[1]", high, max(low, 0.0), most)

    def labels(self, panel: PricePanel) -> tuple[str, ...]:
        """Return the group that each asset of a panel is in, "" for none; () without groups.

        Raises:
            ArgumentError: If the panel lacks the category, or a group with bounds has no asset.
        """
        if self.group_by is None or self.group_bounds is None:
            return ()
        if self.group_by not in panel.categories:
            if not panel.categories:
                raise ArgumentError(
                    f"group_by={self.group_by!r}: the market has no categories of its assets; give "
                    "them (metadata=)."
                )
            raise unknown("group_by: category", self.group_by, panel.categories)
        labels = panel.categories[self.group_by]
        for group in self.group_bounds:
            if group not in labels or not group:
                raise unknown(f"group_bounds: {self.group_by}", group, sorted({*labels} - {""}))
        return tuple(labels)

    def groups(self, labels: Sequence[str]) -> GroupBounds:
        """Return the bounds of groups for compiled code; see ``labels``."""
        if not labels or not self.group_bounds:
            return NO_GROUPS
        names = list(self.group_bounds)
        of = [names.index(label) if label in self.group_bounds else -1 for label in labels]
        low, high = np.array(list(self.group_bounds.values()), np.float64).T
        return groups_of(np.array(of, np.int64), low, high)

    def bounds(self, n_assets: int, labels: Sequence[str] = ()) -> NDArray[np.void]:
        """Return the numbers for compiled code, once the number of assets is known.

        Args:
            n_assets: Assets a lane trades.
            labels: (N,) the group of each, to check the bounds of groups too; see ``labels``.

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
        self._check_reach(labels, held, (low, self.max_weight), (min_cash, max_cash))
        trivial = (
            self.long_only
            and self.group_bounds is None
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

    def _check_reach(
        self,
        labels: Sequence[str],
        held: int,
        box: tuple[float, float],
        cash: tuple[float, float],
    ) -> None:
        """Reject bounds of groups that no portfolio satisfies together with the others.

        Args:
            labels: (N,) the group of each asset, or none.
            held: Assets that may be held.
            box: Bounds of every asset.
            cash: Bounds of cash.
        """
        if not labels or not self.group_bounds:
            return
        low, high = box
        if held < len(labels):  # those that are not held have weight 0
            low = min(low, 0.0)
        count = sum(label not in self.group_bounds for label in labels)
        least, most = count * low, count * high
        for label, (floor, cap) in self.group_bounds.items():
            size = sum(each == label for each in labels)
            reach = min(size, held) * high
            if floor > reach + 1e-12:
                raise ArgumentError(
                    f"group_bounds[{label!r}][0]={floor:g} exceeds the {reach:g} that its assets "
                    f"can hold (max_weight={high:g} x {min(size, held)}); lower it, or raise "
                    "max_weight."
                )
            if cap < size * low - 1e-12:
                raise ArgumentError(
                    f"group_bounds[{label!r}][1]={cap:g} is below the {size * low:g} that its "
                    f"assets hold at least (min_weight={low:g} x {size}); raise it, or lower "
                    "min_weight."
                )
            least, most = least + max(floor, size * low), most + min(cap, reach)
        if least + cash[0] > 1 + 1e-12:
            raise ArgumentError(
                f"the lower bounds of group_bounds and of the other assets sum to {least:g}: with "
                f"min_cash={cash[0]:g} that exceeds 1; lower them."
            )
        if min(most, self.max_leverage) + cash[1] < 1 - 1e-12:
            raise ArgumentError(
                f"the upper bounds of group_bounds and of the other assets sum to {most:g}: with "
                f"max_cash={cash[1]:g} that cannot reach 1; raise them, or max_cash."
            )

    def box(self, n_assets: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the least float32 box around every portfolio within the bounds of single weights.

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

    def project(
        self,
        weights: ArrayLike,
        fixed: ArrayLike | None = None,
        labels: Sequence[str] = (),
    ) -> NDArray[np.float64]:
        """Return the nearest weights that satisfy all constraints but the turnover limits.

        Args:
            weights: (..., N + 1) asked weights, cash first, finite, any sum.
            fixed: (..., N) bool, assets whose given weight must stay as it is (they cannot be
                traded).
            labels: (N,) the group of each asset, needed with ``group_bounds``; see ``labels``.

        Returns:
            (..., N + 1) float64, summing to 1. Weights that already satisfy the constraints return
            unchanged.

        Raises:
            ArgumentError: If the weights are not finite, no portfolio satisfies the constraints, or
                there are groups and no N labels.

        >>> PortfolioConstraints(max_weight=0.4).project([0.0, 1.0, 0.0]).round(12).tolist()
        [0.3, 0.4, 0.3]
        >>> third = PortfolioConstraints(group_by="sector", group_bounds={"Tech": (0.0, 0.3)})
        >>> third.project([0.0, 0.5, 0.5], labels=["Tech", "Oil"]).round(12).tolist()
        [0.1, 0.3, 0.6]
        """
        out = np.array(weights, dtype=np.float64)
        if out.ndim == 0 or out.shape[-1] < 2 or not np.isfinite(out).all():
            raise ArgumentError("weights must be a finite (..., N + 1) array, cash first.")
        rows = out.reshape(-1, out.shape[-1])
        kept = np.zeros((len(rows), rows.shape[1] - 1), dtype=np.bool_)
        settled = np.zeros(kept.shape[1], dtype=np.bool_)
        if fixed is not None:
            kept[:] = np.asarray(fixed, dtype=np.bool_).reshape(-1, kept.shape[1])
        if self.group_bounds and len(labels) != kept.shape[1]:
            raise ArgumentError(
                f"group_bounds need the group of each of {kept.shape[1]} assets, not of "
                f"{len(labels)}; give labels=constraints.labels(market.panel)."
            )
        bounds, groups = self.bounds(kept.shape[1], labels)[0], self.groups(labels)
        for row, keep in zip(rows, kept, strict=True):
            project_lane(row, keep, bounds, settled, groups)
        return rows.reshape(out.shape)


def _rounded(values: NDArray[np.float64], towards: float) -> NDArray[np.float32]:
    """Return the nearest float32 numbers on one side, so that no valid weight is cut off."""
    out = values.astype(np.float32)
    short = out < values if towards > 0 else out > values
    return np.where(short, np.nextafter(out, np.float32(towards)), out)


def _checked_pairs(value: object) -> dict[str, tuple[float, float]] | None:
    """Return bounds by label with a pair for each; None is none.

    Raises:
        ArgumentError: If it is something else.
    """
    if value is None:
        return None
    if isinstance(value, Mapping) and value:
        pairs = {name: _pair(each) for name, each in value.items()}
        if all(isinstance(name, str) and len(pair) == 2 for name, pair in pairs.items()):
            return pairs  # type: ignore[return-value]  # numbers are checked by their bounds
    raise ArgumentError(
        f"group_bounds={shortened(value)} must be a mapping from labels to pairs of a least and a "
        'largest sum of weights, e.g. {"Tech": (0, 0.3)}.'
    )


def _pair(value: object) -> tuple[object, ...]:
    listed = value.tolist() if isinstance(value, np.ndarray) else value
    return tuple(listed) if isinstance(listed, list | tuple) else ()
