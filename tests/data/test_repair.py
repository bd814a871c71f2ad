"""Repairs do what they say, say what they did, and never look ahead."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.data.bars import panel_from_frame, read_frame
from portfolio_env.data.repair import Repair, repair
from portfolio_env.data.reports.quality import quality
from portfolio_env.errors import ArgumentError, DataError

EVERYTHING = {"sort": True, "drop_faulty": True, "drop_duplicates": "first", "drop_jumps": 6.0}


def bars(seed: int = 0, length: int = 120, symbols: str = "ABC") -> pd.DataFrame:
    """Long frame of hourly bars with volume 1, sorted by date and symbol."""
    rng = np.random.default_rng(seed)
    dates = np.datetime64("2021-01-01", "ns") + np.arange(length) * np.timedelta64(1, "h")
    parts = []
    for symbol in symbols:
        close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(length)))
        parts.append(pd.DataFrame({"date": dates, "symbol": symbol, "open": close, "close": close}))
    frame = pd.concat(parts).assign(volume=1.0)
    frame["high"], frame["low"] = frame["close"] * 1.01, frame["close"] * 0.99
    frame = frame[["date", "symbol", "open", "high", "low", "close", "volume"]]
    return frame.sort_values(["date", "symbol"], ignore_index=True)


def spoilt(seed: int) -> pd.DataFrame:
    """Bars with holes for one and for all, a late end, spikes, shifts, duplicates and disorder."""
    rng = np.random.default_rng(seed)
    frame = bars(seed)
    dates = frame["date"].unique()
    gone = frame["date"].isin(rng.choice(dates, 15)) | (rng.random(len(frame)) < 0.1)
    gone |= (frame["symbol"] == "C") & (frame["date"] > dates[100])
    frame = frame[~gone].reset_index(drop=True)
    prices = ["open", "high", "low", "close"]
    for row in rng.choice(len(frame), 4):
        frame.loc[row, prices] *= rng.choice([0.3, 3.0])
    symbol = frame["symbol"] == "A"
    frame.loc[symbol & (frame["date"] >= dates[60]), prices] *= 2
    frame.loc[rng.choice(len(frame), 4), "high"] = 1.0
    frame.loc[rng.choice(len(frame), 2), "low"] = np.nan
    frame = pd.concat([frame, frame.sample(8, random_state=seed)])
    return frame.sample(frac=1.0, random_state=seed).reset_index(drop=True)


@given(
    seed=st.integers(0, 10_000),
    cut=st.floats(0, 1),
    keep=st.sampled_from(["first", "last"]),
    gap=st.integers(0, 4),
    regular=st.booleans(),
    jumps=st.sampled_from([None, 4.0, 8.0]),
)
def test_repairs_never_look_ahead(
    seed: int, cut: float, keep: Any, gap: int, regular: bool, jumps: float | None
) -> None:
    frame = spoilt(seed)
    options = Repair(
        sort=True,
        drop_faulty=True,
        drop_duplicates=keep,
        drop_jumps=jumps,
        fill_gaps=gap,
        spacing="1h" if regular and gap else None,
    )
    whole, _ = repair(frame, options)
    # A bar that is itself dropped leaves no date behind, so the cut is at one that stays.
    dates = np.sort(whole.loc[whole["volume"] > 0, "date"].unique())
    until = dates[int(cut * (len(dates) - 1))]
    part, _ = repair(frame[frame["date"] <= until], options)
    expected = whole[whole["date"] <= until].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected, check_exact=True)


def test_nothing_is_repaired_unless_asked_for() -> None:
    frame = spoilt(3)
    result, record = repair(frame, None)
    pd.testing.assert_frame_equal(result, frame)
    assert record["steps"] == {}
    assert Repair() == Repair.of({})


def test_a_full_repair_gives_a_panel_and_a_record() -> None:
    frame = spoilt(1)
    assert quality(frame).faults
    result, record = repair(frame, EVERYTHING | {"fill_gaps": 2})
    assert not quality(result).faults
    panel = panel_from_frame(result)
    assert panel.close.shape[1] == 3
    json.dumps(record, allow_nan=False)
    assert record["options"]["drop_jumps"] == 6.0
    dropped = sum(s["rows"] for name, s in record["steps"].items() if name.startswith("drop"))
    assert len(result) == len(frame) - dropped + record["steps"]["fill_gaps"]["rows"]
    for step in record["steps"].values():
        assert step["rows"] == sum(symbol["rows"] for symbol in step["symbols"].values())


def test_rows_are_sorted_and_counted() -> None:
    frame = bars(length=5)
    given = frame.iloc[[3, 0, 1, 2, *range(4, 15)]]  # A's second bar comes before its first
    result, record = repair(given, {"sort": True})
    pd.testing.assert_frame_equal(result, frame)
    assert record["steps"]["sort"] == {
        "rows": 1,
        "symbols": {"A": {"rows": 1, "first": "2021-01-01T00:00:00"}},
    }


@pytest.mark.parametrize(("keep", "kept"), [("first", 1.0), ("last", 7.0)])
def test_one_of_several_rows_of_a_date_is_kept(keep: str, kept: float) -> None:
    frame = bars(length=4)
    again = frame.iloc[[4]].assign(volume=7.0)
    result, record = repair(pd.concat([frame, again]), {"drop_duplicates": keep})
    assert len(result) == len(frame)
    at = (result["symbol"] == "B") & (result["date"] == frame["date"][4])
    assert result.loc[at, "volume"].tolist() == [kept]
    assert record["steps"]["drop_duplicates"]["symbols"] == {
        "B": {"rows": 1, "first": "2021-01-01T01:00:00"}
    }


def test_faulty_bars_are_dropped_before_duplicates() -> None:
    frame = bars(length=4)
    wrong = frame.iloc[[4]].assign(high=0.1)
    result, record = repair(
        pd.concat([wrong, frame]), {"drop_faulty": True, "drop_duplicates": "first"}
    )
    pd.testing.assert_frame_equal(result, frame)
    assert record["steps"]["drop_duplicates"]["rows"] == 0


def test_a_spike_is_dropped_and_a_shift_loses_its_first_bar() -> None:
    frame = bars(length=100)
    dates = frame["date"].unique()
    for symbol, rows in (("A", dates[[50]]), ("B", dates[70:]), ("C", dates[10:11])):
        at = (frame["symbol"] == symbol) & frame["date"].isin(rows)
        frame.loc[at, ["open", "high", "low", "close"]] *= 3
    result, record = repair(frame, {"drop_jumps": 10})
    assert record["steps"]["drop_jumps"]["symbols"] == {  # C's comes before its 30th return
        "A": {"rows": 1, "first": "2021-01-03T02:00:00"},
        "B": {"rows": 1, "first": "2021-01-03T22:00:00"},
    }
    assert len(result) == len(frame) - 2


def test_jumps_agree_with_a_walk_over_the_bars() -> None:
    frame = spoilt(5)
    frame, _ = repair(frame, {"sort": True, "drop_faulty": True, "drop_duplicates": "last"})
    result, _ = repair(frame, {"drop_jumps": 4.0})
    expected = []
    for _, one in frame.groupby("symbol"):
        level = np.log(one["close"].to_numpy())
        kept = 0
        for t in range(len(one)):
            if t:
                before = np.abs(np.diff(level[:t]))[-250:]
                limit = 4.0 * 1.4826 * np.median(before) if len(before) >= 30 else np.inf
                if min(abs(level[t] - level[kept]), abs(level[t] - level[t - 1])) > limit:
                    continue
            kept = t
            expected.append(one.index[t])
    assert 0 < len(result) < len(frame)
    pd.testing.assert_frame_equal(result, frame.loc[sorted(expected)].reset_index(drop=True))


def test_gaps_are_filled_flat_without_volume_up_to_the_limit() -> None:
    frame = bars(length=12, symbols="AB")
    dates = frame["date"].unique()
    short = (frame["symbol"] == "A") & frame["date"].isin(dates[[2, 3]])
    long = (frame["symbol"] == "A") & frame["date"].isin(dates[5:9])
    everyone = frame["date"] == dates[10]
    kept = frame[~(short | long | everyone)]
    result, record = repair(kept, {"fill_gaps": 2})
    added = result[result["volume"] == 0]
    assert added["date"].tolist() == [*dates[[2, 3, 5, 6]]]
    assert record["steps"]["fill_gaps"]["symbols"]["A"]["rows"] == 4
    before = frame[(frame["symbol"] == "A") & (frame["date"] == dates[1])]["close"].item()
    for name in ("open", "high", "low", "close"):
        assert added[name].iloc[:2].tolist() == [before, before]
    panel = panel_from_frame(result)
    assert not panel.tradable[[2, 3, 5, 6], 0].any()
    regular, _ = repair(kept, {"fill_gaps": 2, "spacing": "1h"})
    assert (regular["date"] == dates[10]).sum() == 2


def test_irregular_dates_leave_room_for_regular_ones() -> None:
    frame = bars(length=4, symbols="AB")
    late = frame["date"] == frame["date"].iloc[4]
    frame.loc[late, "date"] += np.timedelta64(30, "m")  # 00:00, 01:00, 02:30, 03:00
    result, _ = repair(frame, {"fill_gaps": 3, "spacing": "1h"})
    times = result["date"].dt.strftime("%H:%M").unique().tolist()
    assert times == ["00:00", "01:00", "02:00", "02:30", "03:00"]


def test_an_ended_asset_is_carried_no_further_than_the_limit() -> None:
    frame = bars(length=12)
    dates = frame["date"].unique()
    frame = frame[(frame["symbol"] != "C") | (frame["date"] <= dates[5])]
    result, _ = repair(frame, {"fill_gaps": 3})
    assert result.loc[result["symbol"] == "C", "date"].max() == dates[8]


def test_the_missing_hours_of_real_data_are_filled(shared_data: Path) -> None:
    frame = read_frame(shared_data / "crypto_hourly.csv.gz")
    result, record = repair(frame, {"fill_gaps": 4, "spacing": "1h"})
    assert record["steps"]["fill_gaps"]["rows"] == 12 * 8
    assert quality(result).assets["gaps"].sum() == 0
    three, record = repair(frame, {"fill_gaps": 3, "spacing": "1h"})
    assert record["steps"]["fill_gaps"]["rows"] == 11 * 8  # one outage took four hours
    assert quality(three).assets["missing_regular"].tolist() == [1] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_duplicates": "both"}, "'first', 'last' or None"),
        ({"drop_jumps": 0}, "above 0"),
        ({"fill_gaps": -1}, "fill_gaps=-1 must be an integer of 0 or more"),
        ({"fill_gaps": 1, "spacing": "sometimes"}, "such as '1h'"),
        ({"fill_gaps": 1, "spacing": "-1h"}, "above 0"),
        ({"spacing": "1h"}, "fill_gaps is 0"),
        ({"fil_gaps": 1}, "did you mean fill_gaps"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        repair(bars(length=4), options)


def test_what_a_repair_needs_is_said() -> None:
    frame = bars(length=4)
    with pytest.raises(DataError, match="sort=True"):
        repair(frame.iloc[::-1], {"fill_gaps": 1})
    with pytest.raises(DataError, match="drop_duplicates='first'"):
        repair(pd.concat([frame, frame]), {"drop_jumps": 5})
    with pytest.raises(ArgumentError, match="needs volume"):
        repair(frame.drop(columns="volume"), {"fill_gaps": 1})


def test_a_name_in_place_of_options_is_refused():
    with pytest.raises(ArgumentError, match="repair='ffill' must be a mapping of options"):
        Repair.of("ffill")
