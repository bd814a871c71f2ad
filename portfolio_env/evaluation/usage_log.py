"""Log of test-set evaluations, used to deflate Sharpe ratios.

Choices made after an evaluation on a test range are fitted to that range. Ten runs of a search over
hyper-parameters use one test range ten times, so a folder of runs has one log for all of them:
``test_set_usage/HASH.json`` for every range, by the hash of its prices. Reports state from it how
often a range was used, and the deflated Sharpe ratio counts what was tried before. Each run keeps
its own evaluations in ``looks.json`` too; where the log lacks them, as for runs of earlier versions
or runs that were moved, they are added.
"""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from portfolio_env.command_line import command_text
from portfolio_env.errors import DataError
from portfolio_env.evaluation.gate import GatedPolicy
from portfolio_env.evaluation.runner import BacktestRuns
from portfolio_env.evaluation.task import HELD_OUT, RULES, EvaluationTask
from portfolio_env.files.atomic import locked, read_json, write_json
from portfolio_env.market import Market
from portfolio_env.market.timeline import time_text
from portfolio_env.simulation.fills import made_fills

FILE = "looks.json"
LOG = "test_set_usage"
LOCK = ".lock"
_PLAN = "walk_forward.json"  # of a walk forward, whose runs are two folders below
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """Strategy that was evaluated on the range.

    Attributes:
        name: Name of the strategy in the report.
        fingerprint: Hash of what it is (weights, parameters, costs): equal ones are one trial.
        agent: Whether it was trained by interaction.
        sharpe: Yearly Sharpe ratio; None where it is undefined.
    """

    name: str
    fingerprint: str
    agent: bool
    sharpe: float | None


@dataclass(frozen=True)
class UsageEntry:
    """One evaluation on a range.

    Attributes:
        date: When, as ISO text.
        command: Command that was run.
        model: Evaluated agent; None for baselines alone.
        first: First bar of the range.
        last: Last bar of the range.
        range_hash: Hash of the range, see ``range_hash``.
        trials: Every ranked strategy of the report.
    """

    date: str
    command: str
    model: str | None
    first: str
    last: str
    range_hash: str
    trials: tuple[Trial, ...]


def trials(task: EvaluationTask, runs: BacktestRuns) -> tuple[Trial, ...]:
    """Return the trials on the range: everything but oracles and duplicates of an agent."""
    options = task.whole.options
    shared = {name: options[name] for name in RULES if name in options}
    if made_fills(shared.get("fills", {})).complete:  # as evaluations of earlier versions
        shared.pop("fills", None)
    if shared.get("delay") == 0:
        shared.pop("delay")
    found = []
    for name, result in runs.results.items():
        policies: list[Any] = runs.policies[name]  # Any: baselines have more than ``predict``
        if name in runs.oracles or isinstance(policies[0], GatedPolicy):
            continue
        agent = name in task.agents
        digest = hashlib.sha256()
        members = getattr(policies[0], "members", {})  # a mixture depends on its agents
        for fold in task.folds:
            for own in [name] if agent else [each for each in task.agents if each in members]:
                if file := fold.agents[own].file:
                    digest.update(file.read_bytes())
                else:  # in memory: it is told by what it did
                    digest.update(runs.results[name].values.tobytes())
        if not agent:
            infos = [p.model_info() if hasattr(p, "model_info") else name for p in policies]
            source = policies[0].source_sha256() if hasattr(policies[0], "source_sha256") else None
            digest.update(_text([*infos, shared, *([source] if source else [])]).encode())
        sharpe = result.metrics()["sharpe"]
        known = sharpe if math.isfinite(sharpe) else None
        found.append(Trial(name, digest.hexdigest(), agent, known))
    return tuple(found)


def _text(thing: Any) -> str:
    """Return a value as JSON; what JSON does not know, such as a cost model, as its ``repr``."""
    return json.dumps(thing, default=repr)


def range_hash(market: Market, start: int, end: int) -> str:
    """Return SHA-256 of closes, times and names of rows [start, end): of prices, not features."""
    digest = hashlib.sha256(json.dumps(market.assets).encode())
    digest.update(market.timestamps[start:end].tobytes())
    digest.update(np.ascontiguousarray(market.close[start:end]).tobytes())
    return digest.hexdigest()


def make_usage_entry(
    market: Market,
    start: int,
    end: int,
    *,
    date: str,
    command: str,
    model: str | None,
    trials: Sequence[Trial],
) -> UsageEntry:
    """Return the entry for a use of rows [start, end) of a market, see ``UsageEntry``."""
    first, last = (time_text(market.timestamps[row]) for row in (start, end - 1))
    return UsageEntry(
        date, command, model, first, last, range_hash(market, start, end), tuple(trials)
    )


def usage_entry(task: EvaluationTask, split: str, trials: Sequence[Trial]) -> UsageEntry:
    """Return the record of this command's evaluation on a range of a task."""
    market, (start, end) = task.whole.market, task.whole.rows(split)
    entry = make_usage_entry(
        market,
        start,
        end,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_text(),
        model=task.model_name,
        trials=trials,
    )
    if split == HELD_OUT:  # a longer record that ends with the test range is a use of that one
        return replace(entry, range_hash=range_hash(market, *task.whole.rows("test")))
    return entry


def read_usage_log(folder: str | Path) -> list[UsageEntry]:
    """Read the evaluations that a run records of itself, oldest first.

    Raises:
        DataError: If its file is damaged. It is not replaced: that would forget uses.
    """
    return _read(Path(folder) / FILE)


def log_of(folder: str | Path, use: UsageEntry) -> Path:
    """Return the file that logs the evaluations on a range, of all runs of a folder.

    Args:
        folder: Folder of a run, a walk forward, one of its runs, or an evaluation without any.
        use: An evaluation on the range.
    """
    folder = Path(folder).absolute()
    whole = next((each for each in folder.parents[:2] if (each / _PLAN).is_file()), folder)
    return whole.parent / LOG / f"{use.range_hash[:32]}.json"


def log_usage(folder: str | Path, use: UsageEntry) -> list[UsageEntry]:
    """Log an evaluation; of several processes each waits for the one before.

    Args:
        folder: See ``log_of``.
        use: The evaluation.

    Returns:
        The earlier evaluations on the same range, of all runs of the folder of runs.

    Raises:
        DataError: If a log is damaged, or the system refuses to write it.
    """
    folder, log = Path(folder), log_of(folder, use)
    with locked(log.with_name(LOCK)):  # of all ranges: a run's own file holds several
        own, known = read_usage_log(folder), _read(log)
        _write(folder / FILE, [*own, use])
        for each in (own, *_of_others(log.parent.parent, folder)):
            here = [one for one in each if one.range_hash == use.range_hash]
            known += (Counter(here) - Counter(known)).elements()
        _write(log, [*sorted(known, key=lambda one: one.date), use])
    return known


def _of_others(runs: Path, own: Path) -> list[list[UsageEntry]]:
    """Read what other runs record of themselves, but for damaged files."""
    found = []
    for pattern in (f"*/{FILE}", f"*/fold_*/seed_*/{FILE}"):
        for file in sorted(runs.glob(pattern)):
            try:
                if file.parent != own.absolute():
                    found.append(_read(file))
            except DataError as error:
                _LOGGER.warning("evaluations of another run are not counted: %s", error)
    return found


def _read(file: Path) -> list[UsageEntry]:
    try:
        return [
            UsageEntry(**{**entry, "trials": tuple(Trial(**trial) for trial in entry["trials"])})
            for entry in read_json(file, bare="looks")["looks"]
        ]
    except FileNotFoundError:
        return []
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{file} is damaged ({error}); restore it, for it counts the uses of the test range."
        ) from error


def _write(file: Path, uses: Sequence[UsageEntry]) -> None:
    write_json(file, {"looks": [asdict(each) for each in uses]})


def earlier_sharpes(earlier: Sequence[UsageEntry], now: Sequence[Trial]) -> list[float]:
    """Return Sharpe ratios of earlier trials that are not repeated now."""
    seen = {trial.fingerprint for trial in now}
    found = {}
    for use in earlier:
        for trial in use.trials:
            if trial.fingerprint not in seen and trial.sharpe is not None:
                found[trial.fingerprint] = trial.sharpe
    return list(found.values())


def usage_warning(earlier: Sequence[UsageEntry], use: UsageEntry) -> str:
    """Return the warning about a range that was used before."""
    agents = {trial.fingerprint for each in (*earlier, use) for trial in each.trials if trial.agent}
    tried = f", of {len(agents)} different agents" if len(agents) > 1 else ""
    return (
        f"This is evaluation {len(earlier) + 1} on this test range (the first was on "
        f"{earlier[0].date[:10]}){tried}: choices made since then are in-sample."
    )
