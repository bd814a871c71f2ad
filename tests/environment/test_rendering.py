"""Rendering: what the text says, and that the pixels are there."""

import sys

import numpy as np
import pytest

from portfolio_env.errors import PortfolioError
from portfolio_env.rendering import render_ansi, render_rgb


@pytest.fixture
def account():
    return {
        "assets": ["AAA", "LONGNAME"],
        "timestamp": np.datetime64("2021-05-04T00:00:00", "ns"),
        "values": np.array([10_000.0, 10_500.0, 9_500.0]),
        "weights": np.array([0.2, 0.9, -0.1]),
        "drawdown": 1 - 9_500 / 10_500,
    }


def test_text_shows_date_value_drawdown_and_every_weight(account):
    lines = render_ansi(**account).splitlines()
    assert lines[0] == "2021-05-04  value 9,500.00 (-5.00%)  drawdown 9.52%"
    assert [line.split()[0] for line in lines[1:]] == ["cash", "AAA", "LONGNAME"]
    assert [line.count("#") for line in lines[1:]] == [6, 27, 3]
    assert "-10.00%" in lines[3]


def test_text_shows_the_time_of_intraday_bars(account):
    account["timestamp"] = np.datetime64("2021-05-04T13:30", "ns")
    assert render_ansi(**account).startswith("2021-05-04 13:30  ")


def test_pixels(account):
    first, again = render_rgb(**account), render_rgb(**account)
    assert first.shape == (360, 640, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10  # something is drawn
    assert (first == again).all()
    assert not np.shares_memory(first, again)
    account["values"] = account["values"][:1]  # a reset: one value, nothing to connect
    assert (render_rgb(**account) != first).any()


def test_pixels_without_matplotlib_say_what_to_install(account, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PortfolioError, match=r"portfolio-env\[rl\]"):
        render_rgb(**account)
