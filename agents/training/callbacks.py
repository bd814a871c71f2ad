"""Training callbacks: portfolio metrics to TensorBoard, validation backtests, checkpoints."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from agents.progress import Outlook
from agents.saving import save_agent
from agents.sb3.algorithms import policy_for
from agents.sb3.curves import hparams_of, write_points
from agents.sb3.vec_env import make_sb3_vec_env
from agents.tensors import SUFFIX, digest_of
from agents.training.config import Range
from agents.training.run_folder import save_checkpoint
from agents.training.validation import Known, Probes, Validation, plain
from portfolio_env import Market
from portfolio_env.evaluation.report.plots import equity_curves
from portfolio_env.files.atomic import read_json, write_json

STEP_MEANS = ("turnover", "drawdown", "concentration")


class PortfolioMetrics(BaseCallback):
    """Log metrics of the lanes' accounts from ``info``, for on-policy and off-policy algorithms.

    ``rollout/value`` is the mean final value over the initial one, of the episodes that ended since
    the last log; ``rollout/turnover``, ``cost`` (share of the value before the step), ``drawdown``
    and ``concentration`` are means over lanes and steps. They depend on the age and the dates of
    the episodes; ``ProbeCallback`` logs curves that depend on the policy alone.

    Args:
        hparams: Settings of the run, shown in TensorBoard's HPARAMS tab, see ``hparams_of``.
    """

    def __init__(self, hparams: dict[str, Any]) -> None:
        super().__init__()
        self.hparams = hparams
        self._initial = math.nan

    def _on_training_start(self) -> None:
        self._initial = self.training_env.get_attr("simulator", 0)[0].initial_value
        if self.model.num_timesteps == 0:
            write_points(self.logger, {"hparams": hparams_of(self.hparams)}, 0)

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        for key in STEP_MEANS:
            self.logger.record_mean(f"rollout/{key}", float(np.mean([info[key] for info in infos])))
        before = [info["portfolio_value"] * math.exp(-info["log_return"]) for info in infos]
        costs = [info["cost"] / max(v, 1e-9) for info, v in zip(infos, before, strict=True)]
        self.logger.record_mean("rollout/cost", float(np.mean(costs)))
        for lane in np.flatnonzero(self.locals["dones"]):
            value = infos[lane]["portfolio_value"] / self._initial
            self.logger.record_mean("rollout/value", value)
        return True


class PeriodicCallback(BaseCallback):
    """Base of callbacks that act between updates every so many steps, and at the end of training.

    A rollout is a bad moment: the data collected so far would be lost to a checkpoint. It acts
    after the first rollout that reaches or passes a multiple of ``every``, which the number of
    steps alone decides, so a resumed training acts when an uninterrupted one does.

    Args:
        every: Environment steps over all lanes between two acts.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self._done_at = 0

    def act(self) -> None:
        """Perform the action of the callback."""
        raise NotImplementedError(f"{type(self).__name__} must define act()")

    def _on_training_start(self) -> None:
        self._done_at = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps // self.every > self._done_at // self.every:
            self._done_at = self.model.num_timesteps
            self.act()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self.model.num_timesteps > self._done_at:
            self.act()


class ProgressCallback(BaseCallback):
    """Show a bar, and say after the first update if the training will take hours.

    Args:
        advance: Takes the steps so far, see ``agents.progress.bar``.
        outlook: Likewise, at the beginning of every rollout that follows an update.
    """

    def __init__(self, advance: Callable[[int], None], outlook: Outlook) -> None:
        super().__init__()
        self.advance, self.outlook = advance, outlook
        self._seen = False

    def _on_rollout_start(self) -> None:
        if self._seen and self.num_timesteps > getattr(self.model, "learning_starts", 0):
            self.outlook.look(self.num_timesteps)

    def _on_step(self) -> bool:
        if not self._seen:
            self._seen = True  # the first step may have compiled: time counts from its end
            if self.num_timesteps > getattr(self.model, "learning_starts", 0):
                self.outlook.look(self.num_timesteps)
        self.advance(self.num_timesteps)
        return True


class LogCallback(PeriodicCallback):
    """Write what was recorded: of the rollouts since the last time, and of the last update.

    SB3 writes before the update and, off policy, once for every few episodes, several times in one
    step; call ``learn`` with ``log_interval=sys.maxsize``.
    """

    def act(self) -> None:
        """Write one point of every curve."""
        self.model.dump_logs()


class CheckpointCallback(PeriodicCallback):
    """Save everything that the training needs to resume; the last in a list of callbacks.

    Args:
        path: Run folder.
        every: Environment steps between two checkpoints.
    """

    def __init__(self, path: Path, every: int) -> None:
        super().__init__(every)
        self.path = path

    def act(self) -> None:
        """Write one checkpoint."""
        save_checkpoint(self.path, self.model)


class ProbeCallback(PeriodicCallback):
    """Log the accounts of ``Probes`` before the first update and every so many steps.

    Args:
        probes: The backtests.
        every: Environment steps between two of them.
    """

    def __init__(self, probes: Probes, every: int) -> None:
        super().__init__(every)
        self.probes = probes

    def _on_training_start(self) -> None:
        super()._on_training_start()
        market = self.probes.market
        self.policy = policy_for(self.model, make_sb3_vec_env(market, **self.probes.options))
        if self.model.num_timesteps == 0:
            self.act()

    def act(self) -> None:
        """Backtest once on both ranges."""
        self.policy.load_state_dict(self.model.policy.state_dict())
        write_points(self.logger, self.probes.run(self.policy), self.model.num_timesteps)


class ValidationCallback(PeriodicCallback):
    """Backtest on the validation range, log it, and keep the model with the largest growth.

    Results (see ``Validation``) go to ``validation.json`` of the run folder, the best model to
    ``best_model.safetensors``.

    Args:
        path: Run folder.
        market: Market with fitted features.
        rows: Validation range, half-open; the account always starts at its first bar.
        env_options: Keywords of ``PortfolioEnv``.
        every: Environment steps between two backtests.
        known: Takes the figures of the backtests of this process.
    """

    def __init__(
        self,
        path: Path,
        market: Market,
        rows: Range,
        env_options: dict[str, Any],
        every: int,
        known: Known | None = None,
    ) -> None:
        super().__init__(every)
        self.known = {} if known is None else known
        self.file = path / "validation.json"
        self.best_model = path / f"best_model{SUFFIX}"
        self.validation = Validation(market, rows, env_options)
        self.venv = make_sb3_vec_env(market, **self.validation.options)
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
        result, figures = self.validation.run(self.policy)
        if self.policy.device.type == "cpu":
            self.known[digest_of(self.policy.state_dict())] = figures
        points = {**figures, "equity": equity_curves({"agent": result})}
        points = {f"validation/{name}": point for name, point in points.items()}
        write_points(self.logger, points, self.model.num_timesteps)
        if all(figures["growth"] > result["growth"] for result in self.results):
            save_agent(self.model, self.best_model)
        self.results.append({"timesteps": self.model.num_timesteps, **figures})
        write_json(self.file, {"validations": [plain(result) for result in self.results]})
