"""Rendering of an account: as text, as pixels, in a window (matplotlib is imported on use)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.files.safe_names import printable
from portfolio_env.market.timeline import time_text
from portfolio_env.plotting.figures import date_axis, new_figure, plot_label
from portfolio_env.plotting.returns import palette
from portfolio_env.simulation import dynamics
from portfolio_env.simulation.simulator import Simulator

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR_WIDTH = 30  # characters of a full bar
SIZE_INCHES, DOTS_PER_INCH = (10.0, 6.0), 96  # 960 x 576 pixels
CASH = "#b8bec5"
NO_WINDOW = (
    "render_mode='human' shows a matplotlib window, and none can be opened here: that needs a "
    "display and a toolkit for windows (pip install PyQt6, or Python's Tk). Nothing is shown; "
    "render_mode='rgb_array' returns the pictures, and a notebook shows them without a window."
)


@dataclass(frozen=True)
class Frame:
    """Account from its reset on, K steps ago.

    Attributes:
        assets: N names, without cash.
        timestamps: (K + 1,) times of the closed bars.
        prices: (K + 1, N) closes of the assets; NaN where there is no bar.
        values: (K + 1,) account values.
        weights: (K + 1, N + 1) weights at each close, as the market left them; cash first.
        costs: (K + 1,) money paid for trading in the step that ended at each bar.
    """

    assets: tuple[str, ...]
    timestamps: NDArray[np.datetime64]
    prices: NDArray[np.float64]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    costs: NDArray[np.float64]

    @property
    def drawdowns(self) -> NDArray[np.float64]:
        """Return the (K + 1,) fractions lost since the highest value."""
        return 1 - self.values / np.maximum.accumulate(self.values)


@dataclass
class History:
    """Record of one lane of a simulator since its reset, for the images of an episode.

    Args:
        simulator: The simulator.
        lane: Number of the lane.
    """

    simulator: Simulator
    lane: int = 0
    _rows: list[int] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    _weights: list[NDArray[np.float64]] = field(default_factory=list)
    _costs: list[float] = field(default_factory=list)

    def record(self, *, fresh: bool = False) -> None:
        """Record the present state; ``fresh``, at a reset, discards all earlier ones."""
        if fresh:
            for notes in (self._rows, self._values, self._weights, self._costs):
                notes.clear()
        ledger = self.simulator.ledger[:, self.lane]
        self._rows.append(int(self.simulator.t[self.lane]))
        self._values.append(float(ledger[dynamics.VALUE]))
        self._weights.append(self.simulator.weights[self.lane].copy())
        self._costs.append(float(ledger[dynamics.COST]))

    def render(self, mode: str) -> Any:
        """Return the text of mode "ansi" or the image of mode "rgb_array"."""
        return render_ansi(self.frame()) if mode == "ansi" else render_rgb(self.frame())

    def frame(self) -> Frame:
        """Return the account since the last reset.

        Raises:
            ArgumentError: If there was none.
        """
        if not self._rows:
            raise ArgumentError("no episode was started; call reset() before render().")
        market, columns = self.simulator.market, self.simulator.assets[self.lane]
        return Frame(
            tuple(market.assets[column] for column in columns),
            market.timestamps[self._rows],
            market.close[np.ix_(self._rows, columns)],
            np.array(self._values),
            np.array(self._weights),
            np.array(self._costs),
        )


def render_ansi(frame: Frame) -> str:
    """Return the account as text: date, value, drawdown and one bar per holding.

    Args:
        frame: The account.

    Returns:
        Several lines, the last without a line break.

    >>> days = np.array(["2020-02-28", "2020-03-02"], "datetime64[ns]")
    >>> print(render_ansi(Frame(("A",), days, np.ones((2, 1)), np.array([100.0, 101.0]),
    ...                         np.full((2, 2), 0.5), np.zeros(2))))
    2020-03-02  value 101.00 (+1.00%)  drawdown 0.00%
    cash   50.00% ###############
    A      50.00% ###############
    """
    values = frame.values
    head = (
        f"{time_text(frame.timestamps[-1])}  value {values[-1]:,.2f} "
        f"({values[-1] / values[0] - 1:+.2%})  drawdown {frame.drawdowns[-1]:.2%}"
    )
    names = ["cash", *map(printable, frame.assets)]
    width = max(map(len, names))
    bars = [
        f"{name:<{width}} {weight:>8.2%} {'#' * round(abs(weight) * BAR_WIDTH)}".rstrip()
        for name, weight in zip(names, frame.weights[-1], strict=True)
    ]
    return "\n".join([head, *bars])


def render_rgb(frame: Frame) -> NDArray[np.uint8]:
    """Return the account as an image; see ``draw``.

    Args:
        frame: The account.

    Returns:
        (576, 960, 3) uint8 pixels.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    figure = new_figure(SIZE_INCHES, DOTS_PER_INCH)
    draw(figure, frame)
    canvas = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def draw(figure: Figure, frame: Frame) -> None:
    """Draw prices, value, drawdown, costs and weights of an episode into an empty figure.

    An asset has one colour in all of it; the bars of the present weights are the legend.
    """
    figure.set_layout_engine("none")
    edges = {"top": 0.93, "bottom": 0.07}
    left = figure.add_gridspec(
        4, 1, height_ratios=(3, 3, 2, 2), left=0.07, right=0.59, hspace=0.28, **edges
    )
    right = figure.add_gridspec(2, 1, left=0.68, right=0.985, hspace=0.2, **edges)
    first = figure.add_subplot(left[0])
    others = [figure.add_subplot(left[row], sharex=first) for row in (1, 2, 3)]
    times, colors = frame.timestamps, palette(frame.assets)
    for column, color in enumerate(colors):
        prices = frame.prices[:, column]
        known = prices[np.isfinite(prices)]
        _line(first, times, prices / (known[0] if known.size else 1.0), color, 1.0)
    value, losses, costs = others
    _line(value, times, frame.values, "black", 1.4)
    falls = -100 * frame.drawdowns
    _line(losses, times, falls, "#a40e26", 1.0)
    losses.fill_between(times, falls, 0, color="#a40e26", alpha=0.15)
    _line(costs, times, np.cumsum(frame.costs), "#1f77b4", 1.0)
    titles = (
        "prices, each from 1",
        f"value {frame.values[-1]:,.2f}",
        f"drawdown {frame.drawdowns[-1]:.1%}, below in %",
        f"costs so far {frame.costs.sum():,.2f}",
    )
    for axes, title in zip((first, *others), titles, strict=True):
        axes.set_title(title, fontsize="small", loc="left", pad=3)
        axes.tick_params(labelsize="x-small", labelbottom=axes is costs)
        date_axis(axes, few=True)
    costs.xaxis.get_offset_text().set_fontsize("x-small")
    _bars(figure.add_subplot(right[0]), frame, colors)
    _areas(figure.add_subplot(right[1]), frame, colors)
    figure.suptitle(f"{time_text(times[-1])}, step {len(times) - 1}", fontsize="medium", y=0.985)


def _line(axes: Axes, times: Any, numbers: NDArray[np.float64], color: str, width: float) -> None:
    marker = "o" if len(times) == 1 else None  # a single point is no line
    axes.plot(times, numbers, color=color, linewidth=width, marker=marker, markersize=3)


def _bars(axes: Axes, frame: Frame, colors: list[str]) -> None:
    """Draw the present weights."""
    names, weights = ["cash", *map(plot_label, frame.assets)], frame.weights[-1]
    axes.barh(range(len(names)), weights, color=[CASH, *colors])
    axes.set(xlim=(min(0.0, *weights), max(1.0, *weights)))
    axes.set_title("weights now", fontsize="small", loc="left", pad=3)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelsize=max(4.0, 9.0 - len(names) / 8))
    axes.tick_params(axis="x", labelsize="x-small")
    axes.invert_yaxis()


def _areas(axes: Axes, frame: Frame, colors: list[str]) -> None:
    """Draw the weights so far, stacked; short positions and debt lie below zero."""
    times, weights = frame.timestamps, frame.weights.T
    if len(times) == 1:
        times, weights = np.append(times, times + np.timedelta64(1, "D")), np.repeat(weights, 2, 1)
    for part in (np.maximum(weights, 0), np.minimum(weights, 0)):
        axes.stackplot(times, part, colors=[CASH, *colors], step="pre")  # as each bar ended
    axes.margins(0)
    axes.set_title("weights so far", fontsize="small", loc="left", pad=3)
    axes.tick_params(labelsize="x-small")
    date_axis(axes, few=True)
    axes.xaxis.get_offset_text().set_fontsize("x-small")


class Window:
    """Display of an episode as it runs: in a matplotlib window, or below a notebook's cell.

    Where neither is there it warns once, and shows nothing.
    """

    def __init__(self) -> None:
        self._figure: Figure | None = None
        self._closed = False

    def __reduce__(self) -> tuple[type[Window], tuple[()]]:
        return Window, ()  # a copy, in another process say, opens its own

    def show(self, frame: Frame) -> None:
        """Draw the account; a window that was closed by hand stays closed.

        Raises:
            PortfolioError: If matplotlib is not installed.
        """
        if _in_notebook():
            from IPython.display import clear_output, display

            figure = new_figure(SIZE_INCHES, DOTS_PER_INCH)
            draw(figure, frame)
            clear_output(wait=True)  # type: ignore[no-untyped-call]
            display(figure)  # type: ignore[no-untyped-call]
            return
        if self._closed:
            return
        if self._figure is None:
            self._figure = _opened_window()
            if self._figure is None:
                self._closed = True
                gym.logger.warn(NO_WINDOW)
                return
        from matplotlib import pyplot

        if not pyplot.fignum_exists(self._figure.number):
            self._closed = True
            return
        self._figure.clear()
        draw(self._figure, frame)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window; another ``show`` opens it again."""
        if self._figure is not None:
            from matplotlib import pyplot

            pyplot.close(self._figure)
        self._figure, self._closed = None, False


def _in_notebook() -> bool:
    """Return whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _opened_window() -> Figure | None:
    """Return a new window; None where none can be opened."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise PortfolioError(
            "render_mode='human' needs matplotlib, which is not installed; pip install matplotlib."
        ) from error
    try:
        figure: Figure = pyplot.figure(num=None, figsize=SIZE_INCHES, dpi=DOTS_PER_INCH)
    except ImportError:  # a backend that is asked for by name, and has no display
        return None
    if figure.canvas.required_interactive_framework is None:
        pyplot.close(figure)
        return None
    figure.show()
    return figure
