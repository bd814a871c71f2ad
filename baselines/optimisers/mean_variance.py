"""Mean-variance optimisation: the portfolio of largest Sharpe ratio, minimum variance, ..."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import linprog

from baselines.optimisers.base import COVARIANCES, Optimiser, Problem, adapter
from baselines.rows import Every
from portfolio_env.checks import check_choice, check_number
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.market import Market
from portfolio_env.market.growing import GrowableArray
from portfolio_env.market.panel import FloatArray
from portfolio_env.market.rates import Rate, checked_rate, rates_at
from portfolio_env.market.timeline import Timestamps, years_between
from portfolio_env.simulation.constraints import PortfolioConstraints

MEANS = ("sample", "exponential", "james_stein", "bayes_stein")
"""Estimators of expected returns. "exponential" has a half-life of a quarter of the window;
"james_stein" shrinks them towards the mean of all (James & Stein, 1961), "bayes_stein" towards that
of the portfolio of least variance (Jorion, 1986; ``bayes_stein.py``)."""

# Below this Sharpe ratio per bar the excess over the risk-free rate is rounding.
NO_EXCESS = 1e-6


class MeanVariance(Optimiser):
    """Markowitz (1952), "Portfolio Selection", J. of Finance 7, on a look-back window.

    With m the expected simple returns per bar, C their covariance, f the risk-free rate per bar and
    the weights w of the assets summing to 1 within their bounds:

    - ``max_sharpe``: largest (w'm - f) / sqrt(w'Cw);
    - ``min_variance``: least w'Cw;
    - ``max_return``: largest w'm; the less volatile first where assets return the same;
    - ``target_return``: least w'Cw with w'm at least the target;
    - ``utility``: largest w'm - a/2 w'Cw, with the risk aversion a.

    Where no portfolio within the bounds returns more than the risk-free rate, the largest Sharpe
    ratio would be that of the riskiest losses: ``max_sharpe`` then takes the least variance. Where
    none returns more than the target, ``target_return`` takes the largest return. ``fallbacks``
    says when.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        objective: One of ``OBJECTIVES``.
        target_return: The target of ``target_return``, per year.
        risk_aversion: Risk aversion a of ``utility``, above 0; 1 is close to log growth.
        risk_free_rate: Yearly, a number or a dated rate as ``cash_rate_annual`` of the costs, which
            it is in an evaluation; spread over the bars that a year of the window has.
        min_weight: Lower bound of every asset that may be held; None is 0.05, or half of an equal
            share of all assets where that is less, 0 with bounds of groups, and -``max_weight``
            with short positions.
        max_weight: Upper bound of every asset, in (0, 1]; with short positions up to
            ``max_leverage``, where the constraints' own ``max_weight`` allows it.
        mean: One of ``MEANS``.
        covariance: One of ``COVARIANCES``.
        excess: Estimate moments of the returns in excess of the risk-free rate of their own time: C
            is theirs, and m their means plus the rate now. The rates of the window must be known.

    Attributes:
        fallbacks: Objectives used as a fallback, by bar; of the targets decided so far.

    Raises:
        ArgumentError: If no portfolio of all the market's assets keeps to the bounds, or an option
            is unknown.
    """

    shorts = True
    source = 'Markowitz (1952), "Portfolio Selection", Journal of Finance 7'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 252,
        objective: str = "max_sharpe",
        target_return: float | None = None,
        risk_aversion: float = 1.0,
        risk_free_rate: Rate = 0.0,
        min_weight: float | None = None,
        max_weight: float = 0.4,
        mean: str = "sample",
        covariance: str = "ledoit_wolf",
        excess: bool = False,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every, lookback=lookback)
        self.objective = check_choice("objective", objective, OBJECTIVES)
        self.target_return = target_return
        if (objective == "target_return") != (target_return is not None):
            raise ArgumentError(
                f"objective={objective!r} and target_return={target_return!r} do not fit: the "
                'objective "target_return" takes a target, the others none.'
            )
        self.risk_aversion = check_number("risk_aversion", risk_aversion, above=0)
        self.risk_free_rate = checked_rate("risk_free_rate", risk_free_rate)
        self._rates = GrowableArray(self._rates_at(market.timestamps))
        long_only = self.constraints.long_only
        most = 1.0 if long_only else max(1.0, self.constraints.max_leverage)
        self.max_weight = check_number("max_weight", max_weight, 1e-6, most)
        self.min_weight = min_weight
        if min_weight is None and not long_only:
            lowest = -np.inf
        elif min_weight is None and self.constraints.group_bounds is not None:
            lowest = 0.0
        elif min_weight is None:
            held = min(market.n_assets, self.constraints.top_k or market.n_assets)
            lowest = min(0.05, 0.5 * self._invested / held, self._high, max_weight)
        else:
            lowest = check_number("min_weight", min_weight, 0 if long_only else -max_weight, 1)
        self._bound(lowest, max_weight)
        self.mean = check_choice("mean", mean, MEANS)
        self.covariance = check_choice("covariance", covariance, COVARIANCES)
        self.excess = excess
        self.fallbacks: dict[str, str] = {}

    def follow(self, market: Market) -> None:
        """Go on with a market that continues the one it has, see ``PortfolioModel``."""
        self._rates = self._rates.extended(self._rates_at(market.timestamps[self.market.n_bars :]))
        super().follow(market)

    def _rates_at(self, timestamps: Timestamps) -> FloatArray:
        return rates_at("risk_free_rate", self.risk_free_rate, timestamps)

    def risk_free(self, problem: Problem) -> float:
        """Return the risk-free rate per bar, see ``yearly_risk_free``."""
        return self.yearly_risk_free(problem) / problem.bars_per_year

    def yearly_risk_free(self, problem: Problem) -> float:
        """Return the yearly risk-free rate that is known when the problem is set.

        Raises:
            ArgumentError: If it is dated, and not known yet.
        """
        rate = float(self._rates.filled()[len(problem.past.timestamps) - 1])
        if np.isnan(rate):
            raise ArgumentError(
                f"risk_free_rate is not known at {problem.date}: give earlier rates, or decide "
                "later."
            )
        return rate

    def allocate(self, problem: Problem) -> FloatArray:
        """Return the weights (n,) of the objective."""
        return OBJECTIVES[self.objective](self, problem)

    def moments(self, problem: Problem) -> tuple[FloatArray, FloatArray]:
        """Return expected returns (n,) and covariance (n, n), per bar."""
        return self.expected_returns(problem), self.expected_covariance(problem)

    def expected_returns(self, problem: Problem) -> FloatArray:
        """Return expected returns (n,) per bar."""
        mean = adapter().mean(self.mean, self._estimated(problem))
        return mean + self.risk_free(problem) if self.excess else mean

    def expected_covariance(self, problem: Problem) -> FloatArray:
        """Return the expected covariance (n, n) per bar."""
        return adapter().covariance(self.covariance, self._estimated(problem))

    def _estimated(self, problem: Problem) -> FloatArray:
        """Return the returns (lookback, n) whose moments are estimated."""
        if not self.excess:
            return problem.returns
        end = len(problem.past.timestamps)
        rows = slice(end - len(problem.returns) - 1, end)
        interest = self._rates.filled()[rows][:-1] * years_between(problem.past.timestamps[rows])
        if np.isnan(interest).any():
            raise ArgumentError(
                f"risk_free_rate is not known in all of the window that ends at {problem.date}, "
                "which excess=True needs: give earlier rates, or decide later."
            )
        return problem.returns - over_same_time(interest, problem.returns)

    def _min_variance(self, problem: Problem) -> FloatArray:
        covariance = self.expected_covariance(problem)
        found = inner_solution(problem, covariance, np.ones(len(covariance)))
        return adapter().minimum_variance(problem, covariance) if found is None else found

    def _utility(self, problem: Problem) -> FloatArray:
        return adapter().maximum_utility(problem, *self.moments(problem), self.risk_aversion)

    def _max_return(self, problem: Problem) -> FloatArray:
        return largest_return(problem, *self.moments(problem))

    def _max_sharpe(self, problem: Problem) -> FloatArray:
        mean, covariance = self.moments(problem)
        weights = tangency(problem, mean, covariance, self.risk_free(problem))
        if weights is None:
            self.fallbacks[problem.date] = "min_variance: nothing exceeds the risk-free rate"
            return adapter().minimum_variance(problem, covariance)
        return weights

    def _target_return(self, problem: Problem) -> FloatArray:
        mean, covariance = self.moments(problem)
        least = (self.target_return or 0.0) / problem.bars_per_year
        richest = largest_return(problem, mean, covariance)
        if sharpe(richest, mean, covariance, least) <= NO_EXCESS:
            self.fallbacks[problem.date] = "max_return: nothing exceeds the target return"
            return richest
        return adapter().minimum_variance(problem, covariance, mean, least)

    def model_info(self) -> dict[str, Any]:
        """Return a description, see ``PortfolioModel``; with ``fallbacks``."""
        return super().model_info() | {"fallbacks": self.fallbacks}


OBJECTIVES: dict[str, Callable[[MeanVariance, Problem], FloatArray]] = {
    "max_sharpe": MeanVariance._max_sharpe,
    "min_variance": MeanVariance._min_variance,
    "max_return": MeanVariance._max_return,
    "target_return": MeanVariance._target_return,
    "utility": MeanVariance._utility,
}
"""What is optimised, by name."""


class MinimumVariance(MeanVariance):
    """The portfolio of least variance; see ``MeanVariance``, with the objective ``min_variance``.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``.
        min_weight: Lower bound of every asset that may be held; None is 0, and -``max_weight`` with
            short positions.
        max_weight: See ``MeanVariance``.
        covariance: One of ``COVARIANCES``.
    """

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 252,
        min_weight: float | None = None,
        max_weight: float = 0.4,
        covariance: str = "ledoit_wolf",
    ) -> None:
        if min_weight is None and (constraints is None or constraints.long_only):
            min_weight = 0.0
        super().__init__(
            market,
            constraints=constraints,
            every=every,
            lookback=lookback,
            objective="min_variance",
            min_weight=min_weight,
            max_weight=max_weight,
            covariance=covariance,
        )


def largest_return(problem: Problem, mean: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return the weights (n,) of largest ``w' mean``: one asset after another to its upper bound.

    Assets of the same expected return come in the order of their variances. Then the last are sold
    short for as much more of the first, as far as the bounds and the sum of shorts allow. With
    bounds of groups it is a linear program.
    """
    if problem.groups:
        return _largest_return_of_groups(problem, mean)
    low, short = max(problem.low, 0.0), problem.short
    weights = np.full(len(mean), low)
    left = 1 - weights.sum()
    order = np.lexsort((np.diag(covariance), -mean))
    for asset in order:
        weights[asset] += min(left, problem.high - low)
        left = max(0.0, 1 - weights.sum())
    first, last = 0, len(order) - 1
    while first < last and problem.low < 0:
        up, down = order[first], order[last]
        if weights[up] >= problem.high:
            first += 1
        elif weights[down] <= problem.low or (short <= 0 and weights[down] <= 0):
            last -= 1
        else:  # what is held is sold before anything is sold short
            most = weights[down] if weights[down] > 0 else min(short, weights[down] - problem.low)
            move = min(problem.high - weights[up], most)
            short -= move if weights[down] <= 0 else 0.0
            weights[up] += move
            weights[down] -= move
    return weights


def _largest_return_of_groups(problem: Problem, mean: FloatArray) -> FloatArray:
    """Return the weights (n,) of largest ``w' mean``, longs and shorts apart in the program."""
    n, (rows, most) = len(mean), problem.inequalities
    assert rows is not None and most is not None
    scale = max(float(abs(mean).max()), np.finfo(float).tiny)
    sides = [(max(problem.low, 0.0), problem.high)] * n + [(0.0, max(-problem.low, 0.0))] * n
    found = linprog(
        np.r_[-mean, mean] / scale,
        A_ub=np.vstack([np.hstack([rows, -rows]), np.r_[np.zeros(n), np.ones(n)]]),
        b_ub=np.r_[most, problem.short],
        A_eq=np.r_[np.ones(n), -np.ones(n)][None],
        b_eq=[1.0],
        bounds=sides,
    )
    if found.x is None:
        raise PortfolioError(f"no weights meet the bounds of groups at {problem.date}: widen them.")
    return problem.bounded(found.x[:n] - found.x[n:])


def tangency(
    problem: Problem, mean: FloatArray, covariance: FloatArray, risk_free: float
) -> FloatArray | None:
    """Return the weights (n,) of largest Sharpe ratio; None if nothing exceeds the risk-free rate.

    Args:
        problem: Problem whose bounds apply.
        mean: (n,) expected returns per bar.
        covariance: (n, n) per bar.
        risk_free: Per bar.

    Raises:
        PortfolioError: If the solver fails.
    """
    richest = largest_return(problem, mean, covariance)
    if sharpe(richest, mean, covariance, risk_free) <= NO_EXCESS:
        return None
    if problem.settled:
        return richest
    found = inner_solution(problem, covariance, mean - risk_free)
    if found is None:
        found = adapter().maximum_sharpe(problem, mean, covariance, risk_free)
    return problem.bounded(found)


def inner_solution(
    problem: Problem, covariance: FloatArray, direction: FloatArray
) -> FloatArray | None:
    """Return ``C^-1 d`` over its sum where shorts are allowed and no bound binds; None elsewhere.

    These weights (n,) have the largest ``w'd / sqrt(w'Cw)`` of all: the least variance for ones as
    d (n,), the largest Sharpe ratio for expected excess returns.
    """
    if problem.low >= 0:
        return None
    try:
        np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return None
    weights = np.linalg.solve(covariance, direction)
    if weights.sum() <= 0:  # the ratio only grows with leverage
        return None
    weights = weights / weights.sum()
    rows, most = problem.inequalities
    inside = problem.low <= weights.min() and weights.max() <= problem.high
    inside &= -weights[weights < 0].sum() <= problem.short
    return weights if inside and (rows is None or (rows @ weights <= most).all()) else None


def over_same_time(interest: FloatArray, returns: FloatArray) -> FloatArray:
    """Return what cash earned over the time of each return of a window, (T, n).

    Args:
        interest: (T,) earned by cash from the bar before to each bar of the window.
        returns: (T, n), each since the asset's bar before; NaN where it has none.
    """
    bars = np.arange(1, len(returns) + 1)[:, None]
    last = np.maximum.accumulate(np.where(np.isnan(returns), 0, bars), axis=0)
    before = np.vstack([np.zeros_like(last[:1]), last[:-1]])
    value = np.r_[1.0, np.cumprod(1 + interest)]
    grown: FloatArray = value[bars] / value[before] - 1
    return grown


def sharpe(
    weights: FloatArray, mean: FloatArray, covariance: FloatArray, risk_free: float
) -> float:
    """Return ``(w' mean - risk_free) / sqrt(w' C w)``, per bar."""
    return float((weights @ mean - risk_free) / np.sqrt(weights @ covariance @ weights))
