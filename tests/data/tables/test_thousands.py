"""Points between digits: thousands, decimals, or refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import DataError
from portfolio_env.data.bars import read_panel
from portfolio_env.data.tables.csv_table import read_csv
from portfolio_env.data.tables.origin import Origin

DAYS = [f"2024-01-{day:02d}" for day in range(2, 8)]


def file_of(write, cells, *, sep=";", volume=None):
    rows = [sep.join([day, "A", cell]) for day, cell in zip(DAYS, cells, strict=False)]
    if volume is not None:
        rows = [sep.join(pair) for pair in zip(rows, volume, strict=True)]
    head = ["date", "symbol", "close"] + ["volume"] * (volume is not None)
    return write(sep.join(head), *rows)


@pytest.mark.parametrize("sep", [";", ",", "\t"])
@pytest.mark.parametrize(
    ("cells", "closes"),
    [
        (["998", "1.003", "1.010"], [998, 1003, 1010]),
        (["999.500", "1.000.500"], [999500, 1000500]),
        (["9.998", "1.000.003"], [9998, 1000003]),
    ],
)
def test_points_that_can_only_separate_thousands_do(write, sep, cells, closes):
    panel = read_panel(file_of(write, cells, sep=sep))
    np.testing.assert_array_equal(panel.close[:, 0], closes)
    assert "thousands are separated by points" in panel.provenance["notes"]


@pytest.mark.parametrize("sep", [";", ",", "\t"])
@pytest.mark.parametrize(
    ("cells", "volume"),
    [
        (["1.234", "1.2", "1.345"], None),
        (["1.234", "1234.567", "1.345"], None),
        (["0.999", "1.003", "1.345"], None),
        (["1.234", "1.235", "1.345"], ["120000", "5", "7"]),
        (["12.345", "12.346", "12"], ["1.5", "5", "7"]),
    ],
)
def test_points_that_can_only_be_decimal_are(write, sep, cells, volume):
    panel = read_panel(file_of(write, cells, sep=sep, volume=volume))
    np.testing.assert_array_equal(panel.close[:, 0], [float(cell) for cell in cells])


def test_prices_with_three_decimals_are_read_between_commas(write):
    panel = read_panel(file_of(write, ["109.120", "109.453"], sep=",", volume=["15", "1200"]))
    np.testing.assert_array_equal(panel.close[:, 0], [109.12, 109.453])


def test_a_semicolon_file_with_decimal_commas_has_thousands_by_points(write):
    panel = read_panel(file_of(write, ["999,5", "1.001,5"], volume=["950", "1.234"]))
    np.testing.assert_array_equal(panel.close[:, 0], [999.5, 1001.5])
    np.testing.assert_array_equal(panel.volume[:, 0], [950, 1234])


@pytest.mark.parametrize(
    ("cells", "volume", "sep"),
    [
        (["13.385", "13.401"], None, ";"),
        (["13.385", "13.401"], None, "\t"),
        (["13.385", "13.401"], None, "|"),
        (["12", "13.385", "13.401"], None, ","),
        (["100", "101"], ["12", "1.234"], ","),
        (["100", "101"], ["1.234", "0"], ";"),
    ],
)
def test_points_that_may_be_either_are_refused_with_line_and_mend(write, cells, volume, sep):
    path = file_of(write, cells, sep=sep, volume=volume)
    at = next(
        at for at, row in enumerate(path.read_text().splitlines(), 1) if at > 1 and "." in row
    )
    with pytest.raises(DataError, match=rf"line {at}: the point may .*'1[3.]\S+'; write thousands"):
        read_panel(path)


@pytest.mark.parametrize(
    ("option", "closes"), [({}, [13.385, 13.401]), ({"thousands": "."}, [13385, 13401])]
)
def test_the_mend_of_points_that_may_be_either_settles_it(write, option, closes):
    path = file_of(write, ["13.385", "13.401"], sep="\t")
    with pytest.raises(DataError, match=r"pandas.read_csv\(..., sep='\\t'\), with thousands='.'"):
        read_panel(path)
    panel = read_panel(pd.read_csv(path, sep="\t", **option))
    np.testing.assert_array_equal(panel.close[:, 0], closes)


@given(
    st.lists(st.integers(1, 10**7), min_size=2, max_size=6),
    st.sampled_from(["whole", "grouped"]),
    st.sampled_from(";,\t|"),
)
def test_whole_numbers_are_read_right_or_refused_however_they_are_grouped(numbers, how, sep):
    texts = [f"{n:,}".replace(",", ".") if how == "grouped" else str(n) for n in numbers]
    text = "\n".join(
        [sep.join(["date", "symbol", "close"])]
        + [sep.join([day, "A", cell]) for day, cell in zip(DAYS, texts, strict=False)]
    )
    try:
        frame, _ = read_csv(text.encode(), Origin("file"))
    except DataError as error:
        assert how == "grouped" and "the point may" in str(error)
        return
    read = pd.to_numeric(frame["close"])
    if all("." in cell for cell in texts) and sep == "," and max(numbers) < 10**6:
        numbers = [number / 1000 for number in numbers]  # three decimals, as of USD/JPY
    np.testing.assert_allclose(read, numbers, rtol=1e-15)
