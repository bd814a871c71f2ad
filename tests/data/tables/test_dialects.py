"""The same market, written in many ways, is the same panel."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_env import DataError, load_market
from portfolio_env.data.bars import read_frame, read_panel
from portfolio_env.market.panel import BAR_FIELDS

DAYS = pd.bdate_range("2024-01-11", periods=6)
NAMES = {
    "date": ("date", "Date", "DATETIME", "timestamp", " Trade Date", "<DATE>", "snapped_at"),
    "symbol": ("symbol", "Ticker", "tic", "NAME", "<TICKER>", " Symbol "),
    "open": ("open", "Open", "<OPEN>", "1. open", "opening_price"),
    "high": ("high", "HIGH ", "2. high"),
    "low": ("low", "Low", "3. low"),
    "close": ("close", "Close", "LAST", "Close/Last", "price", "4. close"),
    "volume": ("volume", "Vol.", "<VOL>", "total_volume", "5. volume"),
}


def market_of(seed, symbols=("AAA", "BRK.B", "7203.T")):
    """A long frame of bars that can be true, with a listing and a delisting."""
    rng = np.random.default_rng(seed)
    shape = (len(DAYS), len(symbols))
    prices = np.round(np.exp(rng.normal(4, 3, (*shape, 4))), int(rng.integers(1, 5))) + 0.5
    prices.sort(axis=-1)
    fields = {"open": 1, "high": 3, "low": 0, "close": 2}
    frame = pd.DataFrame(
        {name: prices[:, :, at].ravel() for name, at in fields.items()}
        | {"volume": rng.integers(1, 10**9, shape).ravel().astype(float)}
    )
    frame.insert(0, "symbol", np.tile(symbols, len(DAYS)))
    frame.insert(0, "date", np.repeat(DAYS, len(symbols)))
    return frame.drop(index=[0, 1, len(frame) - 1]).reset_index(drop=True)


def assert_same(panel, frame):
    """That a panel holds the bars of a long frame, to the last bit."""
    for name in BAR_FIELDS:
        if name in frame.columns:
            table = frame.pivot(index="date", columns="symbol", values=name)
            assert panel.assets == tuple(table.columns)
            np.testing.assert_array_equal(panel.timestamps, table.index.to_numpy("M8[ns]"))
            np.testing.assert_array_equal(getattr(panel, name), table.to_numpy())


def number(value, decimal, thousands):
    """A number as it is written somewhere."""
    if thousands:
        return f"{value:,.4f}".replace(",", "\0").replace(".", decimal).replace("\0", thousands)
    return repr(float(value)).replace(".", decimal)


@given(data=st.data())
def test_every_dialect_of_a_long_file_is_the_same_market(data, tmp_path_factory):
    frame = market_of(data.draw(st.integers(0, 999)))
    draw = data.draw
    sep = draw(st.sampled_from(",;\t|"))
    decimal, thousands = draw(
        st.sampled_from([(".", ""), (".", ","), (".", "'"), (",", ""), (",", "."), (",", " ")])
    )
    dates = draw(
        st.sampled_from(
            ["%Y-%m-%d", "%Y.%m.%d", "%Y/%m/%d", "%Y%m%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%b-%Y",
             "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d 00:00:00-05:00", "s", "ms", "us"]
        )
    )  # fmt: skip
    written = pd.DataFrame(
        {name: [number(value, decimal, thousands) for value in frame[name]] for name in BAR_FIELDS}
    )
    if len(dates) <= 2:
        stamps = frame["date"].astype(f"datetime64[{dates}]").astype("int64").astype(str)
    else:
        stamps = frame["date"].dt.strftime(dates)
    blank = draw(st.sampled_from(["", " "]))
    written.insert(0, "symbol", frame["symbol"] + blank)
    written.insert(0, "date", stamps)
    written = written.rename(columns={name: draw(st.sampled_from(NAMES[name])) for name in NAMES})
    if draw(st.booleans()):
        written = written.sample(frac=1, random_state=draw(st.integers(0, 99)))
    if draw(st.booleans()):
        written["note, of sorts"] = "x"
    head = draw(st.sampled_from(["", "https://www.example.org/data\n", "\ufeff", f"sep={sep}\n"]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    path = tmp_path_factory.mktemp("dialect") / "bars.csv"
    text = head + written.to_csv(index=False, sep=sep, lineterminator="\n")
    path.write_bytes(text.replace("\n", end).encode())
    panel = read_panel(path)
    if thousands:
        frame = frame.assign(**frame[list(BAR_FIELDS)].round(4))
    assert_same(panel, frame)
    json.dumps(panel.provenance)


@given(st.integers(0, 999), st.sampled_from(["null", "NaN", "#N/A N/A", "", "-", "N/A"]))
def test_gaps_of_wide_files_may_be_written_in_words(seed, nothing):
    frame = market_of(seed)
    wide = frame.pivot(index="date", columns="symbol", values="close")
    text = wide.astype(object).where(wide.notna(), nothing)
    assert_same(read_panel(text), frame[["date", "symbol", "close"]])


@settings(max_examples=4)
@given(st.integers(0, 999))
def test_every_shape_is_the_same_market(tmp_path_factory, seed):
    frame = market_of(seed)
    folder = tmp_path_factory.mktemp("shapes")
    by_symbol = {name: own.drop(columns="symbol") for name, own in frame.groupby("symbol")}
    for name, own in by_symbol.items():
        own.rename(columns=str.title).to_csv(folder / f"{name}.csv", index=False)
    levels = frame.pivot(index="date", columns="symbol").rename(columns=str.title, level=0)
    levels.columns.names = ["Price", "Ticker"]
    indexed = frame.set_index(["date", "symbol"])
    shuffled = frame.sample(frac=1, random_state=seed)
    shapes = [
        frame, shuffled, frame.rename(columns={"symbol": "tic"}), frame.set_index("date"),
        indexed, indexed.swaplevel(), indexed.rename_axis([None, None]),
        levels, levels.swaplevel(axis=1), levels.sort_index(axis=1, level=1),
        levels.set_axis(pd.Index(list(levels.columns), tupleize_cols=False), axis=1),
        levels.set_axis([f"{name}_{field}" for field, name in levels.columns], axis=1),
        by_symbol, {name: own.set_index("date") for name, own in by_symbol.items()},
        {name: folder / f"{name}.csv" for name in by_symbol}, folder, sorted(folder.iterdir()),
        [frame.iloc[:5], frame.iloc[5:]], pa.Table.from_pandas(frame),
    ]  # fmt: skip
    for shape in shapes:
        assert_same(read_panel(shape), frame)
    levels.to_csv(folder / "levels.txt")
    assert_same(read_panel(folder / "levels.txt"), frame)
    assert_same(load_market(levels, features="none").panel, frame)
    assert len(read_frame(levels)) == len(frame)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["Date;A;B", "2024-01-02;1,234;2"], "line 2: A is not a number: '1,234'; .*the comma"),
        (["Date,A", "01/02/2024,1", "02/03/2024,1"], "line 2 .*day or the month may come first"),
        (["2024-01-02,1,2", "2024-01-03,1,2"], "has no header"),
        (["Date,A,B,volume", "2024-01-02,1,2,3"], r"\['volume'\] are fields of bars, not assets"),
        (["Date,A,B,close", "2024-01-02,1,2,3"], r"\['close'\] are fields of bars, not assets"),
        (["Date,Open,High,Low,Volume", "2024-01-02,1,2,3,4"], "none of its columns is a close"),
        (["Date,Open,High,Low,Last", "2024-01-02,1,2,1,2"], r"of one asset.*\{'NAME': source"),
        (["date,price,market_cap,total_volume", "2024-01-02,1,2,1"], "fields of one asset"),
        (["date,symbol,close", "2024-01-02,A,1", "2024-01-03T00:00:00Z,A,1"], "line 3: a time"),
        (["date,symbol,close,adj_close", "2024-01-02,A,1,"], "holds|line 2: there is no adjusted"),
        (["date,symbol,close,high", "2024-01-02,A,1,0.9"], r"line 2: .*repair=\{'drop_faulty'"),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_refused_with_its_fix(write, lines, text):
    with pytest.raises(DataError, match=text):
        if "adj_close" in lines[0]:
            lines = [*lines, "2024-01-03,A,1,1"]
        read_panel(write(*lines))


@pytest.mark.parametrize(
    "names",
    [("OPEN", "LOW", "AAPL"), ("LOW", "OPEN"), ("V", "C", "T", "O"), ("COIN", "NAME", "DAY")],
)
def test_assets_may_be_called_as_fields_are(names):
    index = pd.bdate_range("2024-01-02", periods=3)
    frame = pd.DataFrame(np.arange(1.0, 3 * len(names) + 1).reshape(3, -1), index, list(names))
    assert load_market(frame, features="none").assets == names


def test_one_asset_of_a_frame_must_be_named_and_may_be_of_a_file(write):
    lines = ["Date,Open,High,Low,Close,Volume", "2024-01-02,1,2,1,2,5", "2024-01-03,1,2,1,2,5"]
    panel = read_panel(write(*lines, name="MSFT.US.csv"))
    assert panel.assets == ("MSFT.US",)
    assert panel.provenance["notes"] == ["the asset is called MSFT.US after its file"]
    frame = pd.read_csv(write(*lines))
    with pytest.raises(DataError, match="fields of one asset"):
        read_panel(frame)
    assert read_panel({"A": frame}).assets == ("A",)


def test_symbols_of_several_files_may_not_overlap(write, tmp_path):
    first = write("date,symbol,close", "2024-01-02,A,1", "2024-01-03,A,2", name="a.csv")
    later = write("date,symbol,close", "2024-01-04,A,3", "2024-01-05,A,3", name="b.csv")
    np.testing.assert_array_equal(read_panel([first, later]).close[:, 0], [1, 2, 3, 3])
    with pytest.raises(DataError, match="holds A, as does"):
        read_panel([first, later, first])


def test_what_was_decided_is_logged_once(write, caplog):
    path = write("date;Ticker;close;adj close", "2024-01-03;A;4;1", "2024-01-02;A;4;1")
    with caplog.at_level("INFO", logger="portfolio_env"):
        notes = read_panel(path).provenance["notes"]
    assert len(caplog.records) == 2
    told = " ".join(record.message for record in caplog.records)
    assert all(note in told for note in notes)
    assert "prices are adjusted" in next(
        r.message for r in caplog.records if r.levelname == "WARNING"
    )
