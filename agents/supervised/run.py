"""A supervised run: a folder with the training, scores, figures, and what forecasts earn."""

from __future__ import annotations

import logging
import shlex
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch as th

from agents.fitting import run_rounds, take_up
from agents.progress import bar
from agents.sb3.curves import curves, write_points
from agents.settings.files import settings_of
from agents.supervised import figures
from agents.supervised.config import SupervisedConfig
from agents.supervised.model import SupervisedModel
from agents.supervised.scores import Forecasts, verdict
from agents.tensors import SUFFIX
from agents.training.run_folder import one_process, started
from baselines.evaluation import evaluate
from baselines.forecasts.supervised import ForecastedMeanVariance, ForecastRule
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import Evaluation
from portfolio_env.files.atomic import read_json, replacing, write_json
from portfolio_env.market import Market
from portfolio_env.market.samples import Range
from portfolio_env.market.timeline import time_text
from portfolio_env.names import last_name
from portfolio_env.plotting.figures import save_figure

SETTINGS = "supervised.json"
HISTORY = "history.json"
MODEL = f"best_model{SUFFIX}"
_LOGGER = logging.getLogger(__name__)


def train(config: SupervisedConfig, *, progress_bar: bool = False) -> Path:
    """Train a model, judge it on the test range, and write all of it to a new folder.

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
    config.model(market).trainer(market, ranges["train"], ranges["validation"])  # or is refused
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    short = last_name(Path(config.market).stem.split("?")[0])
    name = f"{short}__{config.task}__{last_name(config.encoder)}__{config.seed}__{stamp}"
    path = Path(config.out) if config.out else Path(config.runs) / name
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ArgumentError(f"{path} is not an empty folder: pass another out, or resume it")
    with one_process(path):
        write_json(path / "run.json", started(shlex.join(sys.argv)))
        write_json(path / "market.json", _described(config, market, ranges))
        write_json(path / "features.json", market.panel.provenance["features"])
        write_json(path / SETTINGS, asdict(config))  # last: its presence makes the folder a run
        _LOGGER.info("run folder: %s", path)
        return _run(path, config, market, ranges, progress_bar)


def resume(path: str | Path, *, progress_bar: bool = False) -> Path:
    """Train a stopped run to its end, from its last epoch, and judge it.

    Raises:
        DataError: If the folder is no supervised run, or its market has changed since.
    """
    path = Path(path)
    if not (path / SETTINGS).is_file():
        raise DataError(f"{path} is not a supervised run: it has no {SETTINGS}")
    config = settings_of(SupervisedConfig, read_json(path / SETTINGS), path / SETTINGS)
    with one_process(path):
        market, ranges = config.load_market()
        if market.hash != read_json(path / "market.json")["hash"]:
            raise DataError(
                f"market {config.market!r} has changed since the run {path} was trained: restore "
                "the data, or train again"
            )
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
        **options: Further options of ``baselines.evaluate``, e.g. costs.
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
    _judge(path, config, model, market, ranges, history)
    return path


def _judge(
    path: Path,
    config: SupervisedConfig,
    model: SupervisedModel,
    market: Market,
    ranges: dict[str, Range],
    history: list[dict[str, float]],
) -> None:
    """Score the model on validation and test range, draw its figures and write its card."""
    scores = {}
    for name in ("validation", "test"):
        found = model.forecasts(market, ranges[name])
        scores[name] = found.scores()
    value = economic_value(model, market, ranges["test"], **config.env_options())
    drawn = {
        "learning_curves": figures.learning_curves(history),
        "probabilities": figures.probabilities(found),
        "skill_in_time": figures.skill_in_time(found),
        "accounts": value.plot(),
    }
    if config.task != "direction":  # a classifier forecasts no sigma
        drawn["calibration"] = figures.calibration(found)
    for name, figure in drawn.items():
        save_figure(figure, path / "figures" / f"{name}.png")
    card = {
        **read_json(path / "run.json"),
        "model": asdict(config) | {"parameters": model.parameters},
        "market": read_json(path / "market.json"),
        "epochs": len(history),
        "scores": {name: _plain(table) for name, table in scores.items()},
        "coverage": found.calibration.numbers() if config.task != "direction" else {},
    }
    write_json(path / "card.json", card)
    with replacing(path / "card.md") as beside:
        beside.write_text(_markdown(config, model, market, ranges, scores, value, found))


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    rows = table.astype(object).where(table.notna(), None)
    return {str(name): dict(row) for name, row in rows.iterrows()}


def _described(config: SupervisedConfig, market: Market, ranges: dict[str, Range]) -> Any:
    return {
        "name": config.market,
        "hash": market.hash,
        "n_bars": market.n_bars,
        "assets": list(market.assets),
        "feature_names": list(market.feature_names),
        "ranges": {name: list(rows) for name, rows in ranges.items()},
    }


def _markdown(
    config: SupervisedConfig,
    model: SupervisedModel,
    market: Market,
    ranges: dict[str, Range],
    scores: dict[str, pd.DataFrame],
    value: Evaluation,
    found: Forecasts,
) -> str:
    """Return the card as a page."""
    times = market.timestamps
    dates = "; ".join(
        f"{name} {time_text(times[start])} to {time_text(times[end - 1])}"
        for name, (start, end) in ranges.items()
    )
    lines = [
        f"# {config.task} by {config.encoder}",
        "",
        f"{market.n_assets} assets of {config.market}, horizon {config.horizon} bars, "
        f"{model.parameters:,} weights. {dates.capitalize()}.",
        "",
        verdict(scores["test"]),
    ]
    for name, table in scores.items():
        lines += ["", f"## Scores on the {name} range", ""]
        head = ["score", *table.columns]
        lines += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        for score, row in table.iterrows():
            lines.append(f"| {' | '.join([str(score), *(f'{x:.5g}' for x in row)])} |")
    if config.task != "direction":
        numbers = found.calibration.numbers().items()
        told = ", ".join(f"{name.partition('/')[2]} {number:.3f}" for name, number in numbers)
        lines += ["", f"Calibration on the test range: {told}."]
    lines += ["", "## What the forecasts earn on the test range", ""]
    lines += [*_earnings(value), ""]
    return "\n".join(lines)


def _earnings(value: Evaluation) -> list[str]:
    """Return the accounts as a table, in % a year but for the Sharpe ratio and the turnover."""
    head = ["account", "growth", "Sharpe", "turnover", "cost", "growth at equal risk [95 %]"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, row in value.comparison.table.iterrows():
        at_risk = [100 * row[f"equal_risk_difference{part}"] for part in ("", "_low", "_high")]
        cells = [
            str(name),
            f"{100 * row['annual_log_growth']:+.1f}",
            f"{row['sharpe']:.2f}",
            f"{row['annual_turnover']:.1f}",
            f"{100 * row['cost_drag']:.1f}",
            "{:+.1f} [{:+.1f}, {:+.1f}]".format(*at_risk)
            if name != value.comparison.benchmark
            else "benchmark",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
