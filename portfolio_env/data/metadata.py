"""Static properties of assets: sector, region, currency and the like."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from portfolio_env.data.tables.fields import SYMBOL, field_of
from portfolio_env.data.tables.files import read_table
from portfolio_env.data.tables.origin import Origin
from portfolio_env.files.atomic import parse_json, regular
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import unknown

CATEGORIES = (
    "sector",
    "industry",
    "asset_class",
    "region",
    "country",
    "currency",
    "exchange",
    "market_cap",
)
"""The labels that are taken without being asked for."""

Labels: TypeAlias = "Mapping[str, Mapping[str, str | None]] | pd.DataFrame | pd.Series[Any]"
"""``{symbol: {name: label}}``; a frame with a row per symbol, which a column symbol or the index
names; or a Series of labels by symbol, called as its category, e.g. sector."""


def with_categories(
    panel: PricePanel,
    source: str | os.PathLike[str] | Labels,
    *,
    columns: Sequence[str] | None = None,
) -> PricePanel:
    """Return the panel with labels of its assets as categories.

    Args:
        panel: Panel whose assets are looked up by name; "" is the label of those that the source
            lacks, which ``provenance["metadata"]["unlabelled"]`` lists.
        source: A CSV or Parquet file with a column symbol and columns of labels, a JSON file that
            holds such rows (a list of objects) or ``{symbol: {name: label}}``, or such a mapping;
            or a frame or a Series (see ``Labels``). Symbols that are not in the panel mean nothing.
        columns: The labels to take; None takes those in ``CATEGORIES`` whose values are texts.

    Returns:
        The panel; its categories of the same names are replaced, others are kept.

    Raises:
        ArgumentError: If a column that is asked for does not exist.
        DataError: If the source cannot be read, names a symbol twice, lacks symbols, or has no
            labels.
    """
    table, origin = _table(source)
    if columns is None:
        names = [name for name in CATEGORIES if name in table.columns and _is_text(table[name])]
        if not names:
            origin.fail(
                f"has none of the labels {list(CATEGORIES)}; it has {list(table.columns)}: "
                "name those to take (columns=)"
            )
    else:
        names = list(columns)
        for name in names:
            if name not in table.columns:
                raise unknown(f"column of {origin.name}", name, map(str, table.columns))
    chosen = table[names].astype(object).reindex(list(panel.assets))
    labels = {
        name: tuple("" if pd.isna(label) else str(label).strip() for label in chosen[name])
        for name in names
    }
    unlabelled = [
        asset for asset, *own in zip(panel.assets, *labels.values(), strict=True) if not any(own)
    ]
    about = {"source": origin.name, "columns": names, "unlabelled": unlabelled}
    return replace(
        panel,
        categories={**panel.categories, **labels},
        provenance={**panel.provenance, "metadata": about},
    )


def _table(source: str | os.PathLike[str] | Labels) -> tuple[pd.DataFrame, Origin]:
    """Return rows of labels by symbol, and their name in errors."""
    origin = Origin("the metadata")
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        origin = Origin(os.fspath(path))
        table, origin = (
            (_read_json(path, origin), origin) if path.suffix == ".json" else read_table(path)[:2]
        )
    elif isinstance(source, pd.DataFrame | pd.Series):
        table = _of_frame(source, origin)
    else:
        table = _of_mapping(source, origin)
    if "symbol" not in table.columns:
        origin.fail(f"lacks the column symbol; it has {list(table.columns)}: add or rename it")
    symbols = table["symbol"]
    origin.refuse(symbols.isna().to_numpy(), "there is no symbol", "name the asset")
    again = symbols.duplicated().to_numpy()
    origin.refuse(again, "a second row for", "delete one of them", symbols.iloc.__getitem__)
    return table.set_index(symbols.astype(str)).drop(columns="symbol"), origin


def _read_json(path: Path, origin: Origin) -> pd.DataFrame:
    try:
        content = parse_json(regular(path).read_bytes())
    except (OSError, ValueError) as error:
        origin.fail(f"cannot be read ({error}); give a readable JSON file")
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return pd.DataFrame(content)
    return _of_mapping(content, origin)


def _of_frame(labels: pd.DataFrame | pd.Series[Any], origin: Origin) -> pd.DataFrame:
    """Return a frame with a column symbol, from one that names symbols there or in its index."""
    if isinstance(labels, pd.Series):
        if labels.name is None:
            origin.fail(
                "is a Series without a name; name it as its category: labels.rename('sector')"
            )
        labels = labels.to_frame()
    columns = {str(name).strip().casefold(): name for name in labels.columns}
    named = [name for key, name in columns.items() if field_of(key) == SYMBOL and key != "name"]
    if "symbol" in columns or named:
        return labels.rename(columns={columns.get("symbol", (named or [""])[0]): "symbol"})
    return labels.rename_axis("symbol").reset_index()


def _of_mapping(labels: Any, origin: Origin) -> pd.DataFrame:
    if not isinstance(labels, Mapping) or not all(
        isinstance(own, Mapping) for own in labels.values()
    ):
        origin.fail(
            "is not a table of labels; give {symbol: {name: label}}, a frame with a row per "
            "symbol, or a Series of labels by symbol whose name is e.g. 'sector'"
        )
    return pd.DataFrame([{"symbol": symbol, **own} for symbol, own in labels.items()])


def _is_text(values: pd.Series[Any]) -> bool:
    """Return whether a column holds nothing but texts, and at least one."""
    known = values.dropna()
    return len(known) > 0 and all(isinstance(value, str) for value in known)
