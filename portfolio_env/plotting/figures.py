"""Figures without a display: layout, drawable labels, saving in one piece.

Matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import math
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import PortfolioError
from portfolio_env.files.atomic import replacing
from portfolio_env.files.safe_names import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.0  # inches, of every figure of a report: one font size
DOTS_PER_INCH = 120
NOTEBOOK_DOTS_PER_INCH = 72  # a notebook stores its pictures
LONGEST = 32  # characters of a name in a figure
LOG_FROM = 4  # a logarithmic axis from this ratio of highest to lowest value
LOG_STEPS = (  # its numbers within a decade, by that ratio
    (12, (1, 1.5, 2, 3, 5, 7)),
    (60, (1, 2, 5)),
    (600, (1, 3)),
    (float("inf"), (1,)),
)


def new_figure(size: tuple[float, float], dpi: int) -> Figure:
    """Return a matplotlib figure that needs no display and that no global state keeps alive.

    As the last line of a notebook's cell it shows itself, whatever the notebook's backend.

    Args:
        size: Width and height in inches.
        dpi: Dots per inch.

    Raises:
        PortfolioError: If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PortfolioError(
            "drawing needs matplotlib, which is not installed; pip install matplotlib."
        ) from error
    figure = Figure(figsize=size, dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    with BytesIO() as file:
        figure.savefig(file, format="png", dpi=NOTEBOOK_DOTS_PER_INCH)
        return file.getvalue()


def panels_grid(panels: int, height: float = 2.3, **share: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure with so many axes, at most 3 beside one another."""
    columns = 3 if panels > 4 or panels == 3 else min(panels, 2)
    rows = math.ceil(panels / columns)
    figure = new_figure((WIDTH, height * rows + 0.5), DOTS_PER_INCH)
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel().tolist()
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def plot_label(name: str) -> str:
    r"""Return a name as matplotlib can draw it anywhere, legends included.

    Dollars are no formulas, what is invisible or not in the font is written out, names of nothing
    or with an underscore at first (which legends leave out) are shown, long ones are cut.

    >>> print(plot_label("$x^$"), plot_label("_x"), plot_label("a\nb"), plot_label("\N{ROCKET}"))
    \$x^\$  _x a\nb \U0001f680
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    shown = "".join(
        c if font.get_char_index(ord(c)) else c.encode("unicode_escape").decode("ascii")
        for c in printable(name[:LONGEST])
    )
    if len(shown) > LONGEST or len(name) > LONGEST:
        shown = f"{shown[: LONGEST - 1]}…"
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")


def value_axis(axes: Axes, values: NDArray[np.float64]) -> None:
    """Format an axis for these values: logarithmic where they differ much, with readable numbers.

    Args:
        axes: Axes to format.
        values: Values to be shown; one of 0 or less keeps the axis linear.
    """
    from matplotlib.ticker import LogLocator

    low, high = float(values.min()), float(values.max())
    if 0 < low < high / LOG_FROM:
        steps = next(steps for most, steps in LOG_STEPS if high / low < most)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=steps))
        axes.yaxis.set_minor_formatter("")
        axes.set_ylim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
    else:
        room = 0.04 * (high - low) or 0.04
        axes.set_ylim(low - room, high + room)
    axes.yaxis.set_major_formatter("{x:g}")


def date_axis(axes: Axes, *, few: bool = False) -> None:
    """Draw dates along the bottom, as short as they can be, and a light grid.

    Args:
        axes: Axes to format.
        few: Three to eight dates, for a small picture; else as many as matplotlib thinks best.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    ticks = {"minticks": 3, "maxticks": 8} if few else {}
    locator = AutoDateLocator(**ticks)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.grid(alpha=0.3)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as an image, in one piece.

    Args:
        figure: The figure.
        path: Destination; the suffix names the format.
    """
    with replacing(path) as beside:
        figure.savefig(beside)
