"""Expected returns from forecasters that learn from the past, for mean-variance portfolios."""

from baselines.forecasts.model import (
    FORECASTERS,
    ForecastMeanVariance,
    LstmMeanVariance,
    RandomForestMeanVariance,
    StateSpaceMeanVariance,
    TransformerMeanVariance,
)
from baselines.forecasts.samples import Forecaster, Samples, samples

__all__ = [
    "FORECASTERS",
    "ForecastMeanVariance",
    "Forecaster",
    "LstmMeanVariance",
    "RandomForestMeanVariance",
    "Samples",
    "StateSpaceMeanVariance",
    "TransformerMeanVariance",
    "samples",
]
