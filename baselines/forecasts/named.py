"""Mean-variance portfolios by the name of what forecasts their returns."""

from typing import Any

from baselines.forecasts.model import ForecastMeanVariance
from portfolio_env.market import Market


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
