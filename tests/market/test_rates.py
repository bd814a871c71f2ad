"""Dated rates: how files write them, and what is refused instead of guessed."""

import numpy as np
import pandas as pd
import pytest

from portfolio_env import ArgumentError, DataError
from portfolio_env.market.rates import checked_rate, rates_at, rates_from_returns
from portfolio_env.market.timeline import as_timestamp, years_between

BARS = np.array(["2020-01-02", "2020-01-12", "2020-01-13", "2020-02-01"], "M8[ns]")


def test_rates_from_returns_earn_those_returns():
    bill = [0.001, 0.0, 0.02]
    rates = rates_at("cash", checked_rate("cash", rates_from_returns(BARS, bill)), BARS[:-1])
    np.testing.assert_allclose(rates * years_between(BARS), bill, rtol=1e-12)
    with pytest.raises(ArgumentError, match="each of 4 bars to the next: give 3"):
        rates_from_returns(BARS, [0.01])


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y"])
def test_every_order_of_day_and_month_is_the_same_rate(write, form):
    days = pd.to_datetime(["2020-01-02", "2020-01-13", "2020-02-01"]).strftime(form)
    path = write("day,rate", *(f"{day},{rate}" for day, rate in zip(days, (1, 2, 3), strict=True)))
    found = rates_at("cash", f"{path}?unit=percent", BARS)
    np.testing.assert_array_equal(found, [0.01, 0.01, 0.02, 0.03])
    mapping = dict(zip(days, (0.01, 0.02, 0.03), strict=True))
    np.testing.assert_array_equal(rates_at("cash", checked_rate("cash", mapping), BARS), found)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            ["d,r", "01/02/2020,0.01", "02/03/2020,0.02"],
            "'01/02/2020'.* may come first.*2020-01-31",
        ),
        (["d,r", "13/01/2020,0.01", "01/13/2020,0.02"], "'01/13/2020' is not .* the day first"),
        (["d,r", "2020-01-02,0.01", "2020-02-01,O.05"], "'O.05' on 2020-02-01, .*correct it"),
        (["d,r", "2020-01-02,1%", "2020-02-01,2%"], "'1%' on 2020-01-02.*unit=percent"),
        (["2020-01-02,0.01", "2020-02-01,0.05"], "has no header: write date,rate"),
    ],
)
def test_a_file_that_leaves_its_rates_open_is_refused(write, lines, text):
    with pytest.raises(DataError, match=text):
        rates_at("cash", str(write(*lines)), BARS)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("form", ["%Y-%m-%d", "%d.%m.%Y"])
def test_files_with_other_separators_may_have_decimal_commas(write, separator, form):
    days = pd.to_datetime(["2020-01-02", "2020-01-13", "2020-02-01"]).strftime(form)
    for texts in (("0,01", "", "0,03"), ("0.01", "", "0.03")):
        rows = (separator.join(row) for row in zip(days, texts, strict=True))
        path = write(separator.join(("Datum", "Zins")), *rows)
        np.testing.assert_array_equal(rates_at("cash", str(path), BARS), [0.01, 0.01, 0.01, 0.03])


@pytest.mark.parametrize("name", ["rate_bps", "bp", "basis points", "BasisPoints", "Rate (bps)"])
def test_basis_points_are_told_by_the_name(write, name):
    for rates in ([425.0, 450.0], [0.1, 0.15]):
        series = pd.Series(rates, pd.to_datetime(["2020-01-02", "2020-01-12"]), name=name)
        path = write(f"date,{name}", f"2020-01-02,{rates[0]}", f"2020-01-12,{rates[1]}")
        unnamed = write("date,r", f"2020-01-02,{rates[0]}", f"2020-01-12,{rates[1]}", name="r.csv")
        for own in (str(path), f"{unnamed}?unit=bps", checked_rate("cash", series)):
            np.testing.assert_array_equal(rates_at("cash", own, BARS[:2]), np.array(rates) / 1e4)
    pounds = pd.Series([0.04], pd.to_datetime(["2020-01-02"]), name="GBP_rate")
    np.testing.assert_array_equal(rates_at("cash", checked_rate("cash", pounds), BARS), 0.04)


def test_days_without_a_rate_keep_the_last_one(write):
    path = write("d,r", "2020-01-01,0.01", "2020-01-12,.", "2020-01-13,ND", "2020-01-14,")
    np.testing.assert_array_equal(rates_at("cash", str(path), BARS), [0.01] * 4)


def test_a_frame_is_no_rate():
    frame = pd.DataFrame({"rate": [0.01]}, index=["2020-01-02"])
    with pytest.raises(ArgumentError, match="cash is a frame of 1 columns: give one of them"):
        checked_rate("cash", frame)


@pytest.mark.parametrize("text", ["01/02/2020", "13.01.2020", "now", "today", "10:30", "1-2-20"])
def test_a_text_that_may_be_several_dates_is_no_date(text):
    with pytest.raises(ArgumentError, match="is not a date: give a row number, an ISO date"):
        as_timestamp(text)


QUARTER = pd.date_range("2021-01-01", periods=60)
LOW = pd.Series(np.arange(60) % 9 * 0.01 + 0.01, QUARTER)  # 0.01 % to 0.09 %, as in 2021


@pytest.mark.parametrize(
    "values", [LOW, pd.Series(0.25, QUARTER), pd.Series([0.123, 0.456], QUARTER[:2])]
)
def test_percents_below_one_are_never_taken_for_fractions(write, values):
    path = write("date,rate", *(f"{day:%Y-%m-%d},{rate}" for day, rate in values.items()))
    mend = "may be .* %.*unit=percent, unit=fraction or unit=bps .*'percent', 'fraction' or 'bps'"
    with pytest.raises(DataError, match=mend):
        rates_at("cash", str(path), BARS)
    with pytest.raises(ArgumentError, match=mend):
        checked_rate("cash", values)
    for unit, factor in (("percent", 0.01), ("fraction", 1)):
        bars = values.index.to_numpy()
        expected = values.to_numpy() * factor
        found = rates_at("cash", f"{path}?unit={unit}", bars)
        np.testing.assert_allclose(found, expected, rtol=1e-15)
        again = checked_rate("cash", checked_rate("cash", values.rename(unit)))
        np.testing.assert_allclose(rates_at("cash", again, bars), expected, rtol=1e-15)


@pytest.mark.parametrize("label", ["DGS3MO", "DFF", "SOFR", "FEDFUNDS", "^IRX", "TB3MS"])
def test_series_of_central_banks_are_in_percent(write, label):
    path = write(f"DATE,{label}", *(f"{day:%Y-%m-%d},{rate}" for day, rate in LOW.items()))
    bars = LOW.index.to_numpy()
    np.testing.assert_array_equal(rates_at("cash", str(path), bars), LOW / 100)
    mapping = checked_rate("cash", LOW.rename(label))
    np.testing.assert_array_equal(rates_at("cash", mapping, bars), LOW / 100)


@pytest.mark.parametrize("values", [[0.0525, 0.0533], [0.05] * 40, [0.01, 0.02], [0.0] * 40])
def test_plain_fractions_stay_fractions(values):
    dated = pd.Series(values, pd.date_range("2021-01-01", periods=len(values)))
    assert list(checked_rate("cash", dated).values()) == values


def test_a_rate_of_each_day_is_no_yearly_one():
    with pytest.raises(ArgumentError, match="rf_pct_per_day is no yearly rate"):
        checked_rate("cash", pd.Series([0.003], ["2021-01-04"], name="rf_pct_per_day"))


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Asia/Tokyo", "UTC"])
@pytest.mark.parametrize("in_utc", [False, True])
def test_a_rate_of_a_day_is_known_on_that_day_in_every_zone(zone, in_utc):
    days = pd.bdate_range("2021-03-01", "2021-04-30")
    rates = pd.Series(np.linspace(0.001, 0.05, len(days)), days, name="fraction")
    zoned = rates.tz_localize(zone)
    found = rates_at("cash", checked_rate("cash", zoned.tz_convert("UTC") if in_utc else zoned),
                     days.to_numpy())  # fmt: skip
    np.testing.assert_array_equal(found, rates)


def test_a_file_with_offsets_on_both_sides_of_a_clock_change_keeps_its_days(write):
    days = pd.bdate_range("2021-03-10", "2021-03-17")
    stamps = [day.isoformat() for day in days.tz_localize("America/New_York")]
    rates = np.linspace(0.001, 0.05, len(days))
    path = write(
        "date,fraction", *(f"{day},{rate}" for day, rate in zip(stamps, rates, strict=True))
    )
    np.testing.assert_array_equal(rates_at("cash", str(path), days.to_numpy()), rates)
