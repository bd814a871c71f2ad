"""Attribution of forecasts to the inputs that they read, by integrated gradients.

Sundararajan, Taly & Yan (2017), "Axiomatic Attribution for Deep Networks", ICML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch as th
from numpy.typing import NDArray
from torch import Tensor

from agents.supervised.model import SupervisedModel
from portfolio_env.checks import check_choice, check_integer
from portfolio_env.market import Market
from portfolio_env.market.samples import Range
from portfolio_env.market.timeline import Timestamps

Output = Literal["mean", "sigma", "up"]
_CHUNK = 64  # windows at a time


@dataclass(frozen=True, eq=False)
class Attribution:
    """Attribution of forecasts to every number of their windows.

    Attributes:
        output: Forecast that was attributed: "mean" or "sigma" of the simple return, or "up", the
            probability of a gain.
        features: Names of the features.
        times: (S,) timestamps of the bars at which forecasts were made.
        values: (S, bars, N, F) float64, the oldest bar first: what each input contributes to the
            sum of the forecasts of all assets.
        difference: (S,) sum of the forecasts less that of windows in which every feature is 0;
            ``values`` add up to it but for the error of the integral.
    """

    output: Output
    features: tuple[str, ...]
    times: Timestamps
    values: NDArray[np.float64]
    difference: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Return the largest error of the integral, as a share of all that is attributed."""
        missed = np.abs(self.values.sum(axis=(1, 2, 3)) - self.difference).max()
        return float(missed / (np.abs(self.values).sum(axis=(1, 2, 3)).max() or 1.0))

    def table(self) -> pd.DataFrame:
        """Return the mean absolute attribution of an asset's input, in the unit of the forecast.

        Returns:
            A row per feature; a column per lag, the number of bars before that of the forecast.
        """
        size = np.abs(self.values).mean(axis=(0, 2))
        lags = pd.RangeIndex(len(size), name="lag")
        return pd.DataFrame(size[::-1].T, index=list(self.features), columns=lags)


def attribute(
    model: SupervisedModel,
    market: Market,
    within: Range,
    output: Output = "mean",
    *,
    most: int = 128,
    steps: int = 64,
) -> Attribution:
    r"""Attribute a model's forecasts to the features and lags that they read.

    .. math:: a_i = x_i \int_0^1 \frac{\partial f(\alpha x)}{\partial x_i} \, d\alpha

    by Gauss-Legendre quadrature. The baseline, from which differences count, is a window in which
    every feature is 0, its median where features are scaled by ``"robust"``. An encoder with
    ``history="stream"`` is taken window by window.

    Args:
        model: The model, fitted.
        market: Market with its features.
        within: Half-open range of bars at which forecasts are made.
        output: See ``Attribution``.
        most: Bars of the range that are taken at most, at equal distances.
        steps: Nodes of the quadrature; networks with kinks need many, see ``Attribution.error``.

    Raises:
        ArgumentError: If the model was not fitted, or no bar of the range has a whole window.
    """
    check_choice("output", output, get_args(Output))
    check_integer("most", most)
    check_integer("steps", steps)
    rows = model.rows(market, within)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    embeddings = model.embeddings.eval()
    device = next(embeddings.parameters()).device
    codes = th.tensor(market.category_codes, device=device)
    bars = embeddings.encoder.bars
    views = market.windows(bars)

    def outputs(windows: Tensor, tradable: Tensor) -> Tensor:
        """Return the sum of the forecasts of all assets (batch,)."""
        encoded = embeddings.encode(windows, tradable, codes.expand(len(windows), *codes.shape))
        forecast = model.in_returns(embeddings.forecast_of(encoded))
        found: Tensor = getattr(forecast, output).double().sum(-1)
        return found

    values, differences = [], []
    # The recurrent kernels of cuDNN have no gradient in evaluation mode.
    with th.backends.cudnn.flags(enabled=False):
        for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
            windows = th.tensor(views[part - bars + 1], device=device)
            tradable = th.tensor(market.tradable[part], dtype=th.float32, device=device)
            total = th.zeros(windows.shape, dtype=th.float64, device=device)
            for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                scaled = (float(node) * windows).requires_grad_()
                (gradient,) = th.autograd.grad(outputs(scaled, tradable).sum(), scaled)
                total += float(weight) * gradient
            values.append((total * windows).cpu().numpy())
            with th.no_grad():
                difference = outputs(windows, tradable) - outputs(0 * windows, tradable)
            differences.append(difference.cpu().numpy())
    return Attribution(
        output,
        market.feature_names,
        market.timestamps[rows],
        np.concatenate(values),
        np.concatenate(differences),
    )
