"""Convex problems on the simplex {w >= 0, sum w = 1}, solved exactly."""

import numpy as np
from numpy.typing import NDArray

from portfolio_env.simulation.constraints import PortfolioConstraints

Vector = NDArray[np.float64]

_NO_CASH = PortfolioConstraints(max_cash=0.0)


def onto_simplex(point: Vector) -> Vector:
    """Return the nearest point of the simplex, (N,)."""
    return _NO_CASH.project(np.concatenate([[0.0], point]))[1:]


def least_quadratic(hessian: Vector, linear: Vector, start: Vector) -> Vector:
    """Return the minimiser of ``w' H w / 2 - c' w`` over the simplex.

    Primal active-set method, Nocedal & Wright (2006), "Numerical Optimization", algorithm 16.3:
    solves with the free coordinates alone, and lets one more go or come at a time. It ends on the
    minimiser, and soon if the start has the right zeros.

    Args:
        hessian: (N, N) positive definite H.
        linear: (N,) c.
        start: (N,) a point of the simplex.

    Raises:
        FloatingPointError: If H is so ill-conditioned that rounding keeps it from ending.
    """
    w, free = start.copy(), start > 0
    for _ in range(100 * len(w)):
        inner = hessian[np.ix_(free, free)]
        right = np.column_stack([linear[free], np.ones(free.sum())])
        unbounded, ones = np.linalg.solve(inner, right).T
        price = (unbounded.sum() - 1) / ones.sum()  # multiplier of the sum
        goal = np.zeros_like(w)
        goal[free] = unbounded - price * ones
        falling = free & (goal < 0)
        if falling.any():
            steps = np.full(len(w), np.inf)
            steps[falling] = w[falling] / (w[falling] - goal[falling])
            first = int(steps.argmin())
            w += steps[first] * (goal - w)
            w[first], free[first] = 0.0, False
            continue
        w = goal
        ascent = linear - hessian @ w - price
        ascent[free] = 0
        if ascent.max() <= 1e-13 * abs(linear).max():
            return w
        free[ascent.argmax()] = True
    raise FloatingPointError(f"no minimiser of a quadratic in {len(w)} variables was reached")


def log_optimal(relatives: Vector, gap: float = 1e-12) -> Vector:
    """Return the constant rebalanced portfolio of the highest growth, ``max mean_t log(x_t' b)``.

    Newton's method with the damped steps of self-concordant functions: Nesterov (2004),
    "Introductory Lectures on Convex Optimization", section 4.1.5. By Cover (1984), "An Algorithm
    for Maximizing Expected Log Investment Return", ``b`` is optimal if and only if no asset has
    ``mean_t x_ti / (x_t' b)`` above 1, and the growth misses the best by less than the excess.

    Args:
        relatives: (T, N) prices over the prices of the bar before, positive.
        gap: Largest excess.

    Returns:
        (N,) weights.

    Raises:
        FloatingPointError: If rounding keeps the excess above ``gap``.
    """
    bars, assets = relatives.shape
    b = np.full(assets, 1 / assets)
    # keeps the quadratic definite where assets move alike; the optimum stays where it is
    ridge = 1e-12
    for _ in range(200):
        ratios = relatives / (relatives @ b)[:, None]
        gradient = ratios.mean(axis=0)
        if gradient.max() - 1 <= gap:
            return b
        hessian = ratios.T @ ratios / bars
        model = hessian + ridge * np.eye(assets)
        move = least_quadratic(model, 2 * gradient + ridge * b, b) - b
        decrement = np.sqrt(bars * max(0.0, move @ hessian @ move))
        b = onto_simplex(b + move / (1 + decrement if decrement > 0.25 else 1))
    raise FloatingPointError(f"the excess is {gradient.max() - 1:.2g}, not {gap:g}; allow more")
