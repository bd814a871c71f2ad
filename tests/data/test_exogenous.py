import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, load_market
from portfolio_env.data.exogenous import join
from portfolio_env.market.panel import PricePanel

DAYS = pd.date_range("2020-01-01", periods=8)
COLUMNS = ["date", "symbol", "name", "value", "known_at"]


def panel_of(times=DAYS, assets=("A", "B", "C")):
    return PricePanel(np.array(times), assets, close=np.ones((len(times), len(assets))))


def records(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def oracle(panel, frame, name, offset, max_age):
    """The rule of `join` for every row and asset, one record after the other."""
    own = [row for row in frame.itertuples() if row.name == name]
    values = np.full(panel.close.shape, np.nan)
    for t, label in enumerate(panel.timestamps):
        now = pd.Timestamp(label) + offset
        for i, asset in enumerate(panel.assets):
            for symbol in (asset, "*"):
                known = [row for row in own if row.symbol == symbol and row.known_at <= now]
                if known and np.isnan(values[t, i]):
                    best = max(known, key=lambda row: (row.date, row.known_at))
                    if max_age is None or now - best.known_at <= max_age:
                        values[t, i] = best.value
    return values


@st.composite
def tables(draw, largest=12):
    """Records on half days, some published late, some withdrawn; no contradictions."""
    seen = {}
    for _ in range(draw(st.integers(1, largest))):
        date = DAYS[0] + draw(st.integers(-4, 18)) * pd.Timedelta("12h")
        known = date + draw(st.integers(0, 10)) * pd.Timedelta("12h")
        key = (date, draw(st.sampled_from("AB*")), draw(st.sampled_from("xy")), known)
        seen[key] = draw(st.sampled_from([1.0, 2.0, 3.0, -0.5, np.nan]))
    return records(*((*key[:3], value, key[3]) for key, value in seen.items()))


OFFSETS = st.sampled_from(["0s", "12h", "1 day", "-6h"])
AGES = st.sampled_from([None, "0s", "12h", "2 days"])


@given(tables(), OFFSETS, AGES, st.randoms())
def test_every_value_is_that_of_a_slow_rule(frame, offset, max_age, random):
    order = list(range(len(frame)))
    random.shuffle(order)
    joined = join(panel_of(), frame.iloc[order], close_offset=offset, max_age=max_age)
    assert set(joined.exogenous) == set(frame["name"])
    age = None if max_age is None else pd.Timedelta(max_age)
    for name, values in joined.exogenous.items():
        expected = oracle(joined, frame, name, pd.Timedelta(offset), age)
        np.testing.assert_array_equal(values, expected)


@given(tables(), tables(), OFFSETS, AGES, st.integers(0, len(DAYS) - 1))
def test_records_known_later_change_nothing_before(frame, more, offset, max_age, t):
    now = DAYS[t] + pd.Timedelta(offset)
    before = join(panel_of(), frame, close_offset=offset, max_age=max_age).exogenous
    past = frame[frame["known_at"] <= now]
    changed = pd.concat([past, more[more["known_at"] > now]])
    after = join(panel_of(), changed, close_offset=offset, max_age=max_age) if len(changed) else {}
    for name, values in before.items():
        again = after.exogenous.get(name) if changed.size else None
        known = np.full((t + 1, 3), np.nan) if again is None else again[: t + 1]
        np.testing.assert_array_equal(values[: t + 1], known)


def column(frame, asset=0, **options):
    return join(panel_of(), frame, **options).exogenous["x"][:, asset].tolist()


def test_a_revision_replaces_and_a_late_old_value_does_not():
    frame = records(
        ("2020-01-01", "A", "x", 1.0, "2020-01-02"),
        ("2020-01-01", "A", "x", 1.5, "2020-01-04"),  # revised
        ("2020-01-03", "A", "x", 2.0, "2020-01-05"),
        ("2020-01-02", "A", "x", 9.0, "2020-01-06"),  # late
        ("2020-01-03", "A", "x", None, "2020-01-07"),  # withdrawn
    )
    expected = [np.nan, 1, 1, 1.5, 2, 2, np.nan, np.nan]
    np.testing.assert_array_equal(column(frame), expected)
    np.testing.assert_array_equal(
        column(frame, max_age="0s")[:6], [np.nan, 1, np.nan, 1.5, 2, np.nan]
    )


def test_age_counts_from_publication():
    frame = records(("2020-01-01", "A", "x", 1.0, "2020-01-03"))
    nan = np.nan
    assert column(frame) == pytest.approx([nan, nan, 1, 1, 1, 1, 1, 1], nan_ok=True)
    aged = column(frame, max_age="36h")
    assert aged == pytest.approx([nan, nan, 1, 1, nan, nan, nan, nan], nan_ok=True)


def test_own_values_beat_those_of_all_assets_until_they_end():
    frame = records(
        ("2020-01-01", "*", "x", 7.0, "2020-01-01"),
        ("2020-01-01", "A", "x", 1.0, "2020-01-03"),
        ("2020-01-04", "*", "x", 8.0, "2020-01-04"),
        ("2020-01-06", "A", "x", np.nan, "2020-01-06"),
    )
    assert column(frame) == [7, 7, 1, 1, 1, 8, 8, 8]
    assert column(frame, asset=1) == [7, 7, 7, 8, 8, 8, 8, 8]


def test_zones_are_converted_and_the_offset_moves_the_close():
    frame = records(("2020-01-02T00:00+09:00", "A", "x", 1.0, "2020-01-02T10:00+09:00"))
    assert column(frame) == pytest.approx([np.nan, np.nan, 1, 1, 1, 1, 1, 1], nan_ok=True)
    assert column(frame, close_offset="1h")[1] == 1
    exact = records(("2020-01-02", "A", "x", 1.0, "2020-01-02T01:00:00Z"))
    assert np.isnan(column(exact, close_offset="59min")[1])
    assert column(exact, close_offset="1h")[1] == 1
    assert column(exact, close_offset=np.timedelta64(1, "h"))[1] == 1


def test_files_as_frames(tmp_path):
    frame = records(
        ("2020-01-01", "A", "x", 1.0, "2020-01-02T00:00:00Z"),
        ("2020-01-01", "*", "NA", 2.0, "2020-01-03T00:00:00Z"),
    )
    frame.to_csv(tmp_path / "x.csv.gz", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    expected = join(panel_of(), frame).exogenous
    assert list(expected) == ["NA", "x"]
    for name in ("x.csv.gz", "x.parquet"):
        joined = join(panel_of(), tmp_path / name)
        for channel, values in expected.items():
            np.testing.assert_array_equal(joined.exogenous[channel], values)
        (about,) = joined.provenance["exogenous"]
        assert about["source"] == str(tmp_path / name)
        assert (about["names"], about["records"]) == (["NA", "x"], 2)


GOOD = ("2020-01-01", "A", "x", 1.0, "2020-01-02")


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([GOOD, ("2020-01-03", "A", "x", 1.0, "2020-01-02")], "row 2: known_at is before date"),
        ([GOOD, (*GOOD[:3], 2.0, GOOD[4])], "row 2: another value for the same .*'2.0'; delete"),
        ([GOOD, (*GOOD[:3], None, GOOD[4])], "row 2: another value"),
        ([("2020-01-01", "", "x", 1.0, "2020-01-02")], r"no symbol; give one, or '\*' for all"),
        ([("2020-01-01", "A", None, 1.0, "2020-01-02")], "no name; name the channel"),
        ([(*GOOD[:4], None)], "row 1: there is no date"),
        ([(*GOOD[:4], "soon")], "row 1: unreadable date 'soon'"),
        ([(*GOOD[:3], "high", GOOD[4])], "value is not a number: 'high'"),
        ([(*GOOD[:3], np.inf, GOOD[4])], "row 1: value is infinite"),
        ([], "holds no records"),
    ],
)
def test_records_that_cannot_be(rows, text):
    with pytest.raises(DataError, match=text):
        join(panel_of(), records(*rows))


def test_equal_records_may_be_repeated():
    assert column(records(GOOD, GOOD))[1] == 1


def test_names_and_options():
    frame = records(GOOD)
    with pytest.raises(ArgumentError, match=r"'AA': did you mean .*A"):
        join(panel_of(assets=("AAA", "B")), frame.assign(symbol="AA"))
    assert join(panel_of(assets=("B", "C")), frame, others=["A"]).exogenous["x"].shape == (8, 2)
    with pytest.raises(ArgumentError, match="has 'x' already"):
        join(join(panel_of(), frame), frame)
    with pytest.raises(ArgumentError, match="has 'close' already"):
        join(panel_of(), frame.assign(name="close"))
    with pytest.raises(DataError, match=r"lacks the columns \['known_at'\].*published"):
        join(panel_of(), frame.drop(columns="known_at"))
    for options in ({"max_age": "-1 day"}, {"max_age": 3}, {"close_offset": "late"}):
        with pytest.raises(ArgumentError, match="length of time"):
            join(panel_of(), frame, **options)
    two = join(join(panel_of(), frame), frame.assign(name="y"))
    assert [about["names"] for about in two.provenance["exogenous"]] == [["x"], ["y"]]


def test_load_market_joins_the_records_of_the_assets_it_keeps():
    start = pd.Timestamp(load_market("synthetic?bars=50&assets=4").timestamps[0])
    names = load_market("synthetic?bars=50&assets=4").assets
    frame = records(
        *((start, name, "x", float(i), start) for i, name in enumerate(names)),
    )
    market = load_market("synthetic?bars=50&assets=4", assets=names[:2], exogenous=frame)
    assert market.panel.exogenous["x"][-1].tolist() == [0, 1]
    with pytest.raises(ArgumentError, match="unknown asset"):
        load_market("synthetic?bars=50&assets=4", exogenous=frame[:1].assign(symbol="?"))


@settings(max_examples=5)
@given(st.integers(0, 2**32 - 1))
def test_many_records_are_joined_fast(seed):
    rng = np.random.default_rng(seed)
    n, hours = 100_000, pd.date_range("2020-01-01", periods=8000, freq="h")
    assets = tuple(f"A{i}" for i in range(20))
    date = hours.to_numpy()[rng.integers(0, 8000, n)]
    frame = pd.DataFrame(
        {
            "date": date,
            "symbol": np.array([*assets, "*"])[rng.integers(0, 21, n)],
            "name": np.array(["x", "y", "z"])[rng.integers(0, 3, n)],
            "value": rng.normal(size=n),
            "known_at": date + rng.integers(0, 10**14, n).astype("timedelta64[ns]"),
        }
    )
    panel = panel_of(hours, assets)
    began = time.process_time()
    joined = join(panel, frame)
    assert time.process_time() - began < 2
    assert all(np.isfinite(values[-1]).all() for values in joined.exogenous.values())


def shapes(mom, vol):
    """Two factors over dates and symbols, in every shape that pandas users keep them in."""
    tidy = pd.concat({"mom": mom.stack(), "vol": vol.stack()}, axis=1)
    tidy.index.names = ["date", "symbol"]
    levels = pd.concat({"mom": mom, "vol": vol}, axis=1)
    yield tidy
    yield tidy.reset_index()
    yield tidy.reset_index().rename(columns={"date": "Date", "symbol": "Ticker"})
    yield tidy.swaplevel().sample(frac=1, random_state=0)
    yield tidy.reset_index("symbol")
    yield levels
    yield levels.swaplevel(axis=1)
    yield {"mom": mom, "vol": vol}
    yield {"mom": mom.tz_localize("Asia/Tokyo"), "vol": vol}  # midnight there is a date
    long = tidy.reset_index().melt(["date", "symbol"], var_name="name")
    yield long.assign(known_at=long["date"])


def test_factors_in_any_shape_are_known_at_their_dates():
    rng = np.random.default_rng(0)
    mom, vol = (
        pd.DataFrame(rng.normal(size=(8, 3)), DAYS, list("ABC")).mask(rng.random((8, 3)) < 0.2)
        for _ in range(2)
    )
    for shape in shapes(mom, vol):
        found = join(panel_of(), shape).exogenous
        np.testing.assert_array_equal(found["mom"], mom)
        np.testing.assert_array_equal(found["vol"], vol)


def test_a_series_of_dates_is_of_all_assets():
    rate = pd.Series(np.arange(8.0), DAYS, name="rate")
    for source in (rate, {"rate": rate}):
        found = join(panel_of(), source).exogenous["rate"]
        np.testing.assert_array_equal(found, np.repeat(np.arange(8.0)[:, None], 3, axis=1))


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (pd.DataFrame({"A": [1.0]}, DAYS[:1]), "is no table of factors"),  # which factor?
        ({"mom": np.ones((8, 3))}, "must be a frame with a DatetimeIndex"),
        ({}, "holds no channels"),
        (pd.DataFrame({("x", "y"): [1.0]}, DAYS[:1]), "none of them holds symbols"),
        (pd.Series([1.0], DAYS[:1]), "without a name"),
    ],
)
def test_what_is_no_table_of_factors(source, fault):
    with pytest.raises(DataError, match=fault):
        join(panel_of(), source)


def test_factors_given_as_features_are_refused_with_the_fix():
    with pytest.raises(ArgumentError, match="exogenous="):
        load_market("synthetic?bars=60", features={"mom": pd.DataFrame()})
