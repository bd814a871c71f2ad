"""Files of a comparison: the table, the measures, the attribution and every account."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.files.atomic import write_json
from portfolio_env.files.csv_files import write_csv
from portfolio_env.files.safe_names import file_name


def write_comparison(
    folder: str | Path,
    comparison: Comparison,
    facts: Mapping[str, Any],
    records: Literal["csv", "parquet"] = "csv",
) -> None:
    """Write the table, the measures and every account, each file in one piece.

    Args:
        folder: Receives ``table.csv``, ``metrics.json``, ``attribution.csv`` (what every asset
            contributed) and, in a folder per strategy, ``account`` and ``holdings`` (weights,
            trades, costs and values of every step).
        comparison: Result of ``compare``.
        facts: JSON-able facts for the head of ``metrics.json``.
        records: Format of accounts and holdings; those of the other format, of an earlier
            evaluation, are removed.
    """
    folder, other = Path(folder), "parquet" if records == "csv" else "csv"
    write_csv(folder / "table.csv", comparison.table)
    measures = comparison.table.to_dict(orient="index")
    found = comparison.superiority
    tests = {
        "benchmark": comparison.benchmark,
        "oracles": list(comparison.oracles),
        "trials": comparison.trials,
        "superiority": None if found is None else found._asdict(),
        "attribution": {name: each.facts() for name, each in comparison.attributions().items()},
    }
    parts = {name: each.assets for name, each in comparison.attributions().items()}
    if parts:
        named = pd.concat(parts, names=["strategy", "asset"])
        write_csv(folder / "attribution.csv", named)
    write_json(folder / "metrics.json", plain_numbers({**facts, **tests, "strategies": measures}))
    for name, result in comparison.results.items():
        write = result.to_csv if records == "csv" else result.to_parquet
        own = folder / file_name(name)
        write(own)
        for record in ("account", "holdings"):
            (own / f"{record}.{other}").unlink(missing_ok=True)


def plain_numbers(value: Any) -> Any:
    """Return JSON-able data with None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
