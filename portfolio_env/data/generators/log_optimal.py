"""The portfolio of largest expected log growth under equally likely scenarios of returns.

Maximise f(w) = mean_s log(1 + w . r_s) over w >= 0, sum w <= 1 (the rest is cash, earning nothing).
Each Newton step maximises the quadratic model of f over the simplex, by moving weight between the
pair of slots that violates optimality most (as in sequential minimal optimisation, Platt 1998). It
stops when the Kuhn-Tucker gap max_i g_i - w . g (g the gradient, 0 for cash) is small: as f is
concave, the gap bounds how far f(w) lies below its maximum (Cover 1984, IEEE Trans. IT 30).
"""

import numpy as np

from portfolio_env.compiled import kernel
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.market.panel import FloatArray

GAP = 1e-13
"""The largest gap left, in log growth per bar."""
_ROUNDS, _HALVINGS, _SWAPS = 100, 50, 10_000  # far above what is needed


@kernel
def _derivatives(
    weights: FloatArray,
    expected: FloatArray,
    shocks: FloatArray,
    gradient: FloatArray,
    curvature: FloatArray,
) -> None:
    """Return gradient and minus the Hessian of f, with cash as slot 0."""
    n = len(expected)
    gradient[:] = 0.0
    curvature[:] = 0.0
    ratio = np.empty(n)
    for s in range(len(shocks)):
        gross = 1.0
        for i in range(n):
            ratio[i] = expected[i] + shocks[s, i]
            gross += weights[i + 1] * ratio[i]
        for i in range(n):
            ratio[i] /= gross
            gradient[i + 1] += ratio[i]
            for j in range(i + 1):
                curvature[i + 1, j + 1] += ratio[i] * ratio[j]
    gradient /= len(shocks)
    for i in range(1, n + 1):
        for j in range(1, i + 1):
            curvature[i, j] /= len(shocks)
            curvature[j, i] = curvature[i, j]


@kernel
def _model_maximum(weights: FloatArray, gradient: FloatArray, curvature: FloatArray) -> FloatArray:
    """Return the maximum over the simplex of the quadratic model around ``weights``."""
    target, slope = weights.copy(), gradient.copy()
    for _ in range(_SWAPS):
        best, worst = 0, -1
        for i in range(len(target)):
            if slope[i] > slope[best]:
                best = i
            if target[i] > 0.0 and (worst < 0 or slope[i] < slope[worst]):
                worst = i
        excess = slope[best] - slope[worst]
        if excess <= GAP / 10:
            break
        bend = curvature[best, best] + curvature[worst, worst] - 2 * curvature[best, worst]
        moved = min(target[worst], excess / bend)
        target[best] += moved
        target[worst] = target[worst] - moved if moved < target[worst] else 0.0
        slope -= moved * (curvature[:, best] - curvature[:, worst])
    return target


@kernel
def _solve(expected: FloatArray, shocks: FloatArray, weights: FloatArray, gaps: FloatArray) -> None:
    slots = weights.shape[1]
    gradient, curvature = np.empty(slots), np.empty((slots, slots))
    for m in range(len(expected)):
        w = np.full(slots, 1.0 / slots)
        _derivatives(w, expected[m], shocks, gradient, curvature)
        for _ in range(_ROUNDS):
            gradient -= gradient @ w  # now 0 on average, so that rounding does not matter
            gaps[m] = gradient.max()
            if gaps[m] <= GAP:
                break
            step = _model_maximum(w, gradient, curvature) - w
            rise = gradient @ step
            origin, share = w, 1.0
            for _ in range(_HALVINGS):  # as long as f falls steeply at the end of the step
                w = origin + share * step
                _derivatives(w, expected[m], shocks, gradient, curvature)
                if (gradient - gradient @ w) @ step >= -rise / 2:
                    break
                share /= 2
        weights[m] = w


def log_optimal(expected: FloatArray, shocks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return weights of largest expected log growth, and how far they may be from it.

    Args:
        expected: (M, N) expected simple returns of M decisions.
        shocks: (S, N) equally likely deviations from them; expected + shocks > -1.

    Returns:
        Weights (M, N + 1), cash first, and gaps (M,) <= ``GAP``: the growth is optimal within them.

    Raises:
        ArgumentError: For returns that are NaN or not above -1.
        PortfolioError: If a gap stays larger.
    """
    if not expected.min() + shocks.min() > -1 or not np.isfinite(shocks).all():
        raise ArgumentError("some return is NaN, infinite or -100 %: give finite returns > -1")
    weights = np.empty((len(expected), expected.shape[1] + 1))
    gaps = np.empty(len(expected))
    _solve(np.ascontiguousarray(expected), np.ascontiguousarray(shocks), weights, gaps)
    if not (gaps <= GAP).all():
        raise PortfolioError(
            f"the log-optimal weights are known to {np.nanmax(gaps)} only, {GAP} was asked for: "
            "use returns of usual size, a few percent"
        )
    return weights, gaps


def log_growth(weights: FloatArray, expected: FloatArray, shocks: FloatArray) -> FloatArray:
    """Return expected log growth (M,) of weights (M, N + 1), cash first, by these scenarios."""
    growth = np.empty(len(weights))
    for rows in np.array_split(np.arange(len(weights)), len(weights) // 512 + 1):
        mean = (weights[rows, 1:] * expected[rows]).sum(axis=1)
        growth[rows] = np.log1p(mean[:, None] + weights[rows, 1:] @ shocks.T).mean(axis=1)
    return growth
