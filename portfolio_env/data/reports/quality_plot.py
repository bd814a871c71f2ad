"""The picture of a quality report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portfolio_env.data.reports.quality import QualityReport
from portfolio_env.evaluation.plots import DOTS_PER_INCH, date_axis
from portfolio_env.rendering import new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_HALF = 0.34  # half the height of an asset's lane; lanes are 1 apart
_LIFE, _GAP, _STALE, _IDLE, _JUMP = "#c6dbef", "#d62728", "#9467bd", "#ff7f0e", "#1f3b73"


def availability(report: QualityReport) -> Figure:
    """When each asset has bars, and where gaps, stale runs, bars without volume and jumps lie.

    Raises:
        PortfolioError: if matplotlib is not installed.
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
