"""TCN-GNN-LSTM: causal convolutions per asset, attention over assets, a recurrent summary."""

import torch as th
from torch import Tensor, nn
from torch.nn import functional

from agents.networks.base import BLOCK, BRANCH, Encoder, History
from agents.networks.graph import GraphAttention, attended
from agents.networks.temporal import Tcn, TemporalPooling
from portfolio_env.errors import ArgumentError


class TcnGnnLstm(Encoder):
    """Windows to one vector per asset: projection, TCN, attention over assets, LSTM, pooling.

    An asset is *present* at a bar where any of its features is not 0: a market's features are 0
    wherever an asset cannot be traded. At each bar assets attend to those present that trade
    at the window's last bar; pooling over time skips the bars where the asset itself is absent.

    Every layer has a residual connection and adds little to it at first: convolutions, attention
    and recurrence grow as far as they earn something, while the last bar reaches the output from
    the start. A network that starts with all of them learns the noise of some thousand bars by
    heart. The recurrence's residual is the identity where the widths match, else a linear map.

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
            False makes each bar's state depend on earlier bars alone.
        dropout: Probability, in convolutions, attention weights, and between recurrent layers.
        history: ``"window"``, or ``"stream"`` to encode a market in blocks, see ``Encoder``; only
            with ``bidirectional=False``.
        block: Bars of a block, on average.

    Attributes:
        channels: Width of the vectors returned, ``lstm_hidden`` times directions.
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
        history: History = "window",
        block: int = BLOCK,
    ) -> None:
        super().__init__(n_features, window)
        self._set_history(history, block)
        if self.block and bidirectional:
            raise ArgumentError(
                "bidirectional=True must be False with history='stream': a state that runs "
                "backwards through a block comes from later bars than the decision"
            )
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
        self.skip = nn.Identity() if width == self.channels else nn.Linear(width, self.channels)
        self.gain = nn.Parameter(th.full((self.channels,), BRANCH))
        self.norm = nn.LayerNorm(self.channels)
        self.pooling = TemporalPooling(self.channels)

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

    def stream(self, series: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode every bar of a series from its ``window``-th on, see ``Encoder.stream``."""
        x, present = self._over_time(series)
        mixed = self.graph(x, attended(present, tradable.transpose(0, 1) > 0))
        states = self._states(mixed)
        return self.pooling.banded(states, present, self.window).transpose(0, 1)

    def _over_time(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return TCN outputs (window, batch, assets, width), and the mask of present assets."""
        x = functional.relu(self.inward(windows)).transpose(0, 1).contiguous()
        present = (windows.abs().amax(-1) > 0).transpose(0, 1)
        return self.tcn(x), present

    def _states(self, x: Tensor) -> Tensor:
        """Return normalised states: (window, batch, assets, width) -> (..., channels)."""
        states = self.lstm(x.flatten(1, 2))[0].view(*x.shape[:3], self.channels)
        out: Tensor = self.norm(self.skip(x) + self.gain * states)
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
        history: History = "window",
        block: int = BLOCK,
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
            block=block,
        )
