"""Dated rates: how files write them, and what is refused instead of guessed."""

import numpy as np
import pandas as pd
import pytest

from portfolio_env import ArgumentError, DataError
from portfolio_env.market.rates import checked_rate, rates_at
from portfolio_env.market.timeline import as_timestamp

BARS = np.array(["2020-01-02", "2020-01-12", "2020-01-13", "2020-02-01"], "M8[ns]")


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
