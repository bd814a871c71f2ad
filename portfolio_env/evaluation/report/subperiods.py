"""Report sections on seeds and sub-periods: years or folds, crises, regimes, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from portfolio_env.errors import PortfolioError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.diagnostics.crises import (
    known_dates,
    performance_in,
    windows_around,
)
from portfolio_env.evaluation.diagnostics.events import event_study, profit_per_event
from portfolio_env.evaluation.diagnostics.regimes import RegimeModel, detection_scores
from portfolio_env.evaluation.diagnostics.subperiods import (
    calendar_windows,
    filtered_regimes,
    growth_by_regime,
    growth_in,
    seeds_summary,
)
from portfolio_env.evaluation.report import evidence_plots
from portfolio_env.evaluation.report.inputs import (
    ReportInputs,
    drawable,
    window_texts,
    with_difference,
)
from portfolio_env.evaluation.statistics import Interval
from portfolio_env.evaluation.summary import number_text
from portfolio_env.html import Page, folded, heading, paragraph, table
from portfolio_env.market.timeline import Date, Windows, as_timestamp

if TYPE_CHECKING:
    from markupsafe import Markup

PATIENCE = 60  # bars after which an undetected break counts as missed
REGIMES = ("calm", "turbulent")
SEED_MEASURES = {
    "annual_log_growth": ("growth %", 100, "{:+.1f}"),
    "growth_difference": ("less benchmark %", 100, "{:+.1f}"),
    "sharpe": ("Sharpe", 1, "{:.2f}"),
    "annual_turnover": ("turnover", 1, "{:.1f}"),
}


def seeds_section(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write the section on every seed, and their interquartile mean."""
    groups = inputs.seeds
    if not groups:
        return
    summary = seeds_summary(comparison.table, groups, list(SEED_MEASURES))
    measured = comparison.table[list(SEED_MEASURES)].to_dict("index")
    rows: dict[str, dict[str, str]] = {}
    for group, names in groups.items():
        for name in names:
            own = measured[name]
            rows[name] = {
                title: number_text(form)(scale * own[measure])
                for measure, (title, scale, form) in SEED_MEASURES.items()
            }
        rows[f"{group}: interquartile mean"] = {
            title: _interval(summary[group][measure], scale, form)
            for measure, (title, scale, form) in SEED_MEASURES.items()
        }
    page.add(
        "Seeds",
        paragraph(
            "What differs by the seed of the training alone. The mean leaves out the best and the "
            "worst quarter of the seeds, rounded down; its 95 % interval is that of other seeds in "
            "this same period. It does not say how the agents fare in other times: for "
            "that see the intervals of the verdict."
        ),
        table(pd.DataFrame.from_dict(rows, orient="index")),
    )


def seed_sentences(comparison: Comparison, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return sentences on all seeds of each group together, against the benchmark."""
    summary = seeds_summary(comparison.table, groups, ["growth_difference"])
    known = comparison.benchmark.replace("_", " ")
    sentences = []
    for group, names in groups.items():
        mean = _interval(summary[group]["growth_difference"], 100, "{:+.1f}")
        said = f"interquartile mean over {len(names)} seeds {mean} % a year against {known}"
        said += " (other seeds, not other times)."
        ruined = [name for name in names if name not in comparison.solvent]
        lost = f"no mean over {len(names)} seeds against {known}"
        lost += f", for {', '.join(ruined or [known])} was ruined."
        sentences.append(f"{group}: {said if mean else lost}")
    return sentences


def _interval(found: Interval, scale: float, form: str) -> str:
    middle, low, high = (number_text(form)(scale * value) for value in found[:3])
    return f"{middle} [{low}, {high}]" if middle else ""


def blocks_section(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write the section on growth against the benchmark in every fold, or every calendar year."""
    results, benchmark = drawable(comparison), comparison.benchmark
    windows = inputs.folds or calendar_windows(inputs.bars.timestamps)
    if len(results) < 2 or benchmark not in results or not windows:
        return
    if inputs.folds:
        title = "Folds"
        note = (
            "Log growth within every fold, not per year. Each fold was traded by models trained, "
            "and baselines fitted, on what was before it, and begins in cash."
        )
        note += f" {_spans(windows)}."
    else:
        title = "Blocks of time"
        note = (
            "Log growth within every block, not per year; the first and the last block are as long "
            "as the range lasts in them."
        )
    page.add(title, *_differences(page, "blocks", growth_in(results, windows), benchmark, note))


def _differences(
    page: Page, name: str, growth: pd.DataFrame, benchmark: str, note: str
) -> list[Markup]:
    """Write growth by strategy and sub-period: a map of differences, and the numbers."""
    known = benchmark.replace("_", " ")
    ahead = growth.drop(index=benchmark) - growth.loc[benchmark]
    figure = evidence_plots.difference_map(ahead, f"Log growth less that of {known}, %")
    return [
        paragraph(note),
        page.draw(name, figure, note),
        folded(
            f"Log growth in %, in brackets less that of {known}",
            table(with_difference(growth, benchmark)),
        ),
    ]


def _spans(windows: Windows) -> str:
    return "; ".join(f"{name}: {days}" for name, days in window_texts(windows).items())


def regimes_section(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write the section on known crises, filtered regimes, and how well those detect the crises."""
    results = drawable(comparison)
    if len(results) < 2 or comparison.benchmark not in results:
        return
    parts: list[Markup] = []
    known = known_dates(inputs.panel)
    breaks: Mapping[str, Date] = {}
    if known is not None:
        first, last = inputs.bars.timestamps[[1, -1]]
        breaks = {n: day for n, day in known[1].items() if first <= as_timestamp(day) <= last}
        parts += _known(page, results, comparison.benchmark, {**known[0], **windows_around(breaks)})
    parts += _filtered(page, results, comparison.benchmark, breaks, inputs)
    if parts:
        page.add("Calm and crisis", *parts)


def _known(
    page: Page, results: dict[str, BacktestResult], benchmark: str, windows: Windows
) -> list[Markup]:
    """Write every account's performance in windows that are known by name."""
    found = performance_in(results, windows)
    reached = found.loc[(slice(None), benchmark), "bars"].droplevel("strategy")
    inside = {name: windows[name] for name in windows if reached[name] > 0}
    if not inside:
        return []
    note = (
        "Log growth within known periods, named in hindsight, not per year. Before and after "
        "are the 90 days before and the 250 days from a break on, as far as they lie in the range. "
        f"{_spans(inside)}."
    )
    growth = growth_in(results, inside)
    losses = 100 * found["max_drawdown"].unstack("window").loc[list(results), list(inside)]
    back = found["recovery"].unstack("window").loc[list(results), list(inside)]
    deep = losses.map("{:.1f}".format) + back.map(lambda bars: f" [{_bars(bars)}]")
    return [
        heading("Known periods"),
        *_differences(page, "periods", growth, benchmark, note),
        folded("Largest drawdown within, %, in brackets until it was made good", table(deep)),
    ]


def _filtered(
    page: Page,
    results: dict[str, BacktestResult],
    benchmark: str,
    breaks: Mapping[str, Date],
    inputs: ReportInputs,
) -> list[Markup]:
    """Write growth in the filtered regimes of a model that was fitted to the training range."""
    if inputs.train is None or find_spec("statsmodels") is None:
        return []
    try:
        model, path = filtered_regimes(inputs.panel, inputs.train, inputs.rows)
    except PortfolioError as error:
        return [paragraph(f"Regimes cannot be detected: {error}")]
    growth = growth_by_regime(results, path[:-1], REGIMES)
    note = _regime_text(model, path, inputs.panel.bars_per_year(*inputs.rows))
    parts = [heading("Filtered regimes")]
    if growth.loc[benchmark].notna().all():
        parts += _differences(page, "regimes", growth, benchmark, note)
    else:  # almost always the same regime: no table is needed
        parts.append(paragraph(note))
    rows = np.searchsorted(inputs.bars.timestamps, [as_timestamp(day) for day in breaks.values()])
    if breaks:
        scores = detection_scores(
            path, sorted(set(rows)), inputs.panel.bars_per_year(*inputs.rows), patience=PATIENCE
        )
        parts.append(
            paragraph(
                f"Of {len(breaks)} known breaks ({', '.join(breaks)}) it detected "
                f"{100 * scores.detected:.0f} % within {PATIENCE} bars; the median lag is "
                f"{_lag(scores.detection_lag)}, until it stayed so {_lag(scores.adaptation)}; "
                f"{scores.false_alarms:.1f} other changes of regime a year."
            )
        )
    return parts


def _regime_text(model: RegimeModel, path: NDArray[np.int64], year: float) -> str:
    calm, turbulent = (f"{100 * sigma * np.sqrt(year):.0f} %" for sigma in model.volatilities)
    return (
        f"A Markov chain of two regimes, fitted to the mean return of the assets in the training "
        f"range: volatility {calm} a year in calm and {turbulent} in turbulent times. The one "
        "in force was filtered at every bar from data up to it: turbulence at "
        f"{100 * np.mean(path):.0f} % of the bars. Log growth per year over the bars of each."
    )


def _bars(count: float) -> str:
    return "not yet" if np.isinf(count) else f"{count:.0f} bars"


def _lag(count: float) -> str:
    return f"more than {PATIENCE} bars" if np.isinf(count) else f"{count:.0f} bars"


def events_section(page: Page, comparison: Comparison, inputs: ReportInputs) -> None:
    """Write the section on prices around the events of a file, and every account's profit."""
    if inputs.events is None:
        return
    first, last = inputs.bars.timestamps[[0, -1]]
    dates = inputs.events["date"].to_numpy("datetime64[ns]")
    events = inputs.events[(dates > first) & (dates <= last)]
    title = "Events"
    if not len(events):
        page.add(title, paragraph("None of the events lies in the evaluated range."))
        return
    study = event_study(inputs.panel, events)
    parts = [
        paragraph(
            "Abnormal returns of the assets: what they made beyond what the 120 bars before let "
            "expect, from 5 bars before an event to 10 after. Reaction is the first bar at which "
            "nine tenths of the reaction are in, where it is significant."
        )
    ]
    if len(study.summary):
        note = "Cumulative abnormal return by type of event, with two standard errors."
        parts += [
            table(_summary_texts(study.summary)),
            page.draw("events", evidence_plots.event_paths(study.path), note),
        ]
    if len(study.left_out):
        reasons = study.left_out["reason"].value_counts()
        parts.append(paragraph("; ".join(f"{n} left out: {why}" for why, n in reasons.items())))
    results = drawable(comparison)
    if comparison.benchmark in results:
        own = {
            name: profit_per_event(result, events, benchmark=results[comparison.benchmark])
            for name, result in results.items()
            if name != comparison.benchmark
        }
        own = {name: found for name, found in own.items() if len(found)}
        if own:
            parts += [
                heading("What the accounts made of them"),
                paragraph(
                    "Log growth from the bar of an event to 5 bars after, less that of "
                    f"{comparison.benchmark.replace('_', ' ')}: mean in %, in brackets t."
                ),
                table(_profit_texts(own)),
            ]
    page.add(title, *parts)


def _summary_texts(summary: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "events": summary["events"].map("{:.0f}".format),
            "cumulative %": (100 * summary["cumulative"]).map(number_text("{:+.2f}")),
            "standard error %": (100 * summary["standard_error"]).map(number_text("{:.2f}")),
            "t": summary["t"].map(number_text("{:.1f}")),
            "reaction, bars": summary["reaction_time"].map(number_text("{:.0f}")),
        }
    )


def _profit_texts(own: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    rows = {
        name: (100 * found["excess"]).map(number_text("{:+.2f}"))
        + found["t"].map(number_text(" [{:.1f}]"))
        for name, found in own.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")
