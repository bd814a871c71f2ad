"""Settings from a file, which replace the defaults of a command line."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from portfolio_env.checks import fits, shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json, regular, remedy
from portfolio_env.names import check_keywords

T = TypeVar("T")
_LISTED = (str, int, float, date)  # items of a list that stands for a text with commas
_MOST = 100_000  # values of a file
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # 3e-4, which YAML reads as a string
_ODD_NUMBER = re.compile(r"[-+]?(0[\d_]+(?!.*\.)|.*:)")  # octal, or of base 60


def file_of(arguments: Sequence[str]) -> Path | None:
    """Return the file that ``--config`` names among the arguments of a command line."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    found = parser.parse_known_args(list(arguments))[0].config
    return Path(found) if found else None  # what is empty is refused with all other options


def read_settings(file: Path) -> dict[str, Any]:
    """Read the settings in a YAML or JSON file, by name.

    Raises:
        DataError: If there is no such file, or it holds something else.
    """
    try:
        if file.suffix == ".json":
            return read_json(file)
        if file.suffix not in (".yaml", ".yml"):
            raise DataError(f"{file} is not a file of settings: give one ending in .yaml or .json")
        try:
            import yaml
        except ModuleNotFoundError as error:
            raise DataError(
                f"{file} needs the library PyYAML; pip install pyyaml, or write it as JSON"
            ) from error
        try:
            value = _plain(_yaml(regular(file).read_text(encoding="utf-8")))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{file} is not valid YAML ({reason:.200}); fix it") from error
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"{file} cannot be read ({why}); {remedy(error)}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError(f"{file} holds {shortened(value)}; write one setting a line, e.g. seed: 3")
    return value


def settings_of(
    kind: type[T],
    values: Mapping[str, Any],
    name: str | Path,
    *,
    beside: str | None = None,
    without: Sequence[str] = (),
    base: T | None = None,
) -> T:
    """Return a dataclass of settings from those of a file; the others keep their defaults.

    Args:
        kind: The dataclass; its fields that are dataclasses too are objects in the file.
        values: Values of the file. Lists stand for texts with commas, objects for texts of JSON,
            dates for texts.
        name: Name of the settings in a message.
        beside: A field that is a dataclass, whose settings stand beside the others in the file.
        without: Fields that a file cannot give.
        base: Settings that take the place of the defaults.

    Raises:
        ArgumentError: For an unknown name, with the nearest, or a value that does not fit.
    """
    if not isinstance(values, Mapping):
        raise ArgumentError(f"{name} is {shortened(values)}; it must be an object of settings")
    hints = {key: hint for key, hint in get_type_hints(kind).items() if key not in without}
    inner = get_type_hints(hints[beside]) if beside else {}
    known = {key: hint for key, hint in {**hints, **inner}.items() if key != beside}
    check_keywords(str(name), "setting", map(str, values), known)
    if beside:
        own = {key: value for key, value in values.items() if key not in inner}
        values = own | {beside: {key: values[key] for key in values if key in inner}}
    parts = {}
    for key, value in values.items():
        hint = hints[key]
        nested = isinstance(hint, type) and is_dataclass(hint)
        if not nested:
            parts[key] = _fitting(value, hint)
        elif base is None:
            parts[key] = settings_of(hint, value, key)
        else:
            parts[key] = settings_of(hint, value, key, base=getattr(base, key))
    return kind(**parts) if base is None else replace(base, **parts)  # type: ignore[type-var]


def _fitting(value: Any, hint: Any) -> Any:
    """Convert a value that a file writes more plainly to the form of the command line."""
    kinds = get_args(hint) or (hint,)
    if fits(value, hint):
        return value
    if str in kinds:
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, Mapping):
            return json.dumps(value, default=str)
        if isinstance(value, list) and all(type(item) in _LISTED for item in value):
            return ",".join(map(str, value))
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
    return Path(value) if Path in kinds and isinstance(value, str) else value


def _yaml(text: str) -> Any:
    """Return the value of a YAML text, of plain types alone.

    Raises:
        ValueError: If it gives a key twice, or its references multiply to too many values.
    """
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST:
            raise ValueError(f"it holds more than {_MOST:,} values, counting references")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node of YAML stands for, references included."""
    if id(node) not in known:
        known[id(node)] = _MOST + 1  # what one within itself would have without end
        children = [] if isinstance(node.value, str) else node.value
        if node.value is not children:
            _read_scalar(node)
        if children and isinstance(children[0], tuple):
            counts = Counter(str(key.value) for key, _ in children)
            if counts.total() > len(counts):
                raise ValueError(f"it names {counts.most_common(1)[0][0]:.40} twice")
            children = [child for pair in children for child in pair]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _read_scalar(node: Any) -> None:
    """Let a scalar of YAML that is not quoted mean what it says, or refuse it.

    Raises:
        ValueError: For one that YAML 1.1 reads as another value than is written, e.g. the symbol
            ON as true, 0700 as 448 and 1:30 as 90.
    """
    kind = node.tag.rpartition(":")[2]
    if node.style is not None:
        return
    if kind == "str" and _EXPONENT.fullmatch(node.value):
        node.tag = "tag:yaml.org,2002:float"
    if (kind == "bool" and node.value.lower() not in ("true", "false")) or (
        kind in ("int", "float") and _ODD_NUMBER.match(node.value)
    ):
        raise ValueError(f"it holds {node.value:.40}, which is another value in YAML: quote it")


def _plain(value: Any) -> Any:
    """Convert YAML values to plain ones: keys to texts, datetimes to texts without loss."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
