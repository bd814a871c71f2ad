"""What markets and panels say of themselves, and why an asset cannot be traded."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from portfolio_env import ArgumentError, load_market
from portfolio_env.market.panel import PricePanel

DAYS = pd.bdate_range("2024-01-01", periods=10)
CLOSE = np.full((10, 4), 10.0)
CLOSE[:3, 1] = np.nan  # listed on the fourth day
CLOSE[7:, 2] = np.nan  # delisted after the seventh
CLOSE[4:6, 3] = np.nan  # halted
VOLUME = np.where(np.isnan(CLOSE), np.nan, 5.0)
VOLUME[8, 0] = 0.0
PANEL = PricePanel(DAYS.to_numpy(), ("OLD", "NEW", "GONE", "<HALT>"), CLOSE, volume=VOLUME)
MARKET = load_market(PANEL, features=["return_1", "known"])


def test_dots_stand_for_two_assets_or_more():
    assert repr(MARKET).startswith("Market(4 assets OLD, NEW, GONE, <HALT>; 10 bars")
    five = load_market("synthetic?bars=60&assets=5", features="none")
    assert "5 assets A00, A01, A02, ...;" in repr(five)


@pytest.mark.parametrize(
    ("asset", "when", "says"),
    [
        ("OLD", 0, "OLD can be traded at 2024-01-01 (bar 0)."),
        ("NEW", 0, "not listed yet; its first bar is 2024-01-04."),
        ("NEW", "2024-01-04", "NEW can be traded at 2024-01-04 (bar 3)."),
        ("GONE", -1, "it was delisted; its last bar was 2024-01-09"),
        ("<HALT>", 5, "the bar before is 2024-01-04, the next is 2024-01-09."),
        ("OLD", "2024-01-11", "its volume is 0: nothing was traded."),
        ("OLD", "2024-01-06", "at 2024-01-08 (bar 5)"),  # a Saturday
    ],
)
def test_status_says_why(asset, when, says):
    assert says in MARKET.status(asset, when)
    assert MARKET.status(asset, when) == PANEL.status(asset, when)


def test_status_agrees_with_the_mask_everywhere():
    for row in range(10):
        for column, asset in enumerate(MARKET.assets):
            can = f"{asset} can be traded" in MARKET.status(asset, row)
            assert can == MARKET.tradable[row, column]


@pytest.mark.parametrize(
    ("asset", "when", "message"),
    [("NEU", 0, "did you mean NEW"), ("OLD", 10, "end of the bars"), ("OLD", "soon", "not a date")],
)
def test_status_of_nothing_is_an_error(asset, when, message):
    with pytest.raises(ArgumentError, match=message):
        MARKET.status(asset, when)


def test_a_market_without_bars_of_an_asset_says_so():
    close = CLOSE.copy()
    close[:, 1] = np.nan
    panel = PricePanel(DAYS.to_numpy(), PANEL.assets, close)
    assert panel.status("NEW", 3).endswith("it has no bar at all.")
    assert "none" in panel._repr_html_()


def test_a_frame_gives_the_market_back():
    frame = MARKET.to_frame()
    assert list(frame) == ["date", "symbol", "close", "volume", "tradable", "return_1", "known"]
    assert len(frame) == np.isfinite(CLOSE).sum()
    again = load_market(frame, features=["return_1", "known"]).select(MARKET.assets)
    assert np.array_equal(again.close, MARKET.close, equal_nan=True)
    assert np.array_equal(again.volume, MARKET.volume, equal_nan=True)
    row = frame[(frame["symbol"] == "OLD") & (frame["date"] == DAYS[8])].iloc[0]
    assert not row["tradable"] and row["known"] == MARKET.features[8, 0, 1]
    assert list(PANEL.to_frame()) == ["date", "symbol", "close", "volume"]


def test_one_column_is_a_wide_frame():
    frame = MARKET.to_frame()
    for column in ("close", "tradable", "known"):
        wide = MARKET.to_frame(column)
        assert list(wide) == list(MARKET.assets) and wide.index.equals(pd.DatetimeIndex(DAYS))
        for date, symbol, value in frame[["date", "symbol", column]].to_numpy():
            assert wide.at[date, symbol] == value
    assert wide.index.name == "date"
    with pytest.raises(ArgumentError, match="unknown column 'clsoe': did you mean close"):
        MARKET.to_frame("clsoe")
    with pytest.raises(ArgumentError, match="unknown field 'open'"):
        PANEL.to_frame("open")


def test_panels_and_markets_introduce_themselves_in_a_line():
    text = "4 assets OLD, NEW, GONE, <HALT>; 10 bars from 2024-01-01 to 2024-01-12"
    assert repr(PANEL) == f"PricePanel({text}; close, volume)"
    assert repr(MARKET).startswith(f"Market({text}; 2 features; ")
    alone = PANEL.subset(columns=[0])
    assert repr(alone).startswith("PricePanel(1 asset OLD; 10 bars")


def test_cards_are_short_and_safe():
    page = MARKET._repr_html_()
    assert "&lt;HALT&gt;" in page and "<HALT>" not in page
    assert "2: return_1, known" in page
    assert "20.0%" in page and "22.5%" in page  # 8 of 40 bars are missing, 1 had no volume
    many = load_market("synthetic?bars=60&assets=40")._repr_html_()
    assert "and 30 more" in many and len(many) < 6_000
    strange = replace(PANEL, assets=("\x1b[31m", "b", "c", "d"))
    assert "\x1b" not in repr(strange) + strange._repr_html_()
