"""Settings of a supervised run: one dataclass, also the command line of ``agents.supervised``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agents.settings.data import json_object
from agents.settings.encoders import ROWS, check_encoder_options, with_window
from agents.settings.files import settings_of
from agents.settings.market import SUPERVISED, MarketConfig
from agents.settings.plugins import admit_plugins, check_names
from portfolio_env.checks import check_choice, check_fields, check_integer, check_range
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json
from portfolio_env.market import Market
from portfolio_env.market.samples import Range, separated
from portfolio_env.names import names_plugin
from portfolio_env.simulation.fills import Fills

# What loads torch is imported where it is needed, so that --help answers at once.
if TYPE_CHECKING:
    from agents.supervised.model import SupervisedModel
    from agents.training.config import TrainConfig


@dataclass(frozen=True)
class Fitting:
    """Training of the forecasts."""

    epochs: int = 20
    """Largest number of passes over the training range."""
    batch: int = 64
    """Bars per batch."""
    accumulation: int = 1
    """Batches per gradient step."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW at the start."""
    weight_decay: float = 0.01
    """Decoupled weight decay of AdamW."""
    warmup: int = 0
    """Gradient steps in which the learning rate rises to its own."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """Learning rate: down to 0 by half a cosine, or halved where validation stalls."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    ema: float = 0.0
    """Decay of an average of the weights that is used in their place; 0 takes the weights."""
    measure: Literal["loss", "accuracy"] = "loss"
    """Measure of the best weights on validation."""
    patience: int | None = 5
    """Epochs in a row without progress on validation that end the training."""
    min_delta: float = 0.0
    """Least progress that counts."""


@dataclass(frozen=True)
class SupervisedConfig(MarketConfig):
    """Settings of a supervised run."""

    market: str = "sp500"
    """Name of a market (sp500, synthetic, ...), or path of a file or folder of prices."""
    fills: Fills = field(default_factory=Fills)  # type: ignore[assignment]  # there is no run beside
    """Shares of orders that are executed; all of every order by default."""
    delay: int = 0
    """Bars between what is observed and the trade, in what the forecasts earn."""
    task: Literal["return", "direction", "hybrid"] = "direction"
    """What is forecast: mean and deviation of the return; whether it is positive; or direction,
    magnitude and uncertainty by three heads."""
    task_options: str = "{}"
    """Options of the task as JSON: of hybrid, e.g. '{"coherence": 0.1}'."""
    horizon: int = 1
    """Bars that a return takes. Returns of a range end within it."""
    embargo: int = 0
    """Bars left out at the beginning of validation and test range; with the bars of a window, none
    of theirs reaches back into the range before."""
    encoder: str = "lstm"
    """Encoder of the market's window: lstm, mlp, gat, transformer, ...; or a class of your own,
    my_nets:MyEncoder."""
    encoder_options: str = "{}"
    """Options of the encoder as JSON, e.g. '{"hidden": 32}'."""
    window: int | None = None
    """Bars that the encoder sees; default 1 for encoders that read rows, 20 for others."""
    fit: Fitting = field(default_factory=Fitting)
    """Training."""
    seed: int = 0
    """Seed of the network and of all draws."""
    device: str = "auto"
    """Torch device; auto takes a GPU if there is one."""
    runs: str = "runs"
    """Folder in which the run folder is created."""
    out: str | None = None
    """Run folder itself, instead of a name made of market, task, encoder, seed and time."""

    def __post_init__(self) -> None:
        """Check what the market does not check."""
        from agents.networks import ENCODERS
        from agents.sb3.algorithms import torch_device
        from agents.supervised.tasks import make_task
        from agents.supervised.training import SupervisedOptions

        check_fields(self)
        check_integer("horizon", self.horizon)
        check_integer("embargo", self.embargo, 0)
        check_range("seed", self.seed, 0, 2**32 - 1)
        if self.window is not None:
            check_integer("window", self.window)
        make_task(self.task, **json_object("task_options", self.task_options, '{"coherence": 0.1}'))
        check_encoder_options(self.encoder_options)
        SupervisedOptions(**asdict(self.fit), seed=self.seed)
        torch_device(self.device, available=False)  # a run of a GPU is read without one too
        if not names_plugin("encoder", self.encoder):
            check_choice("encoder", self.encoder, tuple(ENCODERS))
        if self.encoder == "per_asset":
            raise ArgumentError("encoder 'per_asset' has no weights to train: choose e.g. mlp")

    def resolved(self) -> SupervisedConfig:
        """Return the settings with dependent defaults filled in and absolute paths."""
        window = self.window or (1 if self.encoder in ROWS else 20)
        path = Path(self.market)
        return replace(
            self,
            market=str(path.resolve()) if path.exists() else self.market,
            data=self.data.resolved(),
            window=window,
            encoder_options=with_window(self.encoder, self.encoder_options, window),
        )

    def load_market(self) -> tuple[Market, dict[str, Range]]:
        """Return the market, scaled on its training range, and the rows of all ranges."""
        market, ranges = self._trading().load_market()
        parts = separated((ranges["train"], ranges["validation"], ranges["test"]), 0, self.embargo)
        return market, dict(zip(("train", "validation", "test"), parts, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)

    def env_options(self) -> dict[str, Any]:
        """Return the rules of trading, as keywords of ``PortfolioEnv``."""
        options = self._trading().resolved().env_options()
        names = ("costs", "constraints", "execution", "fills", "delay", "initial_value")
        return {name: options[name] for name in names}

    def _trading(self) -> TrainConfig:
        from agents.training.config import TrainConfig

        shared = {each.name: getattr(self, each.name) for each in fields(MarketConfig)}
        return TrainConfig(**shared)

    def model(self, market: Market) -> SupervisedModel:
        """Return the model of resolved settings, not trained yet."""
        from agents.sb3.algorithms import torch_device
        from agents.supervised.model import SupervisedModel

        assert self.window is not None

        return SupervisedModel(
            market.feature_names,
            task=self.task,
            encoder=self.encoder,
            window=self.window,
            horizon=self.horizon,
            encoder_options=json.loads(self.encoder_options),
            task_options=json.loads(self.task_options),
            seed=self.seed,
            device=torch_device(self.device),
        )


def read_config(path: Path, *, importing: bool = True) -> SupervisedConfig:
    """Read the settings of a supervised run.

    Args:
        path: Folder of the run.
        importing: The plug-ins that they name are to be imported: their sources are looked for, and
            a line says which have changed.

    Raises:
        DataError: If the folder is no such run, or names plug-ins that it may not, see
            ``portfolio_env.files.plugins.admit``.
        ArgumentError: If the source of a plug-in is not found.
    """
    try:
        settings = read_json(path / SUPERVISED)
    except FileNotFoundError:
        raise DataError(f"{path} is not a supervised run: it has no {SUPERVISED}") from None
    if importing:
        admit_plugins(path, settings, within=path)
    else:
        check_names(path, settings)
    return settings_of(SupervisedConfig, settings, path / SUPERVISED)
