"""Real prices that come with a dependency."""

import importlib.util
from pathlib import Path

import pandas as pd

from portfolio_env.data.files import panel_from_prices
from portfolio_env.errors import DataError
from portfolio_env.panel import PricePanel


def sp500_panel() -> PricePanel:
    """Adjusted daily closes of 20 large S&P 500 companies, 1990-01-02 to 2022-12-28.

    The file is part of the wheel of skfolio (https://skfolio.org), which is found but not imported
    (its import takes seconds). The companies were chosen in hindsight: all of them survived.

    Raises:
        DataError: if skfolio is not installed.
    """
    found = importlib.util.find_spec("skfolio")
    folders = (found and found.submodule_search_locations) or []
    paths = [Path(folder) / "datasets" / "data" / "sp500_dataset.csv.gz" for folder in folders]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise DataError("the prices of 'sp500' are not here; pip install 'portfolio-env[data]'")
    frame = pd.read_csv(path, index_col=0)
    return panel_from_prices(frame, "sp500 (skfolio)")
