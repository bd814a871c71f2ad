"""Wide tables, and folders of one file per symbol."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_data_files import HEADER, ROWS, assert_panel

from portfolio_env import ArgumentError, DataError, PricePanel, load_market
from portfolio_env.data.bars import (
    read_frame,
    read_panel,
)
from portfolio_env.features.pipeline import build_market


@pytest.fixture
def wide():
    index = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03"], name="Date")
    return pd.DataFrame({"LOW": [1.0, 2, 3], "B": [np.nan, 5, np.nan], "NA": [7.0, 8, 9]}, index)


def test_wide_tables(wide, tmp_path):
    wide.to_csv(tmp_path / "index.csv")
    wide.rename_axis(None).to_csv(tmp_path / "nameless.csv.gz")
    wide.to_parquet(tmp_path / "index.parquet")
    wide.reset_index().to_parquet(tmp_path / "column.parquet")
    wide.rename_axis(None).to_parquet(tmp_path / "nameless.parquet")
    wide.reset_index()[lambda f: f["NA"] < 9].to_parquet(tmp_path / "filtered.parquet")
    for path in tmp_path.iterdir():
        panel = read_panel(path)
        expected = wide.iloc[: 2 if "filtered" in path.name else 3]
        assert panel.assets == ("B", "LOW", "NA")
        np.testing.assert_array_equal(panel.timestamps, expected.index.to_numpy())
        np.testing.assert_array_equal(panel.close, expected[["B", "LOW", "NA"]])
        assert panel.open is panel.volume is None
    frame = read_frame(tmp_path / "index.csv")
    assert list(frame.columns) == ["date", "symbol", "close"]
    assert len(frame) == 7


@pytest.mark.parametrize("order", [("Price", "Ticker"), ("Ticker", "Price")])
def test_two_header_rows_as_yfinance_writes_them(tmp_path, order):
    fields = ["Adj Close", "Close", "High", "Low", "Open", "Volume"]
    columns = pd.MultiIndex.from_product([fields, ["MSFT", "AAPL"]], names=["Price", "Ticker"])
    index = pd.DatetimeIndex(["2020-01-01", "2020-01-02"], name="Date")
    values = [[9, 8, 3, 4, 3, 5, 3, 4, 3, 4, 100, 200], [9, 9, 3] + [np.nan, 3] * 4 + [np.nan]]
    frame = pd.DataFrame(values, index, columns)
    if order[0] == "Ticker":
        frame = frame.swaplevel(axis=1).sort_index(axis=1)
    frame.to_csv(tmp_path / "y.csv")
    frame.to_parquet(tmp_path / "y.parquet")
    frame.rename_axis(None).to_csv(tmp_path / "nameless.csv")
    for name in ("y.csv", "y.parquet", "nameless.csv"):
        panel = read_panel(tmp_path / name)
        assert panel.assets == ("AAPL", "MSFT")
        np.testing.assert_array_equal(panel.close, [[8, 9], [np.nan, 9]])
        np.testing.assert_array_equal(panel.high, [[10, 9], [np.nan, 9]])
        np.testing.assert_allclose(panel.volume, [[100, 100 / 3], [np.nan, 1]])
        assert panel.provenance["adjust"] == "all"
        panel = read_panel(tmp_path / name, adjust="none")
        np.testing.assert_array_equal(panel.close, [[4, 3], [np.nan, 3]])
        np.testing.assert_array_equal(panel.high, [[5, 3], [np.nan, 3]])
        np.testing.assert_array_equal(panel.volume, [[200, 100], [np.nan, 3]])
    assert read_frame(tmp_path / "y.csv").shape == (3, 7)
    text = (tmp_path / "y.csv").read_text().splitlines()
    text[-1] = text[-1].replace("2020-01-02", "soon")
    (tmp_path / "bad.csv").write_text("\n".join(text))
    with pytest.raises(DataError, match=r"bad.csv, line 5: unreadable date 'soon'"):
        read_panel(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["date,A,B", "2020-01-01,1,2", "2020-01-02,x,3"], "line 3: A is not a number: 'x'"),
        (["date,A,B", "2020-01-01,1,2", "2020-01-02,1,0"], "line 3: close is not positive"),
        (["date,A,B", "2020-01-02,1,2", "2020-01-02,,2"], "line 3: a second row for 'B at"),
        (["date,A,B", "2020-01-02,1,2", ",,", "2020-01-03,1,2"], "line 3: there is no date"),
        (["date,A,B", "2020-01-02,1,"], "has no price of B; delete its column"),
        (["date,A,A", "2020-01-02,1,2"], r"more than one column called \['A'\]"),
        (["date,Open,Last", "2020-01-02,1,2"], r"lacks the columns \['symbol'\].*one asset"),
        (["date,symbol,close,close", "2020-01-02,A,2,2"], "more than one column called"),
    ],
)
def test_bad_wide_tables(write, lines, text):
    path = write(*lines)
    with pytest.raises(DataError, match=text) as error:
        read_panel(path)
    assert str(path) in str(error.value)


def test_a_header_longer_than_a_field_may_be(tmp_path):
    # csv refuses fields of over 131,072 characters, which a header is when its separator is not
    # the one that is tried.
    names = [f"{place:0100}" for place in range(1_400)]
    rows = [",".join(["date", *names])]
    rows += [f"2024-01-0{day}" + f",{day}.5" * len(names) for day in (1, 2, 3)]
    (tmp_path / "wide.csv").write_text("\n".join(rows) + "\n")
    panel = read_panel(tmp_path / "wide.csv")
    assert panel.assets == tuple(names)
    np.testing.assert_array_equal(panel.close, np.repeat([[1.5], [2.5], [3.5]], 1_400, axis=1))


def write_bars(path, frame, **metadata):
    """A Parquet file of one symbol with what a store says about it."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    stored = {key: value.encode() for key, value in metadata.items()}
    pq.write_table(table.replace_schema_metadata(stored), path)


def test_folders_of_one_file_per_symbol(tmp_path, write):
    bars = pd.read_csv(write(HEADER, *ROWS)).assign(date=lambda f: pd.to_datetime(f["date"]))
    folder = tmp_path / "store"
    folder.mkdir()
    a, b = (bars[bars["symbol"] == name].drop(columns="symbol") for name in "AB")
    write_bars(folder / "A.parquet", a)
    write_bars(folder / "x-y.parquet", b, symbol="B", exchange="kraken", timeframe="1d")
    (folder / ".A.123.parquet").write_bytes(b"half written")
    (folder / "notes.txt").write_text("no bars")
    panel = read_panel(folder)
    assert_panel(panel)
    about = panel.provenance
    assert (about["files"], about["exchange"], about["timeframe"]) == (2, "kraken", "1d")
    assert about["source"] == str(folder)
    frame = read_frame(folder)
    assert frame["symbol"].tolist() == ["A"] * 3 + ["B"] * 2
    assert_panel(load_market(folder, features=["return_1"]).panel)
    write_bars(folder / "A.parquet", a.assign(low=-1.0))
    with pytest.raises(DataError, match=r"A.parquet, row 1 \(and 2 more\): low is not positive"):
        read_panel(folder)
    write_bars(folder / "A.parquet", a, symbol="B")
    with pytest.raises(DataError, match=r"x-y.parquet: holds B, as does .*A.parquet; delete"):
        read_panel(folder)


def test_folders_without_bars(tmp_path):
    (tmp_path / "1d").mkdir()
    with pytest.raises(DataError, match="holds no Parquet files and no CSV files; give a folder"):
        read_panel(tmp_path)
    (tmp_path / "A.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"A.parquet is not a readable Parquet file"):
        read_panel(tmp_path)


def test_a_text_in_place_of_a_list_of_assets_is_not_read_by_its_letters():
    with pytest.raises(ArgumentError, match=r"assets='A00' must be a list of names"):
        load_market("synthetic?bars=100", assets="A00")


def test_a_column_without_numbers_is_refused_or_told(write, caplog):
    days = pd.date_range("2020-01-01", periods=3, name="date")
    wide = pd.DataFrame({"A": [1.0, 2, 3], "B": np.nan}, days)
    with pytest.raises(DataError, match="no price of B; delete the column"):
        load_market(wide)
    rows = ["2020-01-01,A,1,", "2020-01-01,C,,", "2020-01-02,A,2,", "2020-01-02,B,2,"]
    path = write("date,symbol,close,volume", *rows)
    assert load_market(path, features="none").assets == ("A", "B")
    assert "1 rows without prices are left out; 'C' has no price at all" in caplog.text
    assert "the column volume is empty and left out" in caplog.text


def test_a_panel_or_saved_market_without_a_price_of_an_asset_is_refused(tmp_path):
    bars = load_market("synthetic?bars=60").panel
    close = np.where(np.arange(len(bars.assets)) == 1, np.nan, bars.close)
    panel = PricePanel(bars.timestamps, bars.assets, close)
    build_market(panel, features="none").save(tmp_path / "m.npz")
    for source in (panel, tmp_path / "m.npz"):
        with pytest.raises(DataError, match=r"no price of A01; .* leave it out of assets"):
            load_market(source, features="none")
        assert load_market(source, assets=["A00", "A02"]).assets == ("A00", "A02")
