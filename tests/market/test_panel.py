import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from helpers.panels import panel_of

from portfolio_env import ArgumentError, DataError, PricePanel, load_market
from portfolio_env.market.panel import frozen

SECTORS = {"sector": ("Tech", "", "Energy"), "region": ("US", "EU", "US")}


@pytest.fixture
def panel():
    times = np.arange("2020-01-01", "2020-01-06", dtype="M8[D]")
    close = np.arange(1.0, 16).reshape(5, 3)
    return PricePanel(times, ("A", "B", "C"), close=close, categories=SECTORS)


def test_categories_follow_the_assets(panel):
    assert panel.categories == SECTORS
    cut = panel.subset(slice(1, 3), columns=[2, 0])
    assert cut.assets == ("C", "A")
    assert cut.categories == {"sector": ("Energy", "Tech"), "region": ("US", "US")}
    assert panel.subset(slice(1, 3)).categories == SECTORS
    assert PricePanel(panel.timestamps, panel.assets, panel.close).categories == {}


@pytest.mark.parametrize("labels", [(), ("Tech",), ("Tech", "", "Energy", "")])
def test_categories_have_one_label_per_asset(panel, labels):
    with pytest.raises(DataError, match=rf"'sector' has {len(labels)} labels for 3 assets"):
        PricePanel(panel.timestamps, panel.assets, panel.close, categories={"sector": labels})


def test_categories_are_copied_and_texts(panel):
    labels = {"tier": [1, 2, 3]}
    own = PricePanel(panel.timestamps, panel.assets, panel.close, categories=labels)
    labels["tier"][0] = 9
    labels["other"] = [0, 0, 0]
    assert own.categories == {"tier": ("1", "2", "3")}


def test_panels_are_their_own_copies_and_survive_pickling(panel):
    assert copy.copy(panel) is panel is copy.deepcopy(panel)
    again = pickle.loads(pickle.dumps(panel))
    assert again.categories == SECTORS
    with pytest.raises(ValueError, match="read-only"):
        again.close[0, 0] = 2
    with pytest.raises(AttributeError, match="cannot assign"):
        panel.categories = {}


def test_categories_survive_saving_and_count_in_the_hash(panel, tmp_path):
    market = load_market(panel, features=["return_1"])
    market.save(tmp_path / "m.npz")
    assert load_market(tmp_path / "m.npz").panel.categories == SECTORS
    bare = PricePanel(panel.timestamps, panel.assets, panel.close)
    assert load_market(bare, features=["return_1"]).hash != market.hash
    assert market.select(["B", "A"]).panel.categories["region"] == ("EU", "US")


def test_frozen_copies_only_what_others_can_write_to():
    own = np.arange(3.0)
    once = frozen(own, np.float64)
    own[0] = 9
    assert once.tolist() == [0, 1, 2]
    assert frozen(once, np.float64) is once
    assert np.shares_memory(frozen(once[1:], np.float64), once)


@pytest.mark.parametrize("t", [0, 2, 4])
def test_the_past_is_what_the_bars_up_to_then_make(panel, t):
    full = replace(panel, volume=panel.close * (panel.close != 2), exogenous={"x": panel.close})
    past, made = full.past(t), full.subset(slice(0, t + 1))
    assert vars(past).keys() == vars(made).keys()
    for name, value in vars(made).items():
        if name == "exogenous":
            value, own = value["x"], past.exogenous["x"]
        else:
            own = getattr(past, name)
        np.testing.assert_array_equal(own, value)
    assert np.shares_memory(past.close, full.close) and not past.close.flags.writeable


@pytest.mark.parametrize("t", [-1, 5])
def test_the_past_of_no_bar_is_refused(panel, t):
    with pytest.raises(ArgumentError, match=r"give a row in \[0, 4\]"):
        panel.past(t)


@pytest.mark.parametrize("price", [5e-324, 1e-101, 1e101, 1e308])
def test_prices_whose_ratios_leave_float64_are_refused(panel, price):
    close = panel.close.copy()
    close[2, 1] = price
    with pytest.raises(DataError, match=r"close is (above 1e\+100|below 1e-100)"):
        PricePanel(panel.timestamps, panel.assets, close)


def test_no_array_of_a_market_becomes_writable_again():
    """Code of one's own, a reward or a baseline, could change prices for all that come after."""
    market = load_market(panel_of("D", 60))
    for each in (market, pickle.loads(pickle.dumps(market)), market.past(40)):
        panel = each.panel
        for array in (*panel.arrays().values(), panel.timestamps, each.features, panel.close[3:]):
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.setflags(write=True)
    with pytest.raises(ValueError, match="WRITEABLE"):
        market.panel.past(40, copy=True).close.setflags(write=True)
