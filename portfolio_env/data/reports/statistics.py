"""Statistics of price histories as pure functions: returns, correlation, covariance, clustering.

Arrays are (T, N), rows in order of time, NaN where an asset has no bar. Returns are simple unless
the name says log; yearly figures follow from ``periods_per_year``; deviations divide by K - 1.
Functions of several assets pair the bars that both have. Statistics of a part of the data, e.g. the
training range, are those of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env import metrics
from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import bars_per_year
from portfolio_env.names import unknown

COVARIANCES = ("sample", "ledoit_wolf", "ewma")
_DECAY = 0.94  # of RiskMetrics (1996), for daily returns
_COMMON = 30  # bars that a pair must share for a correlation


def simple_returns(close: FloatArray) -> FloatArray:
    """Return returns (T, N) from the bar before; NaN in row 0 and beside missing bars."""
    returns = np.full(np.shape(close), np.nan)
    returns[1:] = close[1:] / close[:-1] - 1
    return returns


def log_returns(close: FloatArray) -> FloatArray:
    """Return log returns (T, N) from the bar before; NaN in row 0 and beside missing bars."""
    return np.log1p(simple_returns(close))


def correlation(returns: FloatArray) -> FloatArray:
    """Return correlations (N, N) over the bars that a pair shares; NaN below 30 shared bars."""
    return pd.DataFrame(returns).corr(min_periods=_COMMON).to_numpy()


def rolling_correlation(returns: FloatArray, reference: int = 0, window: int = 30) -> FloatArray:
    """Return the correlation (T, N) of each asset with a reference asset over ``window`` bars."""
    frame = pd.DataFrame(returns)
    together = frame.rolling(window).corr(frame[reference])
    return together.replace([np.inf, -np.inf], np.nan).clip(-1, 1).to_numpy()


def rolling_volatility(
    returns: FloatArray, periods_per_year: float, window: int = 30
) -> FloatArray:
    """Return the yearly standard deviation (T, N) of the last ``window`` returns."""
    return pd.DataFrame(returns).rolling(window).std().to_numpy() * np.sqrt(periods_per_year)


def diversifying_pairs(
    returns: FloatArray, assets: Sequence[str], count: int | None = None
) -> pd.DataFrame:
    """Return pairs of assets from the least correlated on.

    Args:
        returns: (T, N).
        assets: N names.
        count: Number of pairs; None is all.

    Returns:
        Columns first, second, correlation, bars (shared). Pairs that share fewer than 30 bars are
        left out.
    """
    i, j = np.triu_indices(len(assets), 1)
    present = np.isfinite(returns).astype(np.float64)
    names = np.array(assets, dtype=object)
    pairs = pd.DataFrame(
        {
            "first": names[i],
            "second": names[j],
            "correlation": correlation(returns)[i, j],
            "bars": (present.T @ present)[i, j].astype(np.int64),
        }
    )
    ranked = pairs.dropna().sort_values("correlation", kind="stable", ignore_index=True)
    return ranked if count is None else ranked.head(count)


def covariance(
    returns: FloatArray, periods_per_year: float, method: str = "sample", decay: float = _DECAY
) -> FloatArray:
    """Return the yearly covariance (N, N) of the returns, over the bars that every asset has.

    Args:
        returns: (T, N).
        periods_per_year: Bars per year.
        method: "sample" (divides by K - 1); "ledoit_wolf", shrunk towards the scaled identity
            (Ledoit & Wolf 2004, J. Multivariate Analysis 88; divides by K; needs scikit-learn); or
            "ewma", weights falling by ``decay`` per bar, sum 1, mean 0 (RiskMetrics 1996).
        decay: In (0, 1).

    Raises:
        ArgumentError: For an unknown method, a decay out of range, or fewer than 2 shared bars.
        PortfolioError: If scikit-learn is needed and not installed.
    """
    if method not in COVARIANCES:
        raise unknown("covariance", method, COVARIANCES)
    check_number("decay", decay, above=0, below=1)
    rows = returns[np.isfinite(returns).all(axis=1)]
    if len(rows) < 2:
        raise ArgumentError(
            f"the assets share {len(rows)} returns: a covariance needs 2; leave some assets out"
        )
    if method == "sample":
        return np.atleast_2d(np.cov(rows, rowvar=False)) * periods_per_year
    if method == "ewma":
        weights = decay ** np.arange(len(rows) - 1, -1, -1)
        return (rows * (weights / weights.sum())[:, None]).T @ rows * periods_per_year
    try:
        from sklearn.covariance import ledoit_wolf
    except ImportError as error:
        raise PortfolioError("ledoit_wolf needs scikit-learn; pip install scikit-learn") from error
    return np.asarray(ledoit_wolf(rows)[0], np.float64) * periods_per_year


def common_assets(returns: FloatArray, least: int = 60) -> list[int]:
    """Return assets that share at least so many bars, without those that shorten the range most.

    Args:
        returns: (T, N).
        least: Bars to share.

    Returns:
        Places in increasing order. As long as too few bars are shared, the asset goes without which
        the others share most.
    """
    present = np.isfinite(returns)
    kept = list(range(present.shape[1]))
    while len(kept) > 1 and present[:, kept].all(axis=1).sum() < least:
        shared = [present[:, [j for j in kept if j != i]].all(axis=1).sum() for i in kept]
        kept.pop(int(np.argmax(shared)))
    return kept


def arch_lm(returns: npt.ArrayLike, lags: int = 5) -> tuple[float, float]:
    """Return Engle's test for volatility clustering (1982, Econometrica 50): statistic and p-value.

    The squared deviations from the mean are regressed on their own ``lags`` last values; K R^2 of
    that regression is chi-squared with ``lags`` degrees of freedom where volatility does not
    cluster. Small p-values speak for clustering.

    Args:
        returns: (K,), NaN are left out.
        lags: At least 1.

    Returns:
        NaN for both where there are no more than 2 ``lags`` + 2 returns, or all are equal.

    Raises:
        PortfolioError: If scipy is not installed.
    """
    series = np.asarray(returns, np.float64)
    series = series[np.isfinite(series)]
    if len(series) <= 2 * lags + 2 or np.ptp(series) == 0:
        return np.nan, np.nan
    squares = np.square(series - series.mean())
    past = np.lib.stride_tricks.sliding_window_view(squares[:-1], lags)
    target = squares[lags:]
    design = np.column_stack([np.ones(len(target)), past])
    coefficients = np.linalg.lstsq(design, target, rcond=None)[0]
    residual = np.square(target - design @ coefficients).sum()
    total = np.square(target - target.mean()).sum()
    if not total > 0:
        return np.nan, np.nan
    statistic = len(target) * (1 - residual / total)
    return float(statistic), float(scipy_stats().chi2.sf(statistic, lags))


def scipy_stats() -> Any:
    """Return the module ``scipy.stats``.

    Raises:
        PortfolioError: If scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise PortfolioError("this needs scipy; pip install scipy") from error
    return stats


def autocorrelation(values: npt.ArrayLike, lag: int = 1) -> float:
    """Return the correlation of a series (K,) with itself ``lag`` bars before; NaN if undefined."""
    return float(pd.Series(np.asarray(values, np.float64)).autocorr(lag))


def asset_statistics(panel: PricePanel) -> pd.DataFrame:
    """Return one row per asset, over its own bars.

    Returns:
        Columns bars; mean, volatility (yearly, of simple returns); sharpe (yearly, risk-free rate
        0); skew, kurtosis (excess; both corrected for bias); min, max (returns of a bar);
        max_drawdown; clustering (lag-1 autocorrelation of absolute returns); arch_lm_p (see
        ``arch_lm``); last_price. NaN where undefined.
    """
    rows = {}
    for name, close, returns in zip(
        panel.assets, panel.close.T, simple_returns(panel.close).T, strict=True
    ):
        own = np.isfinite(close)
        known, prices = returns[np.isfinite(returns)], close[own]
        stated = panel.stated_periods_per_year
        per_year = bars_per_year(panel.timestamps[own]) if np.isnan(stated) else stated
        series = pd.Series(known)
        any_return = len(known) > 0
        rows[name] = {
            "bars": len(prices),
            "mean": series.mean() * per_year,
            "volatility": float(metrics.volatility(known, per_year)) if any_return else np.nan,
            "sharpe": float(metrics.sharpe(known, per_year)) if any_return else np.nan,
            "skew": series.skew(),
            "kurtosis": series.kurt(),
            "min": series.min(),
            "max": series.max(),
            "max_drawdown": float(metrics.max_drawdown(prices)) if len(prices) > 1 else np.nan,
            "clustering": autocorrelation(np.abs(returns)),
            "arch_lm_p": arch_lm(known)[1],
            "last_price": prices[-1] if len(prices) else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("asset")


def bollinger(
    close: FloatArray, window: int = 20, width: float = 2.0
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return lower band, average and upper band (T,), ``width`` population deviations apart."""
    rolling = pd.Series(close).rolling(window)
    middle, deviation = rolling.mean().to_numpy(), rolling.std(ddof=0).to_numpy()
    return middle - width * deviation, middle, middle + width * deviation


def rsi(close: FloatArray, window: int = 14) -> FloatArray:
    """Return the relative strength index (T,) in [0, 100] (Wilder 1978), averaged by 1 / window."""
    change = pd.Series(close).diff()

    def smooth(moves: pd.Series[float]) -> pd.Series[float]:
        return moves.ewm(alpha=1 / window, adjust=False, min_periods=window).mean()

    up, down = smooth(change.clip(lower=0)), smooth((-change).clip(lower=0))
    return np.asarray(100 * up / (up + down), np.float64)


def macd(
    close: FloatArray, fast: int = 12, slow: int = 26, signal: int = 9
) -> tuple[FloatArray, FloatArray]:
    """Return MACD (T,), the difference of two exponential averages (Appel), and its own average."""
    series = pd.Series(close)
    line = series.ewm(span=fast, adjust=False, min_periods=fast).mean()
    line -= series.ewm(span=slow, adjust=False, min_periods=slow).mean()
    average = line.ewm(span=signal, adjust=False, min_periods=signal).mean()
    return line.to_numpy(), average.to_numpy()
