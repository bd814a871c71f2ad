"""Tables that look like another one: fields, counters, dates and flags are never prices."""

import numpy as np
import pandas as pd
import pytest

from portfolio_env import DataError
from portfolio_env.data.bars import read_panel

DAYS = pd.bdate_range("2024-01-02", periods=5)
CLOSES = pd.DataFrame({"AAA": [1.5, 1.6, 1.7, 1.8, 1.9], "BBB": [2.5, 2.4, 2.3, 2.2, 2.1]}, DAYS)


def assert_closes(panel):
    """That a panel holds ``CLOSES``."""
    assert panel.assets == ("AAA", "BBB")
    np.testing.assert_array_equal(panel.timestamps, DAYS.to_numpy("M8[ns]"))
    np.testing.assert_array_equal(panel.close, CLOSES.to_numpy())


@pytest.mark.parametrize(
    "first",
    ["1704067200", "1704067200000", "1735689600000000", "20240102", "13.01.2024", "01/13/2024",
     '"Jan 13, 2024"', "13-Jan-2024", "2024.01.13", "2024-01-13"],
)  # fmt: skip
def test_a_file_without_header_is_refused(write, first):
    with pytest.raises(DataError, match="has no header"):
        read_panel(write(f"{first},42.5,43.1", f"{first},42.6,43.2"))


@pytest.mark.parametrize("begin", [0, 1])
@pytest.mark.parametrize("name", ["Unnamed: 0", "index", "id", ""])
def test_row_numbers_are_no_asset(tmp_path, name, begin):
    frame = CLOSES.rename_axis("Date").reset_index()
    frame.insert(0, name, np.arange(begin, begin + 5))
    frame.to_csv(tmp_path / "numbered.csv", index=False)
    for source in (frame, tmp_path / "numbered.csv"):
        panel = read_panel(source)
        assert_closes(panel)
        assert f"the column {name!r} is left out" in panel.provenance["notes"][0]


def test_parts_of_the_date_are_no_assets_but_day_may_be_one():
    parts = CLOSES.assign(Year=DAYS.year, Month=DAYS.month, Day=DAYS.day)
    assert_closes(read_panel(parts))
    assert read_panel(CLOSES.assign(DAY=70.5)).assets == ("AAA", "BBB", "DAY")
    assert read_panel(CLOSES.assign(ID=[7.0, 9, 8, 9, 9])).assets == ("AAA", "BBB", "ID")


@pytest.mark.parametrize(
    "values", [True, DAYS, DAYS - DAYS[0] + pd.Timedelta("1D"), np.full(5, 1 + 0j)]
)
def test_flags_times_and_durations_are_no_prices(values):
    with pytest.raises(DataError, match=r"row 1 .*CCC is not a number: .*; delete the column"):
        read_panel(CLOSES.assign(CCC=values))


def test_flags_of_a_file_are_no_prices(write):
    with pytest.raises(DataError, match=r"line 2 .*traded is not a number: 'True'"):
        read_panel(write("Date,AAA,traded", "2024-01-02,1,TRUE", "2024-01-03,1,TRUE"))


@pytest.mark.parametrize(
    ("columns", "symbols"),
    [
        ("LOW_Open LOW_Close AAPL_Open AAPL_Close", ("AAPL", "LOW")),
        ("Open_LOW Close_LOW Open_AAPL Close_AAPL", ("AAPL", "LOW")),
        ("AAPL.Open AAPL.Close AAPL.Volume AAPL.Adjusted", ("AAPL",)),
        ("Close_AAPL Volume_AAPL Stock-Splits_AAPL Capital-Gains_AAPL", ("AAPL",)),
        ("AAPL_Close AAPL_Volume AAPL_Stock-Splits AAPL_Capital-Gains", ("AAPL",)),
    ],
)
def test_columns_may_hold_every_field_of_a_symbol(columns, symbols):
    names = [name.replace("-", " ") for name in columns.split()]
    frame = pd.DataFrame(2.0, DAYS, names)
    panel = read_panel(frame, adjust="none")
    assert panel.assets == symbols
    assert (panel.close == 2).all()


@pytest.mark.parametrize(
    "columns",
    ["AAPL_Close AAPL_Volume VIX", "AAPL_close AAPL_return MSFT_close MSFT_return",
     "Close_AAPL Open_AAPL VIX"],
)  # fmt: skip
def test_fields_of_symbols_beside_others_are_refused(columns):
    with pytest.raises(DataError, match="are fields of one asset, and not all columns"):
        read_panel(pd.DataFrame(2.0, DAYS, columns.split()))


@pytest.mark.parametrize(
    "name", ["change", "pct_change", "RF", "rf", "return", "returns", "Log Return", "bid", "Ask",
             "vwap", "trades", "dividends", "spread"],
)  # fmt: skip
def test_changes_rates_and_quotes_are_no_assets(write, name):
    frame = CLOSES.assign(**{name: [0.01, 0.02, 0.01, 0.03, 0.01]})
    with pytest.raises(DataError, match=rf"\['{name}'\] are fields of bars, not assets.*: delete"):
        read_panel(frame)
    frame.to_csv(path := write("", name="changes.csv"), index_label="date")
    with pytest.raises(DataError, match="are fields of bars, not assets"):
        read_panel(path)


def test_tickers_that_are_called_as_rates_and_quotes_are_assets():
    tickers = CLOSES.assign(RF=20.5, BID=50.0, RET=1.5)  # Regions Financial, Sotheby's
    assert set(read_panel(tickers).assets) == {"AAA", "BBB", "RF", "BID", "RET"}


def test_a_rate_in_percent_that_is_called_as_a_ticker_is_said(caplog):
    assert "RF" in read_panel(CLOSES.assign(RF=[4.1, 4.1, 4.2, 4.2, 4.3])).assets
    assert "'RF' is read as the prices of an asset" in caplog.text
    caplog.clear()
    read_panel(CLOSES.assign(RF=50.0))
    assert "'RF'" not in caplog.text


@pytest.mark.parametrize(
    "columns",
    ["bid ask", "BID ASK", "AAA bid ask mid", "AAA_bid AAA_ask", "bid_AAA ask_AAA BBB",
     "AAA AAA_return", "AAA AAA_bid BBB"],
)  # fmt: skip
def test_quotes_and_returns_of_an_asset_are_not_assets(columns):
    with pytest.raises(DataError, match=r"fields of bars.*give the mid as|fields of one asset"):
        read_panel(pd.DataFrame(2.0, DAYS, columns.split()))


def test_names_of_exchanges_and_countries_are_no_fields():
    names = ("AAPL US", "LOW US", "OPEN US", "V US")
    assert read_panel(pd.DataFrame(2.0, DAYS, list(names))).assets == names


def test_fields_of_one_asset_are_no_sources(tmp_path):
    fields = {"Close": CLOSES["AAA"], "Open": CLOSES["BBB"]}
    with pytest.raises(DataError, match=r"\['Close'\] are names of fields of bars, not of assets"):
        read_panel(fields)
    for name, closes in fields.items():
        closes.rename("price").to_csv(tmp_path / f"{name}.csv", index_label="date")
    with pytest.raises(DataError, match=r"\['Close'\] are names of fields of bars, not of assets"):
        read_panel(tmp_path)
    assert read_panel({"OPEN": CLOSES["AAA"], "LOW": CLOSES["BBB"]}).assets == ("LOW", "OPEN")


@pytest.mark.parametrize("names", [("date", "symbol"), (None, None)])
def test_codes_of_six_digits_are_no_dates(names):
    long = CLOSES.set_axis(["600519", "000001"], axis=1).stack().rename("close")
    long = long.rename_axis(["date", "symbol"]).to_frame()
    shapes = [long.rename_axis(names), long.swaplevel().rename_axis(names[::-1])]
    text = long.rename(index=lambda day: str(day)[:10], level=0).rename_axis(names)
    for shape in [*shapes, text, long.reset_index("date")]:
        panel = read_panel(shape)
        assert panel.assets == ("000001", "600519")
        np.testing.assert_array_equal(panel.close, CLOSES[["BBB", "AAA"]])


def test_dates_in_the_index_and_in_a_column_are_refused():
    with pytest.raises(DataError, match="has dates in its index and in a column date"):
        read_panel(CLOSES.assign(date=DAYS))


@pytest.mark.parametrize("values", [DAYS, 20240102.0, 1.7e9])
@pytest.mark.parametrize("name", ["Date", "Timestamp", "DATETIME", "time"])
def test_times_beside_the_dates_are_no_assets(name, values):
    for frame in (CLOSES.assign(**{name: values}), CLOSES.assign(day=DAYS, **{name: values})):
        with pytest.raises(DataError, match="are times, not assets"):
            read_panel(frame)


@pytest.mark.parametrize("name", ["close", "CLOSE", " Close_ ", "<close>"])
def test_a_field_that_comes_twice_is_refused_unless_it_says_the_same(name):
    long = CLOSES.stack().rename("Close").rename_axis(["Date", "Ticker"]).reset_index()
    assert_closes(read_panel(long.assign(**{name: long["Close"]})))
    with pytest.raises(DataError, match="are both the close, and differ; delete one"):
        read_panel(long.assign(**{name: 1.0}))
    with pytest.raises(DataError, match="are both the symbol, and differ"):
        read_panel(long.assign(ticker="X"))
    with pytest.raises(DataError, match="are both the date"):
        read_panel(long.assign(date="2024-01-02"))


def test_an_empty_adjusted_close_is_left_out_and_noted():
    long = CLOSES.stack().rename("Close").rename_axis(["Date", "Ticker"]).reset_index()
    panel = read_panel(long.assign(**{"Adj Close": np.nan}))
    assert_closes(panel)
    assert "the column adj_close is empty and left out" in panel.provenance["notes"]


@pytest.mark.parametrize("close", [0, -5])
def test_an_adjusted_close_hides_no_impossible_one(write, close):
    rows = [f"2024-01-02,A,{close},5", "2024-01-03,A,6,6"]
    with pytest.raises(DataError, match="line 2: close is not positive"):
        read_panel(write("date,symbol,close,adj_close", *rows))


def test_volumes_of_two_levels_may_have_units():
    columns = pd.MultiIndex.from_tuples([("Close", "A"), ("Volume", "A")])
    frame = pd.DataFrame([[1.0, "1.5K"], [1.0, "2M"]], DAYS[:2], columns)
    np.testing.assert_array_equal(read_panel(frame).volume, [[1500], [2_000_000]])


def test_thousands_may_be_grouped_as_in_india(write):
    rows = ['02-Jan-2024,A,"1,23,456.75","12,34,567"', '03-Jan-2024,A,"1,23,457.75","9,999"']
    panel = read_panel(write("date,symbol,close,volume", *rows))
    np.testing.assert_array_equal(panel.close[:, 0], [123456.75, 123457.75])
    np.testing.assert_array_equal(panel.volume[:, 0], [1234567, 9999])
