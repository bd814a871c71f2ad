"""A seeded market with regimes, fat tails, volatility clustering, correlation and volume.

The model, per bar (its yearly figures are turned into figures per bar):

- A Markov chain over ``REGIMES`` sets the drift and the volatility of a market factor.
- The factor has t-distributed shocks and a GARCH(1,1) variance around the regime's (Bollerslev
  1986, J. Econometrics 31; t innovations: 1987, Rev. Econ. Stat. 69), so large moves cluster.
- Log returns follow one factor (Sharpe 1963, Management Science 9): beta_i * factor + own shock,
  the own shocks again GARCH(1,1) with t innovations.
- The open differs from the previous close by a share of the bar's variance. High and low have the
  exact marginal laws of the extremes of a Brownian bridge from open to close.
- Traded money is log-normal, autocorrelated and proportional to 1/2 + |return| / volatility;
  volume = money / close.

Parameters resemble large US shares. Nothing here is predictable except volatility.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps


@dataclass(frozen=True)
class Regime:
    """Yearly drift (of the log) and volatility of the market factor, and the mean stay in bars."""

    name: str
    drift: float
    volatility: float
    stay: float


REGIMES = (
    Regime("bull", 0.15, 0.12, 250),
    Regime("bear", -0.10, 0.22, 120),
    Regime("crisis", -0.60, 0.50, 25),
)
_NEXT = np.array([[0.0, 0.75, 0.25], [0.7, 0.0, 0.3], [0.5, 0.5, 0.0]])  # successors of each regime
_ALPHA, _BETA = 0.08, 0.90  # GARCH(1,1) with unit mean variance
_FREEDOM = 5  # degrees of freedom of the t shocks
_GAP_SHARE = 0.15  # share of a bar's variance between the last close and the open


def check_size(seed: int, bars: int, assets: int, least: int = 2) -> None:
    """Reject sizes that a generator of ``least`` assets or more cannot give."""
    check_integer("seed", seed, 0)
    check_integer("bars", bars, 2, 60_000)
    check_integer("assets", assets, least)


def daily_timestamps(bars: int, periods_per_year: int) -> Timestamps:
    """Return days from 2010-01-04 on: all of them for 365, Monday to Friday for 252.

    Raises:
        ArgumentError: For other frequencies.
    """
    start = np.datetime64("2010-01-04")
    if periods_per_year == 365:
        days = start + np.arange(bars)
    elif periods_per_year == 252:
        days = np.busday_offset(start, np.arange(bars))
    else:
        raise ArgumentError(f"periods_per_year is {periods_per_year}: give 365 or 252")
    return days.astype("datetime64[ns]")


def asset_names(assets: int) -> tuple[str, ...]:
    """Return the names A00, A01, ..."""
    return tuple(f"A{i:02d}" for i in range(assets))


def synthetic_panel(
    *,
    seed: int = 0,
    bars: int = 2_000,
    assets: int = 5,
    periods_per_year: int = 252,
    ragged: bool = False,
) -> PricePanel:
    """Draw a market; the same arguments give the same bits.

    Args:
        seed: Any non-negative integer.
        bars: T >= 2.
        assets: N >= 1.
        periods_per_year: 252 (Monday to Friday) or 365 (every day).
        ragged: Let assets from the third on be listed late (half of them, within the first half of
            the bars) and be delisted early (a quarter of them, within the last quarter).
    """
    check_size(seed, bars, assets, least=1)
    timestamps = daily_timestamps(bars, periods_per_year)
    rng = np.random.default_rng(seed)
    regime = _regimes(rng, bars)
    drift = np.array([r.drift for r in REGIMES])[regime] / periods_per_year
    market_scale = np.array([r.volatility for r in REGIMES])[regime] / np.sqrt(periods_per_year)
    own_scale = rng.uniform(0.15, 0.35, assets) / np.sqrt(periods_per_year)
    betas = rng.uniform(0.6, 1.4, assets)

    shocks, deviations = _garch(rng, bars, assets + 1)
    factor = drift + market_scale * shocks[:, 0]
    returns = betas * factor[:, None] + own_scale * shocks[:, 1:]  # (T, N) logs
    scale = np.hypot(  # (T, N) conditional standard deviations
        betas * (market_scale * deviations[:, 0])[:, None], own_scale * deviations[:, 1:]
    )
    fields = _bars(rng, returns, scale)
    present = _listed(rng, bars, assets) if ragged else np.ones((bars, assets), bool)
    known: dict[str, Any] = {
        name: np.where(present, values, np.nan) for name, values in fields.items()
    }
    return PricePanel(
        timestamps,
        asset_names(assets),
        **known,
        periods_per_year=float(periods_per_year),
        provenance={"source": "synthetic", "seed": seed, "ragged": ragged},
    )


def _regimes(rng: np.random.Generator, bars: int) -> npt.NDArray[np.int64]:
    """Return (T,) indices of a Markov chain over ``REGIMES``, started in the first."""
    leave = 1 / np.array([regime.stay for regime in REGIMES])
    transition = np.diag(1 - leave) + leave[:, None] * _NEXT
    cumulative = transition.cumsum(axis=1)
    path = np.zeros(bars, np.int64)
    for t, u in enumerate(rng.random(bars - 1), start=1):
        path[t] = min(np.searchsorted(cumulative[path[t - 1]], u), len(REGIMES) - 1)
    return path


def _garch(rng: np.random.Generator, bars: int, series: int) -> tuple[FloatArray, FloatArray]:
    """Return (T, K) shocks of mean 0 and variance 1, and their conditional standard deviations."""
    unit = rng.standard_t(_FREEDOM, (bars, series)) / np.sqrt(_FREEDOM / (_FREEDOM - 2))
    variance = np.ones((bars, series))
    for t in range(1, bars):
        variance[t] = (1 - _ALPHA - _BETA) + variance[t - 1] * (_ALPHA * unit[t - 1] ** 2 + _BETA)
    deviations = np.sqrt(variance)
    return deviations * unit, deviations


def _bars(
    rng: np.random.Generator, returns: FloatArray, scale: FloatArray
) -> dict[str, FloatArray]:
    """Return open, high, low, close, volume (T, N) for log returns of closes and their scale."""
    bars, assets = returns.shape
    start = rng.uniform(20, 200, assets)
    close = np.log(start) + np.cumsum(returns, axis=0)
    gap = np.sqrt(_GAP_SHARE) * (
        np.sqrt(_GAP_SHARE) * returns
        + np.sqrt(1 - _GAP_SHARE) * scale * rng.standard_normal(returns.shape)
    )
    opening = close - returns + gap
    move = close - opening
    # P(max of a Brownian bridge from 0 to x >= m) = exp(-2 m (m - x) / variance), solved for m.
    spread = 2 * (1 - _GAP_SHARE) * scale**2
    up, down = -np.log1p(-rng.random((2, bars, assets)))
    high = opening + (move + np.sqrt(move**2 + spread * up)) / 2
    low = opening + (move - np.sqrt(move**2 + spread * down)) / 2

    activity = np.zeros((bars, assets))
    shock = 0.25 * rng.standard_normal((bars, assets))
    for t in range(1, bars):
        activity[t] = 0.8 * activity[t - 1] + shock[t]
    money = rng.uniform(2e7, 2e8, assets) * np.exp(activity) * (0.5 + np.abs(returns) / scale)
    prices = {"open": opening, "high": high, "low": low, "close": close}
    fields = {name: np.exp(values) for name, values in prices.items()}
    fields["high"] = np.maximum(fields["high"], np.maximum(fields["open"], fields["close"]))
    fields["low"] = np.minimum(fields["low"], np.minimum(fields["open"], fields["close"]))
    return fields | {"volume": money / fields["close"]}


def _listed(rng: np.random.Generator, bars: int, assets: int) -> npt.NDArray[np.bool_]:
    """Return (T, N) which assets have a bar; the first two always do."""
    late, early = rng.random((2, assets)) < np.array([[0.5], [0.25]])
    first = np.where(late, rng.integers(1, max(2, bars // 2), assets), 0)
    last = np.where(early, rng.integers(bars * 3 // 4, bars, assets), bars)
    last = np.maximum(last, first + 1)
    first[:2], last[:2] = 0, bars
    row = np.arange(bars)[:, None]
    return np.asarray((row >= first) & (row < last))
