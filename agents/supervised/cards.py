"""The card of a supervised run: its facts from its files, and a page of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agents.settings.market import SUPERVISED
from agents.training.card_texts import day, ending, options_text, page_of, table
from agents.training.run_folder import FORMAT
from agents.training.run_records import CARD, identity, read_record
from portfolio_env.evaluation.usage_log import read_usage_log
from portfolio_env.files.atomic import read_json
from portfolio_env.files.safe_names import printable

Card = dict[str, Any]
KIND = "supervised run"
_OWN = ("task", "task_options", "horizon", "embargo", "encoder", "encoder_options", "window", "fit")
_RULES = ("costs", "constraints", "execution", "fills", "delay", "initial_value")


def make_card(path: Path, judged: Mapping[str, Any] | None = None) -> Card:
    """Return the card of a supervised run as it stands now; nothing is written.

    Args:
        path: Folder of the run.
        judged: Findings on validation and test range; None keeps those of the card before.
    """
    record, known = read_record(path), identity(path)
    config, market = read_json(path / SUPERVISED), read_json(path / "market.json")
    if judged is None:
        judged = read_json(path / CARD)["judged"] if (path / CARD).is_file() else {}
    uses = read_usage_log(path)
    return {
        "format": FORMAT,
        "id": record.id,
        "kind": KIND,
        "state": "finished" if judged else record.state,
        "started": record.started,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {name: config[name] for name in _OWN},
        "seeds": [config["seed"]],
        "market": {
            name: market.get(name)
            for name in ("name", "hash", "n_bars", "assets", "periods_per_year", "provenance")
        },
        "features": {"set": config["features"], "names": market["feature_names"]},
        "ranges": {
            name: {"first": dates[0], "last": dates[1]} for name, dates in market["dates"].items()
        },
        "rules": {name: config[name] for name in _RULES if name in config},
        "judged": dict(judged),
        "looks": {
            "count": len(uses),
            "first": uses[0].date if uses else None,
            "last": uses[-1].date if uses else None,
        },
        "command": known.get("command"),
        "environment": known.get("environment"),
    }


def markdown(card: Mapping[str, Any]) -> str:
    """Return a card as a page of Markdown."""
    model, market, judged = card["model"], card["market"], card["judged"]
    lines = [
        f"# {model['task']} by {model['encoder']} on {market['name']}",
        "",
        f"- id: {card['id']} ({card['kind']}, {card['state']})",
        f"- started: {day(card['started'])} UTC",
        f"- model: encoder {model['encoder']}{options_text(model['encoder_options'])}, a window of "
        f"{_bars(model['window'])}, returns over {_bars(model['horizon'])}",
        f"- reads: {len(card['features']['names'])} features of the set {card['features']['set']}",
        f"- seed: {card['seeds'][0]}",
        f"- market: {market['n_bars']:,} bars of {len(market['assets'])} assets, hash "
        f"{market['hash']}",
        "",
        *table(
            ("range", "first bar", "last bar"),
            [(name, day(d["first"]), day(d["last"])) for name, d in card["ranges"].items()],
        ),
        "",
        *(_judged(model, judged) if judged else ["Not judged yet: its training goes on."]),
        *ending(card, _limits(card)),
    ]
    return page_of(lines)


def _judged(model: Mapping[str, Any], judged: Mapping[str, Any]) -> list[str]:
    lines = [judged["verdict"], ""]
    for name, scores in judged["scores"].items():
        head = ("score", *next(iter(scores.values())))
        rows = [(score, *_score(row)) for score, row in scores.items()]
        lines += [f"## Scores on the {name} range", "", *table(head, rows), ""]
    sides = judged["classification"]
    rows = [(side, *map(_number, row.values())) for side, row in sides.items()]
    counts = [(side, *map(_number, row.values())) for side, row in judged["confusion"].items()]
    lines += [
        *("## Directions on the test range", ""),
        *table(("direction", *next(iter(sides.values()))), rows),
        "",
        *table(("occurred", *next(iter(judged["confusion"].values()))), counts),
        "",
    ]
    if judged["coverage"]:
        shares = ", ".join(
            f"{name.partition('/')[2].replace('_', ' ')} {number:.3f}"
            for name, number in judged["coverage"].items()
        )
        lines += [f"Calibration on the test range: {shares}.", ""]
    moved = ", ".join(f"{name} {share:.0%}" for name, share in judged["attribution"].items())
    took = judged["latency"]
    lines += [
        f"What moves the {judged['attributed']} most, by share of its attribution: {moved}.",
        "",
        f"A decision takes {took['p50_ms']:.1f} ms in the median and {took['p99_ms']:.1f} ms in "
        f"99 of 100 cases; {judged['parameters']:,} weights, {judged['epochs']} epochs.",
        "",
        *("## What the forecasts earn on the test range", ""),
        f"Positions are held for {_bars(model['horizon'])}. In % a year, after costs; at equal "
        "risk is growth at the volatility of equal weight, above it.",
        "",
        *_earnings(judged["earnings"]),
        "",
    ]
    return lines


def summary(card: Mapping[str, Any], path: Path) -> str:
    """Return the end of a training in a few lines: the verdict, what it earns, where more is."""
    judged = card["judged"]
    growth = {name: each["growth"] for name, each in judged["earnings"].items()}
    earned = [
        f"{name} {'ruined' if each is None else f'{100 * each:+.1f}'}"
        for name, each in growth.items()
    ]
    lines = [
        judged["verdict"],
        f"Growth after costs on the test range, % a year: {', '.join(earned)}",
        f"Card: {path / 'card.md'}",
        f"Folder: {path}",
    ]
    return "\n".join(map(printable, lines))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _score(row: Mapping[str, float | None]) -> list[str]:
    """Return the numbers of a score, to four digits of the largest; p values to three."""
    sizes = [abs(each) for name, each in row.items() if each and name != "p_value"]
    digits = max(0, 3 - math.floor(math.log10(max(sizes)))) if sizes else 3
    return [
        _number(each) if each is None or name == "p_value" else f"{each:.{digits}f}"
        for name, each in row.items()
    ]


def _bars(count: int) -> str:
    return f"{count} bar{'s' * (count != 1)}"


def _earnings(accounts: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    head = ("account", "growth", "Sharpe", "turnover", "cost", "at equal risk [95 %]")
    rows: list[tuple[str, ...]] = []
    for name, each in accounts.items():
        parts = [each[key] for key in ("at_equal_risk", "low", "high")]
        known = [f"{100 * part:+.1f}" for part in parts if part is not None]
        compared = len(known) == 3 and (each["low"], each["high"]) != (0.0, 0.0)
        at_risk = f"{known[0]} [{known[1]}, {known[2]}]" if compared else ""  # not with itself
        growth, sharpe, turnover, cost = (
            _scaled(each[key], scale)
            for key, scale in (("growth", 100), ("sharpe", 1), ("turnover", 1), ("cost", 100))
        )
        rows.append((name, growth, sharpe, turnover, cost, at_risk))
    return table(head, rows)


def _scaled(value: float | None, scale: float) -> str:
    return "" if value is None else f"{scale * value:.2f}"


def _limits(card: Mapping[str, Any]) -> Sequence[str]:
    uses, source = card["looks"]["count"], (card["market"].get("provenance") or {}).get("source")
    said = [
        f"Trained with one seed ({card['seeds'][0]}); others may end elsewhere.",
        "Costs are assumed, not measured.",
        "It was trained on bars up to the end of its training range, and knows nothing later.",
    ]
    if str(source).startswith(("synthetic", "planted")):
        said.append("Its prices are simulated: it says nothing about a real market.")
    said.append(
        "Its test range has not been used."
        if not uses
        else f"Its test range has been used {uses} time{'s' * (uses > 1)}: choices made since "
        "then are in-sample."
    )
    return said
