import gzip
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, load_market
from portfolio_env.data import opening
from portfolio_env.data.bars import (
    panel_from_frame,
    panel_from_prices,
    read_frame,
    read_panel,
)

HEADER = "date,symbol,open,high,low,close,volume"
ROWS = [
    "2020-01-01,A,2,3,1,2,10",
    "2020-01-01,B,3.466e-05,4e-05,3e-05,3.5e-05,1e13",
    "2020-01-02,A,2,3,1,2.5,10",
    "2020-01-03,A,2,3,1,2.5,10",
    "2020-01-03,B,4e-05,4e-05,3e-05,3.5e-05,0",
]


def assert_panel(panel):
    nan = np.nan
    assert panel.assets == ("A", "B")
    assert [str(day)[:10] for day in panel.timestamps] == ["2020-01-01", "2020-01-02", "2020-01-03"]
    np.testing.assert_array_equal(panel.close, [[2, 3.5e-05], [2.5, nan], [2.5, 3.5e-05]])
    np.testing.assert_array_equal(panel.open, [[2, 3.466e-05], [2, nan], [2, 4e-05]])
    np.testing.assert_array_equal(panel.volume, [[10, 1e13], [10, nan], [10, 0]])
    np.testing.assert_array_equal(panel.tradable, [[1, 1], [1, 0], [1, 0]])


def test_csv_and_parquet_plain_and_gzip_by_their_content(write, tmp_path):
    path = write(HEADER, *ROWS)
    plain = read_panel(path)
    assert_panel(plain)
    frame = pd.read_csv(path)
    frame.to_parquet(tmp_path / "bars.parquet")
    frame.assign(date=pd.to_datetime(frame["date"])).to_parquet(tmp_path / "dates.parquet")
    (tmp_path / "zipped").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "zipped.pq").write_bytes(gzip.compress((tmp_path / "bars.parquet").read_bytes()))
    for name in ("bars.parquet", "dates.parquet", "zipped", "zipped.pq"):
        assert_panel(read_panel(tmp_path / name))
    assert_panel(panel_from_frame(frame))
    assert plain.provenance["source"] == str(path)
    assert len(plain.provenance["sha256"]) == 64


def test_rows_may_come_by_symbol_with_further_columns_and_blank_lines_at_the_end(write):
    by_symbol = sorted(ROWS, key=lambda row: row.split(",")[1])
    assert_panel(read_panel(write(HEADER + ",note", *(row + ",x" for row in by_symbol), "", "")))


def test_open_high_low_and_volume_may_be_missing(write):
    panel = read_panel(write("symbol,close,date", "A,1,2020-01-01", "NA,2,2020-01-02"))
    assert panel.assets == ("A", "NA")
    assert panel.open is panel.high is panel.low is panel.volume is None
    np.testing.assert_array_equal(panel.tradable, [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (("2020-01-01T00:00:00Z", "2020-01-01T01:00:00Z"), "2020-01-01T01:00"),
        (("2020-01-01T00:00:00+00:00", "2020-01-01T01:00:00Z"), "2020-01-01T01:00"),
        (("2020-01-01 00:00:00+02:00", "2020-01-01 01:00:00+02:00"), "2019-12-31T23:00"),
        (("2020-01-01T00:00", "2020-01-01T01:00"), "2020-01-01T01:00"),
        (("20200101", "20200102"), "2020-01-02T00:00"),
    ],
)
def test_times_become_utc(write, times, expected):
    panel = read_panel(
        write("date,symbol,close", *(f"{time},{name},1" for time in times for name in "AB"))
    )
    assert panel.timestamps[1] == np.datetime64(expected)


def replaced(line, row):
    """The file with one line (counted from 1, the header being 1) replaced."""
    lines = [HEADER, *ROWS]
    lines[line - 1] = row
    return lines


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["date,symbol,open", "2020-01-01,A,1"], r"lacks the columns \['close'\].*add or rename"),
        (["Date,Symbol,Worth", "2020-01-01,A,1"], r"lacks the columns .*'Worth'.*rename"),
        ([], "is not a CSV table"),
        ([""], "is not a CSV table|holds no rows|lacks the columns"),
        ([HEADER], "holds no rows; give"),
        ([HEADER, *(row + ",9" for row in ROWS)], "more fields than its header"),
        (replaced(3, ROWS[1] + ",9"), "line 3.*fields"),
        (replaced(4, ROWS[0]), "line 4: a second row for 'A at 2020-01-01.*delete one"),
        (replaced(6, "2020-01-01,B,4,4,3,3,0"), "line 6: a second row for 'B at 2020-01-01"),
        (replaced(2, "1 Jan,A,2,3,1,2,10"), "line 2: unreadable date '1 Jan'; write it as"),
        (replaced(2, "2020-13-01,A,2,3,1,2,10"), "line 2: unreadable date '2020-13-01'"),
        (replaced(2, "1577836800000,A,2,3,1,2,10"), "line 2: unreadable date"),
        (replaced(2, "3020-01-01,A,2,3,1,2,10"), "line 2: unreadable date"),
        (replaced(2, ",A,2,3,1,2,10"), "line 2: there is no date; write it as"),
        (replaced(4, ""), "line 4: there is no date"),
        (replaced(4, "2020-01-02T00:00:00Z,A,2,3,1,2,10"), "line 4: a time zone other than"),
        (replaced(2, "2020-01-01,,2,3,1,2,10"), "line 2: there is no symbol; name"),
        (replaced(2, "2020-01-01,A,2,3,1,,10"), "line 2: there is no close; .*delete the row"),
        (replaced(2, "2020-01-01,A,2,3,1,two,10"), "line 2: close is not a number: 'two'"),
        (replaced(2, '2020-01-01,A,2,3,1,"1,5",10'), "line 2: close is not a number: '1,5'"),
        (replaced(2, "2020-01-01,A,2,3,1,nan,10"), "line 2: "),
        (replaced(2, "2020-01-01,A,2,3,1,inf,10"), "line 2: close is infinite"),
        (replaced(2, "2020-01-01,A,2,3,1,0,10"), "line 2: close is not positive; correct"),
        (replaced(2, "2020-01-01,A,2,3,-1,2,10"), "line 2: low is not positive"),
        (replaced(2, "2020-01-01,A,2,1,3,2,10"), "line 2: high is below low"),
        (replaced(2, "2020-01-01,A,4,3,1,2,10"), "line 2: open is above high"),
        (replaced(2, "2020-01-01,A,2,3,1,0.5,10"), "line 2: close is below low"),
        (replaced(2, "2020-01-01,A,2,3,1,2,-1"), "line 2: volume is negative"),
        (replaced(2, "2020-01-01,A,2,3,1,2,"), "line 2: volume is missing where close is given"),
    ],
)
def test_bad_files_name_file_line_and_mend(write, lines, text):
    path = write(*lines)
    with pytest.raises(DataError, match=text) as error:
        read_panel(path)
    assert str(path) in str(error.value)


def test_more_faults_than_one_are_counted(write):
    rows = [row.replace(",2,3,1,", ",2,3,-1,") for row in ROWS]
    with pytest.raises(DataError, match=r"line 2 \(and 2 more\): low is not positive"):
        read_panel(write(HEADER, *rows))


def test_unreadable_files(tmp_path):
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(HEADER.encode() * 1000)[:-20])
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(bytes(8 << 20)) * 12)
    (tmp_path / "binary.csv").write_bytes(b"date,symbol,close\n\xff\xfe,\x80,1\n")
    (tmp_path / "book.xlsx").write_bytes(b"PK\x03\x04 and sheets")
    (tmp_path / "old.csv").write_bytes(b"\xd0\xcf\x11\xe0 and sheets")
    (tmp_path / "bars.csv").write_bytes(b'[{"date": "2020-01-01"}]')
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "frame.feather").write_bytes(b"ARROW1\0\0 and batches")
    for name, text in (
        ("cut.csv.gz", "cannot be read"),
        ("bomb.csv.gz", "unpacks to more than 100 times its size"),
        ("missing.csv", "cannot be read"),
        ("binary.csv", "is not text in UTF-8; save it again"),
        ("book.xlsx", "is an Excel file or a zip; save the table as CSV"),
        ("old.csv", "is an old Excel file; save"),
        ("bars.csv", "is JSON; save the table as CSV or Parquet"),
        ("frame.feather", "is a Feather or Arrow file; save the table as Parquet"),
        ("cut.parquet", "is not a readable Parquet file"),
    ):
        with pytest.raises(DataError, match=text):
            read_panel(tmp_path / name)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "bars.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pip install pyarrow"):
        read_panel(tmp_path / "bars.parquet")


@given(st.data())
def test_every_panel_survives_the_way_through_a_frame(data):
    days, names = data.draw(st.integers(2, 6)), data.draw(st.integers(2, 4))
    present = np.array(
        data.draw(st.lists(st.booleans(), min_size=days * names, max_size=days * names))
    ).reshape(days, names)
    present[0] = present[:, 0] = True
    price = st.floats(1e-12, 1e12)
    rows = []
    for t, i in np.argwhere(present):
        low, middle, high = sorted(data.draw(st.tuples(price, price, price)))
        day = pd.Timestamp("2020-01-01") + pd.Timedelta(days=int(t))
        volume = data.draw(st.floats(0, 1e15))
        rows.append((day, f"N{i}", middle, high, low, low, volume))
    frame = pd.DataFrame(rows, columns=["date", "symbol", "open", "high", "low", "close", "volume"])
    panel = panel_from_frame(frame)
    np.testing.assert_array_equal(np.isfinite(panel.close), present)
    for (t, i), row in zip(np.argwhere(present), rows, strict=True):
        for name, value in zip(("open", "high", "low", "close", "volume"), row[2:], strict=True):
            assert getattr(panel, name)[t, i] == value


def test_market_from_frame_and_from_prices(write):
    frame = pd.read_csv(write(HEADER, *ROWS))
    assert_panel(load_market(frame, features=("return_1",)).panel)
    wide = frame.pivot(index="date", columns="symbol", values="close")
    market = load_market(wide, features=("return_1",), fit_end="2020-01-03")
    np.testing.assert_array_equal(market.close, load_market(frame).close)
    assert market.open is market.volume is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f.iloc[[0, 1, 1]], "row 3: a second row for '2020-01-02"),
        (lambda f: f.set_axis([None, *f.index[1:]]), "row 1: there is no date"),
        (lambda f: f.set_axis(["a", "b", "c"]), "row 1 .*unreadable date 'a'"),
        (lambda f: f.assign(A="x"), "A is not a number: 'x'"),
        (lambda f: f.assign(A=-1.0), "A at 2020-01-01.*not positive"),
        (lambda f: f.pct_change().fillna(0.0) - 0.01, r"returns; .*\(1 \+ returns\).cumprod"),
        (lambda f: f[[]], "no asset"),
        (lambda f: f.iloc[:0], "at least one"),
    ],
)
def test_bad_price_frames(change, text):
    index = pd.date_range("2020-01-01", periods=3)
    frame = pd.DataFrame({"A": [1.0, 2.0, 3.0], "B": [1.0, np.nan, 3.0]}, index)
    panel_from_prices(frame)
    with pytest.raises(DataError, match=text):
        panel_from_prices(change(frame))


def test_sp500():
    market = load_market("sp500", fit_end="2015-01-01")
    assert market.close.shape == (8313, 20)
    assert market.tradable.all()
    assert market.periods_per_year == 252
    assert (str(market.timestamps[0])[:10], str(market.timestamps[-1])[:10]) == (
        "1990-01-02",
        "2022-12-28",
    )
    assert market.open is market.high is market.low is market.volume is None
    assert market.close[-1, market.assets.index("AAPL")] == 125.674


def test_the_jumps_of_adjusted_prices_are_not_pointed_out(caplog):
    assert "notes" not in load_market("sp500").panel.provenance
    halved = pd.DataFrame({"A": [50.0] * 30 + [25.0] * 30}, pd.date_range("2020-01-01", periods=60))
    panel_from_prices(halved, adjusted=True)
    assert not caplog.records
    panel_from_prices(halved)
    assert "look like splits" in caplog.text


def test_sp500_without_skfolio_says_what_to_install(monkeypatch):
    monkeypatch.setattr(opening.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install .skfolio"):
        load_market("sp500")


def test_sp500_does_not_import_skfolio():
    code = (
        "import sys; from portfolio_env.data import load_market; load_market('sp500');"
        "assert 'skfolio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


FAULTY = [
    "2020-01-03,A,2,1,3,2,-10",  # high below low, volume negative
    "2020-01-02,A,,3,1,2.5,10",  # before the last one, open missing
    "2020-01-02,A,2,3,1,inf,10",  # again
    "2020-01-04,B,1,1,1,,",  # no close
]


def test_lenient_frames_keep_what_panels_refuse(write):
    path = write(HEADER, *FAULTY)
    frame = read_frame(path)
    assert list(frame.columns) == HEADER.split(",")
    assert frame["date"].dtype == "datetime64[ns]"
    assert frame["symbol"].tolist() == ["A", "A", "A", "B"]
    assert frame["date"].dt.day.tolist() == [3, 2, 2, 4]
    np.testing.assert_array_equal(frame["close"], [2, 2.5, np.inf, np.nan])
    np.testing.assert_array_equal(frame["open"], [2, np.nan, 2, 1])
    assert frame["volume"].tolist()[0] == -10
    assert frame.attrs["source"] == str(path)
    with pytest.raises(DataError, match="line 5: there is no close"):
        read_panel(path)
    zoned = write("date,symbol,close,x", "2020-01-01T02:00+02:00,A,1,y")
    assert read_frame(zoned)["date"].tolist() == [pd.Timestamp("2020-01-01")]
    assert list(read_frame(zoned).columns) == ["date", "symbol", "close"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("soon,A,1,1,1,1,1", "line 2: unreadable date 'soon'"),
        ("2020-01-01,,1,1,1,1,1", "line 2: there is no symbol"),
        ("2020-01-01,A,1,1,1,much,1", "line 2: close is not a number: 'much'"),
    ],
)
def test_lenient_frames_refuse_what_cannot_be_read(write, row, text):
    with pytest.raises(DataError, match=text):
        read_frame(write(HEADER, row))


def test_bom_crlf_and_any_order_of_columns(tmp_path):
    path = tmp_path / "windows.csv"
    header = "volume,close,symbol,low,high,open,date"
    rows = [",".join(row.split(",")[i] for i in (6, 5, 1, 4, 3, 2, 0)) for row in ROWS]
    path.write_bytes(("\ufeff" + "\r\n".join([header, *rows]) + "\r\n").encode())
    assert_panel(read_panel(path))
    wide = tmp_path / "wide.csv"
    wide.write_bytes("\ufeffDate,B,A\r\n2020-01-01,1,2\r\n2020-01-02,,3\r\n".encode())
    panel = read_panel(wide)
    assert panel.assets == ("A", "B")
    np.testing.assert_array_equal(panel.close, [[2, 1], [3, np.nan]])


def test_load_market_repairs_files_and_says_so(write):
    path = write(HEADER, *ROWS, FAULTY[1])
    with pytest.raises(DataError, match="line 7"):
        load_market(path)
    options = {"sort": True, "drop_faulty": True}
    market = load_market(path, repair=options, features=["return_1"])
    assert_panel(market.panel)
    provenance = market.panel.provenance
    assert provenance["source"] == str(path)
    assert len(provenance["sha256"]) == 64
    json.dumps(provenance["repairs"])
    with pytest.raises(DataError, match=r"repaired, row .*: a second row"):
        load_market(write(HEADER, *ROWS, ROWS[0]), repair={"sort": True})
    with pytest.raises(ArgumentError, match="repair is for files"):
        load_market("synthetic", repair=options)
    market.save(path.with_suffix(".npz"))
    with pytest.raises(ArgumentError, match="repair is for files"):
        load_market(path.with_suffix(".npz"), repair=options)


@pytest.mark.parametrize(
    ("day", "zone"),
    [("2023-10-29", "Europe/Berlin"), ("2023-11-05", None), ("2023-10-30", None)],  # not 02:00
)
@pytest.mark.parametrize("wide", [False, True])
def test_the_hour_that_comes_twice_in_autumn_is_named(day, zone, wide):
    hours = ["00:00", "01:00", "02:00", "02:00", "03:00"]
    frame = pd.DataFrame({"date": [f"{day} {hour}" for hour in hours], "close": np.arange(5.0) + 1})
    with pytest.raises(DataError, match=r"second row .*delete one of them") as found:
        if wide:
            panel_from_prices(frame.set_index("date").rename(columns={"close": "A"}))
        else:
            load_market(frame.assign(symbol="A"))
    hint = f", or write times in UTC if this is the hour that comes twice in {zone}"
    assert str(found.value).endswith(hint) if zone else "UTC" not in str(found.value)
