"""Figures of forecasts: probabilities and their reliability, calibration, skill in time, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from agents.supervised.scores import Forecasts
from portfolio_env.plotting.figures import DOTS_PER_INCH, WIDTH, date_axis, new_figure, plot_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from agents.supervised.attribution import Attribution

_BINS = 20
_MOST = 20  # features that are named
_OUTPUTS = {
    "mean": "the mean forecast",
    "sigma": "the sigma forecast",
    "up": "the probability of a gain",
}


def probabilities(forecasts: Forecasts) -> Figure:
    """Plot the probabilities of a gain, by what happened, and how often gains followed them."""
    figure = new_figure((WIDTH, 4.0), DOTS_PER_INCH)
    left, right = figure.subplots(1, 2)
    known = forecasts.known
    up, gain = forecasts.up[known], forecasts.realised[known] > 0
    edges = np.linspace(min(up.min(), 0.5), max(up.max(), 0.5) + 1e-9, _BINS + 1)
    for taken, label, color in ((gain, "gain followed", "C0"), (~gain, "no gain followed", "C1")):
        left.hist(up[taken], edges, alpha=0.6, label=f"{label} ({taken.sum():,})", color=color)
    left.axvline(0.5, color="gray", linewidth=0.8)
    left.margins(y=0.3)  # room for the legend
    left.set(title="Forecast probabilities", xlabel="probability of a gain", ylabel="forecasts")
    left.legend()
    forecast, share = forecasts.reliability()
    both = np.r_[forecast, share]
    room = 0.1 * (np.ptp(both) or 0.1)
    span = both.min() - room, both.max() + room
    right.plot(span, span, color="gray", linewidth=0.8, label="reliable")
    right.axhline(gain.mean(), color="C1", linewidth=0.8, label="share of all")
    right.plot(forecast, share, "o", markersize=4, label="a tenth of the forecasts")
    right.set(
        title="Reliability",
        xlabel="probability of a gain (mean of the tenth)",
        ylabel="share of gains",
        xlim=span,
        ylim=span,
    )
    right.legend()
    return figure


def calibration(forecasts: Forecasts) -> Figure:
    """Plot the distribution of the returns within their forecasts, and the errors by sigma."""
    figure = new_figure((WIDTH, 4.0), DOTS_PER_INCH)
    left, right = figure.subplots(1, 2)
    left.hist(forecasts.pit(), np.linspace(0, 1, _BINS + 1), density=True, alpha=0.7)
    left.axhline(1.0, color="gray", linewidth=0.8)
    left.set(
        title="Probability integral transform",
        xlabel="probability that was forecast of a smaller return",
        ylabel="density (1: calibrated)",
        xlim=(0, 1),
    )
    sigma, error = forecasts.calibration.by_sigma()
    both = 100 * np.r_[sigma, error]
    span = (0.9 * both.min(), 1.1 * both.max())
    right.plot(span, span, color="gray", linewidth=0.8)
    right.plot(100 * sigma, 100 * error, "o", markersize=4)
    right.set(
        title=f"Error by forecast sigma, mean squared z {forecasts.calibration.mean_square:.2f}",
        xlabel="forecast sigma, % (root mean square of each decile)",
        ylabel="error, % (root mean square)",
        xlim=span,
        ylim=span,
    )
    return figure


def skill_in_time(forecasts: Forecasts) -> Figure:
    """Plot the sum over time of directions forecast right, above a coin's share of one half."""
    figure = new_figure((WIDTH, 3.2), DOTS_PER_INCH)
    axes = figure.subplots()
    known, gain = forecasts.known, forecasts.realised > 0
    count = np.maximum(known.sum(1), 1)
    frequent = (gain[known].mean() >= 0.5) == gain
    right = (forecasts.up > 0.5) == gain
    for taken, label in ((right, "forecasts"), (frequent, "always the more frequent direction")):
        share = np.where(known, taken, False).sum(1) / count
        share = np.where(known.any(1), share, 0.5)
        axes.plot(forecasts.times, np.cumsum(share - 0.5), label=label)
    axes.axhline(0.0, color="gray", linewidth=0.8)
    axes.set(
        title="Hit rate of directions over time", ylabel="hit rate less 50 %, summed over bars"
    )
    axes.legend()
    date_axis(axes)
    return figure


def attributions(found: Attribution) -> Figure:
    """Plot the mean absolute attribution by feature, the largest first, and by lag."""
    unit, scale = ("points", 100) if found.output == "up" else ("basis points", 1e4)
    table = scale * found.table()
    named = table.sum(axis=1).sort_values(ascending=False).head(_MOST)
    height = max(3.0, 1.0 + 0.25 * len(named))
    figure = new_figure((WIDTH, height), DOTS_PER_INCH)
    left, right = figure.subplots(1, 2)
    places = np.arange(len(named))
    left.barh(places, named.to_numpy())
    left.set_yticks(places, [plot_label(str(name)) for name in named.index])
    left.invert_yaxis()
    left.set(title=f"What moves {_OUTPUTS[found.output]}", xlabel=f"mean absolute, {unit}")
    lags = table.sum(axis=0)
    right.bar(lags.index.to_numpy(), lags.to_numpy())
    right.invert_xaxis()
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set(title="By lag", xlabel="bars before the forecast", ylabel=f"mean absolute, {unit}")
    return figure


def learning_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Plot loss and accuracy by epoch, of the numbers of ``SupervisedTrainer.advance``."""
    figure = new_figure((WIDTH, 3.5), DOTS_PER_INCH)
    left, right = figure.subplots(1, 2)
    name = "nll" if "train/nll" in history[0] else "loss"
    epochs = np.arange(1, len(history) + 1)
    for part in ("train", "validation"):
        left.plot(epochs, [each[f"{part}/{name}"] for each in history], "o-", ms=3, label=part)
    best = int(np.argmin([each[f"validation/{name}"] for each in history]))
    left.axvline(epochs[best], color="gray", linewidth=0.8, label="least on validation")
    left.set(title="Loss", xlabel="epoch")
    left.legend()
    accuracy = [100 * each["validation/accuracy"] for each in history]
    right.plot(epochs, accuracy, "o-", ms=3, color="C1")
    right.set(title="Accuracy of directions on validation, %", xlabel="epoch")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
