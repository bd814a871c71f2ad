"""Tables fit the terminal: what is less wanted goes first, and no number is broken."""

import itertools
import sys

import pandas as pd
import pytest
from rich.console import Console
from rich.table import Table

from portfolio_env.evaluation.printing import LESS_WANTED, _width, narrowed, say

TEXTS = pd.DataFrame(
    {
        "#": ["1", "2", "oracle"],
        "growth %": ["+19.3 [+0.8, +37.0]", "+17.2 [+6.5, +27.1]", "+99.1"],
        "Sharpe": ["0.80 [0.18, 1.45]", "0.99 [0.40, 1.77]", "5.01"],
        "drawdown %": ["45.1", "31.7", "1.0"],
        "turnover": ["25.5", "2.9", "9.9"],
        "cost %": ["2.55", "0.29", "0.99"],
        "vs equal weight %": ["+2.1 [-10.8, +13.6]", "", ""],
        "Sharpe difference": ["-0.19 [-0.71, +0.33]", "", ""],
        "p": ["0.740", "", ""],
        "deflated vs cash": ["0.97", "0.99", ""],
        "set": ["yes", "yes", ""],
        "remark": ["", "", "oracle"],
    },
    index=["direct", "equal_weight", "best_constant_rebalanced"],
)
WIDTHS = range(64, 228, 7)


def test_the_width_is_that_of_rich():
    printed = Table()
    for name in ("", *TEXTS.columns):
        printed.add_column(name, no_wrap=True)
    for name, row in TEXTS.iterrows():
        printed.add_row(str(name), *row)
    assert Console(width=500).measure(printed).maximum == _width(TEXTS)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_table_fits_and_keeps_what_decides(width):
    shown, missing = narrowed(TEXTS, width)
    assert _width(shown) <= width
    assert {"growth %", "vs equal weight %"} <= set(shown.columns)
    gone = [name for name in LESS_WANTED if name not in shown.columns]
    assert gone == list(LESS_WANTED[: len(gone)])
    assert gone == [name for name in missing if name in LESS_WANTED]
    assert shown["growth %"].iloc[0].startswith("+19.3")


def test_wider_terminals_get_more():
    sizes = [len(narrowed(TEXTS, width)[0].columns) for width in WIDTHS]
    assert all(a <= b for a, b in itertools.pairwise(sizes))
    assert sizes[0] < sizes[-1] == len(TEXTS.columns)
    assert narrowed(TEXTS, 500)[1] == []


def test_empty_columns_take_no_room():
    shown, missing = narrowed(TEXTS.assign(set=""), 500)
    assert "set" not in shown and missing == []


@pytest.mark.parametrize("on_terminal", [True, False])
def test_sentences_fit_a_terminal_and_are_lines_in_a_file(on_terminal, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal, raising=False)
    long = "- momentum does not beat equal weight: 95 % interval -10.8 to +13.6; Sharpe -0.19."
    say(long, indent="  ")
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(line.strip() for line in lines) == long
    if on_terminal:
        assert max(map(len, lines)) <= 60 and lines[1].startswith("  ")
    else:
        assert lines == [long]
