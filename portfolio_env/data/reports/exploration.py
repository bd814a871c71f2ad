"""Exploration of a source: quality, prices, returns, correlation, risk; PNG and HTML."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from portfolio_env.data.actions import Actions
from portfolio_env.data.adjust import Adjust
from portfolio_env.data.bars import panel_from_frame
from portfolio_env.data.opening import Source, long_frame, resolved
from portfolio_env.data.repair import Repair
from portfolio_env.data.repair import repair as repaired
from portfolio_env.data.reports import exploration_plots, risk_plots, statistics
from portfolio_env.data.reports.quality import QualityReport, quality
from portfolio_env.errors import DataError
from portfolio_env.html import (
    Page,
    Section,
    bullets,
    folded,
    heading,
    paragraph,
    picture,
    table,
    write_page,
)
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import as_timestamp, time_text
from portfolio_env.names import indices_of
from portfolio_env.plotting.returns import palette

if TYPE_CHECKING:
    from datetime import date

    from markupsafe import Markup
    from matplotlib.figure import Figure

SHOWN = 12  # assets drawn one by one
PAIRS = 10
_HEADINGS = {
    "bars": "bars",
    "mean": "mean % p.a.",
    "volatility": "volatility % p.a.",
    "sharpe": "Sharpe",
    "skew": "skew",
    "kurtosis": "excess kurtosis",
    "min": "min %",
    "max": "max %",
    "max_drawdown": "max drawdown %",
    "clustering": "clustering",
    "arch_lm_p": "ARCH-LM p",
    "last_price": "last price",
}
_PERCENT = ("mean", "volatility", "min", "max", "max_drawdown")


def write_report(
    source: Source,
    out: str | os.PathLike[str],
    *,
    repair: Repair | Mapping[str, Any] | None = None,
    adjust: Adjust = "auto",
    actions: Actions | None = None,
    start: str | date | np.datetime64 | None = None,
    end: str | date | np.datetime64 | None = None,
    reference: str | None = None,
) -> Path:
    """Explore the bars of a source, in ``report.html``, ``*.png`` and ``quality.json``.

    Assets come in order of traded money where volume is known (the 12 first are drawn one by one),
    else in that of the source. What bars that cannot be true do not allow is left out, and the page
    says so.

    Args:
        source: A name that ``load_market`` knows, a path, a long frame, a panel or a market.
        out: The folder to write to.
        repair: Repairs to apply first; the page lists those done.
        adjust: Kind of prices of a file or frame, as for ``load_market``.
        actions: Splits and dividends to adjust for, as for ``load_market``.
        start: Bars before this date are left out.
        end: Bars from this date on are left out, e.g. those after the training range.
        reference: The asset with which the others are compared; the first one by default.

    Returns:
        The path of the page, which needs none of the other files.

    Raises:
        ArgumentError: For an unknown source, reference or repair.
        DataError: If there are no bars.
        PortfolioError: If matplotlib or scipy is not installed.
    """
    bars = resolved(source, adjust, actions)
    frame, record = repaired(_between(long_frame(bars), start, end), repair)
    per_year = bars.periods_per_year if isinstance(bars, PricePanel) else None
    report = quality(frame, periods_per_year=per_year)
    page = Page(Path(out))
    report.save(page.path / "quality.json")
    name = Path(source).name if isinstance(source, str | os.PathLike) else "the bars given"
    page.sections.append(_quality_section(page, report, record))
    try:
        panel = panel_from_frame(frame, name)
    except DataError as error:
        page.sections.append(Section("What is missing", [paragraph(_refusal(error), "fault")]))
    else:
        panel = replace(panel, periods_per_year=report.overall["periods_per_year"])
        _explore(page, _ordered(panel, reference))
    path = page.path / "report.html"
    write_page(path, f"Market data: {name}", _intro(name, report), page.sections)
    return path


def _between(frame: pd.DataFrame, start: Any, end: Any) -> pd.DataFrame:
    kept = np.ones(len(frame), bool)
    if start is not None:
        kept &= (frame["date"] >= as_timestamp(start)).to_numpy()
    if end is not None:
        kept &= (frame["date"] < as_timestamp(end)).to_numpy()
    if not kept.any():
        raise DataError(f"there are no bars from {start} to before {end}: widen the range")
    return frame[kept]


def _ordered(panel: PricePanel, reference: str | None) -> PricePanel:
    """Return the assets by traded money, the reference first."""
    order = list(range(len(panel.assets)))
    if panel.volume is not None:
        money = np.nansum(panel.close * panel.volume, axis=0)
        order = np.argsort(-money, kind="stable").tolist()
    if reference is not None:
        first = indices_of("asset", [reference], panel.assets)[0]
        order = [first, *(i for i in order if i != first)]
    return panel.subset(columns=order)


def _refusal(error: DataError) -> str:
    return (
        f"Prices and returns are not shown, since these bars are no panel: {error}. "
        "Correct the source, or ask for a repair."
    )


def _intro(name: str, report: QualityReport) -> list[Markup]:
    o = report.overall
    text = (
        f"{name}: {o['assets']} assets, {o['rows']:,} rows from {_day(o['first'])} to "
        f"{_day(o['last'])}, {o['calendar']}, {o['periods_per_year']:g} bars per year. "
    )
    if o["common_bars"]:
        text += (
            f"All assets have {o['common_bars']:,} bars in common, from {_day(o['common_first'])} "
            f"to {_day(o['common_last'])}."
        )
    else:
        text += "There is no time at which all assets have bars."
    return [
        paragraph(text),
        paragraph(
            "Returns are simple returns from bar to bar. Yearly figures follow from the bars per "
            "year, deviations divide by one less than the number of returns, and the risk-free "
            "rate is 0."
        ),
    ]


def _day(text: str) -> str:
    return time_text(np.datetime64(text))


def _quality_section(page: Page, report: QualityReport, record: dict[str, Any]) -> Section:
    lines = {
        severity: [f"{f.symbol}: {f.text}" for f in found]
        for severity, found in (("faults", report.faults), ("warnings", report.warnings))
    }
    done = [
        f"{step}: {what['rows']} rows"
        + (f" of {', '.join(what['symbols'])}" if what["rows"] else "")
        for step, what in record["steps"].items()
    ]
    parts = [heading("Repairs"), bullets(done)] if done else []
    if lines["faults"]:
        parts += [heading("Faults"), bullets(lines["faults"], "findings fault")]
    else:
        parts.append(paragraph("No faults: no duplicates, no disorder, no impossible bars."))
    shown = report.table()
    idle = [str(name) for name in shown.columns if (shown[name] == 0).all()]
    text = shown.drop(columns=idle)
    text = text.map(lambda value: f"{value:,.6g}" if isinstance(value, float) else str(value))
    text = text.replace("nan", "")
    text.columns = [str(column).replace("_", " ") for column in text.columns]
    drawing = Path(page.path / "quality.png")
    report.plot(drawing)
    parts += [
        picture(drawing, "When each asset has bars; gaps, stale runs, idle bars and jumps"),
        table(text),
        paragraph(
            f"Jumps are log returns of more than {report.options['jump_sigmas']:g} robust standard "
            f"deviations; stale runs are more than {report.options['stale_bars']:g} bars with one "
            "close. Gaps count the bars missing within an asset's life."
            + (f" 0 for every asset: {', '.join(idle).replace('_', ' ')}." if idle else "")
        ),
    ]
    if lines["warnings"]:
        parts.append(folded(f"{len(lines['warnings'])} warnings", bullets(lines["warnings"])))
    return Section("Quality", parts)


def _explore(page: Page, panel: PricePanel) -> None:
    """Add all sections beyond quality."""
    count = len(panel.assets)
    few = panel.subset(columns=range(min(SHOWN, count)))
    what = "largest by traded money" if panel.volume is not None else "first"
    note = [paragraph(f"Of {count} assets the {SHOWN} {what}.")] if count > SHOWN else []
    first = panel.assets[0]
    band = (
        ""
        if panel.low is not None and panel.high is not None
        else (" The band from low to high is left out: the source has closing prices only.")
    )
    volume = "" if panel.volume is not None else (" Volume is left out: the source has none.")
    draw: list[tuple[str, str, Callable[[PricePanel], Figure], PricePanel, str]] = [
        ("Prices", "prices", exploration_plots.prices, few,
         f"The last {exploration_plots.RECENT} bars of each asset: close with the band from low to "
         "high, and moving averages of 20 and 50 bars." + band),
        ("Growth", "growth", exploration_plots.growth, few,
         "Prices on a logarithmic axis, and normalised to 100."),
        ("Distribution of returns", "distributions", exploration_plots.distributions, few,
         "Histogram of 50 bins and density of the returns against the normal density; returns "
         "beyond 5 standard deviations are counted in the titles."),
        ("Correlation", "correlation", exploration_plots.correlations, panel,
         "Correlations of returns, over the bars that a pair shares; blank where these are fewer "
         "than 30."),
        ("Rolling correlation", "rolling_correlation", risk_plots.rolling_correlation, few,
         f"Correlation with {first} over the last {risk_plots.WINDOW} bars."),
        ("Rolling volatility", "rolling_volatility", risk_plots.rolling_volatility, few,
         f"Yearly volatility of the last {risk_plots.WINDOW} bars."),
        (f"Indicators of {first}", "indicators", risk_plots.indicators, few,
         "Bollinger bands (20 bars, 2 deviations), RSI 14, MACD 12, 26, 9 and volume." + volume),
    ]  # fmt: skip
    for title, name, function, drawn, text in draw:
        if count == 1 and "correlation" in name:
            continue
        limited = note if drawn is few and name != "indicators" else []
        page.add(title, paragraph(text), *limited, page.draw(name, function(drawn), text))
        if name == "correlation":
            page.add("Diversifying pairs", *_pairs(panel))
    _risk(page, panel, few)


def _risk(page: Page, panel: PricePanel, few: PricePanel) -> None:
    """Add statistics per asset, risk against return, and covariances."""
    figures = statistics.asset_statistics(panel)
    text = "Yearly mean return against yearly volatility, each asset over its own bars."
    colors = palette(panel.assets)
    drawing = page.draw("risk_return", risk_plots.risk_return(figures, colors), text)
    page.add("Risk and return", paragraph(text), drawing)
    note = paragraph(
        "Each asset over its own bars. Mean and volatility are yearly, min and max are of one bar. "
        "Clustering is the correlation of the absolute return with that of the bar before; ARCH-LM "
        "is Engle's test with 5 lags: a small p-value says that volatility clusters."
    )
    page.add("Statistics", note, table(_statistics_text(figures)))
    page.add("Covariance", *_covariances(few))


def _pairs(panel: PricePanel) -> list[Markup]:
    returns = statistics.simple_returns(panel.close)
    pairs = statistics.diversifying_pairs(returns, panel.assets, PAIRS)
    if not len(pairs):
        return [paragraph("No two assets share enough bars.")]
    pairs = pairs.assign(
        correlation=pairs["correlation"].map("{:+.3f}".format),
        bars=pairs["bars"].map("{:,}".format),
    )
    pairs.index = pd.RangeIndex(1, len(pairs) + 1, name="rank")
    return [paragraph("The pairs with the lowest correlations of returns."), table(pairs)]


def _statistics_text(figures: pd.DataFrame) -> pd.DataFrame:
    figures = figures.copy()
    figures[list(_PERCENT)] *= 100
    style = dict.fromkeys(figures.columns, "{:,.2f}") | {
        "bars": "{:,.0f}",
        "arch_lm_p": "{:.2g}",
        "last_price": "{:,.6g}",
    }
    text = {
        _HEADINGS[str(name)]: figures[name].map(
            lambda value, form=form: "" if np.isnan(value) else form.format(value)
        )
        for name, form in style.items()
    }
    return pd.DataFrame(text, index=figures.index)


def _covariances(panel: PricePanel) -> list[Markup]:
    """Return yearly covariances of the assets that share bars, by every method."""
    returns = statistics.simple_returns(panel.close)
    kept = statistics.common_assets(returns)
    if len(kept) < 2:
        return [paragraph("No two assets share enough bars.")]
    names = [panel.assets[i] for i in kept]
    left = [name for name in panel.assets if name not in names]
    shared = int(np.isfinite(returns[:, kept]).all(axis=1).sum())
    text = f"Yearly, of the {shared:,} returns that all {len(names)} assets share."
    if left:
        text += f" Left out, since they share too few: {', '.join(left)}."
    parts = [paragraph(text)]
    labels = {
        "sample": "Sample covariance",
        "ledoit_wolf": "Shrunk towards the scaled identity (Ledoit-Wolf)",
        "ewma": "Exponentially weighted (decay 0.94)",
    }
    if importlib.util.find_spec("sklearn") is None:
        del labels["ledoit_wolf"]
        parts.append(paragraph("The shrunk covariance is left out: it needs scikit-learn."))
    for method, label in labels.items():
        matrix = statistics.covariance(returns[:, kept], panel.bars_per_year(), method)
        shown = pd.DataFrame(matrix, names, names).map("{:.4f}".format)
        parts.append(folded(label, table(shown)))
    return parts
