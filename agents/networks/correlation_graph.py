"""Graphs of assets whose returns move together, from the window that the agent sees."""

from typing import NamedTuple

import torch as th
from torch import Tensor

EDGE_DIM = 3
_SMALL = 1e-10  # share of variance in the mean square under which a series counts as constant


class Graph(NamedTuple):
    """Who attends to whom; every asset to itself.

    Attributes:
        adjacency: (batch, assets, assets) bool, [i, j] whether i attends to j.
        edges: (batch, assets, assets, 3): correlation, its size, its sign.
    """

    adjacency: Tensor
    edges: Tensor


def correlations(returns: Tensor) -> Tensor:
    """Pearson's correlation over the bars, without gradient.

    Args:
        returns: (batch, bars, assets).

    Returns:
        (batch, assets, assets) within [-1, 1]; 0 where a series is constant, as it is in a single
        bar; 1 on the diagonal. Rounded to four digits, which makes equal series tie exactly.
    """
    with th.no_grad(), th.autocast(returns.device.type, enabled=False):
        series = returns.float()
        centred = series - series.mean(1, keepdim=True)
        power = centred.square().sum(1, keepdim=True)
        varies = power > _SMALL * series.square().sum(1, keepdim=True)
        unit = th.where(varies, centred * power.clamp(min=1e-30).rsqrt(), 0.0)
        rho = (unit.transpose(1, 2) @ unit).clamp(-1.0, 1.0).round(decimals=4)
        loops = th.eye(rho.shape[1], dtype=th.bool, device=rho.device)
        return rho.masked_fill(loops, 1.0)


def correlation_graph(
    returns: Tensor, tradable: Tensor, threshold: float, neighbours: int | None = None
) -> Graph:
    """Connect each asset with itself and with the tradable assets that correlate with it.

    Args:
        returns: (batch, bars, assets); a single bar gives a complete graph of correlations 0.
        tradable: (batch, assets), 1 or 0; nobody else attends to an asset that does not trade.
        threshold: least size of a correlation; 0 gives the complete graph.
        neighbours: instead of the threshold, so many of the largest correlations other than 0,
            with all that tie with the last one.

    Returns:
        The graph. Its attributes carry no gradient: the graph is data.
    """
    rho = correlations(returns)
    size = rho.abs()
    n = rho.shape[1]
    loops = th.eye(n, dtype=th.bool, device=rho.device)
    seen = (tradable > 0).unsqueeze(1) & ~loops
    if neighbours is None:
        near = size >= threshold
    else:
        others = size.masked_fill(~seen, 0.0)
        least = others.topk(min(neighbours, n)).values[..., -1:]
        near = (others >= least) & (others > 0)
    if returns.shape[1] == 1:
        near = th.ones_like(seen)
    return Graph((near & seen) | loops, th.stack([rho, size, rho.sign()], dim=-1))
