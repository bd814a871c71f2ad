"""TensorBoard curves with one point per tag and step, in order, also after a crash."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
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

from portfolio_env.checks import check_choice
from portfolio_env.errors import DataError, PortfolioError

TRACKERS = ("wandb", "mlflow")
_OF_THE_RUN = {"out", "runs", "track", "sha256", "checkpoint_every"}
"""Settings that change where and how a run is kept, not what it learns."""
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


def curves(folder: Path, step: int, *further: KVWriter) -> Logger:
    """Return a logger that continues after a step, or begins at step 0.

    Points after that step, which a killed process has left and which come again, are dropped by
    the reader of the folder. All tags of a folder must count the same steps.

    Args:
        folder: Folder of the event files.
        step: Last step whose points stand.
        *further: Other writers of the same points.
    """
    return Logger(str(folder), [_Curves(folder, step + 1 if step else 0), *further])


class _Curves(TensorBoardOutputFormat):
    """SB3's TensorBoard writer whose points from a step on replace older ones."""

    def __init__(self, folder: Path, first: int) -> None:
        with _naming(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            self.writer = SummaryWriter(str(folder), purge_step=first)
            if not first:
                self.writer.add_custom_scalars(LAYOUT)
        self._is_closed = False

    def write(self, *points: Any, **named: Any) -> None:
        """Write the points, with the arguments of SB3's writer.

        Raises:
            DataError: If the system refuses.
        """
        with _naming(self.writer.log_dir):
            super().write(*points, **named)


@contextmanager
def _naming(folder: str) -> Iterator[None]:
    """Name the folder in an error of the system, which TensorBoard does not."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({error.strerror or error}); give room or rights"
        ) from error


class Tracker(KVWriter):
    """Writer that sends the numbers of a run to Weights & Biases or MLflow, by their own clients.

    Where they go is set by the environment variables of these clients, such as ``WANDB_PROJECT``,
    ``WANDB_MODE`` and ``MLFLOW_TRACKING_URI``.

    Args:
        client: "wandb" or "mlflow".
        name: Name of the run.
        identity: Identity of the run: in Weights & Biases a resumed training continues its run;
            MLflow keeps it as the tag ``run_id``.
        settings: Settings of the run, shown with it.

    Raises:
        ArgumentError: If the client is unknown.
        PortfolioError: If it is not installed.
    """

    def __init__(self, client: str, name: str, identity: str, settings: dict[str, Any]) -> None:
        check_tracker(client)
        self.client = import_module(client)
        self.is_wandb = client == "wandb"
        if self.is_wandb:
            self.run = self.client.init(name=name, id=identity, resume="allow", config=settings)
            self.run.define_metric("*", step_metric="timesteps")
        else:
            self.client.start_run(run_name=name, tags={"run_id": identity})
            self.client.log_params({key: str(value)[:500] for key, value in settings.items()})

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Send the numbers; figures and histograms stay in TensorBoard."""
        numbers = {
            tag: float(value)
            for tag, value in key_values.items()
            if isinstance(value, int | float | np.number) and not isinstance(value, bool)
        }
        if self.is_wandb:
            self.run.log(numbers | {"timesteps": step})
        else:
            self.client.log_metrics(numbers, step=step)

    def close(self) -> None:
        """End the run."""
        if self.is_wandb:
            self.run.finish()
        else:
            self.client.end_run()


def check_tracker(client: str) -> None:
    """Check that a client is known and installed.

    Raises:
        ArgumentError: If it is unknown.
        PortfolioError: If it is not installed.
    """
    check_choice("track", client, TRACKERS)
    if find_spec(client) is None:
        raise PortfolioError(f"--track {client} needs {client}; pip install {client}.")


def hparams_of(settings: Mapping[str, Any]) -> HParam:
    """Return the settings of a run for TensorBoard's HPARAMS tab, beside its last validation.

    Args:
        settings: Settings by name; those of a group are shown under names like
            ``costs.commission_bps``. Those that are not given are left out, and those of the
            folder and of its files, which change nothing that is learned.
    """
    figures = ("excess_growth", "growth", "turnover")
    learned = {key: value for key, value in settings.items() if key not in _OF_THE_RUN}
    return HParam(dict(_flat(learned)), {f"validation/{name}": 0.0 for name in figures})


def _flat(settings: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, Any]]:
    """Return settings under the names of their options, without those that are not given."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{group}{key}.")
        elif value not in (None, "{}"):
            told = isinstance(value, bool | int | float | str)
            yield f"{group}{key}", value if told else json.dumps(value)


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
