"""Base classes of portfolio optimisers: a window of returns, bounds, the assets to choose from."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from baselines.base import Weights
from baselines.portfolio_model import PortfolioModel, portfolio
from baselines.rows import Every
from baselines.windows import (
    LEAST_OVERLAP,
    STALE,
    apart,
    completed,
    holdable,
    named,
    own_returns,
    why_not,
)
from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.metrics.arrays import is_constant
from portfolio_env.simulation.constraints import PortfolioConstraints

COVARIANCES = ("sample", "ledoit_wolf", "oas", "exponential", "gerber", "bayes_stein")
"""Estimators of a covariance. Ledoit & Wolf (2004), J. Multivariate Analysis 88; OAS: Chen et al.
(2010), IEEE Trans. Signal Processing 58; Gerber et al. (2022), J. Portfolio Management 48.
"exponential" has a half-life of a quarter of the window and takes the mean for 0; "bayes_stein" is
that of returns to come, which allows for errors of the means (``bayes_stein.py``)."""

UNPAIRED = f"has bars in common with another asset in less than {LEAST_OVERLAP:.0%} of the window"
SHUT = "is in a group that may hold nothing"
SLACK = 1e-8  # of bounds of groups: a solver from inside needs some room between them
FULL = 1e-9  # bounds with less room than this leave one portfolio


@dataclass(frozen=True, eq=False)
class Problem:
    """Problem of an optimiser: weights of n assets that sum to 1.

    Attributes:
        past: The bars up to the decision.
        assets: (n,) columns of the assets that may be held.
        returns: (lookback, n) their simple returns up to the decision, each since the asset's bar
            before; NaN where it has no bar. None is constant.
        low, high: Bounds of every weight; some weights within them sum to 1. In [0, 1] but with
            short positions.
        short: Largest sum of short positions.
        labels: (n,) the group of each asset, or ().
        groups: Least and largest weight of a group by its label.
    """

    past: PricePanel
    assets: NDArray[np.int64]
    returns: FloatArray
    low: float
    high: float
    short: float = 0.0
    labels: tuple[str, ...] = ()
    groups: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def date(self) -> str:
        """Return the bar of the decision."""
        return str(self.past.timestamps[-1])

    @property
    def bars_per_year(self) -> float:
        """Return bars per year of the window of returns, to make yearly rates rates per bar."""
        return self.past.bars_per_year(-len(self.returns) - 1)

    @property
    def settled(self) -> bool:
        """Return whether the bounds leave one portfolio only, that of equal weights."""
        n = len(self.assets)
        return n * self.high <= 1 + FULL or n * self.low >= 1 - FULL

    def bounded(self, weights: FloatArray) -> FloatArray:
        """Return weights (n,) of a solver, clipped exactly to the bounds."""
        box = PortfolioConstraints(
            long_only=self.low >= 0,
            min_weight=self.low,
            max_weight=self.high,
            max_leverage=1 + 2 * self.short,
            min_cash=0.0,
            max_cash=0.0,
            group_by="group" if self.groups else None,
            group_bounds=self.groups or None,
        )
        return box.project(np.r_[0.0, weights], labels=self.labels)[1:]

    @property
    def inequalities(self) -> tuple[FloatArray, FloatArray] | tuple[None, None]:
        """Return (A, b) of the bounds of groups as ``A w <= b``, but for rounding; or Nones."""
        if not self.groups:
            return None, None
        of = np.array([[label == each for each in self.labels] for label in self.groups], float)
        low, high = np.array(list(self.groups.values())).T
        return np.vstack([of, -of]), np.r_[high, -low] + SLACK


class Optimiser(PortfolioModel):
    """Weights computed from the returns of a look-back window.

    Portfolios are invested as far as the constraints allow: cash is what they leave over, so all
    of it where nothing can be held, and the rest where the assets that can be held are fewer than
    1 / ``max_weight``. Where ``max_leverage`` is above 1 cash is borrowed down to ``min_cash``;
    with ``long_only=False`` (of models that can) the leverage goes into short positions and the
    purchases they pay for, and cash is ``min_cash`` if that is given, else 0. ``top_k`` keeps the
    largest weights of a first solution without lower bounds, and solves again among those assets.
    ``group_bounds`` are part of the problem where it is convex, and met by projection where the
    method knows no such bounds (the hierarchical ones).

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: Bars of the window. An asset must have been listed before it, have a bar in half
            of it, a quarter in common with every other asset, and have moved: one that never did
            is stale, not free of risk. Who lacks this is in ``left_out``.
    """

    shorts = False

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 252,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.lookback = check_integer("lookback", lookback, 2)
        self._bound(-np.inf, 1.0)

    def _bound(self, min_weight: float, max_weight: float) -> None:
        """Tighten the bounds of what is held beyond those of the constraints.

        Raises:
            ArgumentError: If no portfolio of all the market's assets keeps to them, or short
                positions are allowed and nothing is left for any.
        """
        own, high = self.constraints, min(self.constraints.max_weight, max_weight)
        least = own.min_weight if own.min_weight is not None else 0.0 if own.long_only else -high
        limits = replace(own, min_weight=max(least, min_weight), max_weight=high)
        record = limits.bounds(self.market.n_assets, self._labels)[0]
        self._low, self._high = float(record["min_weight"]), float(record["max_weight"])
        cash = float(record["min_cash"])
        if not own.long_only:
            cash = min(max(own.min_cash or 0.0, cash), float(record["max_cash"]))
        self._invested = 1 - cash
        if not own.long_only and own.max_leverage <= self._invested:
            raise ArgumentError(
                f"long_only=False with max_leverage={own.max_leverage:g} leaves "
                f"{type(self).__name__} no short positions, as its weights sum to "
                f"{self._invested:g}; raise max_leverage, give min_cash, or long_only=True."
            )
        self._top = int(record["top_k"])

    @abstractmethod
    def allocate(self, problem: Problem) -> FloatArray:
        """Return the weights (n,) of a problem with a choice, within its bounds but for rounding.

        Raises:
            ArgumentError: If a library is missing.
            PortfolioError: If its solver fails.
        """

    def target(self, past: PricePanel) -> Weights:
        """Return the optimal weights of the assets with prices for the look-back."""
        problem = self.problem(past)
        out = portfolio(np.zeros(len(past.assets), np.bool_))  # all cash
        if len(problem.assets):
            invested = self._share(problem.assets)
            out[1 + problem.assets] = invested * self.solve(problem)
            out[0] = 1 - invested
        return out

    def problem(self, past: PricePanel) -> Problem:
        """Return the problem at the last bar of ``past``, with ``top_k`` applied; n may be 0."""
        assets = np.flatnonzero(holdable(past, self.lookback + 1))
        self.leave_out(past, why_not(past, self.lookback + 1))
        if len(assets):
            stale = is_constant(completed(self._returns(past, assets)))
            self.leave_out(past, named(past, assets[stale], STALE))
            assets = assets[~stale]
            alone = apart(self._returns(past, assets))
            self.leave_out(past, named(past, assets[alone], UNPAIRED))
            assets = np.delete(assets, alone)
        shut = [label for label, (_, most) in self._groups().items() if most == 0]
        if shut and self.constraints.long_only:
            none = np.isin(self._labels_of(assets), shut)
            self.leave_out(past, named(past, assets[none], SHUT))
            assets = assets[~none]
        if len(assets) > self._top:
            weights = self.solve(self._problem(past, assets, min(self._low, 0.0)))
            largest = np.argsort(-abs(weights), kind="stable")[: self._top]
            assets = np.sort(assets[largest[weights[largest] != 0]])
        return self._problem(past, assets, self._low)

    def _problem(self, past: PricePanel, assets: NDArray[np.int64], low: float) -> Problem:
        share, short = self._share(assets) or 1.0, 0.0
        if low < 0:
            short = max(0.0, 0.5 * (self.constraints.max_leverage / share - 1))
        bounds = max(low / share, 0.0 - short), min(1 + short, self._high / share)
        labels, groups = self._labels_of(assets), {}
        for label, (least, most) in self._groups().items():
            reach = labels.count(label) * self._high
            if reach > 0:
                pair = np.array([min(least, reach), min(most, reach)]) / share
                low_sum, high_sum = np.clip(pair, -1 - 2 * short, 1 + 2 * short).tolist()
                groups[label] = (low_sum, high_sum)
        return Problem(past, assets, self._returns(past, assets), *bounds, short, labels, groups)

    def _groups(self) -> Mapping[str, tuple[float, float]]:
        return self.constraints.group_bounds or {}

    def _labels_of(self, assets: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self._labels[asset] for asset in assets) if self._labels else ()

    def _returns(self, past: PricePanel, assets: NDArray[np.int64]) -> FloatArray:
        if not len(assets):  # nor bars enough, perhaps
            return np.empty((self.lookback, 0))
        return own_returns(past, self.lookback)[:, assets]

    def _share(self, assets: NDArray[np.int64]) -> float:
        """Return the total weight that assets may have."""
        labels, groups = self._labels_of(assets), self._groups()
        others = len(assets) - sum(label in groups for label in labels)
        caps = [min(most, labels.count(each) * self._high) for each, (_, most) in groups.items()]
        return min(self._invested, others * self._high + sum(caps))

    def solve(self, problem: Problem) -> FloatArray:
        """Return the weights (n,), n >= 1, of a problem, exactly within its bounds.

        Raises:
            PortfolioError: See ``allocate``.
        """
        if problem.settled:
            return np.full(len(problem.assets), 1 / len(problem.assets))
        return problem.bounded(self.allocate(problem))


def adapter() -> ModuleType:
    """Return the one module that imports skfolio.

    Raises:
        ArgumentError: If skfolio is not installed.
    """
    try:
        from baselines.optimisers import skfolio_adapter
    except ImportError as error:
        raise ArgumentError(
            "optimisers need skfolio, which is not installed; pip install 'skfolio>=1.12,<1.13'."
        ) from error
    return skfolio_adapter
