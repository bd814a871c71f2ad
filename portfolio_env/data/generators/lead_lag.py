"""A market in which an asset's own features say nothing about it: ``LeadLagMarket``.

Assets come in pairs. Each has a signal s, an AR(1) process as in ``data.generators.planted``, but
the simple return of asset i from close t to close t + 1 is

    kappa * s_partner(i),t + sigma * e_i,t+1

The noise of two partners is correlated, that of different pairs independent: correlations of past
returns show who is whose partner. Who is, is drawn, so that the order of assets says nothing.

The estimate of the partner's signal from own past is ``LeadLagMarket.filtered``: little, and
the best that is linear in returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.data.generators import noise
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError
from portfolio_env.features.pipeline import build_market
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel


@dataclass(frozen=True, eq=False)
class LeadLagMarket(PlantedMarket):
    """Market drawn from the process above; attributes beyond those of ``PlantedMarket`` below.

    Attributes:
        partner: (N,) the asset whose signal moves the returns of each; ``partner[partner]`` is
            0, 1, ..., N - 1.
        correlation: Correlation of the noise of two partners.
    """

    partner: npt.NDArray[np.int64]
    correlation: float

    @classmethod
    def draw(
        cls,
        *,
        seed: int = 0,
        bars: int = 3_000,
        assets: int = 8,
        strength: str = "medium",
        kappa: float | None = None,
        phi: float | None = None,
        correlation: float = 0.7,
    ) -> LeadLagMarket:
        """Draw a market; the same arguments give the same bits.

        Args:
            seed: Any non-negative integer.
            bars: T >= 2.
            assets: N >= 4, even.
            strength: As for ``PlantedMarket.draw``.
            kappa: As for ``PlantedMarket.draw``.
            phi: As for ``PlantedMarket.draw``.
            correlation: Correlation of the noise of two partners, in (-1, 1).
        """
        if assets < 4 or assets % 2:
            raise ArgumentError(f"assets={assets}: pairs need an even number of at least 4")
        if not -1 < correlation < 1:
            raise ArgumentError(f"correlation={correlation}: give one in (-1, 1)")
        alone = PlantedMarket.draw(
            seed=seed, bars=bars, assets=assets, strength=strength, kappa=kappa, phi=phi
        )
        order = np.random.default_rng([seed, 1]).permutation(assets)
        partner = np.empty(assets, np.int64)
        partner[order] = order.reshape(-1, 2)[:, ::-1].ravel()
        mixing = _mixing(partner, correlation)
        largest = mixing.sum(axis=0).max() * noise.LARGEST
        if np.abs(alone.expected).max() + alone.sigma * largest >= 1:
            raise ArgumentError(f"kappa={alone.kappa} allows returns of -100 %: give a smaller one")
        return cls(
            alone.channels,
            alone.noise @ mixing,
            alone.kappa,
            alone.phi,
            alone.sigma,
            seed,
            partner,
            correlation,
        )

    @property
    def expected(self) -> FloatArray:
        """Return expected simple returns (T, N) from close t to close t + 1, given data up to t."""
        return self.kappa * self.signal[:, self.partner]

    @property
    def provenance(self) -> dict[str, Any]:
        """Return the provenance of the panel."""
        structure = {"correlation": self.correlation, "partner": self.partner.tolist()}
        return super().provenance | {"source": "planted lead and lag"} | structure

    @cached_property
    def market(self) -> Market:
        """Return the market with the last return and the four channels as features, unscaled."""
        return build_market(self.panel, features=("return_1", "exogenous"))

    @cached_property
    def filtered(self) -> FloatArray:
        """Return the best linear estimate (T, N) of the partner's signal from own past returns.

        The Kalman filter of the state s_t = phi s_(t-1) + sqrt(1 - phi^2) u_t, observed as
        r_(t+1) = kappa s_t + sigma e_(t+1) and known at t from r_1 ... r_t. It would be the best
        estimate of all if the noise were Gaussian; as it is not, a nonlinear one may be a little
        better. Kalman 1960, J. Basic Engineering 82.
        """
        estimate, variance = np.zeros_like(self.returns), 1.0
        for t in range(1, len(estimate)):
            gain = self.kappa * variance / (self.kappa**2 * variance + self.sigma**2)
            surprise = self.returns[t] - self.kappa * estimate[t - 1]
            estimate[t] = self.phi * (estimate[t - 1] + gain * surprise)
            variance = 1 - self.phi**2 * (1 - variance * (1 - gain * self.kappa))
        return estimate

    @cached_property
    def _shocks(self) -> FloatArray:
        independent = noise.scenarios(len(self.partner))
        return self.sigma * independent @ _mixing(self.partner, self.correlation)


def _mixing(partner: npt.NDArray[np.int64], correlation: float) -> FloatArray:
    """Return the symmetric root (N, N) of the noise's covariance: partners have the same law."""
    up, down = np.sqrt(1 + correlation), np.sqrt(1 - correlation)
    own = np.eye(len(partner))
    return (up + down) / 2 * own + (up - down) / 2 * own[partner]


def lead_lag_panel(
    *,
    seed: int = 0,
    bars: int = 3_000,
    assets: int = 8,
    strength: str = "medium",
    kappa: float | None = None,
    phi: float | None = None,
    correlation: float = 0.7,
) -> PricePanel:
    """Return the panel of ``LeadLagMarket.draw``."""
    return LeadLagMarket.draw(
        seed=seed,
        bars=bars,
        assets=assets,
        strength=strength,
        kappa=kappa,
        phi=phi,
        correlation=correlation,
    ).panel
