"""Heads behind an encoder, for any number of assets: trading, prediction, direction, value.

Each asset's numbers come from its own row through weights shared over assets, so permuting the
assets permutes them; the value comes from pooled rows, so permuting them changes nothing.
"""

import math

import torch as th
from torch import Tensor, nn

from agents.networks.heads import AssetHead, masked_mean

SIGMA_MIN, SIGMA_MAX = 0.01, 10.0


def bounded_sigma(raw: Tensor) -> Tensor:
    """Any number to a standard deviation in [SIGMA_MIN, SIGMA_MAX], smoothly.

    Its logarithm is `centre + half * tanh((raw - centre) / half)`, with the centre and half the
    width of the range of logarithms: about `exp(raw)` well inside the range, and with a gradient
    outside of it, where a clip has none.

    >>> [round(sigma, 3) for sigma in bounded_sigma(th.tensor([-50.0, -1.15, 50.0])).tolist()]
    [0.01, 0.317, 10.0]
    """
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    centre, half = (high + low) / 2, (high - low) / 2
    return th.exp(centre + half * th.tanh((raw.float() - centre) / half))


def _hidden(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU())


class TradingHead(nn.Module):
    """Logits of cash and assets, (batch, assets, width) -> (batch, 1 + assets).

    Args:
        width: channels of the encoder.
        hidden: units of the layer in between; None means `width`.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.rows = _hidden(width, hidden or width)
        self.logits = AssetHead(hidden or width)

    def forward(self, rows: Tensor, tradable: Tensor | None = None) -> Tensor:
        """Return logits, cash first; where `tradable` (batch, assets) is 0 they are -inf."""
        logits: Tensor = self.logits(self.rows(rows))
        if tradable is None:
            return logits
        open_ = th.cat([th.ones_like(logits[:, :1]), tradable.to(logits.dtype)], 1) > 0
        return logits.masked_fill(~open_, -th.inf)

    def weights(self, rows: Tensor, tradable: Tensor | None = None) -> Tensor:
        """Return long-only weights (batch, 1 + assets), cash first, 0 where not tradable."""
        return self(rows, tradable).softmax(1)


class PredictionHead(nn.Module):
    """Mean and standard deviation of each asset's next return.

    Arguments as in `TradingHead`. The unit of both is the caller's: returns scaled so that a usual
    one is about 1 keep sigma clear of its bounds.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.rows = _hidden(width, hidden or width)
        self.out = nn.Linear(hidden or width, 2)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and sigma, (batch, assets) each, sigma in [SIGMA_MIN, SIGMA_MAX]."""
        mu, raw = self.out(self.rows(rows)).unbind(-1)
        return mu, bounded_sigma(raw)


class DirectionHead(nn.Module):
    """Logit of a rise for each asset, (batch, assets, width) -> (batch, assets).

    Arguments as in `TradingHead`.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.rows = _hidden(width, hidden or width)
        self.out = nn.Linear(hidden or width, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits; their sigmoid is the probability of a rise."""
        out: Tensor = self.out(self.rows(rows)).squeeze(-1)
        return out


class ValueHead(nn.Module):
    """Value of a state, from the mean of the tradable assets' rows.

    Arguments as in `TradingHead`.
    """

    def __init__(self, width: int, hidden: int | None = None) -> None:
        super().__init__()
        self.rows = _hidden(width, hidden or width)
        self.out = nn.Linear(hidden or width, 1)

    def forward(self, rows: Tensor, tradable: Tensor) -> Tensor:
        """Return values (batch, 1) of rows (batch, assets, width); `tradable` (batch, assets)."""
        out: Tensor = self.out(masked_mean(self.rows(rows), tradable.to(rows.dtype)))
        return out
