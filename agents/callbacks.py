"""Training callbacks: portfolio figures to TensorBoard, validation backtests, checkpoints."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.wrappers import RecordEpisodeStatistics
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Figure, HParam

from agents.algorithms import policy_for
from agents.config import Range
from agents.run_folder import save_checkpoint, save_model
from agents.vec_env import make_sb3_vec_env
from portfolio_env import Market, PortfolioEnv
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.metrics import annual_log_growth
from portfolio_env.evaluation.plots import equity_curves
from portfolio_env.files import read_json, write_json

STEP_MEANS = ("turnover", "cost", "drawdown", "concentration")
TENSORBOARD_ONLY = ("stdout", "log", "json", "csv")


class PortfolioMetrics(BaseCallback):
    """Log what the lanes' accounts do, from `info`: for on-policy and off-policy algorithms alike.

    `portfolio/value` is the mean final value of the episodes that ended since the last log,
    `portfolio/turnover`, `cost`, `drawdown` and `concentration` are means over lanes and steps.

    Args:
        hparams: settings of the run, shown in TensorBoard's HPARAMS tab.
    """

    def __init__(self, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.hparams = {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in hparams.items()
        }

    def _on_training_start(self) -> None:
        metrics = {
            "validation/excess_growth": 0.0,
            "portfolio/turnover": 0.0,
            "portfolio/value": 0.0,
        }
        self.logger.record("hparams", HParam(self.hparams, metrics), exclude=TENSORBOARD_ONLY)

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        for key in STEP_MEANS:
            self.logger.record_mean(
                f"portfolio/{key}", float(np.mean([info[key] for info in infos]))
            )
        for lane in np.flatnonzero(self.locals["dones"]):
            self.logger.record_mean("portfolio/value", infos[lane]["portfolio_value"])
        return True


class PeriodicCallback(BaseCallback):
    """Acts between updates every so many environment steps, and at the end of the training.

    A rollout is a bad moment: the data collected so far would be lost to a checkpoint.

    Args:
        every: environment steps over all lanes between two acts.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._done_at = 0

    def act(self) -> None:
        """Do what is due."""
        raise NotImplementedError(f"{type(self).__name__} must define act()")

    def _on_training_start(self) -> None:
        self._done_at = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps - self._done_at >= self.every:
            self._done_at = self.model.num_timesteps
            self.act()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self.model.num_timesteps > self._done_at:
            self.act()


class CheckpointCallback(PeriodicCallback):
    """Save model and replay buffer into the run folder.

    Args:
        path: run folder.
        every: environment steps between two checkpoints.
    """

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(every)
        self.path = path

    def act(self) -> None:
        """Write one checkpoint."""
        save_checkpoint(self.path, self.model)


class ValidationCallback(PeriodicCallback):
    """Backtest on the validation range, log it, and keep the model that beats equal weight by most.

    Growth is yearly log growth after costs; equal weight is that of `benchmark_log_return`, daily
    rebalanced without costs. Results go to `validation.json` of the run folder, the best model to
    `best_model.zip`.

    Args:
        path: run folder.
        market: market with fitted features.
        rows: validation range, half-open; the account always starts at its first bar.
        env_options: keywords of `PortfolioEnv`.
        every: environment steps between two backtests.
    """

    def __init__(
        self, path: Path, market: Market, rows: Range, env_options: dict[str, Any], every: int
    ) -> None:
        super().__init__(every)
        self.file = path / "validation.json"
        self.best_model = path / "best_model.zip"
        options = env_options | {"start": rows[0], "end": rows[1]}
        self.venv = make_sb3_vec_env(market, **options)
        # The episode return of this reward is the growth above equal weight.
        self.env = RecordEpisodeStatistics(
            PortfolioEnv(market, reward="excess_log_return", **options)
        )
        self.results: list[dict[str, float]] = []

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self.policy = policy_for(self.model, self.venv)
        if self.file.exists():  # a resumed run: what came after its checkpoint comes again
            results = read_json(self.file, bare="validations")["validations"]
            self.results = [
                {key: -math.inf if figure is None else figure for key, figure in result.items()}
                for result in results
                if result["timesteps"] <= self.model.num_timesteps
            ]

    def act(self) -> None:
        """Backtest once."""
        self.policy.load_state_dict(self.model.policy.state_dict())
        result = backtest(self.policy, self.env)
        years = (len(result.values) - 1) / result.periods_per_year
        figures = {
            "growth": float(annual_log_growth(result.values, result.periods_per_year)),
            "excess_growth": float(self.env.return_queue[-1]) / years,
            "turnover": float(result.turnovers.mean()),
        }
        for key, value in figures.items():
            self.logger.record(f"validation/{key}", value)
        figure = Figure(equity_curves({"agent": result}), close=True)
        self.logger.record("validation/equity", figure, exclude=TENSORBOARD_ONLY)
        self.logger.dump(self.model.num_timesteps)
        if all(figures["excess_growth"] > r["excess_growth"] for r in self.results):
            save_model(self.best_model, self.model)
        self.results.append({"timesteps": self.model.num_timesteps, **figures})
        plain = [  # the growth of a ruined account is minus infinity, which JSON cannot say
            {key: figure if math.isfinite(figure) else None for key, figure in result.items()}
            for result in self.results
        ]
        write_json(self.file, {"validations": plain})
