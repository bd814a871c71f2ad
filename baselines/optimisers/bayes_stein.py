"""Bayes-Stein estimators: means shrunk towards that of the portfolio of least variance.

Jorion (1986), "Bayes-Stein Estimation for Portfolio Analysis", J. of Financial and Quantitative
Analysis 21. The prior says that all assets have one mean; how much it weighs follows from the data:
the less the sample means differ in units of their errors, the more they are shrunk.
"""

from typing import NamedTuple

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import FloatArray


class _Prior(NamedTuple):
    covariance: FloatArray  # (n, n), with the sums of squares divided by T - n - 2
    mean: float  # of the portfolio of least variance
    share: float  # of the prior in the means, in [0, 1]
    information: float  # (1, ..., 1) C^-1 (1, ..., 1)


def shrunk_means(mean: FloatArray, covariance: FloatArray, bars: int) -> FloatArray:
    """Return ``(1 - s) m + s m0`` (n,), with the mean m0 of the portfolio of least variance.

    ``s = (n + 2) / (n + 2 + T (m - m0)' C^-1 (m - m0))``, C with the divisor T - n - 2.

    Args:
        mean: (n,) sample means m.
        covariance: (n, n) sample covariance, with the divisor T - 1.
        bars: Observations T.

    Raises:
        ArgumentError: If there are no more than n + 2 observations, or the covariance is singular.
    """
    prior = _prior(mean, covariance, bars)
    shrunk: FloatArray = (1 - prior.share) * mean + prior.share * prior.mean
    return shrunk


def predictive_covariance(mean: FloatArray, covariance: FloatArray, bars: int) -> FloatArray:
    """Return the covariance (n, n) of the next returns, errors of the shrunk means included.

    ``C (1 + 1 / (T + l)) + l / (T (T + 1 + l)) 1 1' / (1' C^-1 1)`` with ``l = T s / (1 - s)``; C
    and s as in ``shrunk_means``, which has the arguments and errors too.
    """
    prior = _prior(mean, covariance, bars)
    precision = bars * prior.share / max(1 - prior.share, np.finfo(float).eps)
    common = precision / (bars * (bars + 1 + precision)) / prior.information
    predicted: FloatArray = prior.covariance * (1 + 1 / (bars + precision)) + common
    return predicted


def _prior(mean: FloatArray, covariance: FloatArray, bars: int) -> _Prior:
    n = len(mean)
    if bars <= n + 2:
        raise ArgumentError(
            f"Bayes-Stein estimates of {n} assets need more than {n + 2} returns, not {bars}: "
            "raise lookback."
        )
    wide = covariance * (bars - 1) / (bars - n - 2)
    try:
        inverse = np.linalg.inv(wide)
    except np.linalg.LinAlgError as error:
        raise ArgumentError(
            f"the covariance of {n} assets over {bars} returns cannot be inverted for Bayes-Stein "
            "estimates: leave out assets that are mixtures of others, or raise lookback."
        ) from error
    information = float(inverse.sum())
    calm = float(inverse.sum(axis=0) @ mean) / information
    apart = mean - calm
    share = (n + 2) / (n + 2 + bars * float(apart @ inverse @ apart))
    return _Prior(wide, calm, share, information)
