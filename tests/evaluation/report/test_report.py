"""The page needs no other file, says what the comparison says, and shows every figure."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from helpers.accounts import account

from portfolio_env.evaluation import compare
from portfolio_env.evaluation.diagnostics.implementation import implementation_metrics
from portfolio_env.evaluation.orders import allocate
from portfolio_env.evaluation.report.inputs import ReportInputs
from portfolio_env.evaluation.report.report import write_report
from portfolio_env.evaluation.summary import overall, sentence
from portfolio_env.evaluation.task import Hindsight
from portfolio_env.html import Page, table
from portfolio_env.market.panel import PricePanel
from portfolio_env.plotting.figures import new_figure

K = 130
ODD = ("A", "<b onclick=x>&")
MARKET = np.random.default_rng(0).normal(0.0005, 0.01, K)


class Resources(HTMLParser):
    """All attributes by which a page could load something, and its text."""

    def __init__(self):
        super().__init__()
        self.links, self.text = [], []

    def handle_starttag(self, tag, attributes):
        names = ("src", "href", "srcset", "data", "action", "poster")
        self.links += [(tag, value) for name, value in attributes if name in names]

    def handle_data(self, data):
        self.text.append(data)


def bars(steps=K, assets=("A", "B")):
    generator = np.random.default_rng(1)
    return PricePanel(
        timestamps=account(MARKET[:steps]).timestamps,
        assets=assets,
        close=np.exp(np.cumsum(generator.normal(0, 0.01, (steps + 1, 2)), axis=0)),
        periods_per_year=252,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    noise = np.random.default_rng(2).normal(0, 0.003, (3, K))
    results = {
        "ppo": account(MARKET + noise[0]),
        "ppo_gated": account(MARKET),
        "equal_weight": account(MARKET),
        "<odd & name>": account(MARKET + noise[1]),
        "cash": account(np.zeros(K)),
        "broke": account(np.r_[MARKET[:50], np.log(1e-3)]),
        "seer": account(MARKET + 0.01),
    }
    results = {name: replace(result, assets=ODD) for name, result in results.items()}
    found = compare(results, oracles=["seer"], failed={"heavy": "a reason"}, n_resamples=50)
    growth = pd.DataFrame({0.0: 0.1, 10.0: 0.05}, index=list(results))
    orders = allocate(results["ppo"].last_weights, ODD, [3.0, 7.0], 1000.0)
    material = ReportInputs(
        title="test: a range",
        panel=bars(assets=ODD),
        rows=(0, K + 1),
        agents=["ppo"],
        warnings=["This is look 2."],
        gate=["Gate closed: it was."],
        implementation=implementation_metrics(results, {"ppo": [0.001]}, {"ppo": 4096}),
        growth_by_cost=growth,
        orders={"ppo": orders},
        capital=1000.0,
        hindsight=Hindsight(np.array([[0.1, 0.05], [0.2, 0.15]]), np.array([[0, 0], [0.2, 0.15]])),
        pictures={"attention/time": (new_figure((3, 2), 50), "What it looks at.")},
        facts={"command": "evaluate.py run"},
        market="<i>mine</i>",
        head={"costs": "commission 10 bp", "<u>": "<u>"},
    )
    folder = tmp_path_factory.mktemp("report")
    figures = write_report(folder, found, material)
    return folder, found, figures


def test_loads_nothing(written):
    folder, _, figures = written
    page = (folder / "report.html").read_text()
    found = Resources()
    found.feed(page)
    assert all(link.startswith(("data:image/png;base64,", "#")) for _, link in found.links)
    assert not re.search(r"url\(|@import|<script|<link|<iframe|http-equiv=.refresh", page)
    assert "default-src 'none'" in page
    assert not re.search(r"<b |<u>|<odd|<i>|onclick=x>", page)  # names are text
    assert "&lt;i&gt;mine&lt;/i&gt;" in page and "&lt;u&gt;" in page
    images = [link for tag, link in found.links if tag == "img"]
    assert len(images) == len(figures)
    for image, file in zip(images, figures.values(), strict=False):
        assert base64.b64decode(image.partition(",")[2]).startswith(b"\x89PNG")
        assert file.read_bytes().startswith(b"\x89PNG")
    anchors = {link[1:] for tag, link in found.links if tag == "a"}
    assert anchors <= set(re.findall(r'<section id="([^"]+)"', page))


def test_says_what_the_comparison_says(written):
    folder, found, _ = written
    reader = Resources()
    reader.feed((folder / "report.html").read_text())
    for name in found.table.index:
        assert sentence(found, name) in reader.text
    for text in (overall(found), "This is look 2.", "Gate closed: it was.", "What it looks at."):
        assert text in reader.text
    assert f"Deflated Sharpe ratios allow for {found.trials} trials." in reader.text
    assert {"4,096", "command: evaluate.py run", "<i>mine</i>, test: a range"} <= set(reader.text)


def test_the_verdict_is_first_and_details_are_folded(written):
    page = (written[0] / "report.html").read_text()
    titles = re.findall(r"<h2>([^<]+)</h2>|<details class=.section.><summary>([^<]+)<", page)
    opened = [title for title, _ in titles if title]
    assert opened[:3] == ["Verdict", "What to hold", "Why"]
    assert [title for title, _ in titles[: len(opened)]] == opened  # what is folded comes after
    assert {"Tear sheets", "Risk and return", "Details"} <= {title for _, title in titles}
    links = re.findall(r'<a href="#([^"]+)">', page)
    assert links == re.findall(r'<section id="([^"]+)"', page)
    head = page.partition("<h2>")[0]
    assert "commission 10 bp" in head and overall(written[1]) in head


def test_every_figure_is_there(written):
    folder, found, figures = written
    expected = {
        "differences", "equity", "equity_bands", "drawdown", "average_weights", "risk_return",
        "rolling", "correlation", "distributions", "costs", "ppo/allocation", "attention_time",
        "blocks", "overfitting", "signal_decay", "periods",
    }  # fmt: skip
    weights = {f"{name}/weights" for name in found.results}
    sheets = {f"{name}/tear_sheet" for name in ("ppo", "equal_weight", "<odd & name>", "cash")}
    assert set(figures) == expected | weights | sheets
    assert (folder / "ppo" / "weights.png").exists()


def test_a_quick_report_leaves_single_strategies_out(tmp_path):
    other = account(MARKET + np.random.default_rng(3).normal(0, 0.003, K))
    found = compare({"own": other, "equal_weight": account(MARKET)}, n_resamples=20)
    inputs = ReportInputs(title="quick", panel=bars(), rows=(0, K + 1))
    figures = write_report(tmp_path, found, inputs, quick=True)
    assert {"differences", "equity", "drawdown", "average_weights", "rolling"} <= set(figures)
    assert not [name for name in figures if "/" in name]


def test_an_account_has_one_colour_in_curves_and_distributions(tmp_path, monkeypatch):
    drawn = {}

    def keep(page, name, figure, alternative):
        drawn[name] = figure
        return ""

    monkeypatch.setattr(Page, "draw", keep)
    noise = [np.random.default_rng(k).normal(0, 0.003, K) for k in range(3)]
    accounts = {f"own {k}": account(MARKET + noise[k]) for k in range(3)}
    found = compare(accounts | {"equal_weight": account(MARKET)}, n_resamples=20)
    write_report(tmp_path, found, ReportInputs(title="colours", panel=bars(), rows=(0, K + 1)))
    curves = {line.get_label(): line.get_color() for line in drawn["equity"].axes[0].lines}
    densities = {
        axes.get_title().split(" (")[0]: line.get_color()
        for axes in drawn["distributions"].axes
        for line in axes.lines
        if line.get_label() == "density"
    }
    assert len(densities) == 4
    assert densities == {name: curves[name] for name in densities}


def test_short_and_lonely(tmp_path):
    """Nothing to compare, next to no periods: the page shrinks, and nothing fails."""
    found = compare({"equal_weight": account(MARKET[:4])}, n_resamples=20)
    figures = write_report(tmp_path, found, ReportInputs(title="short", panel=bars(4), rows=(0, 5)))
    assert set(figures) == {
        "equity", "equity_bands", "drawdown", "average_weights", "risk_return",
        "equal_weight/weights", "equal_weight/tear_sheet",
    }  # fmt: skip


def test_everything_ruined(tmp_path):
    broke = account(np.r_[MARKET[:5], np.log(1e-3)])
    found = compare({"own": account(MARKET), "equal_weight": broke}, n_resamples=20)
    figures = write_report(
        tmp_path, found, ReportInputs(title="ruined", panel=bars(), rows=(0, K + 1))
    )
    assert "equity" in figures and "differences" not in figures


def test_a_cell_without_text_stays_empty():
    found = str(table(pd.DataFrame({"p": ["", "0.5"]}, ["equal_weight", ""])))
    assert "<td></td>" in found and '<th scope="col"></th>' in found
    assert '<th scope="row">(empty)</th><td>0.5</td>' in found  # a name is seen in any case


def test_an_interval_may_stand_below_its_estimate_and_is_not_broken_itself():
    cells = ["+1.0 [-7.2, +9.5]", "<b> [0, 1]", 3]
    found = str(table(pd.DataFrame({"p": cells})))
    assert "<td>+1.0<wbr> [-7.2, +9.5]</td>" in found and found.count("<wbr>") == 2
    assert "&lt;b&gt;<wbr> [0, 1]" in found and "<td>3</td>" in found


def test_marks_of_columns_are_not_given_to_rows_of_the_same_name():
    frame = pd.DataFrame({"cash": ["1"], "hrp": ["2"]}, ["cash"])
    assert str(table(frame, {"cash": "#0072b2"})).count("<i ") == 1
    assert str(table(frame.rename(columns={"cash": "p"}), {"cash": "#0072b2"})).count("<i ") == 1


def test_months_are_those_of_the_best_account_that_invested(tmp_path):
    strategies = {"cash": account(0 * MARKET), "own": account(MARKET - 1e-4)}
    found = compare(strategies | {"equal_weight": account(MARKET - 2e-4)}, n_resamples=20)
    title = ReportInputs(title="months", panel=bars(), rows=(0, K + 1))
    write_report(tmp_path, found, title)
    assert "Returns of own in every month" in (tmp_path / "report.html").read_text()
