"""A supervised run: a folder with the training, scores, figures, and what forecasts earn."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th

from agents.compute.estimate import check_forecasts
from agents.fitting import run_rounds, take_up
from agents.inspection import attention_figure, attention_maps
from agents.progress import bar
from agents.run_market import load_checked_market
from agents.sb3.curves import curves, write_points
from agents.settings.market import SUPERVISED
from agents.supervised import figures
from agents.supervised.attribution import Output, attribute
from agents.supervised.config import SupervisedConfig, read_config
from agents.supervised.model import SupervisedModel
from agents.supervised.scores import verdict
from agents.tensors import SUFFIX
from agents.training.cards import write_card
from agents.training.run_folder import create_run, new_folder, one_process
from agents.training.run_records import HISTORY, read_record
from baselines.evaluation import evaluate
from baselines.forecasts.supervised import ForecastedMeanVariance, ForecastRule
from portfolio_env import PortfolioEnv
from portfolio_env.command_line import command_text
from portfolio_env.evaluation import Evaluation
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.market import Market
from portfolio_env.market.samples import Range
from portfolio_env.names import last_name
from portfolio_env.plotting.figures import save_figure

MODEL = f"best_model{SUFFIX}"
_NAMED = 5  # features that a card names
_LOGGER = logging.getLogger(__name__)


def train(config: SupervisedConfig, *, progress_bar: bool = False) -> Path:
    """Train a model, judge it on the test range, and write all of it to a new folder.

    The use of the test range is logged, as ``evaluate.py`` does.

    Args:
        config: Settings of the run.
        progress_bar: Show one on the terminal.

    Returns:
        The run folder.

    Raises:
        ArgumentError: If the folder exists and is not empty, or settings do not fit the market.
    """
    config = config.resolved()
    market, ranges = config.load_market()
    where = (market, ranges["train"], ranges["validation"])
    trainer = config.model(market).trainer(*where, **asdict(config.fit))  # or is refused
    check_forecasts(trainer, market)
    del trainer
    start, end = ranges["test"]
    PortfolioEnv(market, window=1, start=start, end=end, **config.env_options())  # likewise
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    name = f"{config.task}__{last_name(config.encoder)}__{config.seed}__{stamp}"
    path = new_folder(config, name)
    with one_process(path):
        create_run(path, config, market, ranges, command_text(), SUPERVISED)
        _LOGGER.info("run folder: %s", path)
        return _run(path, config, market, ranges, progress_bar)


def resume(path: str | Path, *, progress_bar: bool = False) -> Path:
    """Train a stopped run to its end, from its last epoch, and judge it.

    Raises:
        DataError: If the folder is no supervised run, or its market has changed since.
    """
    path = Path(path)
    config = read_config(path)
    with one_process(path):
        if read_record(path).state == "finished":
            _LOGGER.info("%s is trained to its end already; nothing is left to do", path)
            return path
        market, ranges = load_checked_market(path, config)
        return _run(path, config, market, ranges, progress_bar)


def economic_value(
    model: SupervisedModel, market: Market, within: Range, **options: Any
) -> Evaluation:
    """Trade the forecasts by a sign rule, a rank rule and mean-variance, beside equal weight.

    Positions are held for the horizon. The verdict compares growth at the volatility of equal
    weight.

    Args:
        model: Trained on bars before the range.
        market: Market with the model's features.
        within: Half-open range of bars.
        **options: Further options of ``baselines.evaluate``, e.g. costs; ``folder`` logs the use of
            the range.
    """
    every = model.horizon
    strategies = {
        "sign": ForecastRule(market, model, every=every),
        "rank": ForecastRule(market, model, rule="rank", every=every),
        "mean_variance_forecast": ForecastedMeanVariance(market, model, every=every),
    }
    start, end = within
    start = max(start, market.warmup + model.embeddings.encoder.bars - 1)
    return evaluate(strategies, market, start=start, end=end, judge="equal_risk", **options)


def _run(
    path: Path,
    config: SupervisedConfig,
    market: Market,
    ranges: dict[str, Range],
    progress_bar: bool,
) -> Path:
    th.set_num_threads(1)  # the networks are small: more threads only wait for each other
    model = config.model(market)
    trainer = model.trainer(market, ranges["train"], ranges["validation"], **asdict(config.fit))
    file = path / f"checkpoint{SUFFIX}"
    take_up(trainer, file)
    history = read_json(path / HISTORY)["epochs"] if (path / HISTORY).exists() else []
    history = history[: trainer.fit.round]  # an epoch after the checkpoint comes again
    logger = curves(path / "tb", trainer.samples)

    def record(numbers: dict[str, float], samples: int) -> None:
        history.append(numbers)
        write_json(path / HISTORY, {"epochs": history})
        write_points(logger, dict(numbers), samples)

    name = f"{config.task}, {config.encoder}"
    with bar(name, trainer.fit.rounds, trainer.fit.round, shown=progress_bar) as advance:
        run_rounds(trainer, file, record, watches=[advance])
    logger.close()
    model.take(trainer, ranges["train"])
    model.save(path / MODEL)
    write_card(path, _judged(path, config, model, market, ranges, history))
    return path


def _judged(
    path: Path,
    config: SupervisedConfig,
    model: SupervisedModel,
    market: Market,
    ranges: dict[str, Range],
    history: Sequence[dict[str, float]],
) -> dict[str, Any]:
    """Score the model on validation and test range, draw its figures, and return what was found."""
    test = ranges["test"]
    scores = {}
    for name in ("validation", "test"):
        found = model.forecasts(market, ranges[name])
        scores[name] = found.scores()
    value = economic_value(model, market, test, folder=path, **config.env_options())
    drawn = {
        "learning_curves": figures.learning_curves(history),
        "probabilities": figures.probabilities(found),
        "skill_in_time": figures.skill_in_time(found),
        "accounts": value.plot(),
    }
    outputs: tuple[Output, ...] = ("up",)
    if config.task != "direction":  # a classifier forecasts no sigma
        outputs = ("mean", "sigma")
        drawn["calibration"] = figures.calibration(found)
    moved = {output: attribute(model, market, test, output) for output in outputs}
    for output, each in moved.items():
        drawn[f"attribution_{output}"] = figures.attributions(each)
    last = test[1] - 1
    for name, weights in attention_maps(model.embeddings.encoder, market, last).items():
        drawn[f"attention_{name}"] = attention_figure(name, weights, market, last)
    for name, figure in drawn.items():
        save_figure(figure, path / "figures" / f"{name}.png")
    share = moved[outputs[0]].table().sum(axis=1).sort_values(ascending=False)
    return {
        "verdict": verdict(scores["test"]),
        "epochs": len(history),
        "parameters": model.parameters,
        "scores": {name: _plain(table) for name, table in scores.items()},
        "classification": _plain(found.classification()),
        "confusion": _plain(found.confusion()),
        "coverage": found.calibration.numbers() if config.task != "direction" else {},
        "attributed": {"up": "probability of a gain", "mean": "mean forecast"}[outputs[0]],
        "attribution": dict((share / (share.sum() or 1.0)).head(_NAMED)),
        "latency": model.latency(market),
        "earnings": _earnings(value),
    }


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    rows = table.astype(object).where(table.notna(), None)
    return {str(name): dict(row) for name, row in rows.iterrows()}


def _earnings(value: Evaluation) -> dict[str, dict[str, float | None]]:
    """Return growth, costs and growth at equal risk of every account, a year."""
    own = {
        "growth": "annual_log_growth",
        "sharpe": "sharpe",
        "turnover": "annual_turnover",
        "cost": "cost_drag",
        "at_equal_risk": "equal_risk_difference",
        "low": "equal_risk_difference_low",
        "high": "equal_risk_difference_high",
    }
    table = value.comparison.table[[*own.values()]].set_axis([*own], axis=1)
    return _plain(table)
