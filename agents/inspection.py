"""What can be said of a trained agent's network: its size, and pictures of what it looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from agents.config import Range
from agents.direct import DirectAgent
from agents.encoder_callbacks import encoder_figures
from agents.extractors import all_embeddings
from agents.forecasts import NextReturns
from agents.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEXTS = {
    "attention": "What the encoder looks at, at the last bar of the range.",
    "calibration": "Whether the uncertainty of the encoder's forecasts is right, over the range.",
}


def network_of(run: Run) -> nn.Module:
    """The network that a run's agent decides with."""
    return run.model.network if isinstance(run.model, DirectAgent) else run.model.policy


def parameter_bytes(run: Run) -> int:
    """Memory of the network's parameters."""
    return sum(part.numel() * part.element_size() for part in network_of(run).parameters())


def encoder_pictures(run: Run, rows: Range) -> dict[str, tuple[Figure, str]]:
    """Attention and calibration over some rows, with a text each; empty where there is neither.

    Raises:
        PortfolioError: if matplotlib is not installed.
    """
    network = network_of(run)
    found = all_embeddings(network)
    if not found:
        return {}
    network.eval()
    embeddings, returns = found[0], None
    if embeddings.head is not None:
        device = next(embeddings.parameters()).device
        returns = NextReturns(run.market, run.ranges["train"], embeddings.encoder.bars, device)
    figures = encoder_figures(embeddings, run.market, rows, returns)
    return {name: (figure, _TEXTS[name.partition("/")[0]]) for name, figure in figures.items()}
