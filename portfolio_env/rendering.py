"""Rendering of an account: as text, and as pixels (which import matplotlib on use)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from portfolio_env.files.safe_names import printable
from portfolio_env.market.timeline import time_text
from portfolio_env.plotting.figures import new_figure, plot_label

BAR_WIDTH = 30  # characters of a full bar
SIZE_INCHES, DOTS_PER_INCH = (8.0, 4.5), 80  # 640 x 360 pixels


def render_ansi(
    *,
    assets: Sequence[str],
    timestamp: np.datetime64,
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    drawdown: float,
) -> str:
    """Return the account as text: date, value, drawdown and one bar per holding.

    Args:
        assets: N names, without cash.
        timestamp: Time of the last closed bar.
        values: (K + 1,) account values of the episode so far.
        weights: (N + 1,) present weights, cash first.
        drawdown: Fraction lost since the highest value.

    Returns:
        Several lines, the last without a line break.

    >>> print(render_ansi(assets=["A"], timestamp=np.datetime64("2020-03-02"), drawdown=0.0,
    ...                   values=np.array([100.0, 101.0]), weights=np.array([0.5, 0.5])))
    2020-03-02  value 101.00 (+1.00%)  drawdown 0.00%
    cash   50.00% ###############
    A      50.00% ###############
    """
    change = values[-1] / values[0] - 1
    head = (
        f"{time_text(timestamp)}  value {values[-1]:,.2f} ({change:+.2%})  drawdown {drawdown:.2%}"
    )
    names = ["cash", *map(printable, assets)]
    width = max(map(len, names))
    bars = [
        f"{name:<{width}} {weight:>8.2%} {'#' * round(abs(weight) * BAR_WIDTH)}".rstrip()
        for name, weight in zip(names, weights, strict=True)
    ]
    return "\n".join([head, *bars])


def render_rgb(
    *,
    assets: Sequence[str],
    timestamp: np.datetime64,
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    drawdown: float,
) -> NDArray[np.uint8]:
    """Return the account as an image: equity curve of the episode and present weights.

    Args:
        assets: N names, without cash.
        timestamp: Time of the last closed bar.
        values: (K + 1,) account values of the episode so far.
        weights: (N + 1,) present weights, cash first.
        drawdown: Fraction lost since the highest value.

    Returns:
        (360, 640, 3) uint8 pixels.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure(SIZE_INCHES, DOTS_PER_INCH)
    curve, bars = figure.subplots(1, 2, width_ratios=(2, 1))
    curve.plot(np.arange(len(values)), values, color="tab:blue")
    curve.set(
        title=f"{time_text(timestamp)}   drawdown {drawdown:.1%}", xlabel="step", ylabel="value"
    )
    names = ["cash", *map(plot_label, assets)]
    bars.barh(range(len(names)), weights, color=["tab:gray"] + ["tab:blue"] * len(assets))
    bars.set(title="weights", xlim=(min(0.0, *weights), max(1.0, *weights)))
    bars.tick_params(axis="y", labelsize=max(4.0, 10.0 - len(names) / 8))
    bars.set_yticks(range(len(names)), names)
    bars.invert_yaxis()
    canvas = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
