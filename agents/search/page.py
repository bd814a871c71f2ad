"""The page of a search, ``search.html``: choice and reasons, history, parameters, all trials."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from agents.search.choice import percent
from agents.search.figures import COMPLETE, history, importance_bars, parallel_coordinates
from agents.search.importance import LEAST, importances, parameters_of, text_of
from agents.search.search import read_search
from portfolio_env.errors import MALFORMED, DataError
from portfolio_env.html import (
    Page,
    bullets,
    facts,
    folded,
    paragraph,
    table,
    write_page,
)

PAGE = "search.html"
PICTURES = "figures"
MOST_AXES = 9  # of parallel coordinates; the most important parameters have one
_WHERE = (
    "Folders of trials are within trials/; the growth of every seed and fold is in search.json."
)


def write_search_page(path: str | Path) -> Path:
    """Write the page of a finished search from its ``search.json``; return its file.

    Args:
        path: Folder of the search.

    Raises:
        DataError: If it holds no finished search, or a damaged one.
        PortfolioError: If matplotlib or Jinja is not installed.
    """
    path = Path(path)
    record = read_search(path)
    if record["choice"] is None:
        raise DataError(f"the search {path} is not finished; repeat its command")
    page = Page(path / PICTURES)
    try:
        _fill(page, record)
        market = Path(str(record["config"]["market"])).stem
        title = f"Search: {record['config']['algo']} on {market}"
        write_page(path / PAGE, title, _intro(record), page.sections)
    except (*MALFORMED, StopIteration) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is damaged: its record is not whole ({error!r:.200}); restore it"
        ) from error
    return path / PAGE


def _intro(record: Mapping[str, Any]) -> list[Any]:
    market, choice = record["market"], record["choice"]
    told = {
        "method": record["method"],
        "trials": f"{choice['counted']}, {choice['complete']} of them complete",
        "seed of the search": str(record["seed"]),
        "folds x seeds": f"{record['folds']} x {len(record['seeds'])}",
        "model scored": record["model"],
        "data": f"{market['first'][:10]} to {market['last'][:10]}, {len(market['assets'])} assets",
        "scored from": market["scored_from"][:10],
        "test, not seen": f"from {market['test_from'][:10]}, {market['test_bars_unseen']} bars",
        "verdict": "accepted" if choice["accepted"] else "not accepted",
    }
    return [facts(told), bullets(choice["reasons"])]


def _fill(page: Page, record: Mapping[str, Any]) -> None:
    trials, choice = record["trials"], record["choice"]
    chosen = choice["trial"]
    scored = [trial for trial in trials if trial["score"] is not None]
    options = {name: text_of(value) for name, value in choice["options"].items()}
    page.add(
        "Choice",
        facts({f"trial {chosen}": percent(choice["excess_growth"]), **options}),
        paragraph(
            "chosen.json holds these settings for train.py --config. All figures here are of bars "
            "before the test range; growth is log growth a year after costs, above that of equal "
            "weight after its own."
        ),
    )
    page.add(
        "History",
        page.draw("history", history(trials, chosen), "Scores of the trials in their order."),
    )
    page.add("Parameters", *_parameters(page, scored, chosen))
    page.add("Trials", table(_table(trials)), paragraph(_WHERE))
    space = pd.DataFrame({"values": {name: json.dumps(v) for name, v in record["space"].items()}})
    packages = record["environment"]["packages"]
    versions = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
    page.add(
        "How to repeat it",
        paragraph("All that a search depends on is in search.json. Its space is:"),
        table(space.rename_axis("option")),
        folded("Versions", paragraph(f"Python {record['environment']['python']}, {versions}")),
        folded=True,
    )


def _parameters(page: Page, scored: Sequence[Mapping[str, Any]], chosen: int) -> list[Any]:
    """Return figures of the trials that were drawn, compared on the cells that all have."""
    drawn = [trial for trial in scored if trial["number"]]
    if len(drawn) < LEAST:
        return [paragraph(f"Fewer than {LEAST} trials have a score: too few to compare.")]
    shared = set.intersection(
        *({(cell["fold"], cell["seed"]) for cell in trial["cells"]} for trial in drawn)
    )
    compared = [
        {
            **trial,
            "score": sum(
                cell["excess_growth"]
                for cell in trial["cells"]
                if (cell["fold"], cell["seed"]) in shared
            )
            / len(shared),
        }
        for trial in drawn
    ]
    options = [trial["options"] for trial in compared]
    found = importances(options, [trial["score"] for trial in compared])
    ranked = [each.name for each in found][:MOST_AXES]
    names = [name for name in parameters_of(options) if name in ranked]
    parts = []
    if len(names) > 1:
        picture = parallel_coordinates(compared, names, chosen)
        told = "A line for each trial through the values of its parameters."
        parts.append(page.draw("parallel_coordinates", picture, told))
    if found:
        picture = importance_bars(found)
        told = "How much of the spread of scores each parameter explains."
        parts.append(page.draw("importance", picture, told))
    stopped = len(shared) < max(len(trial["cells"]) for trial in drawn)
    cells = f" Scores here are those on the {len(shared)} cells that all trials share."
    parts.append(
        paragraph(
            f"{len(compared)} trials; with so few, p-values below 0.05 among {len(found)} "
            f"parameters are expected now and then by luck.{cells if stopped else ''}"
        )
    )
    return parts


def _table(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the trials as texts, the best complete one first."""
    names = parameters_of([trial["options"] for trial in trials])
    order = sorted(
        trials,
        key=lambda t: (t["state"] != COMPLETE, t["score"] is None, -(t["score"] or 0), t["number"]),
    )
    rows = {
        str(trial["number"]): {
            "score": "" if trial["score"] is None else percent(trial["score"]),
            "state": trial["error"] or trial["state"],
            "runs": str(len(trial["cells"])),
            "folder": trial["setting"],
            **{
                name: text_of(trial["options"][name]) if name in trial["options"] else ""
                for name in names
            },
        }
        for trial in order
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("trial")
