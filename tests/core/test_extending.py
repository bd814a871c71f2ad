"""The examples of docs/extending.md run as they stand."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
SECTIONS = {
    title: blocks
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    if (blocks := re.findall(r"```python\n(.*?)```", text, re.DOTALL))
}


def test_the_page_has_a_section_for_every_part():
    assert list(SECTIONS) == [
        "An indicator", "A reward", "A cost model", "A source of prices", "A baseline",
        "An encoder", "An algorithm",
    ]  # fmt: skip
    assert all(len(blocks) == 2 for blocks in SECTIONS.values())


@pytest.mark.parametrize("title", SECTIONS)
def test_examples_run(own_module, title):
    module, use = SECTIONS[title]
    name = re.match(r"# (\w+)\.py\n", module)
    own_module(name[1], module)
    exec(compile(use, f"docs/extending.md, {title}", "exec"), {"__name__": "example"})
