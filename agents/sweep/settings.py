"""Settings of a sweep: grids of values, names, changes to a configuration, and their checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any
from urllib.parse import quote

from agents.settings.files import settings_of
from agents.training.config import TrainConfig
from agents.training.train import check_trainable
from agents.training.walk_forward_training import market_key
from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.files.safe_names import file_name

_NAME = re.compile(r"\w[\w@%+=,. -]{0,98}[\w@%+=,-]|\w")  # of a folder, and in archives of runs
_SIGNS = "@%+=,. -"
_FILES = {"sweep.json", "events.jsonl", "summary.csv", "summary.png"}  # beside the settings
_OWN = ("seed", "out", "runs")  # settings of a run that a sweep sets itself


def grid(options: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Return all combinations of some values, by names that tell them.

    Args:
        options: Values by setting.

    Raises:
        ArgumentError: If there is no setting, or one has no list of values, or one twice.

    >>> list(grid({"adjustment": [0.1, 1], "encoder": ["mlp"]}))
    ['adjustment=0.1,encoder=mlp', 'adjustment=1,encoder=mlp']
    """
    if not options:
        raise ArgumentError('a grid needs at least one setting, e.g. {"adjustment": [0.1, 1]}')
    for name, values in options.items():
        if isinstance(values, str | bytes) or not isinstance(values, Sequence) or not values:
            raise ArgumentError(
                f"grid: {name} is {shortened(values)}; give a list of values, e.g. [0.1, 1.0]"
            )
        if any(value in values[:place] for place, value in enumerate(values)):
            raise ArgumentError(f"grid: {name} is {shortened(values)}; give each value once")
    found = {}
    for number, values in enumerate(product(*options.values())):
        given = dict(zip(options, values, strict=True))
        name = ",".join(f"{key}={value}" for key, value in given.items())
        found[name if _NAME.fullmatch(name) else f"setting_{number}"] = given
    return found


def setting_config(config: TrainConfig, options: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of a run with some of them changed.

    Args:
        config: Settings, not resolved.
        options: Settings that differ, as in a file for ``--config``; one within another may be
            named as on the command line, "costs.commission_bps".

    Raises:
        ArgumentError: For an unknown name or a value that does not fit, or one of ``seed``, ``out``
            and ``runs``, which the sweep sets.
    """
    nested: dict[str, Any] = {}
    for key, value in options.items():
        place, (*above, last) = nested, str(key).split(".")
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ArgumentError(f"{part!r} and {key!r} are given; give one")
        if last in place:
            raise ArgumentError(f"{key!r} is given twice; give it once")
        place[last] = value
    for own in _OWN:
        if own in nested:
            raise ArgumentError(f"{own!r} is given, which the sweep sets; remove it")
    return settings_of(TrainConfig, nested, "train.py", base=config)


def check_names(names: Iterable[str]) -> None:
    """Reject names of settings that cannot be folders of a sweep on every system.

    Raises:
        ArgumentError: For the first such name, or the first two that differ in case alone.
    """
    before: dict[str, str] = {}
    for name in names:
        if not _NAME.fullmatch(name) or file_name(name, _SIGNS) != quote(name, safe=_SIGNS):
            raise ArgumentError(
                f"setting {shortened(name)}: its name is that of a folder; use at most 100 letters,"
                " digits and @%+=,. -"
            )
        if name.lower() in _FILES:
            raise ArgumentError(f"setting {name!r} has the name of a file of the sweep; rename it")
        if (other := before.setdefault(name.lower(), name)) != name:
            raise ArgumentError(
                f"settings {other!r} and {name!r} are the same folder on some systems; rename one"
            )


def refusals(configs: Mapping[str, TrainConfig]) -> dict[str, str]:
    """Return why no training can begin with some settings, by their name; {} if all can.

    Args:
        configs: Resolved settings of runs by name.
    """
    by_market: dict[str, list[str]] = {}
    for name, config in configs.items():
        by_market.setdefault(market_key(config), []).append(name)
    found = {}
    for names in by_market.values():
        market, ranges = configs[names[0]].load_market()
        for name in names:
            try:
                check_trainable(configs[name], market, ranges)
            except MemoryError:
                raise
            except Exception as error:
                found[name] = reason_of(error)
    return found


def reason_of(error: Exception) -> str:
    """Return an error as the reason why a run could not be trained."""
    return str(error) if isinstance(error, PortfolioError) else f"{type(error).__name__}: {error}"
