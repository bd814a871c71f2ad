"""Scores of forecasts, each against a forecast that knows nothing but the training range's mean.

Proper scores and calibration: Gneiting & Raftery (2007), "Strictly Proper Scoring Rules,
Prediction, and Estimation", JASA 102. Intervals resample time in blocks, so that neither the
dependence of assets nor that of overlapping returns is taken for evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from agents.forecasts import Calibration
from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.statistics import Interval
from portfolio_env.evaluation.statistics.bootstrap import (
    optimal_block_length,
    percentile_interval,
    resampled,
)
from portfolio_env.market.timeline import Timestamps

FloatArray = NDArray[np.float64]
_SURE = 1e-6  # probabilities are kept this far from 0 and 1: a logarithm stays finite

_NAMES, _SIDES = ("gain", "no gain"), (True, False)


@dataclass(frozen=True)
class Base:
    """Forecast without inputs, of any asset and bar: what was usual in the training range.

    Attributes:
        mean: Mean return.
        sigma: Standard deviation of returns.
        up: Share of positive returns.
    """

    mean: float
    sigma: float
    up: float

    def __post_init__(self) -> None:
        """Check the numbers, which a file may hold."""
        check_number("mean", self.mean)
        check_number("sigma", self.sigma, 0)
        check_number("up", self.up, 0, 1)


@dataclass(frozen=True, eq=False)
class Forecasts:
    """Forecasts of returns beside the returns that were realised.

    Attributes:
        times: (S,) timestamps of the bars at which they were made.
        mean: (S, N) expected simple return.
        sigma: (S, N) its standard deviation, positive.
        up: (S, N) probability that it is positive.
        realised: (S, N) simple return, NaN where it is unknown; those are not scored.
        base: The forecast without inputs.
        horizon: Bars that a return takes.
    """

    times: Timestamps
    mean: FloatArray
    sigma: FloatArray
    up: FloatArray
    realised: FloatArray
    base: Base
    horizon: int = 1

    def __post_init__(self) -> None:
        """Check shapes and that there is something to score."""
        shapes = {np.shape(part) for part in (self.mean, self.sigma, self.up, self.realised)}
        if len(shapes) != 1 or len(self.times) != len(self.mean):
            raise ArgumentError(
                f"forecasts have shapes {sorted(shapes)} at {len(self.times)} times: give (S, N) "
                "of each"
            )
        if not self.known.any():
            raise ArgumentError("no return of these forecasts is known: widen the range")

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Flags (S, N): where the return is known."""
        return np.isfinite(self.realised)

    @property
    def calibration(self) -> Calibration:
        """Coverage of intervals, and errors by sigma."""
        error = (self.realised - self.mean)[self.known]
        return Calibration(error, self.sigma[self.known])

    def pit(self) -> FloatArray:
        """Return (M,) probability integral transforms, uniform in [0, 1] where calibrated."""
        return np.asarray(_normal_cdf((self.realised - self.mean) / self.sigma)[self.known])

    def reliability(self, bins: int = 10) -> tuple[FloatArray, FloatArray]:
        """Return (bins,) mean forecast probability and share of gains, in bins of equal size."""
        up, gain = self.up[self.known], self.realised[self.known] > 0
        parts = np.array_split(np.argsort(up, kind="stable"), min(bins, len(up)))
        pairs = np.array([(up[part].mean(), gain[part].mean()) for part in parts])
        return pairs[:, 0], pairs[:, 1]

    def confusion(self) -> pd.DataFrame:
        """Return how often each direction was forecast, a column each, where each occurred.

        A probability above one half forecasts a gain; a return of 0 is none.
        """
        up, gain = (self.up > 0.5)[self.known], (self.realised > 0)[self.known]
        counts = [
            [int(((up == one) & (gain == other)).sum()) for one in _SIDES] for other in _SIDES
        ]
        return pd.DataFrame(counts, index=_NAMES, columns=[f"{name} forecast" for name in _NAMES])

    def classification(self) -> pd.DataFrame:
        """Return precision, recall, their harmonic mean and the number of cases, by direction.

        NaN where nothing was forecast so, or nothing occurred.
        """
        counts = self.confusion().to_numpy()
        right = counts.diagonal().astype(np.float64)
        with np.errstate(invalid="ignore"):
            precision, recall = right / counts.sum(0), right / counts.sum(1)
            f1 = 2 * right / (counts.sum(0) + counts.sum(1))
        columns = {"precision": precision, "recall": recall, "f1": f1, "cases": counts.sum(1)}
        return pd.DataFrame(columns, index=_NAMES)

    def scores(
        self, *, n_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
    ) -> pd.DataFrame:
        """Score the forecasts.

        Args:
            n_resamples: Resamples of time, in blocks of at least the horizon.
            confidence: Level of the intervals.
            seed: Seed of the resamples.

        Returns:
            Columns ``value``, ``base``, ``gain`` (positive is better than the base), ``low``,
            ``high`` (interval of the gain) and ``p_value`` (of no gain); one row each for

            - accuracy: share of directions forecast right. Its base rate is the share of the more
              frequent direction in the range scored, which no forecaster knows;
            - brier: mean squared error of the probability of a gain;
            - log_score: mean log probability of the direction that occurred;
            - crps: mean continuous ranked probability score of the Gaussian, in returns;
            - log_density: mean log density of the Gaussian at the return;
            - rank_correlation: of mean and return over all assets and bars, base 0;
            - sigma_correlation: of sigma and the absolute error, by rank, base 0.
        """
        base = Forecasts(
            self.times,
            np.full_like(self.mean, self.base.mean),
            np.full_like(self.mean, self.base.sigma),
            np.full_like(self.mean, self.base.up),
            self.realised,
            self.base,
            self.horizon,
        )
        options = (self.horizon, n_resamples, confidence, seed)
        own, usual = self._each(), base._each()
        gain_of_most = np.float64((self.realised[self.known] > 0).mean() >= 0.5)
        usual["accuracy"] = np.where(self.realised > 0, gain_of_most, 1 - gain_of_most)
        rows = {}
        for name, values in own.items():
            sign = -1.0 if name in ("brier", "crps") else 1.0
            difference = np.where(self.known, sign * (values - usual[name]), 0.0)
            moments = np.stack([difference.sum(1), self.known.sum(1)], axis=1).astype(np.float64)
            interval = _interval(moments, _ratio, *options)
            value, other = values[self.known].mean(), usual[name][self.known].mean()
            rows[name] = (value, other, *interval)
        error = np.abs(self.realised - self.mean)
        for name, (one, other) in {
            "rank_correlation": (self.mean, self.realised),
            "sigma_correlation": (self.sigma, error),
        }.items():
            interval = _rank_correlation(one, other, self.known, options)
            rows[name] = (interval.estimate, 0.0, *interval)
        columns = ["value", "base", "gain", "low", "high", "p_value"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def _each(self) -> dict[str, FloatArray]:
        """Return every forecast's scores (S, N)."""
        gain = self.realised > 0
        sure = np.clip(self.up, _SURE, 1 - _SURE)
        z = (self.realised - self.mean) / self.sigma
        density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        crps = z * (2 * _normal_cdf(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)
        return {
            "accuracy": ((self.up > 0.5) == gain).astype(np.float64),
            "brier": (self.up - gain) ** 2,
            "log_score": np.log(np.where(gain, sure, 1 - sure)),
            "crps": self.sigma * crps,
            "log_density": -0.5 * z**2 - np.log(self.sigma) - 0.5 * np.log(2 * np.pi),
        }


def verdict(scores: pd.DataFrame) -> str:
    """Return a sentence on the accuracy of ``Forecasts.scores`` against the base rate."""
    value, base, gain, low, high, _ = scores.loc["accuracy"].to_numpy(np.float64)
    if low > 0:
        outcome = "it beats the base rate"
    else:
        outcome = "it is worse than the base rate" if high < 0 else "it does not beat the base rate"
    return (
        f"Accuracy {value:.1%}, base rate {base:.1%}: {outcome} "
        f"({100 * gain:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}])."
    )


def _normal_cdf(z: FloatArray) -> FloatArray:
    from scipy.special import ndtr

    return np.asarray(ndtr(z))


def _interval(
    moments: FloatArray, statistic: object, horizon: int, n_resamples: int, level: float, seed: int
) -> Interval:
    """Return the interval of a statistic of sums over time of moments (S, C)."""
    assert callable(statistic)
    estimate = float(statistic(moments.sum(0)[:, None])[0])
    if not np.isfinite(estimate):
        return Interval(np.nan, np.nan, np.nan, np.nan)
    block = max(optimal_block_length(moments[:, 0]), float(min(horizon, len(moments))))
    draws = resampled(
        moments,
        lambda taken: statistic(taken.sum(0)),
        mean_block=block,
        n_resamples=n_resamples,
        seed=seed,
    )
    return percentile_interval(estimate, draws, level)


def _ratio(sums: FloatArray) -> FloatArray:
    return np.asarray(sums[0] / np.maximum(sums[1], 1))


def _correlation(sums: FloatArray) -> FloatArray:
    """Return correlations of sums (6, R): products, then ones, both numbers, both squares."""
    product, count, one, other, one_2, other_2 = sums
    covariance = product - one * other / count
    square = (one_2 - one**2 / count) * (other_2 - other**2 / count)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(square > 1e-18 * one_2 * other_2, covariance / np.sqrt(square), np.nan)
    return np.asarray(found)


def _rank_correlation(
    one: FloatArray,
    other: FloatArray,
    known: NDArray[np.bool_],
    options: tuple[int, int, float, int],
) -> Interval:
    ranks = []
    for values in (one, other):
        rank = np.zeros(values.shape)
        place = pd.Series(values[known]).rank().to_numpy()
        rank[known] = (place - place.mean()) / len(place)
        ranks.append(rank)
    a, b = ranks
    parts = (a * b, known.astype(np.float64), a, b, a * a, b * b)
    return _interval(np.stack([part.sum(1) for part in parts], axis=1), _correlation, *options)
