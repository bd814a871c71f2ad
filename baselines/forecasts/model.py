"""Mean-variance optimisation with forecast expected returns, "traditional + ML"."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.forecasts.networks import WINDOW, Network, streams
from baselines.forecasts.samples import Forecaster
from baselines.forecasts.trees import Trees
from baselines.optimisers.base import Problem
from baselines.optimisers.mean_variance import MeanVariance
from baselines.rows import Every, rebalancing_dates, rows_of
from portfolio_env.checks import check_choice, check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.rates import Rate
from portfolio_env.names import names_plugin
from portfolio_env.simulation.constraints import PortfolioConstraints

TREES = ("gradient_boosting", "random_forest")
FORECASTERS = (*TREES, "lstm", "mlp", "transformer", "state_space", "gat", "tcn_gnn_lstm_small")
"""What forecasts, by name: trees of scikit-learn, or encoders of ``agents.networks``; users' own
encoders are names too, see ``agents.networks.make_encoder``."""


class ForecastMeanVariance(MeanVariance):
    """Mean-variance portfolios whose expected returns come from a forecaster.

    At each date of ``refit`` the forecaster is fitted to the market's features and to the returns
    that followed them, as far as these are over by then; all dates until the next one use it. The
    first fit takes place as soon as there are ``least`` bars to learn from; before that all is held
    in cash. After ``fit(panel, period)`` it is fitted to that period, once. The covariance is that
    of the look-back window.

    Args:
        market: The market its environments trade; its features are read, and were scaled on
            whatever range it was built with.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        lookback: See ``Optimiser``; the covariance's.
        forecaster: One of ``FORECASTERS``, or the name of an encoder of one's own.
        horizon: Bars ahead that trees forecast; networks forecast 1. None is 21 and 1.
        refit: When to fit it again: a schedule as that of ``every``, or "year".
        least: Bars to learn from, at least.
        history: Bars to learn from, at most; None is all.
        pooled: One model for all assets, or, of trees only, one for each.
        seed: Seed of all draws of the forecaster.
        forecaster_options: See ``Trees`` and ``Network``; None lets networks that can read the
            market as a stream of short blocks.
        objective: See ``MeanVariance``, with everything below.
        target_return: See ``MeanVariance``.
        risk_free_rate: See ``MeanVariance``.
        min_weight: See ``MeanVariance``.
        max_weight: See ``MeanVariance``.
        covariance: See ``MeanVariance``.
    """

    reads_features = True
    source = 'Gu, Kelly & Xiu (2020), "Empirical Asset Pricing via Machine Learning", RFS 33'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        lookback: int = 252,
        forecaster: str = "gradient_boosting",
        horizon: int | None = None,
        refit: Every = "year",
        least: int = 252,
        history: int | None = None,
        pooled: bool = True,
        seed: int = 0,
        forecaster_options: Mapping[str, Any] | None = None,
        objective: str = "max_sharpe",
        target_return: float | None = None,
        risk_free_rate: Rate = 0.0,
        min_weight: float | None = None,
        max_weight: float = 0.4,
        covariance: str = "ledoit_wolf",
    ) -> None:
        super().__init__(
            market,
            constraints=constraints,
            every=every,
            lookback=lookback,
            objective=objective,
            target_return=target_return,
            risk_free_rate=risk_free_rate,
            min_weight=min_weight,
            max_weight=max_weight,
            covariance=covariance,
        )
        own = names_plugin("encoder", forecaster)
        self.forecaster = forecaster if own else check_choice("forecaster", forecaster, FORECASTERS)
        network = forecaster not in TREES
        if network and (horizon not in (None, 1) or not pooled):
            raise ArgumentError(
                f"horizon={horizon!r}, pooled={pooled!r}: a network forecasts the next bar of all "
                "assets; leave both out, or choose trees."
            )
        self.horizon = (
            (1 if network else 21) if horizon is None else check_integer("horizon", horizon, 1)
        )
        self.refit, self.pooled = refit, pooled
        self.least = check_integer("least", least, 1)
        self.history = None if history is None else check_integer("history", history, self.least)
        self.seed = check_integer("seed", seed, 0)
        given = streams(forecaster) if forecaster_options is None else forecaster_options
        self.forecaster_options = dict(given)
        self._refits = self._fitting_rows()
        self._walked: dict[int, Forecaster] = {}
        self._fitted: Forecaster | None = None

    def follow(self, market: Market) -> None:
        """Go on with a market that continues the one it has, see ``PortfolioModel``."""
        known = self.market.n_bars
        due = known + np.flatnonzero(rebalancing_dates(market.timestamps, self.refit, known))
        self._refits = np.r_[self._refits, due[due > self._refits[0]]]
        super().follow(market)

    def expected_returns(self, problem: Problem) -> FloatArray:
        """Return (n,) forecast simple returns per bar."""
        forecasts = self.forecasts(problem.past)
        if forecasts is None:
            raise ArgumentError(
                f"nothing is forecast at {problem.date}: there are not {self.least} bars yet to "
                "learn from; choose a later bar, or lower least."
            )
        return forecasts[problem.assets]

    def forecasts(self, past: PricePanel) -> FloatArray | None:
        """Return (N,) forecast simple returns per bar after the last bar of ``past``.

        None before the first fit, and before there are all bars that a forecaster sees.

        Raises:
            ArgumentError: If these are no bars of the model's market.
        """
        row = rows_of(self.market, past)[1]
        if row < self._earliest:
            return None
        return self._forecaster(row).forecast(self.market.past(row))

    def problem(self, past: PricePanel) -> Problem:
        """Return the problem, see ``Optimiser``; without assets before there is a forecast."""
        if rows_of(self.market, past)[1] < self._earliest:
            return self._problem(past, np.empty(0, np.int64), 0.0)
        return super().problem(past)

    @property
    def _earliest(self) -> int:
        """Return the first row at which a forecast is possible."""
        seen = 1 if self.forecaster in TREES else self.forecaster_options.get("window", WINDOW)
        complete = self.market.warmup + int(seen) - 1
        return complete if self._fitted is not None else max(complete, int(self._refits[0]))

    def _fit(self, bars: PricePanel) -> None:
        first, last = rows_of(self.market, bars)
        fitted = self._new()
        fitted.fit(self.market.past(last), first)
        self._fitted = fitted  # a fit that ends early changes nothing

    def state(self) -> dict[str, Any]:
        """Return the state of the forecaster of ``fit``; those of a schedule are refitted."""
        return self._fitted.state() if self._fitted is not None else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the forecaster, see ``Baseline``."""
        self._fitted = self._new()
        self._fitted.restore(state)

    def _forecaster(self, row: int) -> Forecaster:
        """Return the forecaster of the last fit up to a row."""
        if self._fitted is not None:
            return self._fitted
        at = int(self._refits[np.searchsorted(self._refits, row, side="right") - 1])
        if at not in self._walked:
            first = 0 if self.history is None else at + 1 - self.horizon - self.history
            forecaster = self._new()
            forecaster.fit(self.market.past(at), max(0, first))
            self._walked[at] = forecaster
        return self._walked[at]

    def _fitting_rows(self) -> NDArray[np.int64]:
        """Return rows of the forecaster's fits, increasing; the first may lie beyond the market."""
        first = self.market.warmup + self.horizon + self.least - 1
        due = np.flatnonzero(rebalancing_dates(self.market.timestamps, self.refit))
        return np.r_[first, due[due > first]]

    def _new(self) -> Forecaster:
        if self.forecaster in TREES:
            return Trees(
                self.forecaster, self.horizon, self.pooled, self.seed, self.forecaster_options
            )
        return Network(self.forecaster, self.seed, self.forecaster_options)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_walked": {}}


class RandomForestMeanVariance(ForecastMeanVariance):
    """``ForecastMeanVariance`` with a random forest; options as there."""

    preset = ("forecaster",)

    def __init__(self, market: Market, **options: Any) -> None:
        super().__init__(market, forecaster="random_forest", **options)


class LstmMeanVariance(ForecastMeanVariance):
    """``ForecastMeanVariance`` with LSTM layers and attention over time; options as there."""

    preset = ("forecaster",)

    def __init__(self, market: Market, **options: Any) -> None:
        super().__init__(market, forecaster="lstm", **options)


class TransformerMeanVariance(ForecastMeanVariance):
    """``ForecastMeanVariance`` with a transformer over bars and assets; options as there."""

    preset = ("forecaster",)

    def __init__(self, market: Market, **options: Any) -> None:
        super().__init__(market, forecaster="transformer", **options)


class StateSpaceMeanVariance(ForecastMeanVariance):
    """``ForecastMeanVariance`` with a state space that recalls its past; options as there."""

    preset = ("forecaster",)

    def __init__(self, market: Market, **options: Any) -> None:
        super().__init__(market, forecaster="state_space", **options)
