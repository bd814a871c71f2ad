"""Encoders: windows of market features to one vector per asset."""

from torch import Tensor, nn

from portfolio_env.errors import ArgumentError


class Encoder(nn.Module):
    """What every encoder answers to: one vector per asset, equivariant to the order of the assets.

    The number of assets is never a parameter: the same weights serve any number of them.

    Args:
        n_features: features per asset and bar.
        window: bars the encoder looks back, the current one included.

    Attributes:
        channels: width of the vector returned for each asset.
        bars: bars that `forward` expects, the window and what an encoder reads before it.
        mixes_assets: whether the vector of an asset depends on the others.
        uses_codes: whether it reads the static codes of the assets.
        padded: whether a window is encoded as if nothing had been before it. If not, what is
            computed for a bar is the same in every window, and `encode_stretch` shares it.
    """

    channels: int
    bars: int
    mixes_assets = False
    uses_codes = False
    padded = True

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__()
        if n_features < 1 or window < 1:
            raise ArgumentError(
                f"an encoder needs n_features >= 1 and window >= 1, got {n_features} and {window}"
            )
        self.n_features = n_features
        self.window = window
        self.bars = window

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode windows of the market.

        Args:
            windows: (batch, bars, assets, features).
            tradable: (batch, assets), 1 or 0: which assets trade at the last bar; encoders that
                mix assets give the others no attention.
            codes: (batch, assets, K) static categories, 0 where unknown; for encoders that use
                them.

        Returns:
            (batch, assets, channels)
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What `forward` looks at, in evaluation mode; empty where it has no attention.

        Returns:
            weights by name, whose last axis is what is looked at: `"assets..."`, (batch, [bars],
            heads, assets, assets); `"time..."`, (batch, assets, [heads, bars], bars), in order of
            time; any other, (batch, assets, K).
        """
        return {}

    def encode_stretch(self, features: Tensor, tradable: Tensor, ends: Tensor) -> Tensor:
        """Encode windows of one contiguous stretch of a market, as `forward` does, but faster.

        Args:
            features: (bars of the stretch, assets, features).
            tradable: (bars of the stretch, assets), 1 or 0.
            ends: (windows,) last bars, each at least `bars - 1`.

        Returns:
            (windows, assets, channels)
        """
        raise NotImplementedError(f"{type(self).__name__} encodes window by window")


class PerAsset(Encoder):
    """The window of each asset laid out in one row, without weights of its own.

    The shared scorer behind it is then a small network per asset, which is the recommended
    default: it has too few parameters to memorise a training history.
    """

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.channels = n_features * window

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, window * features), the oldest bar first."""
        return windows.transpose(1, 2).flatten(2)
