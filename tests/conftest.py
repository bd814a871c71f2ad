"""What all tests share: real data where present, a small market, the hypothesis profile."""

from pathlib import Path

import pytest
from hypothesis import settings

from portfolio_env import Market, load_market

settings.register_profile("portfolio", deadline=None)
settings.load_profile("portfolio")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data, which is not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real market data are not beside the repository (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def market() -> Market:
    """A small synthetic market: 300 bars of 4 assets, 2 of them listed late or delisted."""
    return load_market("synthetic?seed=1&bars=300&assets=4&ragged=true", fit_end=200)
