"""TensorBoard curves with one point per tag and step, in order, also after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import (
    Figure,
    HParam,
    KVWriter,
    Logger,
    TensorBoardOutputFormat,
)
from torch.utils.tensorboard import SummaryWriter

_PAIR = ["portfolio/train/{}", "portfolio/validation/{}"]
# What the tab "Custom Scalars" shows: first whether something is learned, then at what price.
LAYOUT = {
    "Learning": {
        title: ["Multiline", [tag.format(name) for tag in _PAIR]]
        for title, name in {
            "growth above equal weight, per year": "excess_growth",
            "final value over initial value": "value",
        }.items()
    },
    "Trading": {
        title: ["Multiline", [tag.format(name) for tag in _PAIR]]
        for title, name in {
            "turnover a step": "turnover",
            "cost a step, share of the account": "cost",
            "largest drawdown": "drawdown",
            "concentration, sum of squared weights": "concentration",
        }.items()
    },
}


def curves(folder: Path, step: int) -> Logger:
    """Return a logger that continues after a step, or begins at step 0.

    Points after that step, which a killed process has left and which come again, are dropped by
    whoever reads the folder. All tags of a folder must count the same steps.

    Args:
        folder: Of the event files.
        step: Last step whose points stand.
    """
    return Logger(str(folder), [_Curves(folder, step + 1 if step else 0)])


class _Curves(TensorBoardOutputFormat):
    """SB3's TensorBoard writer whose points from a step on replace older ones."""

    def __init__(self, folder: Path, first: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.writer = SummaryWriter(str(folder), purge_step=first)
        if not first:
            self.writer.add_custom_scalars(LAYOUT)
        self._is_closed = False


def write_points(logger: Logger, values: dict[str, Any], step: int) -> None:
    """Write values under a step at once; recorded values wait for their own step.

    ``logger.dump`` would write all that waits too, such as the losses of an update whose step is
    still to come.

    Args:
        logger: The logger.
        values: Numbers, arrays (shown as histograms), figures of matplotlib, which are closed, and
            ``HParam``.
        step: The step.
    """
    points: dict[str, Any] = {}
    excluded: dict[str, tuple[str, ...]] = {}
    for tag, value in values.items():
        number = isinstance(value, int | float)
        as_is = number or isinstance(value, HParam)
        if isinstance(value, np.ndarray):
            points[tag] = th.from_numpy(value)
        else:
            points[tag] = value if as_is else Figure(value, close=True)
        excluded[tag] = ("",) if number else ("stdout", "log", "json", "csv")
    for output in logger.output_formats:
        if isinstance(output, KVWriter):
            output.write(points, excluded, step)
