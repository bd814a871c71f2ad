"""Data quality of a source: faults and oddities. Nothing is repaired; see ``data.repair``."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pandas as pd

from portfolio_env.data.adjust import split_like
from portfolio_env.data.bars import frame_of_panel
from portfolio_env.data.opening import Source, resolved
from portfolio_env.data.reports.sorted_bars import ROW_FAULTS, SortedBars, iso
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import write_json
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import time_text
from portfolio_env.names import unknown
from portfolio_env.plotting.figures import DOTS_PER_INCH, date_axis, new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WARNINGS = ("gaps", "zero_volume", "stale", "jumps", "splits", "ends_early")
"""What may be true of a market, and should be looked at."""

_REPAIRS: dict[str, tuple[str, Any]] = {
    "disorder": ("sort", True),
    **dict.fromkeys(("missing", "non_positive", "impossible"), ("drop_faulty", True)),
    "duplicates": ("drop_duplicates", "first"),
}
_LISTED = 50  # events of a kind and asset written to JSON, the largest ones


@dataclass(frozen=True)
class Finding:
    """One kind of fault or oddity of one asset.

    Attributes:
        severity: "fault" if a panel cannot hold it, else "warning".
        kind: One of ``ROW_FAULTS`` or ``WARNINGS``.
        symbol: The asset.
        count: Number of rows, gaps, runs or jumps.
        first: When it first occurs, ISO 8601.
        text: Description in words.
    """

    severity: Literal["fault", "warning"]
    kind: str
    symbol: str
    count: int
    first: str
    text: str


@dataclass(frozen=True, eq=False)
class QualityReport:
    """The findings of ``quality``.

    Attributes:
        overall: Range, common range (in which every asset has been listed and none has ended),
            bars in it that all assets have, calendar, median spacing, bars per year, longest break
            of the calendar.
        assets: One row per symbol; see ``quality`` for the columns.
        gaps: Symbol, after, before, missing_bars, missing_regular, bars (the larger of both).
        stale: Symbol, first, last, bars (with the same close).
        jumps: Symbol, date, log_return, sigmas (robust, signed).
        zero_volume: Symbol, date.
        splits: Symbol, date, ratio (of new shares to old ones) of jumps that look like splits.
        findings: Faults, then warnings.
        options: The thresholds.
    """

    overall: dict[str, Any]
    assets: pd.DataFrame
    gaps: pd.DataFrame
    stale: pd.DataFrame
    jumps: pd.DataFrame
    zero_volume: pd.DataFrame
    splits: pd.DataFrame
    findings: tuple[Finding, ...]
    options: dict[str, float]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """Return the findings that a ``PricePanel`` cannot hold."""
        return tuple(finding for finding in self.findings if finding.severity == "fault")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Return the findings that may be genuine and deserve a look."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def repairs(self) -> dict[str, Any]:
        """Return the repairs that remove the faults, as ``load_market(repair=...)`` takes them.

        Gaps need none: features and models take the bars that exist.
        """
        kinds = {finding.kind for finding in self.faults}
        return {name: value for kind, (name, value) in _REPAIRS.items() if kind in kinds}

    def check(self, *, refuse: Collection[str] = ()) -> Self:
        """Return the report itself if it has no faults.

        Args:
            refuse: Kinds of warnings that are not acceptable either.

        Raises:
            DataError: Listing every fault, and the warnings of the rejected kinds.
        """
        for kind in refuse:
            if kind not in WARNINGS:
                raise unknown("kind of warning", kind, WARNINGS)
        bad = [f for f in self.findings if f.severity == "fault" or f.kind in refuse]
        if bad:
            lines = [f"{finding.symbol}: {finding.text}" for finding in bad]
            fix = "correct the source"
            if self.repairs:
                fix += f", or load it with {repair_text(self.repairs)}"
            raise DataError("\n".join([*lines, fix]))
        return self

    def table(self) -> pd.DataFrame:
        """Return the assets' rows with dates as text and without empty columns."""
        shown = self.assets.drop(columns="ends_early").dropna(axis=1, how="all")
        return shown.assign(**{name: shown[name].map(_text) for name in ("first", "last")})

    def __str__(self) -> str:
        lines = [f"{name.replace('_', ' ')}: {value}" for name, value in self.overall.items()]
        table = self.table().to_string(float_format="{:,.6g}".format)
        found = [f"{f.severity}: {f.symbol}: {f.text}" for f in self.findings]
        if self.repairs:
            found.append(f"The faults are removed by {repair_text(self.repairs)}.")
        return "\n".join([*lines, "", table, "", *(found or ["no faults, no warnings"])])

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON; of each asset's gaps, runs and jumps the 50 largest."""
        sizes = {"gaps": "bars", "stale": "bars", "jumps": "sigmas", "zero_volume": None}
        sizes["splits"] = None
        return {
            "options": self.options,
            "overall": self.overall,
            "assets": {row["symbol"]: row for row in _records(self.assets.reset_index())},
            **{name: _records(_largest(getattr(self, name), by)) for name, by in sizes.items()},
            "faults": [asdict(finding) for finding in self.faults],
            "warnings": [asdict(finding) for finding in self.warnings],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``to_dict`` as strict JSON (what is not known is null)."""
        write_json(os.fspath(path), self.to_dict())

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Plot when each asset has bars, and where the findings lie.

        Raises:
            PortfolioError: If matplotlib is not installed.
        """
        from portfolio_env.data.reports.quality import availability
        from portfolio_env.plotting.figures import save_figure

        save_figure(availability(self), os.fspath(path))


def quality(
    source: Source,
    *,
    jump_sigmas: float = 10.0,
    stale_bars: int = 5,
    periods_per_year: float | None = None,
) -> QualityReport:
    """Check every bar of a source.

    The columns of the table, per asset: rows; first, last; gaps, missing_bars (that other assets
    have within the asset's life while its own market is open, see ``PricePanel.sessions``),
    missing_regular (against the median spacing of all dates, where neither market nor asset ever
    closes), longest_gap (in bars, the larger of both counts); duplicates (rows beyond the first of
    a date), disorder (rows dated before the symbol's previous one), missing (rows that lack a
    field), non_positive, impossible (rows that break the other rules of ``bar_faults``),
    zero_volume; stale_runs, longest_stale (bars with one close); jumps, largest_jump (log return of
    most sigmas); min_price, max_price, last_price (of closes); ends_early (before the last date at
    which its market may be open).

    Gaps, stale runs and jumps are those of the rows in order of time, the first of each date. Jumps
    are measured in robust standard deviations of all log returns of the asset: 1.4826 times their
    median absolute deviation, or 1.2533 times the mean one where more than half are equal (Iglewicz
    & Hoaglin 1993, How to Detect and Handle Outliers). Splits are what ``split_like`` takes for
    ones.

    Args:
        source: See ``Source``.
        jump_sigmas: Log returns further than this many sigmas from their median are jumps.
        stale_bars: More bars than this with the same close are a stale run.
        periods_per_year: Bars per year to report; None takes the panel's, or the dates'.

    Raises:
        ArgumentError: For thresholds that are not positive.
        DataError: If there are no rows, or one lacks its date or symbol.
    """
    if not jump_sigmas > 0 or stale_bars < 1:
        raise ArgumentError(
            f"jump_sigmas={jump_sigmas}, stale_bars={stale_bars}: give more than 0 and at least 1"
        )
    given = resolved(source)
    frame = given if isinstance(given, pd.DataFrame) else frame_of_panel(given)
    bars = SortedBars.of(frame)
    overall = bars.overall()
    if periods_per_year is None and isinstance(given, PricePanel):
        periods_per_year = given.periods_per_year
    if periods_per_year is not None:
        overall["periods_per_year"] = periods_per_year
    tables = {
        "gaps": bars.gaps(),
        "stale": bars.stale(stale_bars),
        "jumps": bars.jumps(jump_sigmas),
        "zero_volume": bars.zero_volume(),
        "splits": split_like(frame),
    }
    assets = _asset_table(bars, tables)
    return QualityReport(
        overall=overall,
        assets=assets,
        **tables,
        findings=(*_faults(bars), *_warnings(assets, tables)),
        options={"jump_sigmas": float(jump_sigmas), "stale_bars": stale_bars},
    )


def _asset_table(bars: SortedBars, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a row per asset, with the columns that ``quality`` lists."""
    life = bars.life()
    events = {name: table.groupby("symbol") for name, table in tables.items()}

    def per_asset(values: pd.Series[Any]) -> pd.Series[Any]:
        return values.reindex(life.index, fill_value=0)

    largest = _largest(tables["jumps"], "sigmas", 1).set_index("symbol")["log_return"]
    columns: dict[str, Any] = {
        **{name: life[name] for name in ("rows", "first", "last")},
        "gaps": per_asset(events["gaps"].size()),
        "missing_bars": per_asset(events["gaps"]["missing_bars"].sum()),
    }
    if bars.spacing[1]:
        columns["missing_regular"] = per_asset(events["gaps"]["missing_regular"].sum())
    columns["longest_gap"] = per_asset(events["gaps"]["bars"].max())
    for kind in ROW_FAULTS:
        columns[kind] = np.bincount(bars.row_codes[bars.marks[kind]], minlength=len(life))
    columns |= {
        "zero_volume": per_asset(events["zero_volume"].size()),
        "stale_runs": per_asset(events["stale"].size()),
        "longest_stale": per_asset(events["stale"]["bars"].max()),
        "jumps": per_asset(events["jumps"].size()),
        "largest_jump": largest.reindex(life.index),
    }
    rest = ("min_price", "max_price", "last_price", "ends_early")
    return pd.DataFrame(columns | {name: life[name] for name in rest}, index=life.index)


def _faults(bars: SortedBars) -> list[Finding]:
    return [
        Finding(
            "fault",
            kind,
            symbol,
            len(rows),
            iso(bars.row_times[rows].min()),
            f"{kind.replace('_', '-')}: {len(rows)} rows, "
            f"the first at {time_text(bars.row_times[rows].min())}: {text}",
        )
        for kind, symbol, rows, text in bars.faults()
    ]


def _warnings(assets: pd.DataFrame, tables: dict[str, pd.DataFrame]) -> list[Finding]:
    def gaps(rows: pd.DataFrame) -> tuple[pd.Series[Any], str]:
        worst = rows.iloc[int(rows["bars"].to_numpy().argmax())]
        text = f"gaps: {len(rows)}, {rows['bars'].sum()} bars missing in all, at most "
        return rows["after"], f"{text}{worst['bars']} after {_text(worst['after'])}"

    def zero_volume(rows: pd.DataFrame) -> tuple[pd.Series[Any], str]:
        return rows["date"], f"zero volume: {len(rows)} bars from {_text(rows['date'].min())} on"

    def stale(rows: pd.DataFrame) -> tuple[pd.Series[Any], str]:
        worst = rows.iloc[int(rows["bars"].to_numpy().argmax())]
        text = f"stale: {len(rows)} runs of one close, at most {worst['bars']} bars from "
        return rows["first"], text + _text(worst["first"])

    def jumps(rows: pd.DataFrame) -> tuple[pd.Series[Any], str]:
        worst = rows.iloc[int(rows["sigmas"].abs().to_numpy().argmax())]
        text = f"jumps: {len(rows)}, the largest at {_text(worst['date'])}: log return "
        return rows["date"], f"{text}{worst['log_return']:+.3f}, {worst['sigmas']:+.1f} sigmas"

    def splits(rows: pd.DataFrame) -> tuple[pd.Series[Any], str]:
        text = f"looks like splits: {len(rows)}, the first at {_text(rows['date'].min())}: "
        ratio = rows["ratio"].iloc[0]
        return rows["date"], f"{text}{ratio:.4g} for one; are the prices adjusted?"

    say = {"gaps": gaps, "zero_volume": zero_volume, "stale": stale, "jumps": jumps}
    say["splits"] = splits
    found = []
    for kind, describe in say.items():
        for symbol, rows in tables[kind].groupby("symbol"):
            dates, text = describe(rows)
            first = iso(dates.min().to_datetime64())
            found.append(Finding("warning", kind, str(symbol), len(rows), first, text))
    for symbol, last in assets.loc[assets["ends_early"], "last"].items():
        text = f"ends early: no bar after {_text(last)}"
        when = iso(last.to_datetime64())
        found.append(Finding("warning", "ends_early", str(symbol), 1, when, text))
    return found


def _largest(events: pd.DataFrame, by: str | None, listed: int = _LISTED) -> pd.DataFrame:
    """Return the largest events of each asset, or the first ones, in order of asset and time."""
    if by is not None:
        order = events[by].abs().sort_values(ascending=False, kind="stable").index
        events = events.loc[order]
    return events.groupby("symbol").head(listed).sort_index()


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as JSON: dates as text, numbers that are not finite as None."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return iso(value.to_datetime64())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _text(when: pd.Timestamp) -> str:
    return time_text(when.to_datetime64())


def repair_text(repairs: dict[str, Any]) -> str:
    """Return how repairs are asked for, in Python and on the command line."""
    return f"repair={repairs}, or --data.repair '{json.dumps(repairs)}' of train.py and evaluate.py"


_HALF = 0.34  # half the height of an asset's lane; lanes are 1 apart
_LIFE, _GAP, _STALE, _IDLE, _JUMP = "#c6dbef", "#d62728", "#9467bd", "#ff7f0e", "#1f3b73"


def availability(report: QualityReport) -> Figure:
    """Plot when each asset has bars, and where gaps, stale runs, bars without volume and jumps lie.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    assets = report.assets
    figure = new_figure((10, 1.5 + 0.28 * len(assets)), DOTS_PER_INCH)
    axes = figure.subplots()
    lanes = {str(name): i for i, name in enumerate(assets.index)}
    axes.barh(
        list(lanes.values()),
        assets["last"] - assets["first"],
        left=assets["first"],
        height=2 * _HALF,
        color=_LIFE,
        label="bars",
    )
    for name, date, color, low, high, text in (
        ("gaps", "after", _GAP, -_HALF, _HALF, "gaps"),
        ("stale", "first", _STALE, -_HALF, _HALF, "stale runs"),
        ("zero_volume", "date", _IDLE, 0, _HALF, "bars without volume"),
        ("jumps", "date", _JUMP, -_HALF, 0, "jumps"),
    ):
        events = getattr(report, name)
        if len(events):
            lane = events["symbol"].map(lanes)
            counted = f"{text} ({len(events)})"
            axes.vlines(
                events[date], lane + low, lane + high, color=color, linewidth=1, label=counted
            )
    for name, begin, end, color in (
        ("gaps", "after", "before", _GAP),
        ("stale", "first", "last", _STALE),
    ):
        events = getattr(report, name)
        if len(events):
            lane = events["symbol"].map(lanes)
            axes.hlines(lane, events[begin], events[end], color=color, linewidth=3)
    axes.set_yticks(list(lanes.values()), list(map(plot_label, lanes)))
    axes.use_sticky_edges = False
    axes.margins(x=0.01)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_title("Available bars", loc="left")
    date_axis(axes)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=5, fontsize="small")
    return figure
