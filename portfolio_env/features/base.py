"""What a feature is."""

from collections.abc import Callable
from dataclasses import dataclass

from portfolio_env.panel import FloatArray, PricePanel


@dataclass(frozen=True)
class Feature:
    """One causal channel computed from a panel.

    Attributes:
        name: its name among `Market.feature_names`.
        compute: panel -> (T, N) float64; row t uses rows <= t only, NaN where unknown.
        lookback: how many rows before t the value at t uses.
        needs: the bar fields besides close that must be known.
    """

    name: str
    compute: Callable[[PricePanel], FloatArray]
    lookback: int = 0
    needs: tuple[str, ...] = ()
