"""Markets with a known data-generating process: ``PlantedMarket``, with or without a signal.

Per asset, independently of the others, the signal s is a unit-variance AR(1) process of coefficient
phi, and the simple return from close t to close t + 1 is kappa * s_t + sigma * e_(t+1), with the
noise e of ``data.generators.noise``. The features are the signal and three unit-variance AR(1)
processes that predict nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from portfolio_env.data.generators import noise
from portfolio_env.data.generators.log_optimal import log_growth, log_optimal
from portfolio_env.data.generators.synthetic import asset_names, check_size, daily_timestamps
from portfolio_env.errors import ArgumentError
from portfolio_env.features.pipeline import build_market
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.names import unknown

STRENGTHS = {"weak": (0.0012, 0.98), "medium": (0.002, 0.95)}
"""kappa (return per unit of signal) and phi by name."""
DISTRACTORS = {"distractor_98": 0.98, "distractor_90": 0.9, "distractor_0": 0.0}
_SIGMA = 0.02

Rows = int | slice | npt.NDArray[np.integer[Any]] | None


@dataclass(frozen=True, eq=False)
class PlantedMarket:
    """Market drawn from a known process, with its exact expected returns and optimal growth.

    Attributes:
        channels: The features (T, N) by name, ``"signal"`` first.
        noise: (T, N) of variance 1; row t moves the price from close t - 1 to close t.
        kappa: Expected simple return per unit of signal.
        phi: Autocorrelation of the signal.
        sigma: Standard deviation of a bar's return around its expectation.
        seed: The seed it was drawn with.
    """

    channels: dict[str, FloatArray]
    noise: FloatArray
    kappa: float
    phi: float
    sigma: float
    seed: int

    @classmethod
    def draw(
        cls,
        *,
        seed: int = 0,
        bars: int = 3_000,
        assets: int = 5,
        strength: str = "medium",
        kappa: float | None = None,
        phi: float | None = None,
    ) -> PlantedMarket:
        """Draw a market; the same arguments give the same bits.

        Args:
            seed: Any non-negative integer.
            bars: T >= 2.
            assets: N >= 2.
            strength: "weak" (kappa .0012, phi .98) or "medium" (.002, .95).
            kappa: Expected return per unit of signal, instead of that of ``strength``; 0 for none.
            phi: Autocorrelation of the signal in [0, 1), instead of that of ``strength``.
        """
        check_size(seed, bars, assets)
        if strength not in STRENGTHS:
            raise unknown("strength", strength, STRENGTHS)
        kappa = STRENGTHS[strength][0] if kappa is None else kappa
        phi = STRENGTHS[strength][1] if phi is None else phi
        if not 0 <= phi < 1 or not np.isfinite(kappa):
            raise ArgumentError(f"kappa={kappa}, phi={phi}: need a finite kappa and phi in [0, 1)")
        rng = np.random.default_rng(seed)
        persistence = {"signal": phi} | DISTRACTORS
        values = _autoregressive(rng, bars, assets, np.array([*persistence.values()]))
        channels = {name: values[:, k] for k, name in enumerate(persistence)}
        if np.abs(kappa * channels["signal"]).max() + _SIGMA * noise.LARGEST >= 1:
            raise ArgumentError(f"kappa={kappa} allows returns of -100 %: give a smaller one")
        return cls(channels, noise.draw(rng, (bars, assets)), kappa, phi, _SIGMA, seed)

    @property
    def signal(self) -> FloatArray:
        """Return the signal (T, N)."""
        return self.channels["signal"]

    @property
    def expected(self) -> FloatArray:
        """Return expected simple returns (T, N) from close t to close t + 1, given data up to t."""
        return self.kappa * self.signal

    @cached_property
    def returns(self) -> FloatArray:
        """Return simple returns (T, N) from close t - 1 to close t; 0 in the first row."""
        returns = self.sigma * self.noise
        returns[1:] += self.expected[:-1]
        returns[0] = 0.0
        return returns

    @property
    def provenance(self) -> dict[str, Any]:
        """Return the provenance of the panel."""
        parameters = {name: getattr(self, name) for name in ("kappa", "phi", "sigma", "seed")}
        return {"source": "planted", **parameters}

    @cached_property
    def panel(self) -> PricePanel:
        """Return the closing prices, with the features as exogenous channels."""
        return PricePanel(
            daily_timestamps(len(self.returns), 252),
            asset_names(self.returns.shape[1]),
            np.asarray(100 * np.cumprod(1 + self.returns, axis=0), np.float64),
            exogenous=self.channels,
            periods_per_year=252.0,
            provenance=self.provenance,
        )

    @cached_property
    def market(self) -> Market:
        """Return the market with the four channels as features, unscaled."""
        return build_market(self.panel, features="exogenous")

    def mirrored(self) -> Self:
        """Return the market with the same features and the opposite noise.

        The mean of a policy's growth over both is free of the noise to first order.
        """
        return replace(self, noise=-self.noise)

    def log_optimal_weights(self, rows: Rows = None) -> FloatArray:
        """Return log-optimal weights (M, N + 1), cash first, at M rows (None: all).

        Without costs they are the best policy for any horizon, as the choice at t changes nothing
        but the wealth at t + 1. The optimisation is exact to 1e-13 of log growth per bar; the
        expectation is over the 4,096 scenarios of ``generators.noise.scenarios``, a quadrature.
        """
        return log_optimal(self._at(rows), self._shocks)[0]

    def log_optimal_growth(self, rows: Rows = None) -> FloatArray:
        """Return expected log growth (M,) per bar of the log-optimal weights, same quadrature."""
        return self.growth(self.log_optimal_weights(rows), rows)

    def growth(self, weights: FloatArray, rows: Rows = None) -> FloatArray:
        """Return expected log growth (M,) of weights (M, N + 1) at rows (None: all), cost-free."""
        expected = self._at(rows)
        shape = (len(expected), expected.shape[1] + 1)
        if np.shape(weights) != shape:
            raise ArgumentError(f"weights have shape {np.shape(weights)}: expected {shape}")
        return log_growth(np.asarray(weights, np.float64), expected, self._shocks)

    def _at(self, rows: Rows) -> FloatArray:
        expected = self.expected[slice(None) if rows is None else rows]
        return np.atleast_2d(expected)

    @cached_property
    def _shocks(self) -> FloatArray:
        return self.sigma * noise.scenarios(self.noise.shape[1])


def _autoregressive(
    rng: np.random.Generator, bars: int, assets: int, phi: FloatArray
) -> FloatArray:
    """Return (T, K, N) stationary AR(1) processes of unit variance with coefficients phi (K,)."""
    values = rng.standard_normal((bars, len(phi), assets))
    carried, fresh = phi[:, None], np.sqrt(1 - phi[:, None] ** 2)
    for t in range(1, bars):
        values[t] = carried * values[t - 1] + fresh * values[t]
    return values


def momentum_panel(
    *,
    seed: int = 0,
    bars: int = 3_000,
    assets: int = 5,
    strength: str = "medium",
    kappa: float | None = None,
    phi: float | None = None,
) -> PricePanel:
    """Return the panel of ``PlantedMarket.draw``."""
    return PlantedMarket.draw(
        seed=seed, bars=bars, assets=assets, strength=strength, kappa=kappa, phi=phi
    ).panel


def null_panel(*, seed: int = 0, bars: int = 3_000, assets: int = 5) -> PricePanel:
    """Return the panel of ``PlantedMarket.draw`` with kappa = 0."""
    return PlantedMarket.draw(seed=seed, bars=bars, assets=assets, kappa=0.0).panel
