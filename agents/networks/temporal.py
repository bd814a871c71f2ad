"""Layers along time: causal convolutions, attention pooling.

Time is the first axis, ``(bars, ..., channels)``: shifts along it are then slices without a copy,
and normalisation, attention and the recurrence all take the memory as it lies.
"""

from collections.abc import Iterator
from typing import Any

import torch as th
from torch import Tensor, nn
from torch.nn import functional

from agents.networks.base import BRANCH
from portfolio_env.errors import ArgumentError


def dilations(layers: int) -> list[int]:
    """Return the dilation of each block: 1, 2, 4, ..."""
    return [2**layer for layer in range(layers)]


def receptive_field(kernel: int, layers: int) -> int:
    """Bars that an output of a ``Tcn`` depends on: each block has two convolutions.

    >>> receptive_field(3, 4), receptive_field(3, 3)
    (61, 29)
    """
    return 1 + 2 * (kernel - 1) * sum(dilations(layers))


class CausalConv(nn.Conv1d):
    """Dilated causal convolution along the first axis, (bars, rows, in) -> (bars, rows, out)."""

    def __init__(self, n_in: int, n_out: int, kernel: int, dilation: int) -> None:
        super().__init__(n_in, n_out, kernel, dilation=dilation)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; zeros stand for the bars before the first."""
        weight, bias, kind = self.weight.permute(2, 1, 0).contiguous(), self.bias, x.device.type
        if th.is_autocast_enabled(kind):  # which does not reach into the backward pass below
            lower = th.get_autocast_dtype(kind)
            assert bias is not None
            x, weight, bias = x.to(lower), weight.to(lower), bias.to(lower)
        out: Tensor = _ShiftedProducts.apply(x, weight, bias, self.dilation[0])  # type: ignore[no-untyped-call] # torch
        return out


class _ShiftedProducts(th.autograd.Function):
    """``y_t = bias + sum_k x_{t - (K - 1 - k) dilation} w_k``, one matrix product per tap.

    A shift along the first axis is a slice, so nothing is padded, unfolded or transposed: half the
    time of the library's convolution on a CPU, forward and backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        """Convolve `x` (bars, rows, in) by `weight` (K, in, out)."""
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        flat = x.flatten(0, 1)
        out = th.addmm(bias, flat, weight[-1])
        for k, read, written in _taps(x, weight, dilation):
            out[written].addmm_(flat[read], weight[k])
        return out.view(*x.shape[:2], weight.shape[2])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of ``x``, ``weight`` and ``bias``."""
        x, weight = ctx.saved_tensors
        flat, gradient = x.flatten(0, 1), gradients[0].flatten(0, 1)
        of_x = gradient @ weight[-1].t()
        of_weight = th.zeros_like(weight)
        of_weight[-1] = flat.t() @ gradient
        for k, read, written in _taps(x, weight, ctx.dilation):
            of_x[read].addmm_(gradient[written], weight[k].t())
            of_weight[k] = flat[read].t() @ gradient[written]
        return of_x.view_as(x), of_weight, gradient.sum(0), None


def _taps(x: Tensor, weight: Tensor, dilation: int) -> Iterator[tuple[int, slice, slice]]:
    """Return the taps before the last, the rows of ``x`` each reads and the rows it adds to."""
    bars, rows = x.shape[:2]
    for k in range(len(weight) - 1):
        shift = (len(weight) - 1 - k) * dilation
        if shift < bars:
            yield k, slice(0, (bars - shift) * rows), slice(shift * rows, None)


class TcnBlock(nn.Module):
    """Twice (causal convolution, LayerNorm, GELU, dropout), around a residual connection.

    The residual is the identity where the widths match, else a linear map. The gain of the second
    LayerNorm starts at ``BRANCH``, and the block near its residual. Source: Bai, Kolter & Koltun
    (2018), "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
    Modeling", with LayerNorm for weight normalisation.
    """

    def __init__(
        self, n_in: int, channels: int, kernel: int = 3, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = (n_in, channels)
        self.convs = nn.ModuleList(CausalConv(n, channels, kernel, dilation) for n in widths)
        norms = [nn.LayerNorm(channels) for _ in widths]
        nn.init.constant_(norms[-1].weight, BRANCH)
        self.norms = nn.ModuleList(norms)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if n_in == channels else nn.Linear(n_in, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (bars, rows, in) to (bars, rows, channels)."""
        out = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            out = self.dropout(functional.gelu(norm(conv(out))))
        skipped: Tensor = self.skip(x)
        return skipped + out


class Tcn(nn.Module):
    """Causal blocks of dilation 1, 2, 4, ...

    Attributes:
        receptive_field: Bars that an output depends on.
    """

    def __init__(
        self, n_in: int, channels: int, layers: int = 4, kernel: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if layers < 1 or kernel < 1:
            raise ArgumentError(
                f"a TCN needs layers >= 1 and kernel >= 1, got {layers} and {kernel}"
            )
        self.receptive_field = receptive_field(kernel, layers)
        self.blocks = nn.ModuleList(
            TcnBlock(n_in if layer == 0 else channels, channels, kernel, dilation, dropout)
            for layer, dilation in enumerate(dilations(layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (bars, ..., in) to (bars, ..., channels); zeros stand for the bars before."""
        out = x.flatten(1, -2)
        for block in self.blocks:
            out = block(out)
        return out.view(*x.shape[:-1], out.shape[-1])


def band(bars: int, window: int, device: th.device) -> Tensor:
    """Return the mask (bars - window + 1, bars) of the last ``window`` bars of each bar.

    The first row is that of bar ``window - 1``, the first with as many.

    >>> band(4, 3, th.device("cpu")).int().tolist()
    [[1, 1, 1, 0], [0, 1, 1, 1]]
    """
    ages = th.arange(window - 1, bars, device=device)[:, None] - th.arange(bars, device=device)
    return (ages >= 0) & (ages < window)


DECAY = 0.5  # at the start; of a long window, the last bar weighs 0.39


class TemporalPooling(nn.Module):
    """Mean over time with learned weights: softmax of one linear, unbounded logit per bar.

    Of a bar ``age`` bars before the last, the logit is lowered by ``decay * age``: what a recurrent
    state says of the past, the last one says best. Source: Press, Smith & Lewis (2022), "Train
    Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation", with a
    learned slope.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logit = nn.Linear(channels, 1, bias=False)  # a softmax ignores a bias
        self.decay = nn.Parameter(th.tensor(DECAY))

    def weights(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return the weights (bars, ...) of the bars of ``x`` (bars, ..., channels), summing to 1.

        Bars where ``seen`` (bars, ...) is false weigh 0, unless all are.
        """
        ages = th.arange(len(x) - 1, -1, -1, device=x.device)
        logits = self._logits(x, ages.view(-1, *[1] * (x.dim() - 2)))
        hidden = ~(seen | ~seen.any(0))
        return logits.masked_fill(hidden, -th.inf).softmax(0)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Pool (bars, ..., channels) to (..., channels)."""
        return (self.weights(x, seen).to(x.dtype).unsqueeze(-1) * x).sum(0)

    def banded(self, x: Tensor, seen: Tensor, window: int) -> Tensor:
        """Pool the last ``window`` bars of every bar that has so many.

        Args:
            x: (bars, ..., channels).
            seen: (bars, ...), as of ``weights``.
            window: Bars to pool.

        Returns:
            (bars - window + 1, ..., channels)
        """
        rows = x.flatten(1, -2).transpose(0, 1)
        # A softmax ignores what all logits of a row share: the age at the series' last bar will do.
        ages = th.arange(len(x) - 1, -1, -1, device=x.device)
        logits = self._logits(rows, ages).unsqueeze(1)
        known = seen.flatten(1).t()
        none = ~known.unfold(1, window, 1).any(-1)
        within = band(len(x), window, x.device) & (known.unsqueeze(1) | none.unsqueeze(2))
        weights = th.where(within, logits, -th.inf).softmax(-1).to(x.dtype)
        pooled = (weights @ rows).transpose(0, 1)
        return pooled.reshape(len(pooled), *x.shape[1:])

    def _logits(self, x: Tensor, ages: Tensor) -> Tensor:
        out: Tensor = self.logit(x).squeeze(-1).float() - self.decay * ages
        return out
