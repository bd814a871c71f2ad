"""The EIIE encoder: two convolutions over the window of each asset, shared over assets."""

from torch import Tensor, nn
from torch.nn import functional

from agents.networks.base import Encoder, check_sizes
from portfolio_env.errors import ArgumentError


class Eiie(Encoder):
    """Evaluator of single assets by convolutions along time, after Jiang, Xu & Liang (2017).

    A convolution over a few bars gives feature maps, a second one over all that is left of the
    window gives the vector; each is followed by a ReLU. The paper's network (arXiv:1706.10059) is
    this encoder before a linear score of the vector and the weight held, with a free score for
    cash: ``baselines.networks.EIIE``, or an agent with ``net_arch=[]``.

    Args:
        n_features: Features per asset and bar.
        window: Bars it looks back, at least ``kernel``.
        kernel: Bars of the first convolution.
        filters: Feature maps of the first convolution.
        channels: Width of the vector.

    Raises:
        ArgumentError: If a size is out of range.
    """

    def __init__(
        self, n_features: int, window: int, *, kernel: int = 3, filters: int = 2, channels: int = 20
    ) -> None:
        super().__init__(n_features, window)
        check_sizes(kernel=kernel, filters=filters, channels=channels)
        if window < kernel:
            raise ArgumentError(
                f"kernel={kernel} must be at most window={window}: give a longer window"
            )
        self.channels = channels
        self.short = nn.Conv1d(n_features, filters, kernel)
        self.long = nn.Conv1d(filters, channels, window - kernel + 1)

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode windows, see ``Encoder.forward``."""
        batch, _, assets, _ = windows.shape
        rows = windows.permute(0, 2, 3, 1).flatten(0, 1)  # (batch * assets, features, bars)
        maps = functional.relu(self.long(functional.relu(self.short(rows))))
        return maps.view(batch, assets, self.channels)
