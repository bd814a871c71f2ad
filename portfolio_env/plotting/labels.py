"""Labels beside the points of a scatter plot, with little overlap."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from portfolio_env.plotting.figures import plot_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_Box: TypeAlias = tuple[float, float, float, float]  # left, bottom, right, top

_BESIDE = 8.0  # points from a dot to its name; further away, a line joins them
_PLACES = tuple(
    (radius * math.cos(angle), radius * math.sin(angle))
    for radius in (7.0, 16.0, 28.0, 42.0)
    for angle in np.deg2rad((0, 180, 90, 270, 45, 315, 135, 225))
)


def label_points(figure: Figure, axes: Axes, points: NDArray[np.float64], names: list[str]) -> None:
    """Write a name beside each point, on the side where it covers the fewest others.

    Args:
        figure: The figure.
        axes: Axes of the plot, with all else drawn.
        points: (S, 2) in the units of the axes; one that is not finite gets no name.
        names: S names.
    """
    figure.draw_without_rendering()
    frame = axes.get_window_extent().extents
    spots = axes.transData.transform(points[np.isfinite(points).all(axis=1)])
    taken: list[_Box] = [
        (x - 6, y - 6, x + 6, y + 6) for x, y in spots if np.isfinite((x, y)).all()
    ]

    def cost(box: _Box) -> int:
        """Return how many dots and labels a box covers; leaving the axes is worse than any."""
        outside = box[0] < frame[0] or box[2] > frame[2] or box[1] < frame[1] or box[3] > frame[3]
        return 1_000 * bool(outside) + sum(
            box[0] < x1 and x0 < box[2] and box[1] < y1 and y0 < box[3] for x0, y0, x1, y1 in taken
        )

    for name, point in zip(names, points, strict=True):
        if not np.isfinite(point).all():
            continue
        text = axes.annotate(plot_label(name), point, (0, 0), textcoords="offset points", size=8)
        tried = []
        for place in _PLACES:
            _move(text, place)
            x0, y0, x1, y1 = text.get_window_extent().extents
            box = (float(x0), float(y0), float(x1), float(y1))
            tried.append((cost(box), box))
            if tried[-1][0] == 0:
                break
        best = min(range(len(tried)), key=lambda k: tried[k][0])
        _move(text, _PLACES[best])
        taken.append(tried[best][1])
        dx, dy = _PLACES[best]
        if math.hypot(dx, dy) > _BESIDE:
            line = {"arrowstyle": "-", "color": "gray", "linewidth": 0.6}
            axes.annotate("", point, (dx, dy), textcoords="offset points", arrowprops=line)


def _move(text: Annotation, place: tuple[float, float]) -> None:
    """Put a text beside its point, so that it grows away from it."""
    dx, dy = place
    text.xyann = place
    text.set_horizontalalignment("center" if abs(dx) < 1 else "left" if dx > 0 else "right")
    text.set_verticalalignment("center" if abs(dy) < 1 else "bottom" if dy > 0 else "top")
