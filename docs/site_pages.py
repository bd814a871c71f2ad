"""What the site has beyond the Markdown in this folder: generated tables, API pages, sources.

Markdown stays readable on a code host, so that everything here hangs on comments, which are
invisible there: ``<!-- generated: NAME -->`` becomes a table and ``<!-- pages: a b -->`` the
navigation. Links to files outside this folder lead to pages with their source.
"""

import ast
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

DOCS = Path(__file__).parent
ROOT = DOCS.parent
ROOMS = (
    "portfolio_env",
    "portfolio_env.market",
    "portfolio_env.data",
    "portfolio_env.features",
    "portfolio_env.metrics",
    "portfolio_env.evaluation",
    "portfolio_env.evaluation.statistics",
    "portfolio_env.live",
    "portfolio_env.paper",
    "portfolio_env.paper.exchange",
    "agents",
    "agents.networks",
    "agents.policies",
    "agents.supervised",
    "baselines",
    "baselines.optimisers",
    "baselines.forecasts",
    "baselines.online",
    "baselines.rules",
    "baselines.networks",
)
"""Packages with public names, in the order of the API reference."""

COMMENT = re.compile(r"<!-- (generated|pages): (.+?) -->")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+)([^)#]+\.\w+)\)")
CITATION = re.compile(r'([A-Z][^()".:;\n]*(?: et al\.)?) \(((?:19|20)\d\d)\),\s+"([^"]+)"')


# ---- tables


def cell(text: str) -> str:
    """A text as the cell of a Markdown table."""
    return " ".join(text.split()).replace("|", r"\|").replace("_(", r"\_(").replace("*", r"\*")


def rows(header: str, body: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = header.split(" | ")
    lines = [names, ["---"] * len(names), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def first_sentence(thing: Any) -> str:
    """The first line of a docstring, with plain code marks."""
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("``", "`")


def code(text: str) -> str:
    """A text as code, where there is any."""
    return f"`{text}`".replace("|", r"\|") if text else ""


def features() -> str:
    """Every feature of the preset "full" on daily bars, by group; one row for all its windows."""
    from portfolio_env.features import table

    parts = []
    for group, frame in table("full").groupby("group", sort=False):
        body = []
        for (formula, source, inputs), own in frame.groupby(
            ["formula", "source", "inputs"], sort=False
        ):
            names = ", ".join(map(code, own["name"]))
            body.append([names, cell(inputs), code(formula), cell(source)])
        parts.append(f"### {group}\n\n" + rows("name | reads | formula | source", body))
    return "\n\n".join(parts)


def baselines() -> str:
    """Every baseline with what it does and the paper that it follows."""
    from baselines import BASELINES

    return rows(
        "name | what it does | source",
        ([code(n), cell(first_sentence(c)), cell(citation(c))] for n, c in BASELINES.items()),
    )


def citation(kind: type) -> str:
    """The first paper that the docstring of a class or of its parents names."""
    for each in kind.__mro__:
        if found := CITATION.search(each.__dict__.get("__doc__") or ""):
            authors, year, title = found.groups()
            return f"{authors.strip()} ({year}), {title}"
    return ""


def encoders() -> str:
    """Every encoder with what it computes, its size and whether assets see each other."""
    from agents.networks import ENCODERS, make_encoder

    def row(name: str) -> list[str]:
        encoder = make_encoder(name, 5, 20)
        size = sum(parameter.numel() for parameter in encoder.parameters())
        mixes = "yes" if encoder.mixes_assets else "no"
        return [code(name), cell(first_sentence(ENCODERS[name])), f"{size:,}", mixes]

    return rows("name | what it computes | parameters | assets see each other", map(row, ENCODERS))


def metrics() -> str:
    """Every metric of a comparison with its definition."""
    from portfolio_env import metrics
    from portfolio_env.metrics import MEASURES, RELATIVE_MEASURES

    names = [*MEASURES, *RELATIVE_MEASURES]
    return rows(
        "name | definition",
        ([code(name), cell(first_sentence(getattr(metrics, name)))] for name in names),
    )


def settings(path: str, name: str) -> Iterator[list[str]]:
    """The fields of a settings class: option, default and description, read from its source."""
    module = ast.parse((ROOT / path).read_text())
    (kind,) = (n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name)
    for field, text in zip(kind.body, kind.body[1:], strict=False):
        described = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if not isinstance(field, ast.AnnAssign) or not described:
            continue
        default = "" if field.value is None else ast.unparse(field.value)
        plain = "" if default.startswith(("field", "None")) else default.strip("'")
        named = re.search(r"arg\(name='(\w+)'", ast.unparse(field.annotation))
        option = "--" + (named[1] if named else ast.unparse(field.target)).replace("_", "-")
        yield [code(option), code(plain), cell(text.value.value)]


def train_options() -> str:
    """The options of train.py."""
    return rows("option | default | meaning", settings("agents/training/config.py", "TrainConfig"))


def evaluate_options() -> str:
    """The options of evaluate.py."""
    return rows("option | default | meaning", settings("evaluate.py", "EvaluateConfig"))


def api() -> str:
    """The list of packages with public names, and their pages."""
    body = ([f"[`{room}`](api/{room}.rst)", cell(first_sentence(_module(room)))] for room in ROOMS)
    return rows("package | holds", body) + "\n\n" + navigation(f"api/{room}" for room in ROOMS)


def navigation(pages: Iterable[str]) -> str:
    """The navigation below a page."""
    return "```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```"


TABLES: dict[str, Callable[[], str]] = {
    "api": api,
    "baselines": baselines,
    "encoders": encoders,
    "evaluate options": evaluate_options,
    "features": features,
    "metrics": metrics,
    "train options": train_options,
}


# ---- pages


def _module(room: str) -> Any:
    return importlib.import_module(room)


def write_api(folder: Path) -> None:
    """Write one page for each package: its public names, each documented once."""
    folder.mkdir(exist_ok=True)
    seen: dict[int, str] = {}
    for room in ROOMS:
        module = _module(room)
        lines = [f"``{room}``", "=" * (len(room) + 4), "", f".. py:currentmodule:: {room}", ""]
        lines += [inspect.getdoc(module) or "", ""]
        for name in sorted(module.__all__, key=lambda name: (name.isupper(), name.lower())):
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                continue
            before = seen.setdefault(id(thing), room)
            if before != room:
                lines += [f"``{name}``: see :doc:`{before}`.", ""]
                continue
            lines += _directive(room, name, thing)
        _write(folder / f"{room}.rst", "\n".join(lines) + "\n")


def _directive(room: str, name: str, thing: Any) -> list[str]:
    """The directive that documents a public name."""
    if inspect.isclass(thing):
        return [f".. autoclass:: {room}.{name}", "   :members:", ""]
    if inspect.isroutine(thing):
        return [f".. autofunction:: {room}.{name}", ""]
    text = ", ".join(f"``{key}``" for key in thing) if isinstance(thing, dict) else f"``{thing}``"
    return [f".. py:data:: {name}", "", f"   {text}", ""]


def _write(path: Path, text: str) -> None:
    """Write a file unless it holds the text already, so that unchanged pages are not built anew."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def completed(text: str, page: str) -> str:
    """The Markdown of a page with tables, navigation and links to sources in it."""

    def comment(found: re.Match[str]) -> str:
        kind, name = found.groups()
        if kind == "generated":
            return TABLES[name]()
        return navigation(name.split())

    def link(found: re.Match[str]) -> str:
        label, up, path = found.groups()
        outside = up == "../" * (page.count("/") + 1)
        if not outside or not (ROOT / path).is_file():
            return found[0]
        label = re.sub("`([^`]+)`", r"<code>\1</code>", label)
        return f'<a href="{"../" * page.count("/")}source/{path}.html">{label}</a>'

    return OUTSIDE.sub(link, COMMENT.sub(comment, text))


def complete(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in the Markdown of a page; its file stays as it is."""
    if app.env.doc2path(page).suffix == ".md":
        source[0] = completed(source[0], page)


def outdated(app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
    """The pages with tables: what they hold may have changed though they have not."""
    texts = {page: env.doc2path(page).read_text() for page in env.found_docs}
    return [page for page, text in texts.items() if "<!-- generated: " in text]


def source_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page with the source of every file outside this folder that a page links to."""
    texts = (path.read_text() for path in DOCS.rglob("*.md"))
    linked = {found[3] for text in texts for found in OUTSIDE.finditer(text)}
    for path in sorted(linked):
        if not (ROOT / path).is_file():
            continue
        kind = {".py": "python", ".md": "markdown"}.get(os.path.splitext(path)[1], "text")
        body = app.builder.highlighter.highlight_block(
            (ROOT / path).read_text(), kind, linenos="inline"
        )
        context = {"title": path, "body": f"<h1><code>{escape(path)}</code></h1>{body}"}
        yield f"source/{path}", context, "page.html"


# ---- formulas


def inline_formula(translator: Any, node: nodes.math) -> None:
    """A formula in a line as MathML, which browsers show without a script."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def block_formula(translator: Any, node: nodes.math_block) -> None:
    """A formula of its own as MathML."""
    translator.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it with Sphinx."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.connect("builder-inited", lambda _: write_api(DOCS / "api"))
    app.connect("env-get-outdated", outdated)
    app.connect("source-read", complete)
    app.connect("html-collect-pages", source_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
