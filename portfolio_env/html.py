"""HTML that needs nothing else, no scripts and no requests: pages, and cards in notebooks."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from portfolio_env.files.atomic import replacing
from portfolio_env.files.safe_names import file_name, printable
from portfolio_env.plotting.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1rem clamp(0.75rem, 3vw, 2rem) 3rem;
  font: 1rem/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0.5rem; padding-top: 0.5rem;
  border-top: 1px solid #d0d7de; }
h3 { font-size: 1rem; margin: 1.25rem 0 0.25rem; }
nav ul { columns: 16rem; padding-left: 1.2rem; margin: 0.5rem 0; }
a { color: #0550ae; }
p, li { overflow-wrap: anywhere; }
figure { margin: 0.75rem 0; overflow-x: auto; }
img { display: block; min-width: 36rem; max-width: min(100%, 70rem); height: auto; }
.wide { overflow-x: auto; margin: 0.75rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.2rem 0.45rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e4e8ec; }
thead th { vertical-align: bottom; border-bottom: 2px solid #8c959f; }
tbody th { text-align: left; position: sticky; left: 0; background: #fff; }
summary { cursor: pointer; color: #0550ae; }
.fault { color: #a40e26; }
ul.findings { font-size: 0.9rem; padding-left: 1.2rem; }
"""


def escape(text: str) -> str:
    """A text as HTML shows it, what is invisible written out."""
    return html.escape("\n".join(map(printable, text.split("\n"))) if text else "")


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        parts: HTML, in order; see the functions of this module.
    """

    title: str
    parts: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The name that links point to."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def bullets(lines: Sequence[str], style: str = "findings") -> str:
    """A list of plain text."""
    return f'<ul class="{style}">' + "".join(f"<li>{escape(x)}</li>" for x in lines) + "</ul>"


def folded(summary: str, content: str) -> str:
    """HTML that shows when its summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(frame: pd.DataFrame) -> str:
    """A table of texts, its index as row headings."""
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in frame.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th>'
        + "".join(f"<td>{escape(str(value))}</td>" for value in values)
        + "</tr>"
        for name, values in zip(frame.index, frame.to_numpy(), strict=True)
    )
    corner = escape(str(frame.index.name or ""))
    head = f'<thead><tr><th scope="col">{corner}</th>{head}</tr></thead>'
    return f'<div class="wide"><table>{head}<tbody>{rows}</tbody></table></div>'


def card(title: str, facts: Mapping[str, object], *parts: str) -> str:
    """What a notebook shows of an object: a title, facts by name, and further HTML."""
    rows = "".join(
        f'<tr><th style="text-align: left">{escape(name)}</th>'
        f'<td style="text-align: left">{escape(str(fact))}</td></tr>'
        for name, fact in facts.items()
    )
    return f"<div><b>{escape(title)}</b><table>{rows}</table>{''.join(parts)}</div>"


def picture(path: Path, alternative: str) -> str:
    """A PNG file, inside the page; the alternative says what it shows to who cannot see it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alternative)}"></figure>'


class Page:
    """The folder of a report, and what its page holds so far.

    Args:
        path: The folder; created where it is missing.

    Attributes:
        sections: Of the page, in order.
        figures: The pictures drawn so far, by name.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.sections: list[Section] = []
        self.figures: dict[str, Path] = {}

    def draw(self, name: str, figure: Figure, alternative: str) -> str:
        """Save a figure as a PNG file in the folder, and the HTML that shows it.

        What stands before the last "/" of its name is a folder within.
        """
        owner, _, last = name.rpartition("/")
        folder = self.path / file_name(owner) if owner else self.path
        file = folder / f"{file_name(last)}.png"
        save_figure(figure, file)
        self.figures[name] = file
        return picture(file, alternative)

    def add(self, title: str, *parts: str) -> None:
        """One more section."""
        self.sections.append(Section(title, list(parts)))


def write_page(path: Path, title: str, intro: Sequence[str], sections: Sequence[Section]) -> None:
    """Write the page in one piece, with a table of contents."""
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    body = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{"".join(s.parts)}</section>\n'
        for s in sections
    )
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{"".join(intro)}</header>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
{body}</main>
</body>
</html>
"""
    with replacing(path) as beside:
        beside.write_text(page, encoding="utf-8")
