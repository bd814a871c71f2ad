"""Names come from strangers: whatever they hold, they are shown, stored and run by nobody."""

import csv
import io
import re
import sys
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import load_market
from portfolio_env.data.__main__ import main
from portfolio_env.data.bars import frame_of_panel
from portfolio_env.data.downloads.store import series_path
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.data.reports import exploration_plots
from portfolio_env.files.csv_files import neutral, original, write_csv
from portfolio_env.files.safe_names import file_name, printable
from portfolio_env.plotting.figures import plot_label
from portfolio_env.rendering import Frame, render_ansi, render_rgb

STRANGE = (
    "$x^$", "$\\frac{1}{0}$", "_hidden", "__", "100%", "%s%n", "{0}", "\\", "C:\\x",
    "a\nb", "a\rb", "a\tb", "x\r=1+1",
    '=HYPERLINK("http://x","y")', "+1", "-2+3|' /C calc'!A0", "@SUM(A1)", "\t=1", "'=1", "'tis",
    "<script>alert(1)</script>", '" onload="x', "&amp;", "[red]x[/]", "[/]", "../../x", "a/b", "..",
    "CON", "nul.txt", "cash", "costs", "date", "nan", "None", "1e5", "\N{ROCKET}", "\u65e5\u672c",
    "\u202edcb", "\u05d0\u05d1", "\x1b[31m", "\x07", "\u200b", "x" * 300, "A", "a", "\u00e9",
)  # fmt: skip
DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
TEXT = st.text(st.sampled_from("=+-@'\t\r\n\"a,;$_é1. <") | st.characters(), max_size=12)


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """A CSV file with a price history of every strange name."""
    assert len(set(STRANGE)) == len(STRANGE)
    frame = frame_of_panel(synthetic_panel(bars=260, assets=len(STRANGE), seed=3))
    symbols = dict(zip(frame["symbol"].unique(), STRANGE, strict=True))
    path = tmp_path_factory.mktemp("strange") / "prices.csv"
    write_csv(path, frame.assign(symbol=frame["symbol"].map(symbols)), index=False)
    return path


def formulas(path):
    """The cells of a CSV file that a spreadsheet takes for formulas, numbers apart."""
    found = []
    for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline="")):
        for cell in row:
            try:
                float(cell)
            except ValueError:
                found += [cell] if cell.startswith(DANGEROUS) else []
    return found


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def check_page(path):
    page = path.read_text()
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.tags and "onload" not in tags.attributes
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u200b\u202e]", page)
    return page


def test_symbols_of_a_csv_file_are_read_as_they_are(prices):
    assert set(load_market(prices).assets) == set(STRANGE)
    assert formulas(prices) == []


@pytest.mark.slow
def test_a_whole_evaluation_with_strange_names(prices, tmp_path, monkeypatch, capsys):
    """A name of "$x^$" ended the report after the test range had been counted as used."""
    market = load_market(prices)
    events = pd.DataFrame({"date": market.timestamps[[-40, -30, -20]], "symbol": STRANGE[:3]})
    types = ["$x^$", "=1+1", "_hidden"]
    write_csv(tmp_path / "events.csv", events.assign(type=types), index=False)
    import evaluate

    arguments = ["--no-agent", "--market", str(prices), "--baselines", "equal_weight,momentum",
                 "--resamples", "20", "--capital", "100000", "--lot", "0", "--events",
                 str(tmp_path / "events.csv"), "--out", str(tmp_path / "run")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate.main()
    printed = capsys.readouterr().out
    assert "\x1b[31m" not in printed and "\x07" not in printed
    folder = tmp_path / "run" / "evaluation" / "test"
    for path in folder.rglob("*.csv"):
        assert formulas(path) == [], path
    holdings = pd.read_csv(folder / "momentum" / "holdings.csv", keep_default_na=False)
    assert set(holdings["asset"].map(original)) == {"cash", *STRANGE}
    assert len(holdings) % (len(STRANGE) + 1) == 0
    assert "&lt;script&gt;" in check_page(folder / "report.html")
    assert {path.parent for path in tmp_path.rglob("*.png")} <= {
        folder, folder / "equal_weight", folder / "momentum",
    }  # fmt: skip


@pytest.mark.slow
def test_a_whole_report_of_data_with_strange_names(prices, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["report", str(prices), "--out", str(tmp_path)]) == 0
    assert "&lt;script&gt;" in check_page(tmp_path / "report.html")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".npz"])
def test_converted_files_keep_strange_names(prices, tmp_path, suffix, capsys):
    out = tmp_path / f"a{suffix}"
    assert main(["convert", str(prices), str(out)]) == 0
    one, other = load_market(prices), load_market(out)
    assert one.assets == other.assets
    np.testing.assert_array_equal(one.close, other.close)
    if suffix == ".csv":
        assert formulas(out) == []


def test_pictures_of_an_account_with_strange_names():
    assets = list(STRANGE)
    days = np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
    weights = np.full((2, len(assets) + 1), 1 / (len(assets) + 1))
    ones = np.ones((2, len(assets)))
    account = Frame(tuple(assets), days, ones, np.array([1.0, 1.1]), weights, np.zeros(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render_rgb(account)
        assert len(render_ansi(account).splitlines()) == len(assets) + 2
    assert "\x1b" not in render_ansi(account)


def test_long_names_leave_room_for_what_they_name():
    panel = synthetic_panel(bars=90, assets=2, seed=0)
    panel = replace(panel, assets=("W" * 300, "$" + "w" * 300))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for draw in (exploration_plots.correlations, exploration_plots.growth):
            draw(panel).canvas.draw()


@given(name=TEXT)
def test_labels_can_be_drawn_and_are_in_legends(name):
    from matplotlib.figure import Figure

    shown = plot_label(name)
    assert shown.isprintable() and shown and not shown.startswith("_")
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], label=shown)
    axes.set_title(shown)
    (text,) = axes.legend().get_texts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    assert text.get_text() == shown and not text._preprocess_math(shown)[1]


def test_labels_of_ordinary_names_are_the_names():
    for name in ("BTC/USDT", "BRK.B", "equal_weight", "^GSPC", "Société Générale"):
        assert plot_label(name) == name == printable(name)
    assert len(plot_label("x" * 10_000)) == 32


@given(text=TEXT)
def test_no_text_of_a_csv_file_is_a_formula_and_all_are_read_as_they_were(text):
    assert not neutral(text).startswith(DANGEROUS)
    assert original(neutral(text)) == text


@given(texts=st.lists(TEXT.filter(lambda t: not re.search("[\x00\ud800-\udfff]", t)), min_size=1))
def test_tables_are_read_as_they_were(texts, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "t.csv"
    write_csv(path, pd.DataFrame({"+x": texts, "n": -1.5}, pd.Index(texts, name="-i")))
    rows = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert [list(map(original, row)) for row in rows] == [
        ["-i", "+x", "n"], *([text, text, "-1.5"] for text in texts)
    ]  # fmt: skip


def test_no_level_of_an_index_holds_a_formula(tmp_path):
    """As in a table of the orders of several strategies."""
    index = pd.MultiIndex.from_product([["=a", "b"], ["+c", "d"]], names=["=strategy", "asset"])
    write_csv(tmp_path / "table.csv", pd.DataFrame({"n": range(4)}, index))
    assert (tmp_path / "table.csv").read_text().splitlines() == [
        "'=strategy,asset,n",
        "'=a,'+c,0",
        "'=a,d,1",
        "b,'+c,2",
        "b,d,3",
    ]


@given(names=st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_names_of_files_stay_in_their_folder_and_differ(names, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    paths = [folder / file_name(name) for name in names]
    assert paths[0] != paths[1]
    for path in paths:
        path.write_text("")
        assert path.resolve().parent == folder.resolve()
        path.unlink()


@pytest.mark.parametrize("name", [*STRANGE, "", ".", "x\0", "é" * 200, "aux", "LPT1.x", "a.", "a "])
def test_no_name_escapes_a_folder(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    for path in (folder / file_name(name), series_path(folder, "binance", name, "1d")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        assert path.resolve() == path and folder in path.parents
        stem = path.name.partition(".")[0].upper()
        assert stem not in {"CON", "NUL", "AUX", "LPT1"} and len(path.name.encode()) < 256
    assert list(tmp_path.iterdir()) == [folder]


def test_long_names_of_files_differ(tmp_path):
    assert file_name("x" * 300) != file_name("x" * 301)
    assert Path(file_name("BTC (2x), a+b=c@d")).name == "BTC (2x), a+b=c@d"
