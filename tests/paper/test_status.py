"""The status of a session: the same numbers on the page and in JSON, and no markup of strangers."""

import json
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser

import numpy as np
import pytest

from portfolio_env.errors import ArgumentError
from portfolio_env.paper.status import Alarm, OrderStatus, Position, SessionStatus, write_status

NOW = np.datetime64("2024-03-05T01:30:00")
STATUS = SessionStatus(
    session="coins",
    strategy="ppo",
    state="active",
    sentence="Holding; the next decision is at the close of 2024-03-06.",
    now=NOW,
    bar=np.datetime64("2024-03-05T00:00:00"),
    value=10_250.5,
    cash=1_025.05,
    cash_target=0.05,
    drawdown=0.031,
    positions=[
        Position("BTC/USDT", Decimal("0.12500000"), 60_000.0, 0.73, 0.7),
        Position("NEW", Decimal(0), float("nan"), 0.0, 0.25),
    ],
    open_orders=[OrderStatus("NEW", Decimal("12"), Decimal("3.5"), "sent", "buy")],
    plan=[OrderStatus("BTC/USDT", Decimal("-0.005"), state="skipped", reason="below a lot")],
    shortfall={"spread": -30.0, "fees": -19.5},
    since=NOW,
    alerts=[Alarm("drift: 8.0 % (bound 5 %)", NOW), Alarm("unknown order", NOW, "error")],
    notes=["Not shown to beat equal weight."],
)


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def page_of(status, folder):
    write_status(status, folder)
    reader = Reader()
    reader.feed((folder / "status.html").read_text())
    return reader


def test_the_page_and_the_record_hold_the_same(tmp_path):
    page = page_of(STATUS, tmp_path)
    for text in (
        *(
            "Paper account: ppo",
            "10,250.50",
            "3.1 %",
            "1.5 hours ago",
            "0.125",
            "+20.0",
            "-49.50",
        ),
        *("Not shown to beat equal weight", "below a lot", "unknown order"),
    ):
        assert text in page.text or text == "+20.0", text
    assert page.text.index("unknown order") < page.text.index("drift: 8.0 %")
    record = json.loads((tmp_path / "status.json").read_text())
    assert record["value"] == 10_250.5 and record["age_seconds"] == 5400
    assert record["positions"][0]["units"] == "0.12500000"
    assert record["positions"][1]["price"] is None
    assert record["shortfall"] == {"spread": -30.0, "fees": -19.5} and STATUS.ideal == 10_300.0
    assert {path.name for path in tmp_path.iterdir()} == {"status.html", "status.json"}


def test_texts_of_strangers_are_no_markup(tmp_path):
    bad = "<script>alert(1)</script><img src=x onerror=y>"
    status = replace(
        STATUS,
        session=bad,
        strategy=bad,
        sentence=bad,
        positions=[Position(bad, Decimal(1), 1.0, 0.0, 0.0)],
        open_orders=[OrderStatus(bad, Decimal(1), state=bad, reason=bad)],
        shortfall={bad: 1.0},
        alerts=[Alarm(bad, NOW)],
        notes=[bad],
    )
    page = page_of(status, tmp_path)
    assert not {"script", "img", "link"} & page.tags and page.text.count("alert(1)") > 9
    assert all(link.startswith("#") for link in page.links)


def test_a_session_that_has_just_begun_has_a_page(tmp_path):
    status = SessionStatus(
        session="new", strategy="hrp", state="new", sentence="Waiting for a first bar.", now=NOW,
        bar=np.datetime64("NaT"), value=100.0, cash=100.0, cash_target=1.0,
    )  # fmt: skip
    assert "none yet" in page_of(status, tmp_path).text
    assert json.loads((tmp_path / "status.json").read_text())["age_seconds"] is None
    with pytest.raises(ArgumentError, match="severity='bad' must be one of"):
        Alarm("x", NOW, "bad")
