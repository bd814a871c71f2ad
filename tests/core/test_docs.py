"""What the pages of docs/ say is so: their examples run, their tables name what there is."""

import doctest
import re
from pathlib import Path

import pytest

from portfolio_env.simulation.dynamics import LEDGER

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    "page", [page.name for page in DOCS.glob("*.md") if ">>> " in page.read_text()]
)
def test_examples_run(page):
    found = doctest.testfile(str(DOCS / page), module_relative=False)
    assert found.attempted > 0 and found.failed == 0


def test_the_table_of_info_names_the_entries_of_the_ledger():
    section = (DOCS / "environment.md").read_text().partition("## What info holds")[2]
    table = section.partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == LEDGER
