"""Settings of a training run: one dataclass, also the command line of train.py."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agents.compute.options import ComputeOptions
from agents.settings.data import DataOptions, json_object
from agents.settings.encoders import (
    ROWS,
    check_encoder_options,
    history_before,
    sharing_before,
    with_history,
    with_policy,
    with_window,
)
from agents.settings.market import MarketConfig
from portfolio_env import Fills, Market, PortfolioConstraints, TransactionCosts
from portfolio_env.checks import (
    check_choice,
    check_fields,
    check_number,
    check_range,
    from_object,
    shortened,
)
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.features.pipeline import build_market
from portfolio_env.market.rates import absolute
from portfolio_env.market.timeline import Timestamps, bars_of, named_row, split_rows
from portfolio_env.names import names_plugin, plugin_name

Range = tuple[int, int]
NAMES = ("train", "validation", "test")
LARGEST = 2**31 - 1
RANGES = {
    "timesteps": (1, 2**53),
    "num_envs": (1, LARGEST),
    "start_groups": (0, LARGEST),
    "seed": (0, 2**32 - 1),  # largest seed of NumPy's legacy generator
    "freeze_encoder": (0, 1),
    "prediction_weight": (0, math.inf),
    "window": (1, LARGEST),
    "delay": (0, LARGEST),
    "universe": (0, LARGEST),
    "episode_length": (1, LARGEST),
    "validation_every": (1, 2**53),
    "checkpoint_every": (1, 2**53),
}
"""The least and the largest number that each of these settings may be."""
PREDICTION_WEIGHT = 0.05
"""Of the likelihood of forecasts in the loss of stage 3, where nothing else is asked for."""
START_GROUPS = 32  # 16 learned less, see docs/learning.md
DEPENDENT = (
    *("timesteps", "num_envs", "start_groups", "window", "validation_every", "checkpoint_every"),
)
"""Settings whose default depends on others; ``TrainConfig.resolved`` fills it in."""
LATER = (
    *("encoder_options", "curriculum", "stages", "freeze_encoder", "prediction_weight"),
    *("algo_options", "data", "reward_options", "cost_model", "cost_options", "start_groups"),
    *("fills", "delay", "positions", "compute"),
)
"""Settings that the first runs lack."""


@dataclass(frozen=True)
class Stages:
    """Options of stages 1 and 2 of a curriculum."""

    epochs: int = 20
    """Largest number of passes over the training range in stage 1; 5 without progress end it."""
    iterations: int = 150
    """Gradient steps of stage 2."""
    loss: Literal["growth", "sharpe"] = "growth"
    """Objective of stage 2: net log growth, or net Sharpe ratio less a concentration penalty."""
    schedule: Literal["cosine", "plateau"] = "cosine"
    """Learning rate: down to 0 by half a cosine, or halved where validation stalls."""
    ema: float = 0.0
    """Decay of an average of the weights that is validated and used in their place, e.g. 0.99;
    0 takes the weights themselves."""

    def __post_init__(self) -> None:
        """Check every number before the first stage is trained."""
        check_fields(self, "stages.")
        for name in ("epochs", "iterations"):
            check_range(f"stages.{name}", getattr(self, name), 1, LARGEST)
        check_number("stages.ema", self.ema, 0, below=1)


def _names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in dataclasses.fields(kind))


GROUPS: dict[str, tuple[type, tuple[str, ...]]] = {
    "costs": (TransactionCosts, ()),
    "constraints": (PortfolioConstraints, ("group_by", "group_bounds")),
    "fills": (Fills, ()),
    "compute": (ComputeOptions, _names(ComputeOptions)),
    "data": (DataOptions, _names(DataOptions)),
    "stages": (Stages, _names(Stages)),
}
"""Settings that are objects of their own, with those of their fields that the first runs lack."""


@dataclass(frozen=True)
class TrainConfig(MarketConfig):
    """Settings of a training run; the defaults are the recipe measured to work."""

    market: str = "sp500"
    """Name of a market (sp500, synthetic, ...); path of a CSV, Parquet or .npz file, or of a folder
    of CSV or Parquet files; or a source of your own, my_prices:load."""
    fills: Fills = field(default_factory=Fills)  # type: ignore[assignment]  # there is no run beside
    """Shares of orders that are executed; all of every order by default."""
    delay: int = 0
    """Bars between what is observed and the trade."""
    algo: str = "ppo"
    """Learning algorithm: ppo, a2c, sac, td3, ddpg, tqc, trpo; direct, gradient ascent on
    net growth without RL; or a class of your own, my_algos:MyPPO."""
    algo_options: str = "{}"
    """Options of the algorithm and its policy as JSON, e.g. '{"gamma": 0.9, "net_arch": [64]}'."""
    timesteps: int | None = None
    """Environment steps over all lanes; default 200,000 for PPO, A2C and TRPO, 288,000 for
    direct, 40,000 for the others."""
    num_envs: int | None = None
    """Lanes of the training environment; default 256 for PPO, A2C and TRPO, 64 for the others."""
    start_groups: int | None = None
    """Groups of lanes that start at the same bar, so that an encoder of windows reads fewer of
    them; 0: lanes start apart. Default 32 for PPO, A2C and TRPO with such an encoder, else 0."""
    seed: int = 0
    """Seed of networks, exploration and episodes."""
    device: str = "auto"
    """Torch device; auto takes a GPU if there is one."""
    policy: Literal["per_asset", "dirichlet", "flat_mlp"] = "per_asset"
    """Policy: one scorer shared over assets; the same with draws of the weights themselves from a
    Dirichlet distribution (PPO, A2C); or a flat network (memorises; for comparison)."""
    encoder: str = "per_asset"
    """Encoder of the market's window: per_asset, tcn_gnn_lstm, tcn_gnn_lstm_small, gat, ...; or a
    class of your own, my_nets:MyEncoder."""
    encoder_options: str = "{}"
    """Options of the encoder as JSON, e.g. '{"hidden": 32}'; lstm, tcn_gnn_lstm and
    tcn_gnn_lstm_small encode blocks of bars, "history": "window" every bar's window."""
    curriculum: str = "3"
    """Stages of training: 1 forecasts of the next bar, 2 the gradient of net growth, 3 the
    algorithm, e.g. 1,2,3; each starts from what the one before has learned."""
    stages: Stages = field(default_factory=Stages)
    """Training of stages 1 and 2."""
    freeze_encoder: float = 0.0
    """Share of stage 3, at its start, that leaves the encoder as it is: 0 none, 1 all of it."""
    prediction_weight: float | None = None
    """Weight of forecasts of the next bar (Gaussian likelihood) beside the loss of stage 3, while
    the encoder learns; default 0.05 in a curriculum, else 0."""
    window: int | None = None
    """Bars in an observation, which the encoder sees; default 1 for per_asset, mlp, residual_mlp,
    branches and factor, 60 for others."""
    observation: Literal["index", "window", "flat"] = "index"
    """Observation mode; index lets the network gather windows itself and keeps buffers small."""
    reward: str = "excess_log_return"
    """Reward for learning, or one of your own, my_rewards:calmar; evaluation always uses the
    account."""
    reward_scale: float = 100.0
    """Factor on the excess_log_return reward."""
    reward_options: str = "{}"
    """Options of another reward, or of a class of your own, as JSON."""
    universe: int | None = None
    """Assets drawn per training episode; default 8 if the market has more (a flat network takes
    all), 0 for all of them always."""
    episode_length: int = 250
    """Steps of a training episode, which starts at a random bar of the training range; direct
    uses its own option steps (30)."""
    positions: Literal["long_only", "long_short", "levered"] | None = None
    """Positions that an agent's scores stand for: long_only; long_short, also sold short; levered,
    long with borrowed money. Their size ends at constraints.max_leverage; by default what the
    constraints allow."""
    adjustment: float = 1.0
    """Fraction of the way to the target weights that is traded each step; try 0.1 on daily
    prices."""
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    """How the networks are computed in training, and the memory that it may take."""
    validation_every: int | None = None
    """Environment steps between two backtests on the validation range; default a tenth of all."""
    checkpoint_every: int | None = None
    """Environment steps between two checkpoints; default a tenth of all."""
    runs: str = "runs"
    """Folder in which the run folder is created."""
    track: Literal["wandb", "mlflow"] | None = None
    """Send the curves of the algorithm to Weights & Biases or MLflow too; their own environment
    variables say where."""
    out: str | None = None
    """Run folder itself, instead of a name made of market, algorithm, seed and time."""

    def __post_init__(self) -> None:
        """Check what neither the environment nor the learner checks."""
        from agents.sb3.algorithms import torch_device  # not at the top: --help needs no torch
        from agents.sb3.classes import ALGORITHMS
        from agents.training.compatibility import check_compatible

        for name in ("algo", "encoder"):  # in Python they may be given themselves
            if isinstance(given := getattr(self, name), type):
                object.__setattr__(self, name, plugin_name(given))
        check_fields(self)
        for name, (low, high) in RANGES.items():
            check_range(name, getattr(self, name), low, high)
        check_encoder_options(self.encoder_options)
        for name in ("algo_options", "reward_options", "cost_options"):
            json_object(name, getattr(self, name), '{"name": 3}')
        if not names_plugin("algorithm", self.algo):
            check_choice("algo", self.algo, (*ALGORITHMS, "direct"))
        check_choice("curriculum", self.curriculum, ("3", "1,3", "2,3", "1,2,3"))
        torch_device(self.device, available=False)  # a run of a GPU is read without one too
        check_compatible(self)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(
        cls, settings: Any, source: str | Path = "config.json", *, recorded: bool = True
    ) -> "TrainConfig":
        """Invert ``to_json``.

        Args:
            settings: Settings that were read.
            source: Origin of the settings, for messages.
            recorded: They are of a run that was begun, so its networks are those of its time.

        Raises:
            DataError: If it lacks a field or has one too many, or a value is of another type or
                outside its range.
        """
        try:
            if not isinstance(settings, dict):
                raise ArgumentError(f"it is {shortened(settings)}; it must be a JSON object")
            parts: dict[str, Any] = {
                name: from_object(kind, settings[name], name, later=later)
                for name, (kind, later) in GROUPS.items()
                if name in settings
            }
            if isinstance(frozen := settings.get("freeze_encoder"), bool):  # a bool in earlier runs
                parts["freeze_encoder"] = float(frozen)
            settings = {"start_groups": 0} | settings  # that earlier runs lack
            found = from_object(cls, settings | parts, "it", later=LATER)
            return found._as_recorded() if recorded else found
        except ArgumentError as error:
            raise DataError(
                f"{source} holds no settings of this version: {error}; restore it from a copy"
            ) from error

    def _as_recorded(self) -> "TrainConfig":
        """Return recorded settings with the networks that their run built, older ones included."""
        from agents.sb3.classes import ON_POLICY

        if not self.has_encoder:
            return self
        options = history_before(self.encoder, self.encoder_options)
        on_policy = self.algo in ON_POLICY  # of one's own, an agent's file knows
        of_algo = sharing_before(self.algo_options) if on_policy else self.algo_options
        return dataclasses.replace(self, encoder_options=options, algo_options=of_algo)

    def resolved(self) -> "TrainConfig":
        """Return the settings with all dependent defaults filled in and an absolute market path."""
        from agents.sb3.classes import is_on_policy

        on_policy = is_on_policy(self.algo)
        of_algo = self.algo_options
        if self.algo != "direct":
            scorer = "2" in self.curriculum and self.policy == "per_asset"
            encoder = on_policy and self.has_encoder
            of_algo = with_policy(of_algo, encoder=encoder, scorer=scorer)
        usual = {"direct": 288_000}.get(self.algo, 200_000 if on_policy else 40_000)
        timesteps = self.timesteps or usual
        tenth = max(timesteps // 10, 1)
        num_envs = self.num_envs or (256 if on_policy else 64)
        window = self.window or (1 if self.encoder in ROWS else 60)
        encoder_options = with_history(
            self.encoder, self.encoder_options, self.observation, self.algo
        )
        encoder_options = with_window(self.encoder, encoder_options, window)
        start_groups = self.start_groups
        if start_groups is None:
            windows = self.has_encoder and json.loads(encoder_options).get("history") != "stream"
            shared = on_policy and windows and self.observation == "index"
            start_groups = min(START_GROUPS, num_envs) if shared else 0
        forecasts = self.curriculum != "3" and self.observation == "index"
        path = Path(self.market)
        return dataclasses.replace(
            self,
            market=str(path.resolve()) if path.exists() else self.market,
            data=self.data.resolved(),
            constraints=dataclasses.replace(self.constraints, long_only=False)
            if self.positions == "long_short"
            else self.constraints,
            costs=dataclasses.replace(
                self.costs, cash_rate_annual=absolute(self.costs.cash_rate_annual)
            ),
            timesteps=timesteps,
            encoder_options=encoder_options,
            algo_options=of_algo,
            num_envs=num_envs,
            start_groups=start_groups,
            window=window,
            prediction_weight=self.prediction_weight
            if self.prediction_weight is not None
            else forecasts * PREDICTION_WEIGHT,
            validation_every=self.validation_every or tenth,
            checkpoint_every=self.checkpoint_every or tenth,
        )

    def load_market(self) -> tuple[Market, dict[str, Range]]:
        """Return the market, scaled on its training range, and the half-open rows of all ranges."""
        panel = self.data.panel(self.market, self.assets, self.start, self.end)
        ranges = self.ranges_of(panel.timestamps)
        pipeline = self.data.pipeline(self.features)
        return build_market(panel, features=pipeline, fit_end=ranges["train"][1]), ranges

    def ranges_of(self, timestamps: Timestamps) -> dict[str, Range]:
        """Return the half-open rows of training, validation and test range.

        Raises:
            ArgumentError: If a range would be empty, or a date lies outside of the timestamps.
        """
        ranges = dict(zip(NAMES, split_rows(timestamps, self.train, self.validation), strict=True))
        start, end = ranges["test"]
        if isinstance(self.test, str):
            end = named_row("test", timestamps, self.test, end=True)
        elif self.test is not None:
            end = min(end, start + bars_of("test", self.test, len(timestamps)))
        if end - start < 2:
            raise ArgumentError(
                f"train={self.train}, validation={self.validation}, test={self.test} leave "
                f"{end - start} bars for the test; an episode needs at least 2"
            )
        return ranges | {"test": (start, end)}

    @property
    def has_encoder(self) -> bool:
        """Return whether there is an encoder with weights to train."""
        return self.encoder != "per_asset" and self.policy != "flat_mlp"

    @property
    def bars(self) -> int:
        """Return the bars of the encoder's window, once the settings are resolved."""
        assert self.window is not None
        return self.window

    @property
    def observed(self) -> int:
        """Return the bars of an observation; an encoder of one's own may read more than these."""
        from torch import random

        from agents.networks import ENCODERS, Encoder, encoder_class, make_encoder

        if self.encoder in ENCODERS or not self.has_encoder:
            return self.bars
        if not issubclass(encoder_class(self.encoder), Encoder):
            return self.bars
        with random.fork_rng(devices=[]):
            return make_encoder(self.encoder, 1, self.bars, **self.encoder_kwargs).bars

    @property
    def encoder_kwargs(self) -> dict[str, Any]:
        """Return the options of the encoder."""
        options: dict[str, Any] = json.loads(self.encoder_options)
        return options

    @property
    def algo_kwargs(self) -> dict[str, Any]:
        """Return the options of the algorithm and its policy."""
        options: dict[str, Any] = json.loads(self.algo_options)
        return options

    def env_options(self) -> dict[str, Any]:
        """Return keywords of ``PortfolioEnv`` for the task, in training and evaluation alike."""
        return {
            "window": self.observed,
            "observation": self.observation,
            "costs": dataclasses.asdict(self.costs)
            if self.cost_model is None
            else {"model": self.cost_model, **json.loads(self.cost_options)},
            "constraints": dataclasses.asdict(self.constraints),
            "execution": self.execution,
            "fills": dataclasses.asdict(self.fills),
            "delay": self.delay,
            "adjustment": self.adjustment,
            "initial_value": self.initial_value,
            "action": "weights" if self.policy == "dirichlet" else "logits",
        }

    def training_options(self, market: Market, train: Range) -> dict[str, Any]:
        """Return further keywords for training: starts, starting weights, the reward."""
        drawn = market.n_assets > 8 and self.policy != "flat_mlp"
        universe = self.universe if self.universe is not None else 8 * drawn
        start = max(train[0], market.warmup + self.observed + self.delay - 1)
        scale = {"scale": self.reward_scale} if self.reward == "excess_log_return" else {}
        return {
            "start": start,
            "end": train[1],
            "random_start": True,
            "episode_length": min(self.episode_length, train[1] - 1 - start),
            "universe": universe or None,
            "start_groups": self.start_groups or None,
            "reward": {"name": self.reward, **scale, **json.loads(self.reward_options)},
        }
