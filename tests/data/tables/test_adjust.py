"""Adjusted prices, splits and dividends, and highs that miss a close by rounding."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, PricePanel, load_market
from portfolio_env.data.adjust import split_like
from portfolio_env.data.bars import read_panel
from portfolio_env.data.cli import Convert
from portfolio_env.data.load import load_panel
from portfolio_env.data.opening import resolved

DAYS = pd.bdate_range("2024-01-02", periods=12)


def raw_market(seed, ratio, at):
    """What an asset was worth, and its quoted bars with a split: prices before it are larger."""
    rng = np.random.default_rng(seed)
    worth = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, len(DAYS))))
    units = np.where(np.arange(len(DAYS)) < at, ratio, 1.0)
    close = worth * units
    frame = pd.DataFrame({"date": DAYS, "symbol": "A", "open": close, "high": close * 1.01})
    frame = frame.assign(low=close * 0.99, close=close, volume=1000 / units)
    split = np.where(np.arange(len(DAYS)) == at, ratio, 0.0)
    return worth, frame, split


@given(st.integers(0, 999), st.sampled_from([2.0, 3.0, 4.0, 10.0, 0.1]), st.integers(1, 11))
def test_an_adjusted_close_and_splits_give_what_the_asset_was_worth(seed, ratio, at):
    worth, frame, split = raw_market(seed, ratio, at)
    returns = worth[1:] / worth[:-1]
    assert split_like(frame)[["symbol", "ratio"]].to_numpy().tolist() == [
        ["A", pytest.approx(ratio)]
    ]
    for given_, done in (({"adj_close": worth / 7}, "all"), ({"split": split}, "splits")):
        panel = load_panel(frame.assign(**given_))
        np.testing.assert_allclose(panel.close[1:, 0] / panel.close[:-1, 0], returns)
        np.testing.assert_allclose(panel.high / panel.close, 1.01)
        money = frame["close"] * frame["volume"]
        np.testing.assert_allclose((panel.close * panel.volume)[:, 0], money)
        assert panel.provenance["adjust"] == done
        raw = load_panel(frame.assign(**given_), adjust="none")
        np.testing.assert_array_equal(raw.close[:, 0], frame["close"])
        assert raw.provenance["adjust"] == "none"
    assert load_panel(frame.assign(adj_close=worth)).close[:, 0].tolist() == worth.tolist()
    told = load_panel(frame).provenance["notes"]
    assert "look like splits: A on" in told[-1]


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([np.nan, 10.0, 20.0, 30.0]))))
def test_jumps_are_from_the_last_close_of_the_same_asset(rows):
    frame = pd.DataFrame(rows, columns=["symbol", "close"])
    frame = frame.assign(date=pd.date_range("2024", periods=len(frame)))
    before = frame.groupby("symbol")["close"].transform(lambda own: own.ffill().shift())
    ratio = (before / frame["close"]).astype(float)
    expected = ratio[ratio.isin([2.0, 3.0, 1.5, 0.5, 1 / 3, 2 / 3])]
    found = split_like(frame).set_index("date")["ratio"].sort_index()
    np.testing.assert_allclose(found, expected)
    assert list(found.index) == list(frame["date"][expected.index])


def test_splits_that_prices_do_not_show_were_adjusted_before():
    worth, frame, split = raw_market(0, 4.0, 6)
    quoted = frame.assign(open=worth, high=worth, low=worth, close=worth, split=split)
    np.testing.assert_array_equal(load_panel(quoted).close[:, 0], worth)
    np.testing.assert_array_equal(load_panel(quoted, adjust="splits").close[:, 0], worth)


def test_dividends_are_added_when_asked_for():
    close = np.array([100.0, 100, 95, 95])
    frame = pd.DataFrame({"date": DAYS[:4], "symbol": "A", "close": close})
    frame["Dividends"] = [0.0, 0, 5, 0]
    assert load_panel(frame).close[:, 0].tolist() == close.tolist()
    assert "dividends are not added" in load_panel(frame).provenance["notes"][-1]
    np.testing.assert_allclose(load_panel(frame, adjust="all").close[:, 0], [95, 95, 95, 95])


def test_adjustments_that_cannot_be_made_are_refused():
    _, frame, _ = raw_market(0, 4.0, 6)
    for adjust in ("all", "splits"):
        with pytest.raises(DataError, match="neither an adjusted close nor splits"):
            load_panel(frame, adjust=adjust)
    with pytest.raises(ArgumentError, match="adjust='some' must be one of auto"):
        load_panel(frame, adjust="some")
    with pytest.raises(ArgumentError, match="adjust is for files"):
        load_market("synthetic", adjust="all")
    with pytest.raises(DataError, match=r"row 3: the adjusted close is not positive; .*'none'"):
        load_panel(frame.assign(adj_close=np.where(np.arange(12) == 2, -1.0, 1.0)))


@given(st.floats(1e-6, 1e6), st.floats(-0.9e-9, 0.9e-9))
def test_rounding_is_mended_and_noted_for_all_sources(price, error):
    close = np.array([[price], [price]])
    high = close * (1 + np.array([[error], [0.01]]))
    low = np.minimum(high, close) * 0.9
    frame = pd.DataFrame({"date": DAYS[:2], "symbol": "A", "close": close[:, 0]})
    frame = frame.assign(high=high[:, 0], low=low[:, 0])
    panel = read_panel(frame)
    direct = PricePanel(DAYS[:2].to_numpy("M8[ns]"), ("A",), close, high=high, low=low)
    for made in (panel, direct):
        assert (made.high >= made.close).all()
        np.testing.assert_allclose(made.high, high, rtol=1e-9)
    if high[0, 0] < price:
        assert "by rounding" in panel.provenance["notes"][0]
    with pytest.raises(DataError, match=r"close is above high; .*drop_faulty"):
        read_panel(frame.assign(high=frame["close"] * (1 - 2e-9), low=frame["close"] * 0.9))


def test_one_bad_candle_does_not_shut_a_store(tmp_path):
    from portfolio_env.data.downloads.store import Series, write_series

    times = np.arange(5) * 86_400_000
    bars = np.tile([2.0, 3.0, 1.0, 2.0, 10.0], (5, 1))
    bad = bars.copy()
    bad[2, 1] = 0.5  # a high below the low
    for name, own in (("A/USD", bars), ("B/USD", bad)):
        write_series(tmp_path, Series("x", name, "1d", times, own, ((0, 10**9),)))
    panel = read_panel(tmp_path / "x" / "1d")
    assert np.isnan(panel.close).tolist() == [[False, at == 2] for at in range(5)]
    assert "B-USD.parquet: 1 bars that cannot be true are left out" in panel.provenance["notes"][0]


SPLIT_DAY = str(DAYS[6].date())


@given(st.integers(0, 999), st.sampled_from([2.0, 3.0, 10.0, 0.1]), st.integers(1, 11))
def test_a_table_of_splits_is_as_good_as_a_column(seed, ratio, at):
    _, frame, split = raw_market(seed, ratio, at)
    column = load_panel(frame.assign(split=split))
    table = pd.DataFrame({"date": [DAYS[at]], "ticker": ["A"], "ratio": 1, "split_ratio": [ratio]})
    for actions in (table, [table], {"A": table.drop(columns="ticker")}):
        panel = load_panel(frame, actions=actions)
        for name in ("open", "high", "low", "close", "volume"):
            np.testing.assert_array_equal(getattr(panel, name), getattr(column, name))
        assert panel.provenance["adjust"] == "splits"


def actions_of(**columns):
    return pd.DataFrame({"date": DAYS[2], "symbol": "A"} | columns, index=range(1))


def test_dividends_and_splits_of_a_table_by_hand():
    # 100, 100, then a split 2:1 and 5 in cash for each old share: 47.5; then it stands still
    closes = pd.DataFrame({"A": [100.0, 100, 47.5, 47.5], "B": [1.0, 2, 3, 4]}, DAYS[:4])
    panel = load_panel(closes, actions=actions_of(split=2.0, dividend=5.0), adjust="all")
    assert panel.assets == ("A", "B")
    np.testing.assert_allclose(panel.close[:, 0], 47.5)
    np.testing.assert_array_equal(panel.close[:, 1], closes["B"])
    assert panel.provenance["adjust"] == "all"
    only_splits = load_panel(closes, actions=actions_of(split=2.0, dividend=5.0), adjust="splits")
    np.testing.assert_allclose(only_splits.close[:, 0], [50, 50, 47.5, 47.5])


def test_a_day_without_a_bar_counts_at_the_next_and_a_later_dividend_is_of_the_new_shares():
    days = pd.to_datetime(["2024-01-04", "2024-01-05", "2024-01-08"])
    closes = pd.DataFrame({"A": [100.0, 100.0, 48.0]}, days)
    weekend = pd.DataFrame(
        {"date": ["2024-01-06", "2024-01-07"], "symbol": "A", "split": [2, 0], "dividend": [0, 2]}
    )
    panel = load_panel(closes, actions=weekend, adjust="all")
    np.testing.assert_allclose(panel.close[:, 0], 48.0)  # 100 = 2 x (48 + 2)


def test_events_outside_of_the_bars_and_of_other_assets_change_nothing():
    closes = pd.DataFrame({"A": [100.0, 101, 99]}, DAYS[:3])
    rows = {"date": [DAYS[0], "2020-01-01", DAYS[8], DAYS[1]], "symbol": ["A", "A", "A", "Z"]}
    table = pd.DataFrame(rows | {"split": 2.0, "dividend": 1.0})
    table["date"] = pd.to_datetime(table["date"])
    np.testing.assert_array_equal(load_panel(closes, actions=table, adjust="all").close, closes)


def test_actions_as_yfinance_gives_them_and_files(write, tmp_path):
    _, frame, split = raw_market(1, 4.0, 6)
    own = pd.DataFrame(
        {"Dividends": [0.0], "Stock Splits": [4.0]}, DAYS[6:7].tz_localize("America/New_York")
    )
    expected = load_panel(frame.assign(split=split)).close
    np.testing.assert_array_equal(
        load_panel(frame, actions={"A": own.rename_axis("Date")}).close, expected
    )
    path = write("Date,Ticker,Stock Splits,Dividends", f"{SPLIT_DAY},A,4,")
    np.testing.assert_array_equal(load_panel(frame, actions=path).close, expected)
    source = tmp_path / "quotes.csv"
    frame.to_csv(source, index=False)
    out = tmp_path / "out.npz"
    assert Convert(str(source), out, adjust="splits", actions=path).run() == 0
    np.testing.assert_allclose(load_market(out).close, expected, rtol=1e-14)
    np.testing.assert_allclose(
        resolved(source, "splits", path)["close"], expected[:, 0], rtol=1e-14
    )


@pytest.mark.parametrize(
    ("table", "options", "text"),
    [
        (actions_of(split=-2.0), {}, "row 1: split is negative: '-2.0'; correct it"),
        (actions_of(split=np.inf), {}, "row 1: split is infinite: 'inf'; correct it"),
        (actions_of(split="4:1"), {}, "row 1: split is not a number: '4:1'"),
        (actions_of(factor=2.0), {}, r"lacks the columns \['split', 'dividend'\]"),
        (actions_of(split=2.0).drop(columns="symbol"), {}, r"lacks the columns \['symbol'\]"),
        (actions_of(split=2.0), {"adjust": "none"}, "adjust='none' takes no actions"),
        (3, {}, "actions=int must be a file or a frame"),
    ],
)
def test_actions_that_say_nothing_clear_are_refused(table, options, text):
    _, frame, _ = raw_market(0, 4.0, 6)
    with pytest.raises((ArgumentError, DataError), match=text):
        load_panel(frame, actions=table, **options)


@given(
    st.sampled_from([2.0, 3.0, 0.1]),
    st.floats(0, 0.5),
    st.sets(st.integers(0, 5), max_size=3),
    st.booleans(),
)
def test_lost_closes_around_an_event_lose_no_event(ratio, paid, lost, apart):
    """Of a share worth 50 in the end; its split and dividend are one row or two, in any order."""
    units = np.where(np.arange(7) < 3, ratio, 1.0)
    close = 50 * units / np.where(np.arange(7) < 3, 1 - paid, 1.0)
    cash = close[0] * paid
    expected = np.full(7, 50.0)
    gone = [row for row in lost if row not in (0, 6)]
    close[gone] = expected[gone] = np.nan
    rows = [(0, cash), (ratio, 0)] if apart else [(ratio, cash)]
    closes = pd.DataFrame({"A": close, "B": np.arange(1.0, 8)}, DAYS[:7])
    for order in (rows, rows[::-1]):
        table = pd.DataFrame(order, columns=["split", "dividend"]).assign(date=DAYS[3], symbol="A")
        panel = load_panel(closes, actions=table, adjust="all")
        np.testing.assert_allclose(panel.close[:, 0], expected)


def test_a_lost_close_hides_no_jump_and_a_dividend_after_it_is_of_the_new_shares():
    closes = pd.DataFrame({"A": [100.0, np.nan, 45, 45], "B": [1.0, 2, 3, 4]}, DAYS[:4])
    told = load_panel(closes.assign(A=[100.0, np.nan, 50, 50])).provenance["notes"]
    assert any("look like splits: A on" in note for note in told)
    table = pd.DataFrame(
        {"date": DAYS[1:3], "symbol": "A", "split": [2, 0], "dividend": [0, 5.0]}
    )  # 100 = 2 x (45 + 5)
    panel = load_panel(closes, actions=table, adjust="all")
    np.testing.assert_allclose(panel.close[[0, 2, 3], 0], 45)


def test_events_that_come_twice_or_pay_more_than_the_price_are_refused():
    closes = pd.DataFrame({"A": [100.0, 100, 50, 50], "B": [1.0, 2, 3, 4]}, DAYS[:4])
    for name, size in (("split", 2.0), ("dividend", 3.0)):
        with pytest.raises(DataError, match=f"the {name} of A on .* twice: leave one of them"):
            load_panel(closes, actions=[actions_of(**{name: size})] * 2, adjust="all")
    special = pd.concat([actions_of(dividend=3.0), actions_of(dividend=47.0)])
    panel = load_panel(closes, actions=special.reset_index(drop=True), adjust="all")
    np.testing.assert_allclose(panel.close[:, 0], 50)
    with pytest.raises(DataError, match=r"not below the close before it: '100\.0'"):
        load_panel(closes, actions=actions_of(dividend=100.0), adjust="all")


def test_actions_of_none_of_the_assets_are_told():
    closes = pd.DataFrame({"A": [100.0, 101, 99], "B": 1.0}, DAYS[:3])
    panel = load_panel(closes, actions=actions_of(split=2.0).assign(symbol="Z"))
    assert "no action is of an asset in it; they are of Z" in panel.provenance["notes"]


def test_actions_beside_columns_that_say_the_same_are_refused():
    worth, frame, split = raw_market(0, 4.0, 6)
    for columns in ({"adj_close": worth}, {"split": split}):
        with pytest.raises(DataError, match="leave the actions out"):
            load_panel(frame.assign(**columns), actions=actions_of(split=2.0))
    with pytest.raises(ArgumentError, match="actions is for files"):
        load_panel("synthetic", actions=actions_of(split=2.0))
