"""HTML that needs no other file: pages with embedded images, and cards for notebooks.

The look is in ``templates/``: ``page.html``, ``parts.html`` and ``style.css``, for Jinja.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from portfolio_env.errors import PortfolioError
from portfolio_env.files.atomic import replacing
from portfolio_env.files.safe_names import file_name, printable
from portfolio_env.plotting.figures import save_figure

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure


@cache
def _templates() -> Environment:
    """Return the templates; every value that is not markup is escaped, what is invisible shown.

    Raises:
        PortfolioError: If Jinja is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise PortfolioError(
            "reports need jinja2, which is not installed; pip install jinja2."
        ) from error

    def shown(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return "\n".join(line and printable(line) for line in str(value).split("\n"))

    return Environment(
        loader=PackageLoader("portfolio_env"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _part(name: str, *values: Any) -> Markup:
    """Return a part of a page by the macro of that name."""
    part: Markup = getattr(_templates().get_template("parts.html").module, name)(*values)
    return part


@dataclass
class Section:
    """Section of the page.

    Attributes:
        title: Heading of the section.
        parts: HTML, in order; see the functions of this module.
        folded: Show the heading alone until it is clicked, or a link leads there.
    """

    title: str
    parts: list[Markup] = field(default_factory=list)
    folded: bool = False

    @property
    def anchor(self) -> str:
        """Return the name that links point to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def paragraph(text: str, style: str = "") -> Markup:
    """Return a paragraph of plain text."""
    return _part("paragraph", text, style)


def heading(text: str) -> Markup:
    """Return a heading within a section."""
    return _part("heading", text)


def bullets(lines: Sequence[str], style: str = "findings") -> Markup:
    """Return a list of plain text."""
    return _part("bullets", lines, style)


def folded(summary: str, content: Markup) -> Markup:
    """Return HTML that shows when its summary is clicked."""
    return _part("folded", summary, content)


def table(
    frame: pd.DataFrame,
    colors: Mapping[str, str] | None = None,
    shades: pd.DataFrame | None = None,
) -> Markup:
    """Return a table of texts, its index as row headings.

    Args:
        frame: The texts.
        colors: Colour of the mark before a heading, by its text, e.g. "#0072b2": of columns if any
            is among them, of rows otherwise.
        shades: Colour of the background of every cell, of the shape of ``frame``; "" for none.
    """
    names = (printable(str(name)) for name in frame.index)
    grounds = np.full(frame.shape, "") if shades is None else shades.to_numpy()
    cells = (zip(*row, strict=True) for row in zip(frame.to_numpy(), grounds, strict=True))
    rows = zip(names, cells, strict=True)
    return _part("table", frame.index.name or "", list(frame.columns), rows, colors or {})


def facts(values: Mapping[str, str]) -> Markup:
    """Return facts by name, in columns."""
    return _part("facts", values.items())


def card(
    title: str,
    facts: Mapping[str, object],
    frame: pd.DataFrame | None = None,
    lines: Sequence[str] = (),
) -> str | None:
    """Return the HTML by which a notebook shows an object.

    Args:
        title: Name of the object.
        facts: Facts by name.
        frame: Table of texts below them.
        lines: Sentences below that.

    Returns:
        The HTML; None without Jinja, so that the notebook shows the object's ``repr``.
    """
    if find_spec("jinja2") is None:
        return None
    shown = "" if frame is None else table(frame)
    return str(_part("card", title, facts.items(), shown, bullets(lines) if lines else ""))


def picture(path: Path, alternative: str) -> Markup:
    """Return a PNG file as part of the page.

    Args:
        path: The file.
        alternative: Description for readers who cannot see it.
    """
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return _part("picture", data, alternative)


class Page:
    """The folder of a report, and the content of its page so far.

    Args:
        path: The folder; created where it is missing.

    Attributes:
        sections: Sections of the page, in order.
        figures: The pictures drawn so far, by name.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.sections: list[Section] = []
        self.figures: dict[str, Path] = {}

    def draw(self, name: str, figure: Figure, alternative: str) -> Markup:
        """Save a figure as a PNG file in the folder, and return the HTML that shows it.

        What stands before the last "/" of its name is a folder within.
        """
        owner, _, last = name.rpartition("/")
        folder = self.path / file_name(owner) if owner else self.path
        file = folder / f"{file_name(last)}.png"
        save_figure(figure, file)
        self.figures[name] = file
        return picture(file, alternative)

    def add(self, title: str, *parts: Markup, folded: bool = False) -> None:
        """Add a section."""
        self.sections.append(Section(title, list(parts), folded))


def write_page(
    path: Path,
    title: str,
    intro: Sequence[Markup],
    sections: Sequence[Section],
    refresh: int | None = None,
) -> None:
    """Write the page in one piece, with a table of contents; a browser may load it again.

    Args:
        path: The file.
        title: Title of the page.
        intro: HTML before the sections.
        sections: The sections.
        refresh: Seconds after which an open page is loaded again; None never.
    """
    page = _templates().get_template("page.html")
    html = page.render(title=title, intro=intro, sections=sections, refresh=refresh)
    with replacing(path) as beside:
        beside.write_text(html, encoding="utf-8")
