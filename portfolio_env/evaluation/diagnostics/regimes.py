"""Real-time regime detection (filtered probabilities) and its accuracy."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError, PortfolioError

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegimeModel:
    """Markov chain over R regimes, each with its own mean and variance of returns.

    Attributes:
        means: (R,) mean return per period; the regimes are in order of volatility.
        volatilities: (R,) standard deviation per period.
        stays: (R,) expected periods that a regime lasts.
        converged: Whether the likelihood was maximised to the optimiser's tolerance.
        parameters: Parameters of the library's model, in units of ``unit``.
        unit: Standard deviation of the returns that it was fitted to.
    """

    means: FloatArray
    volatilities: FloatArray
    stays: FloatArray
    converged: bool
    parameters: FloatArray
    unit: float

    def filtered(self, returns: ArrayLike) -> FloatArray:
        """Return probabilities (K, R) of the regimes at each period, given the returns up to it.

        Hamilton's filter; row k does not change when later returns do. (The smoothed probabilities
        that such models are often shown with know the future.)

        Args:
            returns: (K,) returns from the first period known on.
        """
        series = _series(returns, 1)
        found = _model(series / self.unit, len(self.means)).filter(self.parameters, cov_type="none")
        return np.asarray(found.filtered_marginal_probabilities)[:, _order(self.parameters)]


def fit_regimes(returns: ArrayLike, *, regimes: int = 2) -> RegimeModel:
    """Fit a Markov-switching mean and variance by maximum likelihood.

    Hamilton (1989), "A New Approach to the Economic Analysis of Nonstationary Time Series and the
    Business Cycle", Econometrica 57, by statsmodels' ``MarkovRegression``. Give it the returns
    that were known when it is to be used, and no others.

    Args:
        returns: (K,) returns, at least 50 per regime.
        regimes: R, 2 or 3.

    Raises:
        ArgumentError: If the returns are not finite, too few or constant, or ``regimes`` is out of
            range.
        PortfolioError: If statsmodels is not installed.
    """
    if regimes not in (2, 3):
        raise ArgumentError(f"regimes={regimes!r} must be 2 or 3.")
    series = _series(returns, 50 * regimes)
    unit = float(series.std())
    if np.ptp(series) == 0:
        raise ArgumentError("the returns are constant: there are no regimes to detect.")
    model = _model(series / unit, regimes)  # first: statsmodels adds filters when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence is reported below
        found = model.fit(cov_type="none", disp=False)
    parameters = np.asarray(found.params, np.float64)
    order = _order(parameters)
    means, variances = _split(parameters)
    return RegimeModel(
        means=means[order] * unit,
        volatilities=np.sqrt(variances[order]) * unit,
        stays=np.asarray(found.expected_durations, np.float64)[order],
        converged=bool(found.mle_retvals["converged"]),
        parameters=parameters,
        unit=unit,
    )


def regime_path(probabilities: FloatArray, threshold: float = 0.8) -> NDArray[np.int64]:
    """Return the regime in force: the last one whose probability exceeded a threshold.

    Args:
        probabilities: (K, R), each row known at its period.
        threshold: Probability in [0.5, 1): the higher, the fewer false alarms and the later the
            true ones.

    Returns:
        (K,) numbers of regimes; before the first is sure, the likeliest at the first period.
    """
    check_number("threshold", threshold, 0.5, below=1)
    sure = probabilities.max(axis=1) > threshold
    sure[0] = True
    last = np.maximum.accumulate(np.where(sure, np.arange(len(sure)), 0))
    return probabilities.argmax(axis=1)[last]


class DetectionScores(NamedTuple):
    """Accuracy of a path of regimes in detecting known changes.

    Attributes:
        detected: Share of the changes that were detected in time.
        detection_lag: Median over all changes (of an even number the larger middle one) of the
            periods until the regime was first another one than before; infinite where most were not
            detected.
        adaptation: Likewise of the periods until it was so for the rest of the time considered.
        false_alarms: Further changes of regime, per year.
    """

    detected: float
    detection_lag: float
    adaptation: float
    false_alarms: float


def detection_scores(
    path: ArrayLike, changes: Sequence[int], periods_per_year: float, *, patience: int = 60
) -> DetectionScores:
    """Compare a path of regimes with the times at which the regime truly changed.

    A change is considered from its period until the next change, ``patience`` periods later or the
    end, whichever is first. It is detected in time if the path leaves, within that, the regime that
    it was in before. Every other change of the path is a false alarm, also one back and forth.

    Args:
        path: (K,) regimes, see ``regime_path``.
        changes: First periods of new regimes, increasing, in [1, K).
        periods_per_year: Periods per year.
        patience: Periods after which a change counts as missed, at least 1.

    Raises:
        ArgumentError: If a number is out of range, or there are no changes.
    """
    regimes = np.asarray(path)
    n = len(regimes)
    rows = [int(row) for row in changes]
    if not rows or rows != sorted(set(rows)) or not 1 <= rows[0] <= rows[-1] < n or patience < 1:
        raise ArgumentError(
            f"changes={changes!r} must increase within [1, {n}), and patience={patience!r} be at "
            "least 1."
        )
    first, settled = [], []
    for row, following in zip(rows, [*rows[1:], n], strict=True):
        left = regimes[row : min(following, row + patience)] != regimes[row - 1]
        first.append(float(left.argmax()) if left.any() else np.inf)
        back = np.flatnonzero(~left)
        stays = float(back[-1] + 1) if len(back) else 0.0
        settled.append(stays if left[-1] else np.inf)
    alarms = int((regimes[1:] != regimes[:-1]).sum())
    hits = int(np.isfinite(first).sum())
    return DetectionScores(
        detected=hits / len(rows),
        detection_lag=sorted(first)[len(first) // 2],  # without a mean of infinite ones
        adaptation=sorted(settled)[len(settled) // 2],
        false_alarms=(alarms - hits) * periods_per_year / n,
    )


def _series(returns: ArrayLike, least: int) -> FloatArray:
    series = np.asarray(returns, np.float64)
    if series.ndim != 1 or len(series) < least or not np.isfinite(series).all():
        raise ArgumentError(
            f"returns of shape {series.shape} must be one series of at least {least} finite numbers"
        )
    return series


def _model(series: FloatArray, regimes: int) -> Any:
    try:
        from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression
    except ImportError as error:
        raise PortfolioError(
            "detecting regimes needs statsmodels; pip install statsmodels"
        ) from error
    return MarkovRegression(series, k_regimes=regimes, switching_variance=True)


def _split(parameters: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return means and variances, which follow R (R - 1) transition probabilities."""
    regimes = int(np.sqrt(len(parameters) + 0.25) - 0.5)  # R (R - 1) + 2 R = R (R + 1)
    means = parameters[-2 * regimes : -regimes]
    return means, parameters[-regimes:]


def _order(parameters: FloatArray) -> NDArray[np.int64]:
    return np.argsort(_split(parameters)[1])
