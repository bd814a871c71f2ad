"""Data that continue those that were learned from are told from data that contradict them."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.panels import panel_of
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.errors import DataError
from portfolio_env.market.lineage import OVERLAP, PriceRecord
from portfolio_env.market.panel import BAR_FIELDS

PANEL = panel_of("D", 140, ragged=False)
OLD = PANEL.subset(slice(0, 130))


def changed(panel, row, column, factor=np.nan):
    """The panel with one close moved, or one bar removed."""
    bars = {name: np.array(getattr(panel, name)) for name in BAR_FIELDS}
    for name, values in bars.items():
        values[row, column] *= factor if name != "volume" or np.isnan(factor) else 1
    return replace(panel, **bars)


def scaled(panel, factors, decimals=None):
    """The panel with rescaled closes alone, as after dividends."""
    close = panel.close * factors
    close = close if decimals is None else np.round(close, decimals)
    return replace(panel, close=close, open=None, high=None, low=None)


def test_further_bars_are_counted():
    record = PriceRecord.of(OLD)
    assert record.changes(OLD) == []
    (told,) = record.changes(PANEL)
    assert told.startswith("The data go on for 10 bars after")


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), st.sampled_from([None, 2, 4, 8]))
def test_rescaled_history_is_the_same(factors, decimals):
    PriceRecord.of(OLD).changes(scaled(PANEL, factors, decimals))


@given(st.integers(1, 128), st.integers(0, 2), st.sampled_from([1.001, 0.5, np.nan]))
def test_another_past_is_refused_with_its_first_bar_and_asset(row, column, factor):
    with pytest.raises(DataError) as caught:
        PriceRecord.of(OLD).changes(changed(PANEL, row, column, factor))
    day = str(PANEL.timestamps[row])[:10]
    assert f"at {day} {PANEL.assets[column]} " in str(caught.value)


def test_a_late_candle_and_other_assets_contradict_nothing():
    record = PriceRecord.of(OLD)
    record.changes(changed(PANEL, -1, 1))
    late = PriceRecord.of(changed(OLD, -1, 1))
    late.changes(PANEL)  # the bar that was late has come
    assert any("Gone from the data: " in line for line in record.changes(PANEL.subset(columns=[0])))
    (new, *_) = PriceRecord.of(OLD.subset(columns=[0, 1])).changes(PANEL)[1:]
    assert new == f"New in the data: {PANEL.assets[2]}."


def test_data_without_enough_in_common_are_refused():
    record = PriceRecord.of(OLD)
    with pytest.raises(DataError, match=r"10 bars in common .* are needed"):
        record.changes(PANEL.subset(slice(120, None)))
    assert record.changes(PANEL.subset(slice(130 - OVERLAP, None)))
    with pytest.raises(DataError, match="before what was learned from"):
        record.changes(OLD.subset(slice(0, 129)))
    other = replace(PANEL, assets=("X", "Y", "Z"))
    with pytest.raises(DataError, match=r"none of the assets .* they have X, Y, Z, and these are "):
        record.changes(other)
