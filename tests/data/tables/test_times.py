"""The labels of bars: exchanges' dates, instants, and months that are known at their end."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.data.bars import read_panel

ZONES = ("Asia/Tokyo", "Australia/Sydney", "Asia/Kolkata", "Europe/London", "Europe/Berlin",
         "America/New_York", "America/Sao_Paulo", "Pacific/Auckland")  # fmt: skip
DAYS = pd.bdate_range("2022-08-01", periods=300)
PRICES = pd.DataFrame({"A": 100.0 + np.arange(300), "B": 50.0 + np.arange(300)}, DAYS)


@pytest.mark.parametrize("zone", ZONES)
def test_days_stamped_with_local_midnight_are_the_exchanges_days(zone, tmp_path):
    local = PRICES.tz_localize(zone)
    local.to_csv(tmp_path / "local.csv")
    local.to_parquet(tmp_path / "local.parquet")
    local.tz_convert("UTC").to_csv(tmp_path / "utc.csv")
    long = local.stack().rename("close").rename_axis(["date", "symbol"]).reset_index()
    shapes = [local, local.tz_convert("UTC"), long, *sorted(tmp_path.iterdir())]
    for shape in shapes:
        panel = read_panel(shape)
        np.testing.assert_array_equal(panel.timestamps, DAYS.to_numpy("M8[ns]"))
        np.testing.assert_array_equal(panel.close, PRICES.to_numpy())


@given(st.sampled_from(ZONES), st.sampled_from(ZONES))
def test_two_exchanges_meet_on_their_days(one, other):
    utc = [PRICES[[name]].tz_localize(zone).tz_convert("UTC")
           for name, zone in (("A", one), ("B", other))]  # fmt: skip
    panel = read_panel(pd.concat(utc, axis=1, sort=True))
    np.testing.assert_array_equal(panel.timestamps, DAYS.to_numpy("M8[ns]"))
    assert panel.tradable.all()


def test_instants_that_are_no_midnight_stay_in_utc():
    closes = PRICES.set_axis((DAYS + pd.Timedelta("16h")).tz_localize("America/New_York"))
    panel = read_panel(closes)
    np.testing.assert_array_equal(
        panel.timestamps, closes.index.tz_convert(None).to_numpy("M8[ns]")
    )
    crypto = PRICES.set_axis(pd.date_range("2022-08-01 16:00", periods=300, tz="UTC"))
    assert read_panel(crypto).timestamps[0] == np.datetime64("2022-08-01T16:00")
    naive = PRICES.set_axis(DAYS + pd.Timedelta("15h"))
    assert read_panel(naive).timestamps[0] == np.datetime64("2022-08-01T15:00")


@pytest.mark.parametrize(("bars", "first"), [(4, "2024-01-01T15:00"), (5, "2024-01-02")])
def test_five_business_days_tell_midnight_at_an_exchange_from_an_hour_in_utc(bars, first):
    days = pd.bdate_range("2024-01-02", periods=bars, tz="Asia/Tokyo").tz_convert("UTC")
    panel = read_panel(PRICES.iloc[:bars].set_axis(days))
    assert panel.timestamps[0] == np.datetime64(first)


def test_offsets_may_change_with_the_clocks(write):
    rows = ["2024-03-08 09:30:00-05:00,A,1", "2024-03-11 09:30:00-04:00,A,1"]
    panel = read_panel(write("date,symbol,close", *rows))
    expected = ["2024-03-08T14:30", "2024-03-11T13:30"]
    np.testing.assert_array_equal(panel.timestamps, np.array(expected, "M8[ns]"))


@pytest.mark.parametrize(
    ("labels", "ends"),
    [
        (("2020-01", "2020-02", "2020-03"), ("2020-01-31", "2020-02-29", "2020-03-31")),
        (("202001", "202002", "202003"), ("2020-01-31", "2020-02-29", "2020-03-31")),
        (("2020-01-01", "2020-02-01", "2020-03-01"), ("2020-01-31", "2020-02-29", "2020-03-31")),
        (("2020-01-31", "2020-02-29", "2020-03-31"), ("2020-01-31", "2020-02-29", "2020-03-31")),
        (("2020Q1", "2020Q2", "2020Q3"), ("2020-03-31", "2020-06-30", "2020-09-30")),
        (("2020-01-01", "2020-04-01", "2020-07-01"), ("2020-03-31", "2020-06-30", "2020-09-30")),
        (("2018", "2019", "2020"), ("2018-12-31", "2019-12-31", "2020-12-31")),
        (("2024-01-01", "2024-01-08", "2024-01-15"), ("2024-01-07", "2024-01-14", "2024-01-21")),
        (("2024-W01", "2024-W02", "2024-W03"), ("2024-01-07", "2024-01-14", "2024-01-21")),
        (
            ("2024-01-01/2024-01-07", "2024-01-08/2024-01-14", "2024-01-15/2024-01-21"),
            ("2024-01-07", "2024-01-14", "2024-01-21"),
        ),
        (("Q1 2020", "Q2 2020", "Q3 2020"), ("2020-03-31", "2020-06-30", "2020-09-30")),
        (("Jan 2020", "Feb 2020", "Mar 2020"), ("2020-01-31", "2020-02-29", "2020-03-31")),
        (("2024-01-05", "2024-01-12", "2024-01-19"), ("2024-01-05", "2024-01-12", "2024-01-19")),
    ],
)
def test_periods_are_known_at_their_end(write, labels, ends):
    expected = np.array(ends, "M8[ns]")
    wide = read_panel(write("Date,A", *(f"{label},1" for label in labels)))
    long = read_panel(write("date,symbol,close", *(f"{label},A,1" for label in labels)))
    frame = read_panel(pd.DataFrame({"A": [1.0, 1.0, 1.0]}, list(labels)))
    for panel in (wide, long, frame):
        np.testing.assert_array_equal(panel.timestamps, expected)


@pytest.mark.parametrize("freq", ["MS", "QS", "W-MON"])
@pytest.mark.parametrize("zone", ZONES)
def test_periods_that_begin_at_an_exchanges_midnight_are_known_at_their_end(zone, freq):
    starts = pd.date_range("2018-01-01", periods=30, freq=freq)
    utc = pd.DataFrame({"A": np.ones(30)}, starts.tz_localize(zone).tz_convert("UTC"))
    plain = read_panel(utc.set_axis(starts))
    np.testing.assert_array_equal(read_panel(utc).timestamps, plain.timestamps)
    assert (plain.timestamps > starts.to_numpy("M8[ns]")).all()


@pytest.mark.parametrize("form", ["%Y%m%d%H%M%S", "%Y%m%d%H%M"])
def test_times_without_signs_are_no_time_since_1970(write, form):
    times = pd.date_range("2024-01-31 09:30", periods=3, freq="min")
    panel = read_panel(write("Date,A", *(f"{time.strftime(form)},1" for time in times)))
    np.testing.assert_array_equal(panel.timestamps, times.to_numpy("M8[ns]"))


@pytest.mark.parametrize("freq", ["M", "Q", "Y", "W", "D", "h"])
def test_a_period_index_is_known_at_its_end(freq):
    periods = pd.period_range("2020-01-01", periods=5, freq=freq)
    panel = read_panel(pd.DataFrame({"A": np.ones(5)}, periods))
    ends = periods.end_time.normalize() if freq not in "Dh" else periods.start_time
    np.testing.assert_array_equal(panel.timestamps, ends.to_numpy("M8[ns]"))


def test_a_fit_that_ends_within_a_month_has_not_seen_its_close(write):
    months = pd.period_range("2020-01", periods=24, freq="M")
    panel = read_panel(pd.DataFrame({"A": 100.0 + np.arange(24)}, months))
    before = np.searchsorted(panel.timestamps, np.datetime64("2021-06-15"))
    assert panel.close[before - 1, 0] == 116  # May
