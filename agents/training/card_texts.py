"""Texts of a model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from portfolio_env.files.safe_names import printable
from portfolio_env.simulation.fills import made_fills

_COSTS = {
    "commission_bps": "{} basis points of commission",
    "buy_commission_bps": "{} of them on purchases",
    "sell_commission_bps": "{} of them on sales",
    "slippage_bps": "{} basis points of slippage",
    "impact": "market impact with the factor {}",
    "fixed_fee": "a fee of {} per trade",
}


_SEAL = "<!-- sha256 of what is above: {} -->\n"


def sealed(text: str) -> str:
    """Return a page with its checksum in a comment at its end."""
    return text + _SEAL.format(sha256(text.encode()).hexdigest())


def is_intact(page: str) -> bool:
    """Return whether a page is as it was sealed."""
    text = page[: -len(_SEAL.format("0" * 64))]
    return page == sealed(text)


def limits(card: Mapping[str, Any]) -> list[str]:
    """Return the limitations of a model, from the facts of its card."""
    seeds, rules, uses = card["seeds"], card["rules"], card["looks"]["count"]
    models, selection = card["validation"]["models"], card["selection"]
    said = [
        f"Trained with one seed ({seeds[0]}); others may end elsewhere."
        if len(seeds) == 1
        else f"Trained with {len(seeds)} seeds ({', '.join(map(str, seeds))}).",
        "Costs are assumed, not measured: " + _costs(rules) + ".",
        f"Orders are assumed to be filled {_filled(rules)}.",
        _held(rules["constraints"]),
        f"Its universe is the {len(card['market']['assets'])} assets named here. Whether they were "
        "chosen with hindsight is not recorded.",
        "It was trained on bars up to the end of its training range, and knows nothing later.",
    ]
    source = str((card["market"].get("provenance") or {}).get("source"))
    if source.startswith(("synthetic", "planted")):
        said.append("Its prices are simulated: it says nothing about a real market.")
    if selection["validations"] > 1:
        said.append(
            f"The best model is the best of {selection['validations']} validations on one range, "
            "which flatters its figures there."
        )
    if selection["chosen_at"] == 0:
        said.append(
            "The best model is the untrained one: no trained one grew as much on the validation "
            "range."
        )
    best = models.get("best", {"excess_growth": 1.0})["excess_growth"]
    if best is None or best <= 0:
        benchmark = card["validation"]["benchmark"]
        said.append(f"On its validation range it did not grow more than {benchmark}.")
    if card["state"] != "finished":
        said.append(f"Its training has not come to its end: {card['state']}.")
    said.append(
        "Its test range has not been used."
        if not uses
        else f"Its test range has been used {uses} time{'s' * (uses > 1)}: choices made since "
        "then are in-sample."
    )
    return said


def options_text(text: str) -> str:
    """Return options, where any were given."""
    return "" if text == "{}" else f" {text}"


def markdown(card: Mapping[str, Any]) -> str:
    """Return a card as a page of Markdown."""
    model, market, selection = card["model"], card["market"], card["selection"]
    names = card["features"]["names"]
    count = f"{len(names)} features" if names else "features"
    lines = [
        f"# {model['algo']} on {market['name']}",
        "",
        f"- id: {card['id']} ({card['kind']}, {card['state']})",
        f"- started: {day(card['started'])} UTC",
        f"- model: {model['algo']}{options_text(model.get('algo_options', '{}'))}, policy "
        f"{model['policy']}, encoder {model['encoder']}{options_text(model['encoder_options'])}, "
        f"curriculum {model['curriculum']}",
        f"- reads: {count} of the set {card['features']['set']}, a window of {model['window']}",
        f"- seeds: {', '.join(map(str, card['seeds']))}",
        f"- training: {card['training']['steps']:,} steps in {card['training']['lanes']} lanes",
        f"- selection: the best of {selection['validations']} validations by "
        f"{selection['by'].replace('_', ' ')}" + _chosen_at(selection["chosen_at"]),
        "",
        "## Market",
        "",
        f"- {market['n_bars']:,} bars of {len(market['assets'])} assets, "
        f"{market['periods_per_year']:g} bars a year",
        f"- hash: {market['hash'] or 'one for each fold, in its run'}",
        f"- assets: {', '.join(market['assets'])}",
        *([f"- features: {', '.join(names)}"] if names else []),
        "",
        *table(
            ("range", "first bar", "last bar", "bars"),
            [
                (name, day(each["first"]), day(each["last"]), f"{each['bars']:,}")
                for name, each in card["ranges"].items()
            ],
        ),
        "",
        "## Validation",
        "",
        *_validation(card["validation"]),
        "",
        *ending(card, card["limits"]),
    ]
    return page_of(lines)


def _validation(validation: Mapping[str, Any]) -> list[str]:
    if not validation["models"]:
        return ["Not computed yet."]
    runs = validation.get("runs") or {"": validation["models"]}
    rows = [
        (f"{run} {name}".strip(), *_figures(figures))
        for run, models in runs.items()
        for name, figures in models.items()
    ]
    words = "Log growth after costs, % a year, beside that of the benchmark: "
    return [
        f"{words}{validation['benchmark']}.",
        "",
        *table(("model", "growth", "above it", "benchmark", "turnover a step"), rows),
    ]


def _figures(figures: Mapping[str, float | None]) -> tuple[str, str, str, str]:
    growth, above, turnover = (figures[key] for key in ("growth", "excess_growth", "turnover"))
    if growth is None or turnover is None:
        return "ruined", "", "", ""
    if above is None:
        return percent(growth), "", "ruined", f"{turnover:.4f}"
    return percent(growth), percent(above), percent(growth - above), f"{turnover:.4f}"


def ending(card: Mapping[str, Any], limits: Sequence[str]) -> list[str]:
    """Return the last lines of a card: its limits, and what it was made with."""
    bullets = [f"- {sentence}" for sentence in limits]
    return ["## Known limits", "", *bullets, "", "## Made with", "", *_made_with(card), ""]


def percent(share: float) -> str:
    """Return a share in per cent with its sign, and without one where it is 0.

    >>> percent(0.0123), percent(-0.00002)
    ('+1.23', '0.00')
    """
    text = f"{100 * share:+.2f}"
    return text if float(text) else text[1:]


def day(text: str) -> str:
    """Return a recorded time to the minute, and without the time of day where that is midnight."""
    return text[:16].removesuffix("T00:00").replace("T", " ")


def page_of(lines: Sequence[str]) -> str:
    """Return the text of a card."""
    return "\n".join(line and printable(line) for line in lines)


def _made_with(card: Mapping[str, Any]) -> list[str]:
    """Return lines on machine, packages and command of a card."""
    known = card["environment"]
    if not known:
        return ["Not recorded."]
    memory = known.get("memory_bytes")
    packages = ", ".join(f"{name} {v}" for name, v in known["packages"].items() if v)
    cards = ", ".join(gpu["name"] for gpu in known.get("gpus", [])) or "no GPU"
    machine = [
        str(known.get("processor", "processor not recorded")),
        f"{known['cores']} cores" if known.get("cores") else "",
        f"{memory / 2**30:.0f} GiB" if memory else "",
        cards if "gpus" in known else "",
    ]
    return [
        f"- {', '.join(part for part in machine if part)}",
        f"- Python {known['python']} on {known['platform']}; {packages}",
        f"- `{card['command']}`",
    ]


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a Markdown table, in text too: names to the left, all other columns to the right."""
    first, *others = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        right = [cell.rjust(width) for cell, width in zip(cells[1:], others, strict=True)]
        return f"| {' | '.join([cells[0].ljust(first), *right])} |"

    rule = ["-" * first, *(f"{'-' * (width - 1)}:" for width in others)]
    return [line(head), f"| {' | '.join(rule)} |", *map(line, rows)]


def _costs(rules: Mapping[str, Any]) -> str:
    if model := rules.get("cost_model"):
        return f"those of the cost model {model} {rules['cost_options']}"
    costs = rules["costs"]
    words = [text.format(_number(costs[key])) for key, text in _COSTS.items() if costs.get(key)]
    return ", ".join(words) or "nothing is charged for a trade"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "varying"


def _filled(rules: Mapping[str, Any]) -> str:
    when = {
        "close": "at the very close that was observed",
        "next_open": "at the open that follows the observed close",
    }
    fills = made_fills(rules.get("fills", {}))
    late = f", {rules['delay']} bars after what was observed" if rules.get("delay") else ""
    return f"{'in full' if fills.complete else f'by {fills}'}, {when[rules['execution']]}{late}"


def _held(constraints: Mapping[str, Any]) -> str:
    kind = "Long positions only" if constraints["long_only"] else "Long and short positions"
    groups = [
        f"{100 * low:g} to {100 * high:g} % in {label}"
        for label, (low, high) in (constraints.get("group_bounds") or {}).items()
    ]
    most = f"at most {100 * constraints['max_weight']:g} % in one asset"
    return f"{', '.join([kind, most, *groups])}."


def _chosen_at(step: int | None) -> str:
    if step == 0:
        return ": the untrained one"
    return "" if step is None else f", at step {step:,}"
