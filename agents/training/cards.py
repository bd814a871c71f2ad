"""Model cards: the facts on a trained model, from the files of its run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.direct.agent import DirectAgent
from agents.direct.training import DirectOptions
from agents.fitting import KIND
from agents.run_market import load_checked_market
from agents.sb3.classes import ALGORITHMS
from agents.supervised import cards as supervised
from agents.tensors import SUFFIX, digest_of, load_tensors
from agents.training import card_texts
from agents.training.card_texts import limits, sealed
from agents.training.config import Range, TrainConfig
from agents.training.run_folder import (
    CHECKPOINTS,
    FORMAT,
    WALK_FORWARD,
    load_model,
    read_config,
)
from agents.training.run_records import (
    CARD,
    MALFORMED,
    MODELS,
    identity,
    is_finished,
    is_supervised,
    member_runs,
    read_record,
    validations,
)
from agents.training.validation import Known, Validation, plain
from portfolio_env import Market
from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.evaluation.usage_log import read_usage_log
from portfolio_env.files.atomic import parse_json, read_json, replacing, write_json

TEXT = "card.md"
BENCHMARK = "equal weight, rebalanced at every bar, after costs"
Card = dict[str, Any]


def validate_models(
    path: Path,
    config: TrainConfig,
    market: Market,
    ranges: Mapping[str, Range],
    known: Known | None = None,
) -> dict[str, dict[str, float | None]]:
    """Return the validation metrics of both models of a finished run; {} of another.

    Args:
        path: Folder of the run.
        config: Resolved settings.
        market: Market with fitted features.
        ranges: Rows of each range.
        known: Figures that the training has computed with these settings. A model whose file holds
            the weights of one of them is not run again; one of an own algorithm always is, as it
            may act by more than its policy.
    """
    if not is_finished(path):
        return {}
    known = dict(known or {})
    validation = Validation(market, ranges["validation"], config.env_options())
    found = {}
    for name in MODELS:
        model = load_model(path, config, market, model=name, device="cpu")
        digest = name
        if not isinstance(model, DirectAgent) and config.algo in ALGORITHMS:
            digest = digest_of(model.policy.state_dict())
        if digest not in known:
            known[digest] = validation.run(model)[1]
        found[name] = plain(known[digest])
    return found


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card of a run of any kind as a page of Markdown."""
    return (supervised if card["kind"] == supervised.KIND else card_texts).markdown(card)


def write_card(path: Path, found: Mapping[str, Any] | None = None) -> Card:
    """Write the card of a run or a walk forward, as JSON and as Markdown.

    Args:
        path: Folder of the run.
        found: See ``validate_models``, or ``judged`` of ``agents.supervised.cards.make_card``; None
            keeps those of the card before.
    """
    card = make_card(path, found)
    with replacing(path / TEXT) as beside:  # first: the JSON says that this one is sealed
        beside.write_text(sealed(markdown(card)), encoding="utf-8")
    write_json(path / CARD, card)
    return card


def renew_card(path: Path) -> Card:
    """Rewrite a card, with backtests of the models of agents on the validation range.

    Raises:
        DataError: If the market has changed since the run was trained.
    """
    if (path / WALK_FORWARD).is_file():
        for member in member_runs(path):
            renew_card(member)
        return write_card(path)
    if is_supervised(path):
        return write_card(path)
    config = read_config(path)
    market, ranges = load_checked_market(path, config)
    return write_card(path, validate_models(path, config, market, ranges))


def make_card(path: Path, found: Mapping[str, Any] | None = None) -> Card:
    """Return the card of a run or a walk forward as it stands now, see ``write_card``.

    Raises:
        DataError: If the run's files hold other things than a training writes.
    """
    try:
        card = supervised.make_card(path, found) if is_supervised(path) else _card(path, found)
        markdown(card)
    except MALFORMED as error:
        if isinstance(error, PortfolioError):
            raise
        raise DataError(
            f"{path} is damaged: its files lack facts of the card ({error!r:.200})"
        ) from error
    return card


def _card(path: Path, models: Mapping[str, Mapping[str, float | None]] | None) -> Card:
    record, known = read_record(path), identity(path)
    card: Card = {
        "format": FORMAT,
        "id": record.id,
        "kind": "walk forward" if record.runs else "run",
        "state": record.state,
        "started": record.started,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    card |= _of_walk_forward(path) if record.runs else _of_run(path, models)
    uses = read_usage_log(path)
    card["looks"] = {
        "count": len(uses),
        "first": uses[0].date if uses else None,
        "last": uses[-1].date if uses else None,
    }
    card["limits"] = limits(card)
    card["command"] = known.get("command")
    card["environment"] = known.get("environment")
    return card


def _of_run(path: Path, models: Mapping[str, Mapping[str, float | None]] | None) -> Card:
    config = read_json(path / "config.json")
    market, features = read_json(path / "market.json"), read_json(path / "features.json")
    validation: Card = {"benchmark": BENCHMARK, "models": {}}
    if models is not None:
        validation["models"] = {name: dict(figures) for name, figures in models.items()}
    elif (path / CARD).is_file():  # figures stay with the benchmark that they were taken against
        validation = read_json(path / CARD)["validation"]
    fit = _direct_fit(path) if config["algo"] == "direct" else None
    training = {"steps": _steps(path, config, fit), "lanes": config["num_envs"]}
    selection = _selection(path, config, fit)
    if config["algo"] == "direct" and (path / CARD).is_file() and fit is None:
        before = read_json(path / CARD)  # of when the checkpoint was there
        training, selection = before["training"], before["selection"]
    rows, dates = market["ranges"], market["dates"]
    return {
        "model": _network(config),
        "seeds": [config["seed"]],
        "market": {
            key: market.get(key)
            for key in ("name", "hash", "n_bars", "assets", "periods_per_year", "provenance")
        },
        "features": {"set": config["features"], "names": _names(market, features)},
        "ranges": {
            name: {"first": dates[name][0], "last": dates[name][1], "bars": end - start}
            for name, (start, end) in rows.items()
        },
        "rules": _rules(config),
        "training": training,
        "validation": validation,
        "selection": selection,
    }


def _of_walk_forward(path: Path) -> Card:
    plan, runs = read_json(path / WALK_FORWARD), member_runs(path)
    config = plan["config"]
    cards = {run.relative_to(path).as_posix(): make_card(run) for run in runs}
    first = next(iter(cards.values()))
    models = [card["validation"]["models"].get("best", {}) for card in cards.values()]
    best = [each["excess_growth"] for each in models if each.get("excess_growth") is not None]
    return {
        "model": _network(config),
        "seeds": plan["seeds"],
        "market": first["market"] | {"hash": None},  # each fold scales its features on its own
        "features": first["features"],
        "ranges": {
            f"{name} {part}": card["ranges"][part]
            for name, card in cards.items()
            for part in ("train", "validation", "test")
        },
        "rules": _rules(config),
        "training": {"steps": config["timesteps"], "lanes": config["num_envs"], "runs": len(runs)},
        "validation": {
            "benchmark": first["validation"]["benchmark"],
            "models": {"best": {"excess_growth": sum(best) / len(best)}} if best else {},
            "runs": {name: card["validation"]["models"] for name, card in cards.items()},
        },
        "selection": first["selection"],
    }


def _network(config: Mapping[str, Any]) -> Card:
    keys = ("algo", "policy", "encoder", "encoder_options", "curriculum", "window", "observation")
    options = {key: config[key] for key in ("algo_options",) if key in config}
    return {key: config[key] for key in keys} | options


def _steps(path: Path, config: Mapping[str, Any], fit: Mapping[str, Any] | None) -> int:
    """Return the steps of a training: those asked for, or up to the end of the last update."""
    if fit is not None:
        return int(fit["round"]) * _direct_size(config)
    done = [each["timesteps"] for each in validations(path)]
    return int(max([config["timesteps"], *done]))


def _rules(config: Mapping[str, Any]) -> Card:
    keys = ("costs", "constraints", "execution", "adjustment", "initial_value")
    model = {key: config[key] for key in ("cost_model", "cost_options") if config.get("cost_model")}
    later = {key: config[key] for key in ("fills", "delay") if key in config}  # not in first runs
    return {key: config[key] for key in keys} | later | model


def _names(market: Mapping[str, Any], features: Mapping[str, Any]) -> list[str] | None:
    """Return the features' names; runs of the first format keep them with the scalers alone."""
    names: list[str] | None = market.get("feature_names") or features.get("names")
    return names


def _selection(path: Path, config: Mapping[str, Any], fit: Mapping[str, Any] | None) -> Card:
    """Return how the best model was selected."""
    if config["algo"] == "direct":
        size = _direct_size(config)
        rounds, every = (max(1, config[name] // size) for name in ("timesteps", "validation_every"))
        fit = fit or {"round": rounds, "best_steps": None}
        best = fit.get("best_steps")  # one in each round, 0 of the untrained model
        at = None if best is None else best * size
        return {"by": "growth", "validations": 1 - (-fit["round"] // every), "chosen_at": at}
    given = validations(path)
    figures = [-1e300 if each["growth"] is None else each["growth"] for each in given]
    best = given[figures.index(max(figures))]["timesteps"] if given else None
    return {"by": "growth", "validations": len(given), "chosen_at": best}


def _direct_size(config: Mapping[str, Any]) -> int:
    """Return the account steps in a round of direct training."""
    options = parse_json(config.get("algo_options", "{}"))
    return int(config["num_envs"] * options.get("steps", DirectOptions.steps))


def _direct_fit(path: Path) -> dict[str, Any] | None:
    """Return the last checkpoint of a direct training; None where it is lost, or damaged."""
    try:
        state: dict[str, Any] = load_tensors(path / CHECKPOINTS / f"direct{SUFFIX}", kind=KIND)
    except DataError:  # the models are whole all the same
        return None
    return state
