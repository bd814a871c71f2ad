"""Descriptions of a price panel: a line, a table, why an asset cannot be traded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from portfolio_env.errors import ArgumentError
from portfolio_env.files.safe_names import printable
from portfolio_env.market.timeline import TimeLike, row_of, time_text
from portfolio_env.names import indices_of

if TYPE_CHECKING:
    from portfolio_env.market.panel import PricePanel

BAR_FIELDS = ("open", "high", "low", "close", "volume")
MOST_ASSETS = 10  # of a table


def fields_of(panel: PricePanel) -> list[str]:
    """Return the names of the bar fields and channels that a panel has."""
    return [*(name for name in BAR_FIELDS if getattr(panel, name) is not None), *panel.exogenous]


def summary(panel: PricePanel) -> str:
    """Return assets and range in a few words."""
    count, bars = len(panel.assets), len(panel.timestamps)
    shown = panel.assets if count <= 4 else panel.assets[:3]  # dots stand for two or more
    names = ", ".join(map(printable, shown)) + (", ..." if count > 4 else "")
    first, last = (str(panel.timestamps[row])[:10] for row in (0, -1))
    return f"{count} asset{'s' * (count != 1)} {names}; {bars} bars from {first} to {last}"


def facts(panel: PricePanel) -> dict[str, str]:
    """Return the main facts of a panel by name."""
    first, last = (time_text(panel.timestamps[row]) for row in (0, -1))
    return {
        "assets": f"{len(panel.assets)}",
        "bars": f"{len(panel.timestamps):,} from {first} to {last}",
        "bars per year": f"{panel.bars_per_year():.6g}",
        "fields": ", ".join(fields_of(panel)),
        "missing bars": f"{1 - np.isfinite(panel.close).mean():.1%}",
        "not tradable": f"{1 - panel.tradable.mean():.1%}",
        "source": str(panel.provenance.get("source", "in memory")),
    }


def by_asset(panel: PricePanel) -> pd.DataFrame:
    """Return a row of texts for each of the first ten assets: its first and last bar."""
    rows = {}
    for column, asset in enumerate(panel.assets[:MOST_ASSETS]):
        known = np.flatnonzero(np.isfinite(panel.close[:, column]))
        ends = [time_text(panel.timestamps[row]) for row in known[[0, -1]]] if known.size else []
        rows[asset] = {
            "first bar": ends[0] if ends else "none",
            "last bar": ends[1] if ends else "none",
            "bars": f"{len(known):,}",
            "last close": f"{panel.close[known[-1], column]:g}" if ends else "",
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    more = len(panel.assets) - MOST_ASSETS
    if more > 0:
        frame.loc[f"and {more} more"] = ""
    return frame


def long_frame(panel: PricePanel) -> pd.DataFrame:
    """Return the bars as a long frame, by date and symbol; a bar that is missing has no row."""
    rows, columns = np.nonzero(np.isfinite(panel.close))
    bars = {name: getattr(panel, name) for name in BAR_FIELDS}
    return pd.DataFrame(
        {"date": panel.timestamps[rows], "symbol": np.array(panel.assets)[columns]}
        | {name: values[rows, columns] for name, values in bars.items() if values is not None}
    )


def status(panel: PricePanel, asset: str, when: TimeLike) -> str:
    """Return a sentence on whether an asset can be traded at a bar; see ``PricePanel.status``."""
    (column,) = indices_of("asset", [asset], panel.assets)
    row = row_of(panel.timestamps, when)
    if row == len(panel.timestamps):
        raise ArgumentError(f"when={when!r} is the end of the bars; give an earlier one.")
    at = f"at {time_text(panel.timestamps[row])} (bar {row})"
    if panel.tradable[row, column]:
        return f"{asset} can be traded {at}."
    return f"{asset} cannot be traded {at}: {_reason(panel, row, column)}"


def _reason(panel: PricePanel, row: int, column: int) -> str:
    known = np.flatnonzero(np.isfinite(panel.close[:, column]))

    def day(place: int) -> str:
        return time_text(panel.timestamps[place])

    if not known.size:
        return "it has no bar at all."
    if row < known[0]:
        return f"it is not listed yet; its first bar is {day(known[0])}."
    if row > known[-1]:
        return f"it was delisted; its last bar was {day(known[-1])}, and a holding became cash."
    if row in known:
        return "its volume is 0: nothing was traded."
    before, after = known[known < row][-1], known[known > row][0]
    return (
        f"it has no bar there, by a halt or a gap in the data; the bar before is {day(before)}, "
        f"the next is {day(after)}."
    )
