"""Strategies that trade forecasts of a ``SupervisedModel``: rules, and mean-variance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from baselines.base import Weights
from baselines.optimisers.base import Problem
from baselines.optimisers.mean_variance import MeanVariance
from baselines.portfolio_model import PortfolioModel
from baselines.rows import Every, rows_of
from portfolio_env.checks import check_choice, check_number
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.simulation.constraints import PortfolioConstraints

if TYPE_CHECKING:
    from agents.supervised.model import SupervisedModel


class ForecastRule(PortfolioModel):
    """Equal weights in the assets that a model favours; the rest stays in cash.

    Args:
        market: The market its environments trade, with the model's features.
        model: Trained on bars before those that are traded.
        rule: "sign" holds every asset whose gain has a probability above one half, and each of
            them weighs 1 / N of all that can be traded; "rank" holds those with the highest mean
            forecast, at equal weights.
        share: Share of the assets that "rank" holds, rounded up.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
    """

    def __init__(
        self,
        market: Market,
        model: SupervisedModel,
        *,
        rule: Literal["sign", "rank"] = "sign",
        share: float = 1 / 3,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.model = model
        self.rule = check_choice("rule", rule, ("sign", "rank"))
        self.share = check_number("share", share, above=0, high=1)

    def target(self, past: PricePanel) -> Weights:
        """Return the weights of the forecast at the last bar; see ``PortfolioModel``."""
        row = rows_of(self.market, past)[1]
        mean, _, up = self.model.forecast(self.market, row)
        tradable = past.tradable[-1]
        count = int(tradable.sum())
        weights = np.zeros(len(tradable) + 1)
        if self.rule == "sign":
            weights[1:] = (tradable & (up > 0.5)) / max(count, 1)
        elif count:
            held = int(np.ceil(self.share * count))
            best = np.argsort(np.where(tradable, -mean, np.inf), kind="stable")[:held]
            weights[1 + best] = 1 / held
        weights[0] = 1 - weights[1:].sum()
        return weights

    def model_info(self) -> dict[str, Any]:
        """Return a description, with settings and weights of the model; see ``PortfolioModel``."""
        return super().model_info() | _described(self.model)


class ForecastedMeanVariance(MeanVariance):
    """Mean-variance portfolios whose expected returns are the forecasts of a trained model.

    ``ForecastMeanVariance`` fits forecasters again as time goes on; this takes one as it is.

    Args:
        market: The market its environments trade, with the model's features.
        model: Trained on bars before those that are traded.
        **options: See ``MeanVariance``.
    """

    reads_features = True

    def __init__(self, market: Market, model: SupervisedModel, **options: Any) -> None:
        super().__init__(market, **options)
        self.model = model

    def expected_returns(self, problem: Problem) -> FloatArray:
        """Return (n,) forecast simple returns per bar."""
        row = rows_of(self.market, problem.past)[1]
        mean = self.model.forecast(self.market, row)[0]
        forecasts: FloatArray = mean[problem.assets] / self.model.horizon
        return forecasts

    def model_info(self) -> dict[str, Any]:
        """Return a description, with settings and weights of the model; see ``PortfolioModel``."""
        return super().model_info() | _described(self.model)


def _described(model: SupervisedModel) -> dict[str, Any]:
    """Return the settings of a model and the hash of its weights: another training is a trial."""
    return {"model": model.config | {"weights": model.fingerprint()}}
