"""What the assets of a backtest did from each of its decisions to the next."""

import numpy as np
import pandas as pd

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.backtest import BacktestResult, FloatArray
from portfolio_env.names import positions
from portfolio_env.panel import PricePanel


def decision_rows(result: BacktestResult, panel: PricePanel) -> tuple[int, int]:
    """The half-open range of the panel's rows at which the backtest decided.

    Raises:
        ArgumentError: If the panel does not hold the bars of the backtest.
    """
    start = int(np.searchsorted(panel.timestamps, result.timestamps[0]))
    end = start + len(result.timestamps)
    if not np.array_equal(panel.timestamps[start:end], result.timestamps):
        raise ArgumentError(
            f"the prices are not those of the backtest from {result.timestamps[0]} to "
            f"{result.timestamps[-1]}; give the market that it ran on."
        )
    return start, end - 1


def realised_returns(result: BacktestResult, panel: PricePanel) -> FloatArray:
    """(K, N) simple returns of the account's assets from close to close after each decision.

    A bar that is missing takes the last price, as the account does; 0 before the first price.

    Args:
        result: The backtest.
        panel: Prices of the market that it ran on, all of its bars or those of the backtest.

    Raises:
        ArgumentError: If the panel does not hold its bars or its assets.
    """
    start, end = decision_rows(result, panel)
    columns = positions("asset", result.assets, panel.assets)
    close = pd.DataFrame(panel.close[: end + 1, columns]).ffill().to_numpy()[start:]
    return np.nan_to_num(close[1:] / close[:-1] - 1)
