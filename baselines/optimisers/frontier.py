"""The efficient frontier of a mean-variance optimiser and its capital market line: data, plot."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from baselines.optimisers.base import Problem, adapter
from baselines.optimisers.mean_variance import NO_EXCESS, MeanVariance, largest_return, tangency
from baselines.rows import bar_of
from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation.task import EvaluationTask, Hindsight
from portfolio_env.market.panel import FloatArray
from portfolio_env.market.rates import rates_at
from portfolio_env.market.timeline import TimeLike, Timestamps
from portfolio_env.plotting.figures import new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Frontier:
    """Efficient portfolios by a model's own estimates at one bar; yearly means and volatilities.

    Every table of portfolios has the columns ``expected_return``, ``volatility``, ``sharpe`` and
    one per asset, its weight.

    Attributes:
        date: The bar.
        portfolios: Portfolios from least variance to largest return, evenly spaced in return.
        tangency: The portfolio of largest Sharpe ratio, one row; none where no portfolio returns
            more than the risk-free rate.
        assets: Every asset alone, whether or not the bounds allow it.
        risk_free_rate: The model's at that bar.
    """

    date: str
    portfolios: pd.DataFrame
    tangency: pd.DataFrame
    assets: pd.DataFrame
    risk_free_rate: float

    def capital_market_line(self, points: int = 2) -> pd.DataFrame:
        """Return mixtures of risk-free asset and tangency portfolio, ``r = f + Sharpe * sigma``.

        Sharpe (1964), "Capital Asset Prices", J. of Finance 19. Beyond the tangency portfolio money
        is borrowed at the risk-free rate.

        Args:
            points: Rows, 2 or more.

        Returns:
            Columns ``volatility``, evenly from 0 to the largest on the frontier, and
            ``expected_return``; no rows where there is no tangency portfolio.
        """
        check_integer("points", points, 2)
        slope = self.tangency["sharpe"].to_numpy()
        most = max(self.portfolios["volatility"].max(), self.tangency["volatility"].max())
        volatility = np.linspace(0, most, points) if len(slope) else np.empty(0)
        line = self.risk_free_rate + (slope * volatility if len(slope) else volatility)
        return pd.DataFrame({"volatility": volatility, "expected_return": line})

    def figure(self) -> "Figure":
        """Plot frontier, capital market line, tangency portfolio and assets.

        Raises:
            PortfolioError: If matplotlib is not installed.
        """
        figure = new_figure((8, 5), 120)
        axes = figure.subplots()
        for table, color, marker, label in (
            (self.capital_market_line(), "tab:orange", "", "capital market line"),
            (self.portfolios, "tab:blue", ".", "efficient frontier"),
        ):
            if len(table):
                x, y = (100 * table[name] for name in ("volatility", "expected_return"))
                axes.plot(x, y, color=color, marker=marker, label=label)
        x, y = (100 * self.assets[name] for name in ("volatility", "expected_return"))
        axes.scatter(x, y, color="gray", s=18, label="assets")
        for name in self.assets.index:
            axes.annotate(
                plot_label(str(name)),
                (x[name], y[name]),
                (4, 2),
                textcoords="offset points",
                fontsize=7,
            )
        if len(self.tangency):
            best = self.tangency.iloc[0]
            axes.scatter(
                100 * best["volatility"],
                100 * best["expected_return"],
                marker="*",
                s=150,
                color="tab:orange",
                zorder=3,
                label=f"largest Sharpe ratio, {best['sharpe']:.2f}",
            )
        axes.axhline(100 * self.risk_free_rate, color="gray", linewidth=0.8, linestyle=":")
        axes.set(
            title=f"Efficient frontier, {self.date[:10]} (estimates of the past)",
            xlabel="volatility, % a year",
            ylabel="expected return, % a year",
            xlim=(0, None),
        )
        axes.legend()
        return figure


def efficient_frontier(model: MeanVariance, t: TimeLike, points: int = 30) -> Frontier:
    """Return the efficient portfolios of a mean-variance optimiser at a bar, for any objective.

    They are of the assets it would choose among and within its bounds; where those leave some cash,
    they are the invested part.

    Args:
        model: The optimiser.
        t: A row or date of its market.
        points: Portfolios on the frontier, 2 or more; there is a single one where the bounds or the
            expected returns leave no choice.

    Raises:
        ArgumentError: If nothing can be held then, or there is no such bar.
        PortfolioError: If the solver fails.
    """
    check_integer("points", points, 2)
    problem = model.problem(model.market.panel.past(bar_of(model.market, "t", t)))
    if not len(problem.assets):
        raise ArgumentError(
            f"nothing can be held at t={t!r}: no asset has moved and has prices for "
            f"lookback={model.lookback} returns; choose a later bar or a shorter lookback."
        )
    mean, covariance = model.moments(problem)
    names = [model.market.assets[column] for column in problem.assets]
    rate = model.yearly_risk_free(problem)

    def table(weights: FloatArray, index: list[str] | None = None) -> pd.DataFrame:
        per_year = problem.bars_per_year
        returns = weights @ mean * per_year
        volatility = np.sqrt(np.einsum("ki,ij,kj->k", weights, covariance, weights) * per_year)
        columns = {
            "expected_return": returns,
            "volatility": volatility,
            "sharpe": (returns - rate) / volatility,
        }
        own = pd.DataFrame(weights, columns=names, index=index)
        return pd.concat([pd.DataFrame(columns, index=index), own], axis=1)

    best = tangency(problem, mean, covariance, model.risk_free(problem))
    return Frontier(
        problem.date,
        table(_efficient(problem, mean, covariance, points)),
        table(np.empty((0, len(names))) if best is None else best[None]),
        table(np.eye(len(names)), names),
        rate,
    )


def _efficient(
    problem: Problem, mean: FloatArray, covariance: FloatArray, points: int
) -> FloatArray:
    """Return (points or 1, n) weights, from the least variance to the largest return."""
    richest = largest_return(problem, mean, covariance)
    if problem.settled:
        return richest[None]
    calmest = problem.bounded(adapter().minimum_variance(problem, covariance))
    least, most = calmest @ mean, richest @ mean
    if most - least <= NO_EXCESS * np.sqrt(calmest @ covariance @ calmest):
        return calmest[None]
    between = np.empty((0, len(mean)))
    if points > 2:
        targets = np.linspace(least, most, points)[1:-1]
        found = adapter().minimum_variance(problem, covariance, mean, targets)
        between = np.array([problem.bounded(each) for each in np.atleast_2d(found)])
    return np.vstack([calmest, between, richest])


def hindsight_frontier(task: EvaluationTask, split: str) -> Hindsight | None:
    """Return the portfolios that were efficient in a task's range, and the capital market line.

    None where skfolio is not installed, or no asset has all the prices.
    """
    fold = task.whole
    start, end = fold.rows(split)
    try:
        model = MeanVariance(
            fold.market,
            lookback=end - 1 - start,
            risk_free_rate=_mean_cash_rate(task, fold.market.timestamps[start : end - 1]),
            min_weight=0.0,
            max_weight=1.0,
            covariance="sample",
        )
        found = efficient_frontier(model, end - 1)
    except PortfolioError:
        return None
    columns = ["volatility", "expected_return"]
    line, best = found.capital_market_line()[columns], found.tangency[columns]
    return Hindsight(
        frontier=found.portfolios[columns].to_numpy(),
        market_line=line.to_numpy() if len(line) else None,
        tangency=best.to_numpy()[0] if len(best) else None,
    )


def _mean_cash_rate(task: EvaluationTask, decisions: Timestamps) -> float:
    """Return the yearly rate that cash earned on average over these decisions."""
    return float(rates_at("cash_rate_annual", task.costs.cash_rate_annual, decisions).mean())
