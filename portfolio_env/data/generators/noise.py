"""The noise of the planted markets: Student's t with 5 degrees of freedom, of variance 1.

The t variable is cut off at +-25 (beyond lies a probability of 2e-6), so that a gross return can
never be 0, and then divided by its exact standard deviation: |noise| <= 19.4.

With theta = arctan(t / sqrt 5) its distribution function is (Abramowitz & Stegun 26.7.3)
F(t) = 1/2 + (theta + sin theta cos theta (1 + 2/3 cos^2 theta)) / pi.
"""

import numpy as np
import numpy.typing as npt

from portfolio_env.market.panel import FloatArray

_FREEDOM = 5
_CUT = 25.0


def _distribution(theta: FloatArray) -> FloatArray:
    sine, cosine = np.sin(theta), np.cos(theta)
    return 0.5 + (theta + sine * cosine * (1 + 2 / 3 * cosine**2)) / np.pi


def _cut_deviation() -> float:
    """Return the standard deviation of the cut t variable, from its inner part and two atoms."""
    edge = np.arctan(_CUT / np.sqrt(_FREEDOM))
    inner = 10 / (3 * np.pi) * (edge - np.sin(4 * edge) / 4)
    atoms = 2 * _CUT**2 * (1 - _distribution(edge))
    return float(np.sqrt(inner + atoms))


_DEVIATION = _cut_deviation()
LARGEST = _CUT / _DEVIATION
"""The bound of |noise|."""


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Draw independent noise of mean 0 and variance 1."""
    return np.clip(rng.standard_t(_FREEDOM, shape), -_CUT, _CUT) / _DEVIATION


def quantile(probability: npt.ArrayLike) -> FloatArray:
    """Return the quantile of a probability in (0, 1), by bisection to the last bit."""
    wanted = np.asarray(probability, np.float64)
    low = np.full(wanted.shape, -np.pi / 2)
    high = -low
    for _ in range(60):
        middle = (low + high) / 2
        below = _distribution(middle) < wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    t = np.sqrt(_FREEDOM) * np.tan((low + high) / 2)
    return np.asarray(np.clip(t, -_CUT, _CUT) / _DEVIATION)


def scenarios(assets: int, pairs: int = 2048) -> FloatArray:
    """Return equally likely joint values of independent noises: a fixed quadrature of their law.

    A Latin hypercube (McKay et al. 1979, Technometrics 21): every noise takes the same evenly
    spaced quantiles, in an order shuffled by a fixed seed. The mirror image of every point is
    added, and the whole is made to have the identity as covariance. So all odd and all second
    moments are exact; the fourth ones, which enter a growth rate with sigma^4, are approximate.

    Returns:
        (2 * pairs, assets).
    """
    levels = quantile((np.arange(pairs) + 0.25) / pairs)  # mirrored: (k + 1/2) / (2 * pairs)
    points = np.random.default_rng(0).permuted(np.tile(levels, (assets, 1)), axis=1).T
    points = np.concatenate([points, -points])
    spread = np.linalg.cholesky(points.T @ points / len(points))
    return np.asarray(points @ np.linalg.inv(spread).T)
