"""Rules that say how much is invested: trends, volatility, regimes."""

from typing import Any

import numpy as np

from baselines.base import Weights
from baselines.portfolio_model import PortfolioModel, portfolio
from baselines.rows import Every
from baselines.windows import bars_of_months, carried, holdable, own_returns, why_not
from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.diagnostics.regimes import RegimeModel, fit_regimes, regime_path
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import Timestamps
from portfolio_env.simulation.constraints import PortfolioConstraints

_FILTERED = 500  # bars from which a regime is read: a filter forgets its start sooner


class TrendFilter(PortfolioModel):
    """An equal share for each asset, held while its price is above its moving average.

    Faber (2007), "A Quantitative Approach to Tactical Asset Allocation", J. of Wealth Management
    9: the share of an asset that is not above its average of the last ten months is held in cash.
    All that the account may borrow is shared out too.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        months: Months of the average, counted in bars by the market's bars per year.
    """

    shorts = False
    source = 'Faber (2007), "A Quantitative Approach to Tactical Asset Allocation", J. Wealth Mgmt.'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
        months: float = 10,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.months = check_number("months", months, above=0)

    def target(self, past: PricePanel) -> Weights:
        """Return equal shares of all assets with prices for the months, those below in cash."""
        bars = bars_of_months(past, self.months)
        known = holdable(past, bars)
        self.leave_out(past, why_not(past, bars))
        shares = portfolio(known)
        if known.any():
            above = past.close[-1] > carried(past, bars - 1).mean(axis=0)
            shares[1:] *= self._exposure * (known & above)
            shares[0] = 1 - shares[1:].sum()
        return shares


class VolatilityManaged(PortfolioModel):
    """Equal weight, invested in inverse proportion to its variance in the month before.

    Moreira & Muir (2017), "Volatility-Managed Portfolios", J. of Finance 72: exposure c / s^2 with
    s^2 the variance of the returns of the last calendar month, and c such that the managed returns
    are as volatile as the unmanaged ones. Here c follows from the fitting period, and the exposure
    is at most what the account may invest: 1, and what it may borrow. The paper has no such cap;
    with an account that may not borrow the managed volatility is therefore lower.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
    """

    shorts = False
    source = 'Moreira & Muir (2017), "Volatility-Managed Portfolios", J. of Finance 72'

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "month",
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.scale: float | None = None

    def target(self, past: PricePanel) -> Weights:
        """Return equal weights of what can be traded, scaled; all cash without a month before."""
        if self.scale is None:
            raise ArgumentError(
                "VolatilityManaged is not fitted; call fit(panel, fit_period) first."
            )
        returns, times = _market_returns(past)
        shares, exposure = portfolio(past.tradable[-1]), 0.0
        if len(returns) and (variance := last_month_variances(returns, times)[-1]) > 0:
            exposure = min(self.scale / variance, self._exposure)
        shares[1:] *= exposure
        shares[0] = 1 - shares[1:].sum()
        return shares

    def _fit(self, bars: PricePanel) -> None:
        returns, times = _market_returns(bars)
        # what is held over a return was decided at the bar before
        variances = last_month_variances(returns, times)[:-1]
        known = variances > 0
        if known.sum() < 2 or returns[1:][known].std() == 0:
            raise ArgumentError(
                "VolatilityManaged needs returns that vary in two months or more to fit to; give a "
                "longer fit_period."
            )
        own = returns[1:][known]
        self.scale = float(own.std() / (own / variances[known]).std())

    def state(self) -> dict[str, Any]:
        """Return the constant c."""
        return {} if self.scale is None else {"scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the constant c, see ``Baseline``."""
        self.scale = float(state["scale"])


class RegimeSwitching(PortfolioModel):
    """Equal weight in the calm regime of the market, cash in the turbulent one.

    A Markov chain over two regimes of mean and variance (Hamilton 1989, "A New Approach to the
    Economic Analysis of Nonstationary Time Series and the Business Cycle", Econometrica 57) is
    fitted to the equal-weighted log returns of the fitting period; later the filtered
    probabilities, which know no later return, say in which one the market is
    (``evaluation.diagnostics.regimes``). The calm regime gets all that the account may borrow.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        threshold: Probability in [0.5, 1) above which a change of regime is believed.
        turbulent: Share that stays invested in the turbulent regime, in [0, 1).

    Raises:
        PortfolioError: On fitting, if statsmodels is not installed.
    """

    shorts = False
    source = (
        'Hamilton (1989), "A New Approach to the Economic Analysis of Nonstationary Time Series '
        'and the Business Cycle", Econometrica 57'
    )

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = "week",
        threshold: float = 0.8,
        turbulent: float = 0.0,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.threshold = check_number("threshold", threshold, 0.5, below=1)
        self.turbulent = check_number("turbulent", turbulent, 0, below=1)
        self._regimes: RegimeModel | None = None

    def target(self, past: PricePanel) -> Weights:
        """Return equal weights of what can be traded, as far as the regime says."""
        if self._regimes is None:
            raise ArgumentError("RegimeSwitching is not fitted; call fit(panel, fit_period) first.")
        shares = portfolio(past.tradable[-1])
        returns = np.log1p(_market_returns(past)[0][-_FILTERED:])
        calm = True
        if len(returns):
            calm = regime_path(self._regimes.filtered(returns), self.threshold)[-1] == 0
        shares[1:] *= self._exposure if calm else self.turbulent
        shares[0] = 1 - shares[1:].sum()
        return shares

    def _fit(self, bars: PricePanel) -> None:
        self._regimes = fit_regimes(np.log1p(_market_returns(bars)[0]))

    def state(self) -> dict[str, Any]:
        """Return the parameters of the regimes."""
        model = self._regimes
        if model is None:
            return {}
        arrays = {n: getattr(model, n).tolist() for n in _REGIME_ARRAYS}
        return arrays | {"converged": model.converged, "unit": model.unit}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the parameters of the regimes, see ``Baseline``."""
        arrays = {name: np.array(state[name], np.float64) for name in _REGIME_ARRAYS}
        self._regimes = RegimeModel(
            **arrays, converged=bool(state["converged"]), unit=float(state["unit"])
        )


_REGIME_ARRAYS = ("means", "volatilities", "stays", "parameters")


def _market_returns(past: PricePanel) -> tuple[FloatArray, Timestamps]:
    """Return the equal-weighted simple returns of the bars that have any, and their times."""
    if len(past.timestamps) < 2:
        return np.empty(0), past.timestamps[:0]
    returns = own_returns(past, len(past.timestamps) - 1)
    known = ~np.isnan(returns).all(axis=1)
    return np.nanmean(returns[known], axis=1), past.timestamps[1:][known]


def last_month_variances(returns: FloatArray, times: Timestamps) -> FloatArray:
    """Return at each bar the variance of the returns of the calendar month before that of the bar.

    Args:
        returns: (K,) simple returns.
        times: (K,) their times, sorted.

    Returns:
        (K,) sums of squared deviations over the number of returns; NaN without two returns in the
        month before.
    """
    months = times.astype("datetime64[M]").astype(np.int64)
    out = np.full(len(returns), np.nan)
    for month in np.unique(months):
        own = returns[months == month - 1]
        if len(own) > 1:
            out[months == month] = own.var()
    return out
