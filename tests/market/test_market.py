import copy
import json
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import (
    ArgumentError,
    DataError,
    Market,
    PortfolioEnv,
    PricePanel,
    load_market,
)
from portfolio_env.market.panel import BAR_FIELDS
from portfolio_env.market.timeline import periods_per_year, row_of

DAYS = pd.date_range("2020-01-01", periods=3).to_numpy()


def make_panel(close=((1.0, 2.0), (1.1, 2.1), (1.2, 2.2)), assets=("A", "B"), **rest):
    return PricePanel(DAYS[: len(close)], assets, np.array(close), **rest)


def arrays_of(market):
    bars = [getattr(market, name) for name in BAR_FIELDS]
    return [
        market.timestamps,
        market.features,
        market.tradable,
        *(b for b in bars if b is not None),
    ]


def assert_same(left, right):
    assert left.hash == right.hash
    assert left.assets == right.assets
    for a, b in zip(arrays_of(left), arrays_of(right), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("source", ["synthetic?bars=60&ragged=true", "synthetic-null?bars=60"])
def test_arrays_are_read_only_even_after_a_round_trip(source, tmp_path):
    market = load_market(source)
    market.save(tmp_path / "m.npz")
    stored = Market.load(tmp_path / "m.npz")
    unpickled = pickle.loads(pickle.dumps(market))
    for other in (market, stored, unpickled, market.past(30), market.select(market.assets[::-1])):
        for array in (*arrays_of(other), *other.panel.exogenous.values()):
            assert not array.flags.writeable
            assert array.flags.c_contiguous
    for other in (stored, unpickled):
        assert_same(market, other)
        assert other.panel.provenance == json.loads(json.dumps(market.panel.provenance))
        assert (other.warmup, other.periods_per_year) == (market.warmup, market.periods_per_year)
    assert copy.deepcopy(market) is market
    assert copy.copy(market.panel) is market.panel


def test_the_panel_does_not_share_the_callers_arrays():
    close = np.array([[1.0, 2.0], [3.0, 4.0]])
    panel = PricePanel(DAYS[:2], ("A", "B"), close)
    close[0, 0] = 9.0
    assert panel.close[0, 0] == 1.0
    frame = pd.DataFrame({"A": [1.0, 2.0], "B": [3.0, 4.0]})
    panel = PricePanel(DAYS[:2], ("A", "B"), frame.to_numpy().T)
    frame.iloc[0, 0] = 9.0  # pandas hands out read-only views of memory that it writes to
    assert panel.close[0, 0] == 1.0


def test_hash_is_that_of_the_arrays_whole(monkeypatch):
    """It is made by pieces, so that it takes no second copy of the features."""
    left, right = (load_market("synthetic?bars=30&assets=2") for _ in range(2))
    whole = left.hash
    monkeypatch.setattr("portfolio_env.market.market_file._HASHED", 1)
    assert right.hash == whole


def test_hash_sees_every_array_and_name_but_not_the_provenance():
    def market(features=("return_1",), **changes):
        fields = {"volume": np.ones((3, 2)), "provenance": {"source": "x"}} | changes
        return load_market(make_panel(**fields), features=features)

    base = market()
    assert market(provenance={"source": "y"}).hash == base.hash
    others = [
        market(close=((1.0, 2.0), (1.1, 2.1), (1.2, np.nextafter(2.2, 3)))),
        market(assets=("A", "C")),
        market(volume=np.full((3, 2), 2.0)),
        market(volume=None),
        market(periods_per_year=252.0),
        market(exogenous={"x": np.zeros((3, 2))}),
        market(features=("momentum_5",)),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == len(others) + 1


def test_tradable_needs_a_bar_and_volume():
    panel = make_panel(
        close=((1.0, np.nan), (1.1, 2.1), (1.2, 2.2)),
        volume=np.array([[5.0, np.nan], [0.0, 3.0], [1.0, 2.0]]),
    )
    np.testing.assert_array_equal(panel.tradable, [[True, False], [False, True], [True, True]])


BARS = {"open": 2.0, "high": 3.0, "low": 1.0, "close": 2.0, "volume": 4.0}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"close": -1.0}, "close is not positive"),
        ({"close": 0.0}, "close is not positive"),
        ({"close": np.inf}, "close is infinite"),
        ({"open": 0.0}, "open is not positive"),
        ({"high": np.inf}, "high is infinite"),
        ({"high": 0.5}, "high is below low"),
        ({"open": 3.5}, "open is above high"),
        ({"open": 0.5}, "open is below low"),
        ({"close": 3.5}, "close is above high"),
        ({"close": 0.5}, "close is below low"),
        ({"volume": -1.0}, "volume is negative"),
        ({"low": np.nan}, "low is missing where close is given"),
        ({"close": np.nan}, "open is given where close is missing"),
    ],
)
def test_impossible_bars_are_refused_by_asset_and_time(fault, text):
    fields = {name: np.full((3, 2), value) for name, value in BARS.items()}
    PricePanel(DAYS, ("A", "B"), **fields)
    for name, value in fault.items():
        fields[name][1, 1] = value
    with pytest.raises(DataError, match=f"B at 2020-01-02.*{text}"):
        PricePanel(DAYS, ("A", "B"), **fields)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"assets": (), "close": np.ones((3, 0))}, "there is no asset"),
        ({"assets": ("A", "A")}, "not unique"),
        ({"timestamps": DAYS[[0, 2, 1]]}, "not strictly increasing"),
        ({"timestamps": DAYS[[0, 1, 1]]}, "not strictly increasing"),
        ({"timestamps": np.array([], "datetime64[ns]")}, "at least one"),
        ({"volume": np.ones((2, 2))}, "volume has shape"),
        ({"exogenous": {"x": np.ones((3, 3))}}, "x has shape"),
        ({"exogenous": {"x": np.full((3, 2), np.inf)}}, "x is infinite"),
    ],
)
def test_malformed_panels_are_refused(changes, text):
    fields = {"timestamps": DAYS, "assets": ("A", "B"), "close": np.ones((3, 2))} | changes
    with pytest.raises(DataError, match=text):
        PricePanel(**fields)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"features": np.zeros((3, 2, 2))}, "shape"),
        ({"features": np.full((3, 2, 1), np.nan)}, "finite"),
        ({"features": np.full((3, 2, 1), 10.1)}, "within"),
        ({"features": np.ones((3, 2, 1))}, "cannot be traded"),
        ({"warmup": -1}, "warmup=-1"),
    ],
)
def test_malformed_markets_are_refused(changes, text):
    panel = make_panel(close=((1.0, np.nan), (1.1, 2.1), (1.2, 2.2)))
    fields = {"features": np.zeros((3, 2, 1)), "feature_names": ("x",)} | changes
    with pytest.raises((DataError, ArgumentError), match=text):
        Market(panel, **fields)


@pytest.mark.parametrize(
    ("freq", "start", "bars", "expected"),
    [
        ("D", "2020-01-01", 10, 365),
        ("D", "2020-01-01", 800, 365),
        ("B", "2020-01-01", 10, 252),
        ("B", "2020-01-01", 1500, 252),
        ("h", "2020-01-01", 1500, 8760),
        ("15min", "2020-01-01", 1500, 35040),
        ("W", "2020-01-01", 60, 52),
        ("ME", "2020-01-01", 60, 12),
        ("BME", "2020-01-01", 60, 12),
        ("QE", "2020-01-01", 20, 4),
        ("YE", "2010-01-01", 8, 1),
    ],
)
def test_periods_per_year(freq, start, bars, expected):
    stamps = pd.date_range(start, periods=bars, freq=freq).to_numpy("datetime64[ns]")
    assert periods_per_year(stamps) == expected


def test_periods_per_year_of_sessions_and_with_gaps():
    days = pd.bdate_range("2020-01-01", periods=100)
    sessions = np.concatenate([day + pd.timedelta_range("14:30:00", "20:30:00", 7) for day in days])
    assert periods_per_year(sessions.astype("datetime64[ns]")) == 252 * 7
    hours = pd.date_range("2020-01-01", periods=2000, freq="h").to_numpy("datetime64[ns]")
    kept = np.random.default_rng(0).random(2000) > 0.03
    assert periods_per_year(hours[kept]) == 8760
    assert periods_per_year(hours[:1]) == 365


def test_row():
    market = load_market(make_panel(), features=("return_1",))
    assert [market.row(when) for when in (0, 2, 3, -1, -3)] == [0, 2, 3, 2, 0]
    assert [market.row(d) for d in ("2019-01-01", "2020-01-02", "2020-01-02T05:00")] == [0, 1, 2]
    assert market.row(pd.Timestamp("2020-01-02", tz="UTC")) == 1
    assert market.row(pd.Timestamp("2020-01-02", tz="Europe/Berlin")) == 1
    assert market.row(np.datetime64("2020-01-03")) == 2
    for bad, text in (
        (4, "outside the 3 bars"),
        (-4, "outside the 3 bars"),
        ("2020-01-04", "after the last bar"),
        ("soon", "not a date"),
        ("3000-01-01", "is outside of 1677-09-22 to 2262-04-11"),
        ("", "not a date"),
        (None, "not a date"),
        (True, "neither a row nor a date"),
        (1.5, "not a date"),
    ):
        with pytest.raises(ArgumentError, match=text):
            market.row(bad)


def test_a_split_names_the_end_that_is_not_a_date():
    market = load_market(make_panel(), features=("return_1",))
    for name, ends in (("train", ("zz", 0.1)), ("validation", (0.5, "zz"))):
        with pytest.raises(ArgumentError, match=f"{name}: 'zz' is not a date"):
            market.split(*ends)


def test_the_end_of_a_range_may_lie_after_the_last_bar():
    market = load_market(make_panel(), features=("return_1",))
    times = market.timestamps
    assert [row_of(times, day, end=True) for day in ("2020-01-03", "2020-01-04")] == [2, 3]
    assert row_of(times, "2020-01-10", end=True) == 3
    with pytest.raises(ArgumentError, match="after the last bar"):
        row_of(times, "2021-01-01", end=True)
    months = pd.date_range("2020-01-31", periods=6, freq="ME").to_numpy("datetime64[ns]")
    assert row_of(months, "2020-07-31", end=True) == 6
    with pytest.raises(ArgumentError, match="after the last bar"):
        row_of(months, "2020-09-30", end=True)
    env = PortfolioEnv(market, window=1, start="2020-01-02", end="2020-01-04")
    assert env.reset()[0] is not None


def test_split(market):
    assert market.split() == ((0, 210), (210, 255), (255, 300))
    assert market.split(0.5, 0.25) == ((0, 150), (150, 225), (225, 300))
    date = str(market.timestamps[100])
    assert market.split(date, 200) == ((0, 100), (100, 200), (200, 300))
    for train, validation in ((0.8, 0.2), (0.0, 0.5), (200, 200), (0.5, 0.0)):
        with pytest.raises(ArgumentError, match="all three parts"):
            market.split(train, validation)
    for share in (1.5, -0.1, 1e308, math.inf, math.nan):
        with pytest.raises(ArgumentError, match=r"train=.*must be a finite number"):
            market.split(share, 0.1)
        with pytest.raises(ArgumentError, match=r"validation=.*must be a finite number"):
            market.split(0.5, share)


@given(t=st.integers(0, 299))
def test_the_past_is_a_prefix_and_needs_no_copy(market, t):
    past = market.past(t)
    assert past.n_bars == t + 1
    assert past.periods_per_year == market.periods_per_year
    assert np.shares_memory(past.features, market.features)
    for a, b in zip(arrays_of(past), arrays_of(market), strict=True):
        np.testing.assert_array_equal(a, b[: t + 1])
    assert_same(past.past(t // 2), market.past(t // 2))


def test_past_and_select_check_their_arguments(market):
    for t in (-1, market.n_bars):
        with pytest.raises(ArgumentError, match="give a row"):
            market.past(t)
    with pytest.raises(ArgumentError, match="unknown asset 'a01': did you mean A01"):
        market.select(["A00", "a01"])
    with pytest.raises(DataError, match="not unique"):
        market.select(["A00", "A00"])
    with pytest.raises(DataError, match="there is no asset"):
        market.select([])


def test_select_permutes_everything(market):
    order = [2, 0, 3]
    chosen = market.select([market.assets[i] for i in order])
    for a, b in zip(arrays_of(chosen)[1:], arrays_of(market)[1:], strict=True):
        np.testing.assert_array_equal(a, b[:, order])


def test_slices_shorten_the_warmup(market):
    assert market.warmup == 19
    assert [market.subset(slice(s, None)).warmup for s in (0, 5, 19, 50)] == [19, 14, 0, 0]


def test_saving_refuses_other_suffixes_and_loading_other_files(market, tmp_path):
    with pytest.raises(ArgumentError, match=r"does not end in \.npz"):
        market.save(tmp_path / "market.zip")
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickled.npz", header=np.array({"a": 1}, dtype=object))
    market.save(tmp_path / "whole.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    for name in ("text", "empty", "other", "pickled", "half", "missing"):
        with pytest.raises(DataError, match=rf"{name}\.npz is not a saved market"):
            Market.load(tmp_path / f"{name}.npz")


def test_load_market_cuts_as_if_the_source_held_nothing_else():
    full = load_market("synthetic?bars=300&assets=4&ragged=true&seed=1")
    cut = load_market(
        "synthetic?bars=300&assets=4&ragged=true&seed=1", assets=["A01", "A00"], start=50, end=-50
    )
    assert cut.assets == ("A01", "A00")
    np.testing.assert_array_equal(cut.close, full.close[50:250, [1, 0]])
    assert cut.warmup == 19
    dates = load_market(
        "synthetic?bars=300&assets=4&ragged=true&seed=1",
        assets=["A01", "A00"],
        start=str(full.timestamps[50]),
        end=str(full.timestamps[250]),
    )
    assert_same(cut, dates)
    assert load_market("synthetic?bars=30", end="2200-01-01").n_bars == 30


def test_load_market_drops_rows_and_assets_without_bars():
    close = np.full((40, 3), np.nan)
    close[:, 0] = 1.0
    close[::2, 1] = 1.0
    close[30:, 2] = 1.0
    panel = PricePanel(pd.date_range("2020-01-01", periods=40).to_numpy(), tuple("ABC"), close)
    from portfolio_env.data.load import _cut_panel

    assert _cut_panel(panel, None, None, 30).assets == ("A", "B")
    assert len(_cut_panel(panel, ["B", "C"], None, None).timestamps) == 25
    with pytest.raises(DataError, match=r"no bar of \['C'\]"):
        _cut_panel(panel, ["A", "C"], None, 30)


def test_a_saved_market_keeps_its_features_unless_told_otherwise(market, tmp_path):
    path = tmp_path / "m.npz"
    market.save(path)
    assert_same(load_market(path), market)
    assert_same(
        load_market(str(path), assets=["A02", "A00"], start=10),
        market.subset(slice(10, None), [2, 0]),
    )
    unscaled = load_market(path, features=("return_1", "momentum_5"))
    assert unscaled.feature_names == ("return_1", "momentum_5")
    assert_same(load_market(path, fit_end=200), market)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("synthetik", "unknown market .* did you mean synthetic"),
        (
            "nowhere.csv",
            "there is no such file or folder, nor a market of this name; names are sp500",
        ),
        ("sp50", "unknown market or file"),
        ("synthetic?bar=9", "market 'synthetic' has no option 'bar'; did you mean 'bars'"),
        ("synthetic?bars=many", "give a value of type int"),
        ("synthetic?ragged=yes", "give a value of type bool"),
        ("synthetic?bars=1", r"bars=1 must be an integer in \[2, 60000\]"),
        ("synthetic?assets=0", "assets=0 must be an integer of 1 or more"),
        ("synthetic?seed=-1", "seed=-1 must be an integer of 0 or more"),
        ("synthetic?periods_per_year=12", "365 or 252"),
        ("synthetic-momentum?strength=huge", "choose from weak, medium"),
        ("synthetic-momentum?phi=1", "phi in"),
        ("synthetic-momentum?kappa=nan", "finite kappa"),
        ("synthetic-momentum?kappa=1", "smaller"),
        ("sp500?seed=1", "has no option 'seed'"),
    ],
)
def test_bad_names_and_options(name, text):
    with pytest.raises(ArgumentError, match=text):
        load_market(name)


def test_bad_ranges():
    for range_ in ({"start": 9, "end": 10}, {"start": "2200-01-01"}, {"end": "1999-01-01"}):
        with pytest.raises(ArgumentError, match="keep at least 2"):
            load_market("synthetic?bars=30", **range_)
    with pytest.raises(ArgumentError, match="outside the 30 bars"):
        load_market("synthetic?bars=30", start=31)


def test_the_short_forms_of_load_market_make_the_same_market():
    panel = make_panel()
    close = pd.DataFrame(panel.close, panel.timestamps, panel.assets)
    options = {"features": ("return_1",)}
    assert Market.from_panel(panel, **options).hash == load_market(panel, **options).hash
    assert Market.from_prices(close, **options).hash == load_market(close, **options).hash
    long = close.stack().rename("close").rename_axis(["date", "symbol"]).reset_index()
    assert Market.from_frame(long, **options).hash == load_market(long, **options).hash


def test_what_is_no_source_of_bars_is_named():
    with pytest.raises(ArgumentError, match="int is not a source of bars"):
        load_market(3)
    with pytest.raises(ArgumentError, match="repair is for files and frames"):
        load_market(make_panel(), repair={"sort": True})
