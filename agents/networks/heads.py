"""Output heads for any number of assets: weights shared over them, pooling for a single value."""

import math

import torch as th
from torch import Tensor, nn


def orthogonal(module: nn.Module, gain: float) -> None:
    """Initialise the linear layers of ``module`` orthogonally, biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)


def masked_mean(rows: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of `rows` (batch, assets, channels) where `mask` (batch, assets) is 1."""
    weights = mask.unsqueeze(-1)
    return (rows * weights).sum(1) / weights.sum(1).clamp(min=1.0)


class RowMlp(nn.Sequential):
    """A perceptron for each asset's row: (batch, assets, in) -> (batch, assets, out)."""

    def __init__(self, width: int, layers: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.out_width = width
        for layer in layers:
            self.append(nn.Linear(self.out_width, layer))
            self.append(activation())
            self.out_width = layer
        orthogonal(self, math.sqrt(2))


class AssetHead(nn.Module):
    """One number per asset from its row, preceded by a free, learned number for cash.

    Cash has no features, so its number is a parameter. Shapes: (batch, assets, width) -> (batch,
    1 + assets).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.asset = nn.Linear(width, 1)
        self.cash = nn.Parameter(th.zeros(1))
        orthogonal(self, 0.01)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the numbers of cash (first) and of every asset."""
        cash = self.cash.expand(rows.shape[0], 1)
        return th.cat([cash, self.asset(rows).squeeze(-1)], dim=1)


def bounded_scores(scores: Tensor) -> Tensor:
    """Return the logits in [-1, 1] of scores (batch, 1 + assets), the largest at 1.

    A softmax does not see a common shift. What lies more than 2 below the largest score is cut
    there, as an environment cuts it that clips logits to [-1, 1].

    >>> bounded_scores(th.tensor([[3.0, 2.5, -7.0]])).tolist()
    [[1.0, 0.5, -1.0]]
    >>> bounded_scores(th.tensor([[1e6 + 0.3, 0.0]])).tolist()  # also of large scores, exactly
    [[1.0, -1.0]]
    """
    return (scores - scores.amax(1, keepdim=True) + 1.0).clamp_min(-1.0)


class PooledCritic(nn.Module):
    """Action value: each row is joined with its own action, and the pooled rows give one number.

    Logits are invariant to a common shift, so actions enter centred on the mean over cash and the
    tradable assets. Shapes: rows (batch, assets, width) with the tradable flag in the last column,
    actions (batch, 1 + assets) -> (batch, 1).
    """

    def __init__(self, width: int, layers: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.rows = RowMlp(width + 2, layers, activation)
        self.value = nn.Linear(self.rows.out_width, 1)

    def forward(self, rows: Tensor, actions: Tensor) -> Tensor:
        """Return Q(s, a), (batch, 1)."""
        mask = rows[..., -1]
        cash, own = actions[:, :1], actions[:, 1:]
        centre = (cash + (own * mask).sum(1, keepdim=True)) / (1.0 + mask.sum(1, keepdim=True))
        actions_of_row = th.stack([own - centre, (cash - centre).expand_as(own)], dim=-1)
        hidden = self.rows(th.cat([rows, actions_of_row], dim=-1))
        value: Tensor = self.value(masked_mean(hidden, mask))
        return value


SIGMA_MIN, SIGMA_MAX = 0.01, 10.0


def bounded_sigma(raw: Tensor) -> Tensor:
    """Map any number to a standard deviation in [SIGMA_MIN, SIGMA_MAX], smoothly.

    Its logarithm is ``centre + half * tanh((raw - centre) / half)``, with the centre and half the
    width of the range of logarithms: about ``exp(raw)`` well inside the range, and with a gradient
    outside of it, where a clip has none.

    >>> [round(sigma, 3) for sigma in bounded_sigma(th.tensor([-50.0, -1.15, 50.0])).tolist()]
    [0.01, 0.317, 10.0]
    """
    low, high = math.log(SIGMA_MIN), math.log(SIGMA_MAX)
    centre, half = (high + low) / 2, (high - low) / 2
    return th.exp(centre + half * th.tanh((raw.float() - centre) / half))


class PredictionHead(nn.Module):
    """Mean and standard deviation of each asset's next return.

    The unit of both is the caller's: returns scaled so that a usual one is about 1 keep sigma clear
    of its bounds.

    Args:
        width: Channels of the encoder, and units of the layer in between.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.out = nn.Linear(width, 2)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and sigma, (batch, assets) each, sigma in [SIGMA_MIN, SIGMA_MAX]."""
        mu, raw = self.out(self.rows(rows)).unbind(-1)
        return mu, bounded_sigma(raw)


class DirectionHead(nn.Module):
    """Log odds that each asset's return is positive.

    Args:
        width: Channels of the encoder, and units of the layer in between.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.out = nn.Linear(width, 1)

    def forward(self, rows: Tensor) -> tuple[Tensor]:
        """Return the logit, (batch, assets)."""
        return (self.out(self.rows(rows)).squeeze(-1),)


class HybridHead(nn.Module):
    """Direction, magnitude and uncertainty of each asset's return, each from layers of its own.

    Args:
        width: Channels of the encoder, and units of the layers in between.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.direction, self.magnitude, self.uncertainty = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(3)
        )

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (batch, assets) each: a logit, a size >= 0, sigma in [SIGMA_MIN, SIGMA_MAX]."""
        logit = self.direction(rows).squeeze(-1)
        magnitude = nn.functional.softplus(self.magnitude(rows).squeeze(-1))
        return logit, magnitude, bounded_sigma(self.uncertainty(rows).squeeze(-1))
