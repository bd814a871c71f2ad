"""Networks trained end to end on a fitting period: what all of them have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from baselines.portfolio_model import PortfolioModel
from baselines.rows import Every
from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray
from portfolio_env.simulation.constraints import PortfolioConstraints

if TYPE_CHECKING:
    from torch import nn

_SPAN = 60  # bars of the exponentially weighted volatility


class NetworkModel(PortfolioModel):
    """Baseline with a network that learns on the first part of its fitting period.

    The rest of the period says which weights of the network are kept.

    Args:
        market: The market its environments trade.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        validation: Share of the fitting period, at its end, that says which weights are kept.
        seed: Seed of the initial weights and of every draw.

    Raises:
        ArgumentError: If torch is not installed, or an option is out of range.
    """

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None,
        every: Every,
        validation: float,
        seed: int,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise ArgumentError(
                "networks need torch, which is not installed; pip install torch safetensors."
            ) from error
        self.validation = check_number("validation", validation, 0.05, 0.5)
        self.seed = check_integer("seed", seed, 0)
        self._network: nn.Module | None = None

    @abstractmethod
    def _new_network(self) -> nn.Module:
        """Return a network with initial weights."""

    @property
    def _trained(self) -> Any:
        """Return the trained network.

        Raises:
            ArgumentError: If there is none.
        """
        if self._network is None:
            raise ArgumentError(
                f"{type(self).__name__} is not trained; call fit(panel, fit_period) first."
            )
        return self._network

    def state(self) -> dict[str, Any]:
        """Return the weights of the network."""
        return {} if self._network is None else {"weights": dict(self._network.state_dict())}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the weights of the network, see ``Baseline``."""
        network = self._new_network()
        network.load_state_dict(state["weights"])
        self._network = network


def ex_ante_volatility(close: FloatArray) -> FloatArray:
    """Return the exponentially weighted deviation of simple returns per bar, of span 60.

    Args:
        close: (T, N) prices, carried over gaps; NaN before an asset's first.

    Returns:
        (T, N), of the prices up to each bar; NaN where there are fewer than 60 returns, or none
        that differ.
    """
    returns = pd.DataFrame(close).pct_change(fill_method=None)
    volatility = returns.ewm(span=_SPAN, min_periods=_SPAN).std().to_numpy()
    return np.where(volatility > 1e-8, volatility, np.nan)
