"""Recurrent encoders with attention over time, run over each asset's window with shared weights."""

import math
from collections.abc import Sequence

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F

from agents.networks.checks import check_heads, check_share, check_sizes
from agents.networks.encoders import Encoder


class Lstm(nn.RNNBase):
    """`nn.LSTM` with the batch in front, from a state of zeros, that `torch.compile` can trace.

    The compiler refuses `nn.LSTM`, and on a CPU the fused kernel behind it. So a compiled CPU
    model runs the equations bar by bar, with the same weights.

    Args:
        width: numbers per bar.
        hidden: width of each layer and direction.
        layers: how many.
        dropout: share dropped between layers in training.
        bidirectional: a second pass from the last bar to the first, beside the first.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        check_sizes(width=width, hidden=hidden, layers=layers)
        check_share("dropout", dropout)
        super().__init__(
            "LSTM",
            width,
            hidden,
            layers,
            batch_first=True,
            # Between layers; RNNBase warns of a rate that a single layer has no use for.
            dropout=dropout if layers > 1 else 0.0,
            bidirectional=bidirectional,
        )

    def forward(self, series: Tensor) -> Tensor:
        """Return every output: (rows, bars, width) -> (rows, bars, hidden or twice hidden)."""
        if th.compiler.is_compiling() and series.device.type == "cpu":
            return self._by_bar(series)
        depth = self.num_layers * (1 + self.bidirectional)
        start = series.new_zeros(depth, len(series), self.hidden_size)
        out: Tensor = th.lstm(
            series,
            (start, start),
            [weight for layer in self.all_weights for weight in layer],
            True,
            self.num_layers,
            self.dropout,
            self.training,
            self.bidirectional,
            True,
        )[0]
        return out

    def _by_bar(self, series: Tensor) -> Tensor:
        directions = 1 + self.bidirectional
        for layer in range(self.num_layers):
            if layer:
                series = F.dropout(series, self.dropout, self.training)
            weights = self.all_weights[layer * directions : (layer + 1) * directions]
            parts = [_one_layer(series, weights[0])]
            if self.bidirectional:
                parts.append(_one_layer(series.flip(1), weights[1]).flip(1))
            series = th.cat(parts, dim=-1)
        return series


def _one_layer(series: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """The equations of `nn.LSTM`."""
    from_input, from_hidden, bias_input, bias_hidden = weights
    driven = F.linear(series, from_input, bias_input + bias_hidden)
    hidden = cell = driven.new_zeros(len(series), from_hidden.shape[1])
    outputs = []
    for now in driven.unbind(1):
        entry, forget, update, exit_ = (now + F.linear(hidden, from_hidden)).chunk(4, dim=-1)
        cell = forget.sigmoid() * cell + entry.sigmoid() * update.tanh()
        hidden = exit_.sigmoid() * cell.tanh()
        outputs.append(hidden)
    return th.stack(outputs, 1)


class LstmEncoder(Encoder):
    """Two recurrent layers, then what the last bar recalls of all by attention.

    LSTM, dropout, LayerNorm, LSTM, dropout; the output of the last bar asks, that of every bar
    answers: `y = LayerNorm(h_T + sum_t a_t h_t)`, `a = softmax(query(h_T) . key(h_t) / sqrt(C))`.
    Each output depends on its asset's window alone.

    Args:
        n_features: features per asset and bar.
        window: bars it looks back.
        hidden: width of the first layer.
        channels: width C of the second layer and of the output.
        dropout: share dropped behind each layer in training.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        hidden: int = 64,
        channels: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(n_features, window)
        check_share("dropout", dropout)
        self.first = Lstm(n_features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.second = Lstm(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        self.query = nn.Linear(channels, channels)
        # A bias would add the same to the score of every bar, which the softmax takes out.
        self.key = nn.Linear(channels, channels, bias=False)
        self.out_norm = nn.LayerNorm(channels)
        self.channels = channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        states, weights = self._recall(windows)
        recalled = (weights.unsqueeze(-2) @ states).squeeze(-2)
        return by_asset(self.out_norm(states[:, -1] + recalled), windows)

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return `"time"`: (batch, assets, window), what the last bar takes from each bar."""
        weights = self._recall(windows)[1]
        return {"time": by_asset(weights, windows)}

    def _recall(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the second layer (rows, window, channels), their weights (rows, window)."""
        states = self.norm(self.dropout(self.first(asset_rows(windows))))
        states = self.dropout(self.second(states))
        query = self.query(states[:, -1:])
        scores = query @ self.key(states).transpose(1, 2) / math.sqrt(self.channels)
        return states, scores.squeeze(1).softmax(-1)


class LstmAttention(Encoder):
    """Stacked LSTM, self-attention of several heads over time, the last bar of the result.

    `steps` gives the result at every bar. Where it is causal, no bar's result depends on a later
    bar, so that each can be trained to predict; the last bar sees the whole window either way,
    hence `forward` is the same. Each output depends on its asset's window alone.

    Args:
        n_features: features per asset and bar.
        window: bars it looks back.
        channels: width of the layers and of the output.
        layers: recurrent layers.
        heads: attention heads, a divisor of `channels`.
        dropout: share dropped in training between layers, of the attention and of its result.
        causal: bars attend to no later bar.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        channels: int = 128,
        layers: int = 2,
        heads: int = 8,
        dropout: float = 0.0,
        causal: bool = True,
    ) -> None:
        super().__init__(n_features, window)
        check_heads(channels, heads)
        check_share("dropout", dropout)
        self.recurrent = Lstm(n_features, channels, layers, dropout)
        self.project = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)
        self.heads, self.causal, self.channels = heads, causal, channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        states = self.recurrent(asset_rows(windows))
        out = self._attend(states, last=True).squeeze(1)
        return by_asset(out, windows)

    def steps(self, windows: Tensor) -> Tensor:
        """Return the result at every bar, (batch, window, assets, channels)."""
        out = self._attend(self.recurrent(asset_rows(windows)), last=False)
        return by_asset(out, windows).transpose(1, 2)

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return `"time"`: (batch, assets, heads, window, window), [t, s] what t takes from s."""
        query, key, _ = self._split(self.recurrent(asset_rows(windows)))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if self.causal:
            bars = scores.shape[-1]
            later = th.ones(bars, bars, dtype=th.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        return {"time": by_asset(scores.softmax(-1), windows)}

    def _split(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (rows, heads, window, channels / heads)."""
        parts = self.project(states).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        return query, key, value

    def _attend(self, states: Tensor, last: bool) -> Tensor:
        """Result of every bar or of the last, (rows, bars or 1, channels)."""
        query, key, value = self._split(states)
        rate = self.dropout.p if self.training else 0.0
        if last:
            query, states = query[:, :, -1:], states[:, -1:]
        heads = F.scaled_dot_product_attention(
            query, key, value, dropout_p=rate, is_causal=self.causal and not last
        )
        out: Tensor = self.norm(states + self.dropout(self.out(heads.transpose(1, 2).flatten(2))))
        return out


def asset_rows(windows: Tensor) -> Tensor:
    """(batch, window, assets, features) -> (batch * assets, window, features)."""
    return windows.transpose(1, 2).flatten(0, 1)


def by_asset(rows: Tensor, windows: Tensor) -> Tensor:
    """(batch * assets, ...) -> (batch, assets, ...), as many of each as `windows` has."""
    return rows.reshape(windows.shape[0], windows.shape[2], *rows.shape[1:])
