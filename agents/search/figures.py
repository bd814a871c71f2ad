"""Figures of a search: its history, parallel coordinates, and importance of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.search.importance import ABSENT, Importance, as_numbers, text_of
from portfolio_env.plotting.figures import DOTS_PER_INCH, WIDTH, new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMPLETE = "complete"
_DISTINCT = 12  # values of a parameter that are written beside its axis
_APART = 0.1  # least distance of two numbers beside an axis
_LOGARITHMIC = 20.0  # ratio of highest to lowest number from which on an axis is logarithmic


def history(trials: Sequence[Mapping[str, Any]], chosen: int) -> Figure:
    """Plot the score of every trial, its cells, and the best complete one so far.

    Args:
        trials: Trials of ``search.json``.
        chosen: Number of the one that was chosen.
    """
    figure = new_figure((WIDTH, 4.0), DOTS_PER_INCH)
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    for trial in trials:
        for cell in trial["cells"]:
            if cell["excess_growth"] is not None:
                height = 100 * cell["excess_growth"]
                axes.plot(trial["number"], height, "_", color="#b8bec5", markersize=7)
    scored = [trial for trial in trials if trial["score"] is not None]
    for state, marker, color in ((COMPLETE, "o", "#0072b2"), ("stopped early", "v", "#e69f00")):
        shown = [trial for trial in scored if trial["state"] == state]
        if shown:
            places = [trial["number"] for trial in shown]
            heights = [100 * trial["score"] for trial in shown]
            axes.plot(places, heights, marker, color=color, label=f"score, {state}", zorder=3)
    done = [trial for trial in scored if trial["state"] == COMPLETE]
    best = np.maximum.accumulate([100 * trial["score"] for trial in done])
    numbers = [trial["number"] for trial in done]
    axes.step(numbers, best, where="post", color="#0072b2", label="best so far")
    axes.plot([], [], "_", color="#b8bec5", label="one fold and seed")
    picked = next(trial for trial in done if trial["number"] == chosen)
    axes.plot(chosen, 100 * picked["score"], "o", markersize=13, fillstyle="none", color="#d55e00",
              label="chosen")  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.7)
    axes.set(
        title="History",
        xlabel="trial (0: the settings as given)",
        ylabel="growth above equal weight,\n% a year",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def parallel_coordinates(
    trials: Sequence[Mapping[str, Any]], names: Sequence[str], chosen: int
) -> Figure:
    """Plot a line per trial through its values of all parameters, coloured by its score.

    Args:
        trials: Trials with a score and options.
        names: Parameters, from left to right.
        chosen: Number of the trial that was chosen; its line is wide.
    """
    figure = new_figure((WIDTH, 4.8), DOTS_PER_INCH)
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes = figure.subplots()
    scores = 100 * np.array([trial["score"] for trial in trials])
    norm = Normalize(float(scores.min()), float(scores.max() or 0.0) + 1e-9)
    colors = ScalarMappable(norm, "viridis")
    columns = []
    for place, name in enumerate(names):
        values = [trial["options"].get(name, ABSENT) for trial in trials]
        columns.append(_axis(axes, place, name, values))
    heights = np.column_stack(columns)
    generator = np.random.default_rng(0)  # lines through the same value lie beside each other
    heights = heights + generator.uniform(-0.012, 0.012, heights.shape)
    for row in np.argsort(scores):
        own = trials[row]["number"] == chosen
        axes.plot(
            range(len(names)),
            heights[row],
            color=colors.to_rgba(scores[row]),
            linewidth=3.0 if own else 1.2,
            alpha=1.0 if own else 0.75,
        )
    axes.set(title="Parallel coordinates; the chosen trial is wide", ylim=(-0.12, 1.08), yticks=[])
    axes.set_xlim(-0.3, len(names) - 0.35)
    labels = [plot_label(name.rpartition(".")[2]) for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize="small")
    axes.spines[:].set_visible(False)
    figure.colorbar(colors, ax=axes, label="growth above equal weight, % a year", pad=0.01)
    return figure


def importance_bars(found: Sequence[Importance]) -> Figure:
    """Plot the importance of parameters, the largest at the top."""
    figure = new_figure((WIDTH, 1.2 + 0.32 * len(found)), DOTS_PER_INCH)
    axes = figure.subplots()
    places = range(len(found))
    shares = [100 * each.share for each in found]
    axes.barh(places, shares, color="#0072b2", height=0.6)
    for place, each in zip(places, found, strict=True):
        told = "" if np.isnan(each.p_value) else f" p = {each.p_value:.2f}"
        axes.text(100 * each.share, place, told, va="center", fontsize="small")
    axes.set_yticks(places, [plot_label(each.name) for each in found], fontsize="small")
    axes.invert_yaxis()
    axes.set(
        title="Importance, each parameter alone",
        xlabel="variance of the scores' ranks that it explains, %",
        xlim=(0, 108),
    )
    axes.grid(axis="x", alpha=0.3)
    return figure


def _axis(axes: Axes, place: int, name: str, values: Sequence[Any]) -> NDArray[np.float64]:
    """Draw the axis of a parameter; return the heights of its values, in [0, 1]."""
    axes.axvline(place, ymin=0.1, ymax=0.93, color="gray", linewidth=0.8)
    known = [value for value in values if value != ABSENT]
    numbers = as_numbers(known)
    if numbers is None or len(np.unique(numbers)) <= 2:
        texts = sorted({text_of(value) for value in known}, key=str)
        return _labelled(axes, place, [text_of(value) for value in values], texts)
    low, high = float(numbers.min()), float(numbers.max())
    scale = np.log if low > 0 and high / low >= _LOGARITHMIC else np.asarray
    bottom, top = (float(scale(end)) for end in (low, high))
    last = -1.0
    for number in np.unique(numbers):
        height = (float(scale(number)) - bottom) / (top - bottom)
        if number in (low, high) or last + _APART < height < 1 - _APART:
            axes.text(place + 0.03, height, text_of(float(number)), fontsize=7, va="center")
            last = height
    heights = [
        -0.09 if v == ABSENT else (float(scale(v)) - bottom) / (top - bottom) for v in values
    ]
    if ABSENT in values:
        axes.text(place + 0.03, -0.09, ABSENT, fontsize=7, va="center")
    return np.array(heights)


def _labelled(
    axes: Axes, place: int, values: Sequence[str], texts: Sequence[str]
) -> NDArray[np.float64]:
    """Draw values that are no numbers evenly, and what is absent below them."""
    heights = {text: (i + 0.5) / len(texts) for i, text in enumerate(texts)} | {ABSENT: -0.09}
    if len(texts) <= _DISTINCT:
        for text in texts:
            axes.text(place + 0.03, heights[text], plot_label(text), fontsize=7, va="center")
    if ABSENT in values:
        axes.text(place + 0.03, -0.09, ABSENT, fontsize=7, va="center")
    return np.array([heights[value] for value in values])
