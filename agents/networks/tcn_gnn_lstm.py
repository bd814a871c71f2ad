"""TCN-GNN-LSTM: causal convolutions per asset, attention over assets, a recurrent summary."""

from typing import Literal

import torch as th
from torch import Tensor, nn
from torch.nn import functional

from agents.networks.base import Encoder
from agents.networks.graph import GraphAttention, attended
from agents.networks.temporal import Tcn, TemporalPooling
from portfolio_env.errors import ArgumentError


class TcnGnnLstm(Encoder):
    """Windows to one vector per asset: projection, TCN, attention over assets, LSTM, pooling.

    An asset is *present* at a bar where any of its features is not 0: a market's features are 0
    wherever an asset cannot be traded. At each bar assets attend to those present that trade
    at the window's last bar; pooling over time skips the bars where the asset itself is absent.

    Args:
        n_features: Features per asset and bar.
        window: Bars of the recurrent summary, the current one included.
        width: Channels of convolutions and graph.
        layers: TCN blocks, of dilation 1, 2, 4, ...
        kernel: Bars of one convolution.
        heads: Heads of the attention over assets.
        lstm_hidden: Width of the recurrent state, per direction.
        lstm_layers: Stacked recurrent layers.
        bidirectional: The LSTM also runs backwards within the window, which ends at the decision;
            False makes each bar's state depend on earlier bars alone, for use step by step.
        dropout: Probability, in convolutions, attention weights, and between recurrent layers.
        history: ``"window"``: zeros stand for the bars before the window. ``"past"``: the
            convolutions see the true bars before it, so that ``forward`` takes ``bars`` of them; an
            embedding of a bar is then the same in every window, see ``encode_range``.

    Attributes:
        channels: Width of the vectors returned, ``lstm_hidden`` times directions.
        bars: Bars that ``forward`` takes.
        receptive_field: Bars that one output of the TCN depends on.
    """

    mixes_assets = True

    def __init__(
        self,
        n_features: int,
        window: int,
        *,
        width: int = 64,
        layers: int = 4,
        kernel: int = 3,
        heads: int = 4,
        lstm_hidden: int = 64,
        lstm_layers: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.0,
        history: Literal["window", "past"] = "window",
    ) -> None:
        super().__init__(n_features, window)
        if history not in ("window", "past"):
            raise ArgumentError(f"history is {history!r}; choose 'window' or 'past'")
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout is {dropout}; give a probability in [0, 1)")
        if min(width, lstm_hidden, lstm_layers) < 1:
            raise ArgumentError(
                f"width={width}, lstm_hidden={lstm_hidden} and lstm_layers={lstm_layers} must be "
                "1 or more"
            )
        self.channels = lstm_hidden * (1 + bidirectional)
        self.inward = nn.Linear(n_features, width)
        self.tcn = Tcn(width, width, layers, kernel, dropout)
        self.graph = GraphAttention(width, heads, dropout)
        between = dropout if lstm_layers > 1 else 0.0  # which is where the library applies it
        self.lstm = nn.LSTM(
            width, lstm_hidden, lstm_layers, dropout=between, bidirectional=bidirectional
        )
        self.norm = nn.LayerNorm(self.channels)
        self.pooling = TemporalPooling(self.channels)
        self.padded = history == "window"
        self.bars = window if self.padded else window + self.receptive_field - 1

    @property
    def receptive_field(self) -> int:
        """Bars that one output of the TCN depends on: 1 + 2 (kernel - 1) sum(dilations)."""
        return self.tcn.receptive_field

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode ``windows`` (batch, bars, assets, features) as (batch, assets, channels).

        ``tradable`` (batch, assets), 1 or 0, at the last bar; ``codes`` are not read.
        """
        x, present = self._over_time(windows)
        mixed = self.graph(x, attended(present, tradable > 0))
        return self._summary(mixed, present)

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the attention weights of ``forward``.

        Returns:
            ``assets`` (batch, window, heads, assets, assets attended to), summing to 1 over the
            last axis, and ``time`` (batch, assets, window), summing to 1 over the last axis.
        """
        x, present = self._over_time(windows)
        keys = attended(present, tradable > 0)
        states = self._states(self.graph(x, keys))
        return {
            "assets": self.graph.weights(x, keys).transpose(0, 1),
            "time": self.pooling.weights(states, present).permute(1, 2, 0),
        }

    def encode_range(self, features: Tensor, tradable: Tensor, ends: Tensor) -> Tensor:
        """Encode the windows that end at ``ends`` of one contiguous range of a market.

        The same numbers as ``forward`` on those windows (with ``history="past"``), but convolutions
        run once per bar, and attention over assets once per bar and distinct row of ``tradable``;
        the recurrent summary alone runs once per window.

        Args:
            features: (bars of the range, assets, features).
            tradable: (bars of the range, assets), 1 or 0.
            ends: (windows,) last bars, int64, each at least ``bars - 1``; one or more.

        Returns:
            (windows, assets, channels)

        Raises:
            ArgumentError: With ``history="window"``, or where a window begins before the range.
        """
        if self.padded:
            raise ArgumentError(
                "history='window' pads each window by itself; build the encoder with "
                "history='past' to encode a range"
            )
        first, last = (int(ends.min()), int(ends.max())) if len(ends) else (-1, -1)
        if not self.bars - 1 <= first <= last < len(features):
            raise ArgumentError(
                f"{len(ends)} windows end at bars {first} to {last} of a range of "
                f"{len(features)}; give one or more, each with {self.bars} bars up to its end"
            )
        x, present = self._over_time(features[None])
        x, present = x[:, 0], present[:, 0]
        rows = (
            ends
            - (self.receptive_field - 1)
            + th.arange(1 - self.window, 1, device=ends.device)[:, None]
        )
        masks, which = th.unique(tradable[ends] > 0, dim=0, return_inverse=True)
        order = which.argsort(stable=True)
        mixed = [
            self._mix_windows(x, present, mask, rows[:, which == i]) for i, mask in enumerate(masks)
        ]
        summary = self._summary(th.cat(mixed, 1), present[rows[:, order]])
        return summary[order.argsort()]

    def _mix_windows(self, x: Tensor, present: Tensor, tradable: Tensor, rows: Tensor) -> Tensor:
        """Return ``rows`` (window, windows) after attention over assets, all of one mask."""
        first, end = int(rows.min()), int(rows.max()) + 1
        if end - first >= rows.numel():  # a few windows far apart
            return self.graph(x[rows], attended(present[rows], tradable))
        part = slice(first, end)
        return self.graph(x[part], attended(present[part], tradable))[rows - first]

    def _over_time(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return TCN outputs (window, batch, assets, width), and the mask of present assets."""
        x = functional.relu(self.inward(windows)).transpose(0, 1).contiguous()
        out = self.tcn(x, self.padded)
        present = (windows.abs().amax(-1) > 0).transpose(0, 1)
        return out, present[len(present) - len(out) :]

    def _states(self, x: Tensor) -> Tensor:
        """Return normalised LSTM outputs: (window, batch, assets, width) -> (..., channels)."""
        states = self.lstm(x.flatten(1, 2))[0].view(*x.shape[:3], self.channels)
        out: Tensor = self.norm(states)
        return out

    def _summary(self, x: Tensor, present: Tensor) -> Tensor:
        out: Tensor = self.pooling(self._states(x), present)
        return out


class TcnGnnLstmSmall(TcnGnnLstm):
    """The small preset: 32 channels, 3 blocks, 2 heads, one LSTM layer of 32. Options as above."""

    def __init__(
        self,
        n_features: int,
        window: int,
        *,
        width: int = 32,
        layers: int = 3,
        kernel: int = 3,
        heads: int = 2,
        lstm_hidden: int = 32,
        lstm_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        history: Literal["window", "past"] = "window",
    ) -> None:
        super().__init__(
            n_features,
            window,
            width=width,
            layers=layers,
            kernel=kernel,
            heads=heads,
            lstm_hidden=lstm_hidden,
            lstm_layers=lstm_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            history=history,
        )
