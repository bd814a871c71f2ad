"""Evaluation tasks: of a run, of a walk forward, or of a market alone."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch as th
from torch import nn

from agents.direct.agent import DirectAgent
from agents.encoding.market_rows import market_encoders
from agents.forecasts import NextReturns
from agents.inspection import encoder_figures
from agents.run_market import AFTER, check_market, load_checked_market, run_market
from agents.sb3.algorithms import bind_market
from agents.settings.market import FillOptions, MarketConfig
from agents.training.config import Range, TrainConfig
from agents.training.run_folder import (
    CHECKPOINTS,
    Run,
    load_model,
    model_file,
    read_config,
)
from agents.training.run_records import id_of, is_finished
from agents.training.walk_forward_training import FILE, read_plan
from portfolio_env import Fills
from portfolio_env.checks import check_integer
from portfolio_env.data.cli import update_folder
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask, TrainedAgent
from portfolio_env.market import Market
from portfolio_env.names import last_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def open_task(
    run: Path | None,
    config: MarketConfig,
    folder: Path | None = None,
    split: str = "test",
    *,
    model: Literal["final", "best"] = "final",
    device: str = "auto",
    agent: bool = True,
    data: Path | None = None,
) -> EvaluationTask:
    """Return the task of a run (``run_task``), or without one of a market (``market_task``).

    Beside a run market, fills and delay of the settings are others to judge the run by. From then
    on torch computes in one thread.

    Raises:
        ArgumentError: If other settings of a market are given beside a run, or newer data without
            one, or the split is not that of the tests of a walk forward.
        DataError: As of ``run_task``.
    """
    th.set_num_threads(1)  # a bar at a time: more threads only wait for each other
    if run is None:
        if data is not None or split == AFTER:
            raise ArgumentError(
                "newer data, and the range after, are of a run: name one, or give the file as the "
                "market."
            )
        return market_task(config, folder)
    if split != "test" and (run / FILE).exists():
        raise ArgumentError(
            f"split is {split}, but {run} is a walk forward, whose folds are joined by their tests "
            "alone: leave --split out, or name the run of one fold, e.g. "
            f"{next(run.glob('fold_*/seed_*'), 'fold_0/seed_0')}."
        )
    others = dataclasses.replace(config, market=None, fills=FillOptions(), delay=None)
    if others != MarketConfig() or folder is not None:
        raise ArgumentError(
            f"ranges, costs, constraints and folder are those of the run {run}; "
            "leave the options that name them out, or leave the run out."
        )
    where: dict[str, Any] = {"data": data, "market": config.market, "newest": split == AFTER}
    task = run_task(run, model=model, device=device, agent=agent, **where)
    fills = config.fills.fills if config.fills.given else None
    return with_frictions(task, fills, config.delay)


def newest_task(
    run: Path | None,
    config: MarketConfig,
    newest: Path | None = None,
    update: bool = False,
    **how: Any,
) -> EvaluationTask:
    """Return the task of newest data: of a run, or of a market for a baseline.

    Args:
        run: Folder of the run; None is a baseline on the market of the settings.
        config: Settings of the market.
        newest: Newest data, a file or a folder; None is those of the run or of the settings.
        update: Download first what is missing in that folder, and tell so on stderr.
        **how: ``model`` and ``device`` of the run, see ``run_task``.
    """
    if update:
        with redirect_stdout(sys.stderr):
            update_folder(newest)
    if run is not None:
        return open_task(run, config, None, AFTER, data=newest, **how)
    market = config.market if newest is None else str(newest)
    return open_task(None, dataclasses.replace(config, market=market))


def with_frictions(task: EvaluationTask, fills: Fills | None, delay: int | None) -> EvaluationTask:
    """Return the task with other fills and another delay, which its warnings and its folder name.

    Fills and a delay of None leave those of the task as they are.
    """
    own: dict[str, Any] = {}
    named, notes = {}, []
    before = Fills(**task.whole.options.get("fills", {}))
    if fills is not None and fills != before:
        own["fills"] = named = dataclasses.asdict(fills)
        notes.append(f"Orders are filled by {fills}, and not by those of the run: {before}.")
    bars = task.whole.options.get("delay", 0)
    if delay is not None and delay != bars:
        check_integer("delay", delay, 0)
        own["delay"], named = delay, {**named, "delay": delay}
        notes.append(f"Orders come {delay} bars after what is observed; in the run it was {bars}.")
    if not own:
        return task
    folds = [
        dataclasses.replace(fold, options={**fold.options, **own})
        for fold in (task.whole, *task.folds)
    ]
    shown = {name: value for name, value in named.items() if value or name == "delay"}
    if "fills" in own and fills == Fills():
        shown = {"failure": 0.0, **shown}
    name = "_".join(f"{name}_{value:g}" for name, value in shown.items())
    return dataclasses.replace(
        task,
        whole=folds[0] if task.folds[0] is not task.whole else folds[1],
        folds=folds[1:],
        warnings=[*task.warnings, *notes],
        place="__".join(filter(None, (task.place, name))),
    )


def market_task(config: MarketConfig, folder: Path | None = None) -> EvaluationTask:
    """Return the task of baselines alone.

    Args:
        config: Market and its options.
        folder: Folder of the evaluation; default runs/MARKET__baselines.
    """
    parts = {part.name: getattr(config, part.name) for part in dataclasses.fields(config)}
    parts = {name: value for name, value in parts.items() if value is not None}
    parts["fills"] = config.fills.fills
    settings = TrainConfig(**parts).resolved()
    fold = EvaluationFold(*settings.load_market(), settings.env_options())
    name = f"{_short_name(settings.market)}__baselines"
    about = {"market": settings.market}
    return EvaluationTask(folder or Path(settings.runs) / name, fold, (fold,), about=about)


def run_task(
    path: Path,
    *,
    model: Literal["final", "best"] = "final",
    device: str = "auto",
    agent: bool = True,
    data: Path | None = None,
    market: str | None = None,
    newest: bool = False,
) -> EvaluationTask:
    """Return the task of a run, or of a walk forward, whose folds are evaluated in turn.

    Agents are called after their algorithm, those of a walk forward with several seeds after their
    seed too. What is evaluated of a walk forward is the test range alone.

    Args:
        path: Folder of the run or of the walk forward.
        model: Model of the run to evaluate, see ``load_run``.
        device: Torch device of the model.
        agent: Include the agent; False takes the market and the rules of the run alone.
        data: Newer data of the run's market, see ``load_run``.
        market: Another market to judge the run on, see ``load_run``.
        newest: Include the bars of the run's own market that came after those of its training.

    Raises:
        ArgumentError: If newer data, or another market, are given for a walk forward.
        DataError: As of ``load_run``, or if the walk forward is not trained to its end.
    """
    if data is not None and market is not None:
        raise ArgumentError("newer data of the run's market, or another market: give one of them.")
    if (path / FILE).exists():
        if data is not None or market is not None:
            raise ArgumentError(
                f"{path} is a walk forward, whose folds are tested on data of their own: name the "
                f"run of one, e.g. {next(path.glob('fold_*/seed_*'), 'fold_0/seed_0')}."
            )
        return _walk_forward_task(path, model, device, agent)
    config = read_config(path)
    found = run_market(path, config, data=data, market=market, newest=newest)
    place = "" if market is None else _short_name(market)
    about = {"market": market or config.market}
    if not agent:  # so that a run without a model is accepted
        fold = EvaluationFold(found.market, found.ranges, config.env_options())
        rest: dict[str, Any] = {"warnings": found.news, "place": place, "about": about}
        return EvaluationTask(path, fold, (fold,), model=model, **rest)
    trained = load_model(path, config, found.market, model=model, device=device)
    run = Run(path, config.to_json(), *found[:2], config.env_options(), trained, found.news)
    name = last_name(run.config["algo"])
    agents = {name: trained_agent(run, model)}
    fold = EvaluationFold(run.market, run.ranges, run.env_options, agents)
    warnings = [*unfinished(run, model), *run.news]
    about |= {"agent": _card(path, config, model, [config.seed])}
    rest = {"warnings": warnings, "place": place, "about": about}
    return EvaluationTask(run.path, fold, (fold,), name, model, **rest)


def _card(path: Path, config: TrainConfig, model: str, seeds: Sequence[int]) -> str:
    """Return what an agent is, in a line; ``card.md`` in the folder of its run says more."""
    return (
        f"{config.algo} ({model} model), policy {config.policy}, encoder {config.encoder}, "
        f"features {config.features}, {config.timesteps:,} steps, "
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}; run {id_of(path)}, see card.md"
    )


def _short_name(market: str) -> str:
    return last_name(Path(market).stem.split("?")[0])


def _walk_forward_task(
    path: Path, model: Literal["final", "best"], device: str, agent: bool
) -> EvaluationTask:
    plan = read_plan(path)
    folders = plan.folders(path)
    lacking = [folder for own in folders.values() for folder in own if not is_finished(folder)]
    if lacking:
        raise DataError(
            f"{len(lacking)} runs of the walk forward {path} are not trained to their end, the "
            f"first is {lacking[0]}; continue it with train.py --resume {path}"
        )
    algo, seeds = last_name(plan.config.algo), plan.seeds
    names = [algo] if len(seeds) == 1 else [f"{algo}_seed_{seed}" for seed in seeds]
    folds = []
    for own in zip(*folders.values(), strict=True):  # the runs of one fold share its market
        market, ranges = load_checked_market(own[0], read_config(own[0]))
        agents = {}
        for name, folder in zip(names, own, strict=True) if agent else ():
            config = read_config(folder)
            check_market(folder, config, market)
            trained = load_model(folder, config, market, model=model, device=device)
            options = config.env_options()
            run = Run(folder, config.to_json(), market, ranges, options, trained)
            agents[name] = trained_agent(run, model)
        folds.append(EvaluationFold(market, ranges, plan.config.env_options(), agents))
    whole = EvaluationFold(*plan.config.load_market(), plan.config.env_options())
    about = {"market": plan.config.market}
    if agent:
        about["agent"] = _card(path, plan.config, model, seeds)
    return EvaluationTask(path, whole, folds, algo if agent else None, model, about=about)


def unfinished(run: Run, model: str) -> list[str]:
    """Return a warning where a checkpoint stands for a model that is not trained to its end."""
    file = model_file(run.path, model)
    if file.parent.name != CHECKPOINTS:
        return []
    return [
        f"The training of {run.path} is not finished: its checkpoint after {int(file.stem):,} of "
        f"{run.config['timesteps']:,} steps is evaluated. Continue it with: python train.py "
        f"--resume {run.path}"
    ]


def trained_agent(run: Run, model: str) -> TrainedAgent:
    """Return the agent of a run for an evaluation."""
    file = model_file(run.path, model)
    return TrainedAgent(run.model, file, parameter_bytes(run), partial(encoder_pictures, run))


def bind_policy(policy: Any, market: Market) -> None:
    """Give the policy of a trained agent the market that its index observations are of."""
    if isinstance(policy, DirectAgent):
        policy.bind(market)
    else:
        bind_market(policy, market)


def log_figures(folder: Path, split: str, figures: Mapping[str, Path]) -> None:
    """Write the figures of a report to TensorBoard too."""
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tb" / "evaluation")) as writer:
        for name, file in figures.items():
            writer.add_image(f"{split}/{name}", imread(file)[..., :3], dataformats="HWC")


_TEXTS = {
    "attention": "Attention of the encoder at the last bar of the range.",
    "calibration": "Calibration of the encoder's forecasts over the range.",
}


def network_of(run: Run) -> nn.Module:
    """Return the network with which a run's agent decides."""
    return run.model.network if isinstance(run.model, DirectAgent) else run.model.policy


def parameter_bytes(run: Run) -> int:
    """Return the memory of the network's parameters, in bytes."""
    return sum(part.numel() * part.element_size() for part in network_of(run).parameters())


def encoder_pictures(run: Run, rows: Range) -> dict[str, tuple[Figure, str]]:
    """Return captioned figures of attention and calibration over some rows; {} without either.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    network = network_of(run)
    found = market_encoders(network)
    if not found:
        return {}
    network.eval()
    embeddings, returns = found[0], None
    if embeddings.head is not None:
        device = next(embeddings.parameters()).device
        returns = NextReturns(run.market, run.ranges["train"], embeddings.encoder.bars, device)
    figures = encoder_figures(embeddings, run.market, rows, returns)
    return {name: (figure, _TEXTS[name.partition("/")[0]]) for name, figure in figures.items()}
