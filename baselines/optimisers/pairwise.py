"""Moments of returns of which some are missing, each pair of assets from the bars that both have.

They need not be positive semi-definite; ``skfolio_adapter.covariance`` makes them so.
"""

import numpy as np

from portfolio_env.market.panel import FloatArray


def pairwise_covariance(returns: FloatArray, ddof: int = 1) -> FloatArray:
    """Return the sample covariance (n, n) of each pair over the bars that both have.

    Args:
        returns: (T, n), NaN where missing.
        ddof: Subtracted from the number of bars for the divisor.

    Returns:
        As ``pandas.DataFrame.cov``; NaN where a pair has no more than ``ddof`` bars.
    """
    known = ~np.isnan(returns)
    # about own means, which keeps digits; those of each pair are taken off below
    x = np.where(known, returns - np.nanmean(returns, axis=0), 0.0)
    here = known.astype(np.float64)
    count, sums = here.T @ here, x.T @ here
    product = x.T @ x - sums * sums.T / np.maximum(count, 1)
    found = np.where(count > ddof, product, np.nan) / np.maximum(count - ddof, 1)
    return (found + found.T) / 2


def weighted_means(products: FloatArray) -> FloatArray:
    """Return means of columns (T, k) with a half-life of a quarter of the bars, (1, k)."""
    known = ~np.isnan(products)
    ages = np.arange(len(products))[::-1, None]
    weights = np.where(known, 0.5 ** (4 * ages / len(products)), 0.0)
    total = (weights * np.where(known, products, 0.0)).sum(axis=0, keepdims=True)
    return total / weights.sum(axis=0, keepdims=True)


def exponential_covariance(returns: FloatArray) -> FloatArray:
    """Return the exponentially weighted mean product (n, n) of each pair, the mean taken for 0."""
    known = ~np.isnan(returns)
    ages = np.arange(len(returns))[::-1, None]
    weights = 0.5 ** (4 * ages / len(returns))
    x, here = np.where(known, returns, 0.0), known.astype(np.float64)
    return (x.T @ (weights * x)) / (here.T @ (weights * here))
