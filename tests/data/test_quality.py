"""The quality report finds what is there, and nothing else."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import Market, load_market
from portfolio_env.data.bars import panel_from_frame, read_frame
from portfolio_env.data.reports.quality import QualityReport, quality
from portfolio_env.errors import ArgumentError, DataError

DAY = np.timedelta64(1, "D")


def bars(length: int = 60, symbols: str = "AB", seed: int = 0) -> pd.DataFrame:
    """Daily bars, sorted by symbol and date."""
    rng = np.random.default_rng(seed)
    dates = np.datetime64("2021-01-01", "ns") + np.arange(length) * DAY
    parts = []
    for symbol in symbols:
        close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(length)))
        high, low = close * 1.01, close * 0.99
        columns = {"open": close, "high": high, "low": low, "close": close, "volume": 1.0}
        parts.append(pd.DataFrame({"date": dates, "symbol": symbol, **columns}))
    return pd.concat(parts, ignore_index=True)


def slow_counts(frame: pd.DataFrame, symbol: str, stale: int, sigmas: float) -> dict[str, int]:
    """What the table should say of a symbol of daily bars around the clock, in plain Python."""
    rows = [row for row in frame.to_dict("records") if row["symbol"] == symbol]
    days = [row["date"].toordinal() for row in rows]
    first = {row["date"].toordinal(): row for row in reversed(rows)}
    everyone = {row["date"].toordinal() for row in frame.to_dict("records")}
    life = sorted(first)
    gaps = [b - a - 1 for a, b in pairwise(life) if b > a + 1]
    closes = [first[day]["close"] for day in life]
    runs, run = [], 1
    for a, b in pairwise(closes):
        if a == b:
            run += 1
        else:
            runs.append(run)
            run = 1
    runs.append(run)
    moves = [np.log(b / a) for a, b in pairwise(closes)]
    middle = np.median(moves)
    off = [abs(move - middle) for move in moves]
    scale = 1.4826 * np.median(off) or 1.2533 * np.mean(off)
    return {
        "rows": len(rows),
        "duplicates": len(rows) - len(first),
        "disorder": sum(b < a for a, b in pairwise(days)),
        "gaps": len(gaps),
        "missing_regular": sum(gaps),
        "missing_bars": len([d for d in everyone if life[0] < d < life[-1] and d not in first]),
        "longest_gap": max(gaps, default=0),
        "zero_volume": sum(first[day]["volume"] == 0 for day in life),
        "stale_runs": sum(run > stale for run in runs),
        "longest_stale": max((run for run in runs if run > stale), default=0),
        "jumps": sum(distance > sigmas * scale for distance in off),
    }


@given(seed=st.integers(0, 100_000), stale=st.integers(1, 4), sigmas=st.floats(1, 8))
def test_counts_agree_with_plain_python(seed: int, stale: int, sigmas: float) -> None:
    rng = np.random.default_rng(seed)
    frame = bars(seed=seed)
    keep = rng.random(len(frame)) > 0.08
    keep[[0, 30]] = True
    frame = frame[keep].reset_index(drop=True)
    flat = np.flatnonzero(rng.random(len(frame) - 1) < 0.3)
    for row in flat:
        frame.loc[row + 1, "close"] = frame.loc[row, "close"]
    frame.loc[rng.choice(len(frame), 3), "volume"] = 0
    frame = pd.concat([frame, frame.sample(4, random_state=seed)], ignore_index=True)
    swap = rng.choice(len(frame), 4, replace=False)
    frame.iloc[swap] = frame.iloc[np.roll(swap, 1)].to_numpy()
    frame["date"] = frame["date"].astype("datetime64[ns]")
    frame[["close", "volume"]] = frame[["close", "volume"]].astype(float)
    table = quality(frame, stale_bars=stale, jump_sigmas=sigmas).assets
    for symbol in ("A", "B"):
        expected = slow_counts(frame, symbol, stale, sigmas)
        assert {name: int(table.loc[symbol, name]) for name in expected} == expected


def test_clean_bars_have_no_findings() -> None:
    report = quality(bars())
    assert report.findings == ()
    assert report.check(refuse=("gaps", "jumps")) is report
    assert "no faults, no warnings" in str(report)
    assert report.overall["common_bars"] == 60


@pytest.mark.parametrize(
    ("row", "change", "kind"),
    [
        (3, {"close": np.nan}, "missing"),
        (3, {"volume": np.nan}, "missing"),
        (3, {"open": np.nan, "high": np.nan, "low": np.nan, "close": np.nan, "volume": np.nan},
         "missing"),
        (3, {"low": -1.0}, "non_positive"),
        (3, {"close": 0.0, "low": 0.0}, "non_positive"),
        (3, {"high": 1.0}, "impossible"),
        (3, {"volume": -1.0}, "impossible"),
        (3, {"open": np.inf, "high": np.inf}, "impossible"),
        (3, {"date": np.datetime64("2020-01-01")}, "disorder"),
        (3, {"date": np.datetime64("2021-01-03")}, "duplicates"),
    ],
)  # fmt: skip
def test_each_fault_is_found_where_the_panel_refuses_it(
    row: int, change: dict[str, Any], kind: str
) -> None:
    frame = bars()
    for name, value in change.items():
        frame.loc[row, name] = value
    if kind == "disorder" or len(change) == 5:  # which loading sorts, and leaves out
        assert panel_from_frame(frame).provenance["notes"]
    else:
        with pytest.raises(DataError):
            panel_from_frame(frame)
    report = quality(frame)
    assert [(fault.kind, fault.symbol, fault.count) for fault in report.faults] == [(kind, "A", 1)]
    assert report.faults[0].first == str(frame["date"][row].to_datetime64())[:19]
    assert report.assets.loc["A", kind] == 1
    assert report.assets.loc["B", kind] == 0
    with pytest.raises(DataError, match=f"A: {kind.replace('_', '-')}"):
        report.check()


def test_warnings_can_be_refused() -> None:
    frame = bars().drop(index=[10, 11])
    report = quality(frame)
    assert report.check() is report
    with pytest.raises(
        DataError, match="A: gaps: 1, 2 bars missing in all, at most 2 after 2021-01-10"
    ):
        report.check(refuse=["gaps"])
    with pytest.raises(ArgumentError, match="did you mean jumps"):
        report.check(refuse=["jump"])


def test_a_panel_a_market_and_a_frame_give_the_same_report(market: Market) -> None:
    by_market, by_panel = quality(market), quality(market.panel)
    pd.testing.assert_frame_equal(by_market.assets, by_panel.assets)
    assert by_market.overall["periods_per_year"] == market.periods_per_year
    assert quality(market, periods_per_year=52).overall["periods_per_year"] == 52
    by_name = quality("synthetic?seed=1&bars=300&assets=4&ragged=true")
    pd.testing.assert_frame_equal(by_name.assets, by_panel.assets)
    life = np.isfinite(market.close)
    assert by_market.assets["rows"].tolist() == life.sum(axis=0).tolist()
    assert by_market.overall["common_bars"] == life.all(axis=1).sum()


def test_closes_alone_are_enough(tmp_path: Path) -> None:
    report = quality(bars()[["date", "symbol", "close"]])
    assert report.findings == ()
    report.plot(tmp_path / "picture.png")
    assert report.assets["zero_volume"].tolist() == [0, 0]


def test_a_calm_series_still_has_a_scale_for_its_jumps() -> None:
    """More than half of a stablecoin's returns are 0, and so is their median deviation."""
    frame = bars()
    frame.loc[frame["symbol"] == "A", "close"] = 100.0
    frame.loc[20, "close"] = 100.5
    jumps = quality(frame, stale_bars=60).jumps
    assert jumps["symbol"].tolist() == ["A", "A"]
    assert jumps["log_return"].tolist() == pytest.approx([np.log(1.005), -np.log(1.005)])


def test_the_json_is_strict_and_complete(tmp_path: Path) -> None:
    frame = bars()
    frame.loc[5:15, "close"] = 100.0
    frame.loc[7, "close"] = np.nan
    frame.loc[[20, 21], "volume"] = 0
    frame.loc[30, "close"] *= 1.5
    report = quality(frame.drop(index=[40, 41, 119]))
    report.save(tmp_path / "deep" / "report.json")

    def refuse(text: str) -> None:
        raise AssertionError(text)

    saved = json.loads((tmp_path / "deep" / "report.json").read_text(), parse_constant=refuse)
    del saved["sha256"]
    assert saved == report.to_dict()
    assert saved["assets"]["A"]["gaps"] == 1
    assert saved["gaps"][0] == {
        "symbol": "A",
        "after": "2021-02-09T00:00:00",
        "before": "2021-02-12T00:00:00",
        "missing_bars": 2,
        "missing_regular": 2,
        "bars": 2,
    }
    assert {finding["kind"] for finding in saved["faults"]} == {"missing", "impossible"}
    kinds = {finding["kind"] for finding in saved["warnings"]}
    assert kinds == {"gaps", "zero_volume", "stale", "jumps", "splits", "ends_early"}


def test_the_picture_marks_every_kind(tmp_path: Path) -> None:
    from portfolio_env.data.reports.quality import availability

    frame = bars()
    frame.loc[5:15, "close"] = 100.0
    frame.loc[[20, 21], "volume"] = 0
    frame.loc[30, "close"] *= 1.5
    report = quality(frame.drop(index=[40, 41]))
    labels = availability(report).axes[0].get_legend_handles_labels()[1]
    expected = {"bars", "gaps (1)", "stale runs (1)", "bars without volume (2)", "jumps (2)"}
    assert set(labels) == expected
    report.plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="jump_sigmas=0"):
        quality(bars(), jump_sigmas=0)
    with pytest.raises(DataError, match="no rows"):
        quality(bars().iloc[:0])
    with pytest.raises(DataError, match="lacks the columns"):
        quality(bars().drop(columns="close"))
    with pytest.raises(ArgumentError, match="not a source of bars"):
        quality(3)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ArgumentError, match="nothing"):
        quality(tmp_path / "nothing")


@pytest.fixture(scope="module")
def real(shared_data: Path) -> dict[str, QualityReport]:
    names = ("crypto_daily", "crypto_hourly", "us_equities_daily")
    return {name: quality(shared_data / f"{name}.csv.gz") for name in names}


def test_real_crypto_daily(real: dict[str, QualityReport]) -> None:
    report = real["crypto_daily"]
    table = report.assets
    assert report.faults == ()
    assert table[["gaps", "zero_volume", "stale_runs"]].to_numpy().sum() == 0
    assert table["rows"].sum() == 40_058
    assert table.loc["SOLUSDT", "first"] == pd.Timestamp("2020-08-11")
    ended = table.loc[table["ends_early"], "last"].to_dict()
    assert ended == {
        "MATICUSDT": pd.Timestamp("2024-09-10"),
        "XMRUSDT": pd.Timestamp("2024-02-20"),
    }
    jumps = report.jumps.set_index(["symbol", "date"])["log_return"]
    for symbol, date, size in (
        ("DOGEUSDT", "2021-01-28", 1.594),
        ("SOLUSDT", "2022-11-09", np.log(1 - 0.42)),
        ("XRPUSDT", "2023-07-13", np.log(1.73)),
        ("TRXUSDT", "2024-12-03", np.log(1.96)),
        ("BTCUSDT", "2020-03-12", np.log(1 - 0.395)),
        ("ETHUSDT", "2020-03-12", np.log(1 - 0.446)),
    ):
        assert jumps[symbol, pd.Timestamp(date)] == pytest.approx(size, abs=0.01)
    assert table.loc["BTCUSDT", "last_price"] == 93_576.00
    overall = report.overall
    assert overall["periods_per_year"] == 365
    assert overall["calendar"] == "round the clock"
    assert (overall["common_first"][:10], overall["common_last"][:10]) == (
        "2021-05-10",
        "2024-02-20",
    )


def test_real_crypto_daily_survivors_share_1332_days(shared_data: Path) -> None:
    frame = read_frame(shared_data / "crypto_daily.csv.gz")
    overall = quality(frame[~frame["symbol"].isin(["XMRUSDT", "MATICUSDT"])]).overall
    assert (overall["common_first"], overall["common_bars"]) == ("2021-05-10T00:00:00", 1332)


def test_real_crypto_hourly(real: dict[str, QualityReport]) -> None:
    report = real["crypto_hourly"]
    assert report.faults == ()
    outages = {
        ("2021-04-20T01", "2021-04-20T04", 2),
        ("2021-04-25T04", "2021-04-25T08", 3),
        ("2021-08-13T01", "2021-08-13T06", 4),
        ("2021-09-29T06", "2021-09-29T09", 2),
        ("2023-03-24T12", "2023-03-24T14", 1),
    }
    assert len(report.gaps) == 5 * 8
    for _, gaps in report.gaps.groupby("symbol"):
        hours = [gaps[name].dt.strftime("%Y-%m-%dT%H") for name in ("after", "before")]
        found = set(zip(*hours, gaps["bars"].tolist(), strict=True))
        assert found == outages
    assert report.assets["missing_regular"].tolist() == [12] * 8
    assert report.assets["missing_bars"].tolist() == [0] * 8
    idle = report.zero_volume
    assert sorted(idle["symbol"]) == sorted(report.assets.index)
    assert set(idle["date"]) == {pd.Timestamp("2023-03-24T12:00")}
    assert report.assets["stale_runs"].sum() == 0
    worst = report.jumps.loc[report.jumps["log_return"].idxmin()]
    assert (worst["symbol"], worst["date"]) == ("LTCUSDT", pd.Timestamp("2021-05-19T12:00"))
    assert report.overall["periods_per_year"] == 8760


def test_real_equities(real: dict[str, QualityReport]) -> None:
    report = real["us_equities_daily"]
    table = report.assets
    assert report.faults == ()
    assert table[["gaps", "zero_volume", "stale_runs"]].to_numpy().sum() == 0
    assert table.index[table["ends_early"]].tolist() == ["WAMU"]
    assert table.loc["WAMU", "last"] == pd.Timestamp("2008-09-26")
    assert table.loc["WAMU", "largest_jump"] == pytest.approx(-2.404, abs=1e-3)
    assert table.loc["META", "first"] == pd.Timestamp("2012-05-18")
    assert "missing_regular" not in table  # the market closes: weekends are no gaps
    jumps = report.jumps.set_index(["symbol", "date"])["log_return"]
    for symbol, date, size in (
        ("AIG", "2008-09-15", -0.936),
        ("C", "2009-02-27", -0.495),
        ("META", "2022-02-03", -0.306),
        ("COP", "2020-03-09", -0.286),
        ("SPG", "2020-03-16", -0.311),
    ):
        assert jumps[symbol, pd.Timestamp(date)] == pytest.approx(size, abs=1e-3)
    overall = report.overall
    assert (overall["periods_per_year"], overall["common_bars"]) == (252, 0)
    assert overall["common_first"] is None
    assert "WAMU: ends early: no bar after 2008-09-26" in str(report)


def test_named_markets_are_looked_at() -> None:
    panel = load_market("sp500").panel
    assert quality("sp500").overall["assets"] == len(panel.assets)
