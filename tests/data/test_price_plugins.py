"""Prices from a function of one's own: by name with options, or given itself."""

from importlib.metadata import EntryPoint

import pandas as pd
import pytest

from portfolio_env import ArgumentError, DataError, PortfolioEnv, load_market, names
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.data.opening import long_frame

SOURCE = """
import pandas as pd
from portfolio_env import Market, PricePanel, load_market
from portfolio_env.data.generators.synthetic import synthetic_panel

called = []

def load(seed: int = 1, scale: float = 1.0, tail: bool = False, tag: str = "x") -> PricePanel:
    called.append((seed, scale, tail, tag))
    return synthetic_panel(seed=seed, bars=120, assets=2)

def frame() -> pd.DataFrame:
    panel = synthetic_panel(seed=1, bars=120, assets=2)
    return pd.DataFrame(panel.close, panel.timestamps, panel.assets)

def market() -> "Market":
    return load_market("synthetic?bars=90", features="return_1")

def bare(path="x"):
    called.append(path)
    return synthetic_panel(seed=1, bars=120, assets=2)

def wrong() -> PricePanel:
    return 3

def broken() -> PricePanel:
    return 1 / 0

def many(rows: list[int] = []) -> PricePanel:
    called.append(rows)
"""


@pytest.fixture
def mine(own_module):
    own_module("own_prices", SOURCE)
    import own_prices

    return own_prices


def test_by_name_and_itself(mine):
    expected = load_market(synthetic_panel(seed=1, bars=120, assets=2))
    assert load_market("own_prices:load").hash == expected.hash
    assert load_market(mine.load).hash == load_market(mine.bare).hash == expected.hash
    assert load_market("own_prices:frame", features="return_1").close.shape == (120, 2)
    kept = load_market("own_prices:market")
    assert (kept.n_bars, kept.feature_names) == (90, ("return_1",))
    assert PortfolioEnv("own_prices:load", window=1).simulator.market.hash == expected.hash
    assert len(long_frame("own_prices:load")) == len(long_frame(mine.load)) == 240


def test_options_are_keywords_of_their_types(mine):
    market = load_market("own_prices:load?seed=7&scale=0.5&tail=true&tag=a:b", end=50)
    assert mine.called == [(7, 0.5, True, "a:b")]
    assert market.n_bars == 50


def test_an_entry_point(mine, monkeypatch):
    points = [EntryPoint("market.own", "own_prices:load", names.ENTRY_POINTS)]
    monkeypatch.setattr(names, "entry_points", lambda group: points)
    names._entry_points.cache_clear()
    try:
        assert load_market("own?seed=3").n_assets == 2
        assert mine.called == [(3, 1.0, False, "x")]
    finally:
        names._entry_points.cache_clear()


def test_a_file_of_that_name_comes_first(mine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dates = pd.date_range("2024-01-01", periods=30)
    pd.DataFrame({"A": 1.0, "B": 2.0}, dates).to_csv("C:prices.csv")
    assert load_market("C:prices.csv", features="return_1").assets == ("A", "B")


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (r"C:\prices.csv", ArgumentError, "there is no such file or folder"),
        ("C:/prices.csv", ArgumentError, "there is no such file or folder"),
        ("own_prices:laod", ArgumentError, "did you mean load"),
        ("own_prices:bare", ArgumentError, "must be a function that says what it returns"),
        ("own_prices:bare?path=y", ArgumentError, "must be a function that says what it returns"),
        ("own_prices:called.append", ArgumentError, "must be a function that says"),
        ("own_prices:load?sede=1", ArgumentError, "did you mean 'seed'"),
        ("own_prices:load?seed=x", ArgumentError, "give a value of type int"),
        ("own_prices:many?rows=1", ArgumentError, "call the function itself"),
        (
            "own_prices:pd.read_pickle?filepath_or_buffer=x",
            ArgumentError,
            "must be a function that",
        ),
        ("own_prices:wrong", DataError, "'own_prices:wrong' returned int"),
        ("own_prices:broken", DataError, r"'own_prices:broken' raised ZeroDivisionError.*line \d+"),
        ("os:system?command=touch here", ArgumentError, "a module of Python itself"),
        ("subprocess:run?args=touch", ArgumentError, "a module of Python itself"),
    ],
)
def test_what_is_no_source_is_not_called(mine, name, error, says):
    with pytest.raises(error, match=says):
        load_market(name)
    assert mine.called == []


def test_repair_is_for_files(mine):
    for source in ("own_prices:load", mine.load):
        with pytest.raises(ArgumentError, match="repair is for files"):
            load_market(source, repair={})
