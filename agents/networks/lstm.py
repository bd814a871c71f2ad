"""Recurrent encoders with attention over time, run over each asset's window with shared weights."""

import math

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F

from agents.networks.base import (
    BLOCK,
    BRANCH,
    Encoder,
    History,
    check_heads,
    check_share,
    check_sizes,
)
from agents.networks.temporal import band


class LstmEncoder(Encoder):
    """Two recurrent layers, then attention of the last bar over all bars.

    LSTM, dropout, LayerNorm, LSTM, dropout, which add to a linear map of the bar's features:
    ``h_t = skip(x_t) + gain * lstm_t``, with a gain per channel that starts at ``BRANCH``, so that
    what the last bar says by itself is learned first. The state of the last bar asks, that of every
    bar answers: ``y = LayerNorm(h_T + sum_t a_t h_t)``, ``a = softmax(query(h_T) . key(h_t) /
    sqrt(C))``. Each output depends on its asset's window alone.

    Args:
        n_features: Features per asset and bar.
        window: Bars it looks back.
        hidden: Width of the first layer.
        channels: Width C of the second layer and of the output.
        dropout: Share dropped behind each layer in training.
        history: ``"window"``, or ``"stream"`` to encode a market in blocks, see ``Encoder``.
        block: Bars of a block, on average.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        hidden: int = 64,
        channels: int = 32,
        dropout: float = 0.0,
        history: History = "window",
        block: int = BLOCK,
    ) -> None:
        super().__init__(n_features, window)
        self._set_history(history, block)
        check_sizes(hidden=hidden, channels=channels)
        check_share("dropout", dropout)
        self.first = nn.LSTM(n_features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.second = nn.LSTM(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Linear(n_features, channels)
        self.gain = nn.Parameter(th.full((channels,), BRANCH))
        self.query = nn.Linear(channels, channels)
        # A bias would add the same to the score of every bar, which the softmax takes out.
        self.key = nn.Linear(channels, channels, bias=False)
        self.out_norm = nn.LayerNorm(channels)
        self.channels = channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        states, weights = self._recall(windows)
        recalled = th.einsum("rt,trc->rc", weights.to(states.dtype), states)
        return _by_asset(self.out_norm(states[-1] + recalled), windows)

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``"time"``: (batch, assets, window), the weight of each bar for the last bar."""
        weights = self._recall(windows)[1]
        return {"time": _by_asset(weights, windows)}

    def stream(self, series: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode every bar of a series from its ``window``-th on, see ``Encoder.stream``."""
        states = self._states(series)
        last = states[self.window - 1 :]
        query, key, value = (
            part.transpose(0, 1).unsqueeze(1)
            for part in (self.query(last), self.key(states), states)
        )
        seen = band(len(states), self.window, states.device)
        recalled = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return _by_bar(self.out_norm(last + recalled.squeeze(1).transpose(0, 1)), series)

    def _states(self, windows: Tensor) -> Tensor:
        """Return the states (bars, rows, channels)."""
        rows = _rows(windows)
        states = self.norm(self.dropout(self.first(rows)[0]))
        out: Tensor = self.skip(rows) + self.gain * self.dropout(self.second(states)[0])
        return out

    def _recall(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states (window, rows, channels), weights (rows, window)."""
        states = self._states(windows)
        scores = th.einsum("rc,trc->rt", self.query(states[-1]), self.key(states))
        return states, (scores / math.sqrt(self.channels)).softmax(-1)


class LstmAttention(Encoder):
    """Stacked LSTM and multi-head self-attention over time; returns the last bar's vector.

    Each output depends on its asset's window alone.

    Args:
        n_features: Features per asset and bar.
        window: Bars it looks back.
        channels: Width of the layers and of the output.
        layers: Recurrent layers.
        heads: Attention heads, a divisor of ``channels``.
        dropout: Share dropped in training between layers, of the attention and of its result.
        causal: Bars attend to no later bar. The last one sees the whole window either way, so this
            shows in ``attention`` and not in the output.
        history: ``"window"``, or ``"stream"`` to encode a market in blocks, see ``Encoder``.
        block: Bars of a block, on average.
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
        history: History = "window",
        block: int = BLOCK,
    ) -> None:
        super().__init__(n_features, window)
        self._set_history(history, block)
        check_sizes(layers=layers)
        check_heads(channels, heads)
        check_share("dropout", dropout)
        between = dropout if layers > 1 else 0.0  # which is where the library applies it
        self.recurrent = nn.LSTM(n_features, channels, layers, dropout=between)
        self.project = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(channels)
        self.heads, self.causal, self.channels = heads, causal, channels

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, channels)."""
        states = self.recurrent(_rows(windows))[0]
        query, key, value = self._split(states)
        rate = self.dropout.p if self.training else 0.0
        # The last bar sees the whole window, causal or not.
        heads = F.scaled_dot_product_attention(query[:, :, -1:], key, value, dropout_p=rate)
        mixed = self.dropout(self.out(heads.permute(2, 0, 1, 3).flatten(2)))
        return _by_asset(self.norm(states[-1:] + mixed).squeeze(0), windows)

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``"time"``: (batch, assets, heads, window, window), [t, s] t's weight on s."""
        query, key, _ = self._split(self.recurrent(_rows(windows))[0])
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if self.causal:
            bars = scores.shape[-1]
            later = th.ones(bars, bars, dtype=th.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        return {"time": _by_asset(scores.softmax(-1), windows)}

    def stream(self, series: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode every bar of a series from its ``window``-th on, see ``Encoder.stream``."""
        states = self.recurrent(_rows(series))[0]
        query, key, value = self._split(states)
        rate = self.dropout.p if self.training else 0.0
        seen = band(len(states), self.window, states.device)
        heads = F.scaled_dot_product_attention(
            query[:, :, self.window - 1 :], key, value, attn_mask=seen, dropout_p=rate
        )
        mixed = self.dropout(self.out(heads.permute(2, 0, 1, 3).flatten(2)))
        return _by_bar(self.norm(states[self.window - 1 :] + mixed), series)

    def _split(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each (rows, heads, window, channels / heads)."""
        parts = self.project(states).unflatten(-1, (3, self.heads, -1)).permute(2, 1, 3, 0, 4)
        query, key, value = parts.unbind(0)
        return query, key, value


def _rows(windows: Tensor) -> Tensor:
    """Map (batch, window, assets, features) to (window, batch * assets, features)."""
    return windows.transpose(0, 1).flatten(1, 2)


def _by_asset(rows: Tensor, windows: Tensor) -> Tensor:
    """Map (batch * assets, ...) to (batch, assets, ...), with the sizes of ``windows``."""
    return rows.reshape(windows.shape[0], windows.shape[2], *rows.shape[1:])


def _by_bar(rows: Tensor, series: Tensor) -> Tensor:
    """Map (bars, batch * assets, channels) to (batch, bars, assets, channels)."""
    return rows.view(len(rows), series.shape[0], series.shape[2], -1).transpose(0, 1)
