"""Plug-ins that the settings of a run name, and the record of them in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portfolio_env.data.opening import SOURCES
from portfolio_env.errors import DataError
from portfolio_env.features.plugins import split_timeframe
from portfolio_env.files.atomic import parse_json, read_json, write_json
from portfolio_env.files.plugins import Recorded, admit, check_recorded, plugins_within, record
from portfolio_env.names import is_plugin

_LONGEST = 4096  # characters of a path
FILE = "plugins.json"
"""The record in a folder; without plug-ins there is none."""


def named_plugins(settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the names in settings that may be plug-ins, by kind.

    Args:
        settings: Fields of ``TrainConfig``, whatever their values are: those of a file are checked
            after this.
    """
    return {
        "algorithm": [settings.get("algo")],
        "encoder": [
            settings.get("encoder"),
            *_within(settings.get("encoder_options")),
            *_within(settings.get("algo_options")),
        ],
        "feature": _features(settings.get("features")),
        "market": _market(settings.get("market")),
        "reward": [settings.get("reward"), *_within(settings.get("reward_options"))],
        "costs": [
            settings.get("cost_model"),
            *_within(settings.get("cost_options")),
            *_within(settings.get("costs")),
            *_within(settings.get("constraints")),
        ],
    }


def _features(names: Any) -> list[str]:
    """Return features by name, without timeframe and, of an installed package, without window."""
    if not isinstance(names, str):
        return []
    bare = [split_timeframe(name.strip())[1] for name in names.split(",")]
    return [*bare, *(name.rpartition("_")[0] for name in bare if not is_plugin(name))]


def _market(name: Any) -> list[str]:
    """Return the name of a market that is not a file."""
    if not isinstance(name, str):
        return []
    text = name.partition("?")[0]
    is_file = text not in SOURCES and len(name) < _LONGEST and Path(name).exists()
    return [] if is_file else [text]


def _within(value: Any) -> list[str]:
    """Return the plug-ins among the values of an object, or of one in a JSON text."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:  # reported where settings are checked
            return []
    return list(plugins_within(value))


def write_record(path: Path, settings: Mapping[str, Any]) -> None:
    """Record the plug-ins of settings in the folder of a run or a walk forward.

    Raises:
        ArgumentError: If the source of one is not found.
    """
    if found := record(named_plugins(settings)):
        write_json(path / FILE, {"plugins": found})


def admit_plugins(path: Path, settings: Mapping[str, Any], *, within: Path | None = None) -> None:
    """Reject settings of a folder that name plug-ins which may not be imported; see ``admit``."""
    admit(named_plugins(settings), _recorded(path), path, within=within)


def check_names(path: Path, settings: Mapping[str, Any]) -> None:
    """Reject settings of a folder that name plug-ins of which it has no record.

    Their sources need not be there.
    """
    check_recorded(named_plugins(settings), _recorded(path), path)


def _recorded(path: Path) -> Recorded:
    try:
        found: Recorded = read_json(path / FILE)["plugins"]
    except FileNotFoundError:
        return {}
    except LookupError as error:
        raise DataError(f"{path / FILE} is damaged: it lacks {error}; restore it") from error
    return found
