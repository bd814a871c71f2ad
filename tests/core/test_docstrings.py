"""Docstrings say in their first line what a thing does or returns, in the words of the field."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("portfolio_env", "agents", "baselines", "benchmarks", "examples")
FILES = [
    ROOT / "train.py",
    ROOT / "evaluate.py",
    ROOT / "trade.py",
    ROOT / "sweep.py",
    *(f for r in ROOMS for f in ROOT.glob(f"{r}/**/*.py")),
]
QUESTION = re.compile(r"(What|How|Who|Which|Whether|Where|Is|Does|Of|That|Those)\b")
FRAGMENT = re.compile(r"^ +[\w*]+: (What|How|Who|Which|Of|That|Those)\b", re.MULTILINE)
OWN_WORDS = re.compile(r"\b(mends?|mended|twins?|hand(s|ed)? on|told|stretch(es)?|anew)\b")
Documented = ast.Module | ast.ClassDef | ast.FunctionDef


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of every docstring of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


@pytest.mark.parametrize("room", [*ROOMS, ""])
def test_docstrings_are_statements_in_words_of_the_field(room):
    files = [
        f
        for f in FILES
        if (f.relative_to(ROOT).parts[0] == room) or (not room and f.parent == ROOT)
    ]
    found = [each for file in files for each in docstrings(file)]
    assert files and len(found) >= len(files)
    assert not [where for where, text in found if QUESTION.match(text)]
    assert not [(where, hit[0]) for where, text in found if (hit := FRAGMENT.search(text))]
    assert not [(where, hit[0]) for where, text in found if (hit := OWN_WORDS.search(text))]
