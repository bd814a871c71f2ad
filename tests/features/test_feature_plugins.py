"""Features of one's own: found by name or given as functions, checked, saved by name."""

import json
import logging
import subprocess
import sys
from importlib import reload
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from helpers.panels import closes_only, panel_of

from portfolio_env import ArgumentError, DataError, load_market, names
from portfolio_env.evaluation.diagnostics.scenarios import PriceGap
from portfolio_env.evaluation.diagnostics.stress import stressed
from portfolio_env.features import ALL, FeaturePipeline, indicator, pipeline, select
from portfolio_env.features.registry import INDICATORS

SOURCE = """
import numpy as np
import pandas as pd
from portfolio_env.features import ALL, Bars, indicator

@indicator("own", "skewness of r over w bars", windows=(10, 20), lookback=lambda w: w)
def skew(bars: Bars, w: int):
    return pd.DataFrame(bars.returns).rolling(w).skew()

@indicator("own", "c over its mean since the start", inputs="close volume", memory=lambda w: ALL,
           lookback=lambda w: 0)
def against_mean(bars: Bars):
    return bars.close / pd.DataFrame(bars.close).expanding().mean()

@indicator("own", "the mean of returns, of any window", lookback=lambda w: w)
def drift(bars: Bars, w: int):
    return pd.DataFrame(bars.returns).rolling(w).mean()

def plain(bars):
    return np.sign(bars.returns)
"""


@pytest.fixture
def module(own_module):
    pipeline._say_once.cache_clear()
    return own_module


@pytest.fixture
def mine(module):
    module("my_features", SOURCE)
    return __import__("my_features")


@pytest.fixture(scope="module")
def panel():
    return panel_of("D", 500)


def test_names_beside_built_in_ones(mine, panel):
    text = "return_1,my_features:skew_15,my_features:against_mean,1w:my_features:skew_5"
    market = load_market(panel, features=text, fit_end=300)
    assert market.feature_names == tuple(text.split(","))
    assert market.warmup == 7 * 7  # so many days until a week of 5 returns is closed
    listed = load_market(panel, features=text.split(","), fit_end=300)
    assert listed.hash == market.hash
    expected = np.asarray(mine.skew(pipeline.Bars(panel), 15))
    (feature,) = select("my_features:skew_15", panel)
    np.testing.assert_array_equal(feature.compute(pipeline.Bars(panel)), expected)


def test_functions(mine, panel):
    def doubled(bars):
        return 2 * bars.close

    market = load_market(panel, features=["minimal", mine.skew, mine.plain, doubled])
    assert market.feature_names[-4:] == (
        "my_features:skew_10",
        "my_features:skew_20",
        "my_features:plain",
        "doubled",
    )
    named = load_market(panel, features="minimal,my_features:skew")
    assert named.feature_names == market.feature_names[:-2]
    np.testing.assert_array_equal(named.features, market.features[..., :-2])
    both = select([mine.skew, "my_features:skew_10", INDICATORS["rsi"].compute], panel)
    assert len({one.name for one in both}) == len(both)
    assert "rsi_14" in {one.name for one in both}


def test_a_column_stands_for_all_assets(panel):
    market = load_market(panel, features=[lambda bars: bars.close[:, :1] > 0])
    assert (market.features[market.tradable] == 1).all()


def test_entry_points(mine, panel, monkeypatch):
    points = [EntryPoint("feature.tilt", "my_features:skew", names.ENTRY_POINTS)]
    monkeypatch.setattr(names, "entry_points", lambda group: points)
    names._entry_points.cache_clear()
    try:
        made = FeaturePipeline("tilt_15,tilt").fit(panel, 300)
        assert made.names == ("tilt_15", "tilt_10", "tilt_20")
        assert list(made.to_dict()["sources"]) == ["tilt"]
    finally:
        names._entry_points.cache_clear()


LEAKS = {
    "shifted": "bars.close.__class__  # noqa\n    return f(bars.close).shift(-1) / bars.close",
    "centred": "0\n    return f(bars.close).rolling(5, center=True).mean() / bars.close",
    "scored": "0\n    x = f(bars.returns)\n    return (x - x.mean()) / x.std()",
    "scaled": "0\n    return bars.close / np.nanmax(bars.close, axis=0)",
    "ranked": "0\n    return f(bars.volume).rank(pct=True)",
    "filled": "0\n    return np.log(f(np.where(bars.volume > 0, bars.close, np.nan)).bfill())",
    "backwards": "0\n    return f(bars.close)[::-1].ewm(5).mean()[::-1]",
    "weekly": "0\n    week = pd.DatetimeIndex(bars.timestamps).isocalendar().week.to_numpy()\n"
    "    return f(bars.close).groupby(week).transform('last') / bars.close",
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_knows_the_future_is_refused(module, panel, name):
    head = "import numpy as np\nimport pandas as pd\nfrom portfolio_env.features import indicator\n"
    head += "f = pd.DataFrame\n@indicator('own', 'leaks', lookback=lambda w: 1)\n"
    module(f"leaks_{name}", f"{head}def leak(bars):\n    {LEAKS[name]}\n")
    told = rf"'leaks_{name}:leak' knows the future.*: its value of A\d+ at row \d+ \(20"
    with pytest.raises(ArgumentError, match=told):
        load_market(panel, features=f"minimal,leaks_{name}:leak")
    __import__(f"leaks_{name}")
    with pytest.raises(ArgumentError, match="knows the future"):
        load_market(panel, features=[sys.modules[f"leaks_{name}"].leak])


def test_where_bars_are_missing_later(panel):
    def gone(bars):  # 1 where the asset trades at the last bar there is
        return np.repeat(np.isfinite(bars.close[-1:]), len(bars.close), axis=0)

    with pytest.raises(ArgumentError, match="'gone' knows the future"):
        load_market(panel, features=[gone])


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ("lookback=lambda w: w", r"remembers more than the 6 rows that it declares.*"),
        ("lookback=lambda w: 2, memory=lambda w: 90", "looks back on more than the 2 rows"),
        ("lookback=lambda w: 5, memory=lambda w: 400", None),
        ("lookback=lambda w: 5, memory=lambda w: ALL", None),
    ],
)
def test_what_an_indicator_declares_holds(module, panel, declared, says):
    source = "import pandas as pd\nfrom portfolio_env.features import ALL, indicator\n"
    source += f"@indicator('own', 'slow', windows=(6,), {declared})\n"
    source += (
        "def slow(bars, w):\n    return pd.DataFrame(bars.returns).ewm(w, min_periods=5).mean()"
    )
    module("memories", source)
    if says is None:
        made = FeaturePipeline("memories:slow").fit(panel, 300)
        market = made.transform(panel.subset(slice(0, 490)))
        grown = made.update(market, panel.subset(slice(490, 500)))
        np.testing.assert_allclose(grown.features, made.transform(panel).features, atol=1e-6)
    else:
        with pytest.raises(ArgumentError, match=says):
            load_market(panel, features="memories:slow")


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda bars: bars.close[0], r"'<lambda>' returned the shape \(3,\): it must be"),
        (lambda bars: bars.close[:-1], "it must be"),
        (lambda bars: bars.close.astype(str), "returned values of type <U"),
        (lambda bars: None, "returned the shape"),
        (lambda bars: bars.nothing, r"'<lambda>' raised AttributeError.*test_feature_plugins.py"),
        (lambda bars: np.random.default_rng().normal(size=bars.close.shape), "not the same twice"),
        (lambda bars: [[1], [1, 2]], "'<lambda>' raised ValueError"),
        (3, "feature 3 must be a name or a function"),
    ],
)
def test_what_is_wrong_with_a_function_is_told_with_its_name(panel, function, says):
    with pytest.raises(ArgumentError, match=says):
        load_market(panel, features=["minimal", function])


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"windows": 5}, r"windows=5 must be a tuple of bars, e.g. \(10, 20\)"),
        ({"windows": ("a",)}, "must be a tuple of bars"),
        ({"lookback": 3}, "lookback=3 must be a function of the window"),
        ({"memory": 3}, "memory=3 must be a function of the window"),
        ({"inputs": "close volumes"}, "unknown input of an indicator 'volumes': did you mean vol"),
        ({"lookback": lambda w: "a"}, "lookback of 'mine' at window 5 is 'a'; it must be a number"),
        ({"lookback": lambda w: w / 2}, "is 2.5; it must be a number of rows"),
        ({"lookback": lambda: 5}, "lookback of 'mine' at window 5 raised TypeError"),
        ({"memory": lambda w: 1 // 0}, "memory of 'mine' at window 5 raised ZeroDivisionError"),
        ({"lookback": lambda w: -1}, "is -1; it must be a number of rows"),
        ({"memory": lambda w: -2}, "is -2; it must be a number of rows up to 10,000,000, or ALL"),
        ({"lookback": lambda w: 10**9}, "is 1000000000; it must be a number of rows up to 10,000,"),
    ],
)
def test_what_is_declared_is_checked(panel, declared, says):
    def mine(bars, w):
        return bars.close

    with pytest.raises(ArgumentError, match=says):
        load_market(panel, features=[indicator("own", "x", **{"windows": (5,)} | declared)(mine)])


@pytest.mark.parametrize("far", [np.inf, -np.inf, 1e200])
def test_infinite_values_are_unknown_and_said_to_be(panel, far, caplog):
    def mine(bars):
        return np.where(bars.close > np.nanmedian(bars.close[0]), far, bars.close)

    pipeline._say_once.cache_clear()
    market = load_market(panel, features=mine, fit_end=300)  # one alone is a list of it
    assert np.isfinite(market.features).all() and market.feature_names == ("mine",)
    count = int((market.tradable & (panel.close > np.nanmedian(panel.close[0]))).sum())
    assert f"'mine' is infinite in {count:,} of {market.tradable.sum():,} values" in caplog.text
    assert "must be a number within -1e+100 to 1e+100, NaN where unknown" in caplog.text


@pytest.mark.parametrize(
    ("value", "infinite"), [(np.nan, "of 1,500 values 0"), (np.inf, "of 1,500 values 1,500")]
)
def test_a_feature_that_is_known_nowhere_is_refused(panel, value, infinite):
    def mine(bars):
        return np.full_like(bars.close, value)

    told = f"'mine' has no known value in 500 bars: {infinite} are infinite"
    with pytest.raises(ArgumentError, match=told):
        load_market(panel, features=["minimal", mine])


def test_blanks_beside_commas(mine, panel):
    names = ["return_1", "my_features:skew_15"]
    assert load_market(panel, features=" , ".join(names)).feature_names == tuple(names)


def test_volume_that_is_missing(mine, panel):
    closes = closes_only(panel)
    market = load_market(closes, features="my_features:skew_10,my_features:against_mean")
    assert market.panel.provenance["left_out"] == ["my_features:against_mean (needs volume)"]
    with pytest.raises(ArgumentError, match="the bars have no volume; declare it"):
        load_market(closes, features=[lambda bars: bars.volume])


def test_a_function_cannot_change_the_bars_of_others(panel):
    def spoils(bars):
        bars.returns[:] = 0
        return bars.returns

    market = load_market(panel, features=[spoils, "return_1"])
    assert (
        market.features[..., 1] == load_market(panel, features="return_1").features[..., 0]
    ).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my_features:skw_20", "did you mean skew"),
        ("my_features:plain", "'my_features:plain' stands for no indicator: declare it"),
        ("my_features:drift", "'my_features:drift' needs a window: write my_features:drift_20"),
        ("my_features:skew_1", "too short"),
        ("my_features:against_mean_5", "has no window, and 5 was given"),
        ("os:system", "'os:system' names a module of Python itself"),
        ("subprocess:run", "names a module of Python itself"),
        ("my_features:pd.read_pickle", "stands for no indicator"),
        ("nowhere:skew", "needs the module 'nowhere'"),
        ("momentun_5", "did you mean"),
    ],
)
def test_names_that_stand_for_nothing(mine, panel, name, says):
    with pytest.raises(ArgumentError, match=says):
        load_market(panel, features=f"minimal,{name}")


def test_a_second_definition(module, mine, panel, tmp_path):
    assert reload(mine).skew is mine.skew  # the same again
    other = tmp_path / "other.py"
    other.write_text(SOURCE)
    with pytest.raises(ArgumentError, match="'my_features:skew' is declared twice, in"):
        exec(compile(SOURCE, str(other), "exec"), {"__name__": "my_features"})

    def rsi(bars):
        return bars.close

    rsi.__qualname__ = "rsi"
    rsi.__module__ = "__main__"  # as in a notebook
    with pytest.raises(ArgumentError, match="'rsi' is declared twice"):
        indicator("own", "another")(rsi)

    def return_1(bars):
        return bars.close

    with pytest.raises(ArgumentError, match="two different features are called 'return_1'"):
        load_market(panel, features=["return_1", return_1])


def test_groups_stay_as_they_are(module, panel):
    before = [one.name for one in select("full", panel)]
    module("joins", 'from portfolio_env.features import indicator\n@indicator("momentum", "x")\n'
           "def joined(bars):\n    return bars.close")  # fmt: skip
    load_market(panel, features=["minimal", __import__("joins").joined])
    assert [one.name for one in select("full", panel)] == before


def test_saved_by_name(mine, module, panel, tmp_path, caplog):
    path = tmp_path / "runs" / "features.json"
    made = FeaturePipeline(["minimal", mine.skew, "my_features:drift_5"]).fit(panel, 300)
    made.save(path)
    plain = json.loads(path.read_text())
    assert plain["features"] == ["minimal", "my_features:skew", "my_features:drift_5"]
    assert list(plain["sources"]) == ["my_features:skew", "my_features:drift"]
    expected = made.transform(panel).hash
    del sys.modules["my_features"]
    loaded = FeaturePipeline.load(path)
    assert "my_features" not in sys.modules
    assert not caplog.records
    assert loaded.transform(panel).hash == expected
    module("my_features", SOURCE + "\n# another line")
    with caplog.at_level(logging.WARNING):
        FeaturePipeline.load(path)
    assert "the source of the feature my_features:skew has changed" in caplog.text


def test_a_file_beside_its_module(mine, panel, tmp_path):
    made = FeaturePipeline(["minimal", mine.skew]).fit(panel, 300)
    made.save(path := tmp_path / "features.json")  # where my_features.py lies
    assert FeaturePipeline.load(path).transform(panel).hash == made.transform(panel).hash
    del sys.modules["my_features"]
    with pytest.raises(DataError, match="import it in your program before you load the file"):
        FeaturePipeline.load(path)
    assert "my_features" not in sys.modules


def test_a_market_in_a_file_imports_nothing(mine, module, panel, tmp_path, caplog):
    made = load_market(panel, features=["minimal", mine.skew])
    made.save(path := tmp_path / "market.npz")
    scenario = PriceGap(size=0.1, at=400)
    expected = stressed(made, scenario).hash
    assert stressed(load_market(path), scenario).hash == expected
    assert not caplog.records
    module("my_features", SOURCE + "\n# another line")
    with caplog.at_level(logging.WARNING):
        changed = load_market(path)
    assert changed.hash == made.hash
    assert f"the source of the feature my_features:skew has changed since {path}" in caplog.text
    del sys.modules["my_features"]
    with pytest.raises(ArgumentError, match="import my_features first, if you trust it"):
        stressed(changed, scenario)
    assert "my_features" not in sys.modules
    (tmp_path / "own" / "my_features.py").unlink()
    assert load_market(path).hash == made.hash  # what was computed is there


def test_a_file_brings_no_code(module, panel, tmp_path):
    FeaturePipeline("minimal").save(path := tmp_path / "own" / "features.json")
    plain = json.loads(path.read_text())
    del plain["sha256"]  # what is edited by hand needs none
    module("beside", "raise SystemExit")
    for features, says in (
        ("beside:skew_20", "nothing that is loaded can bring code"),
        (["minimal", "1w:beside:skew_20"], "nothing that is loaded can bring code"),
        ({"beside:skew": 20}, "nothing that is loaded can bring code"),
        ("sys:exit", "a part of Python itself"),
        ("nowhere:skew", "finds no source"),
        (" beside:other, minimal", "of which it has no record"),
    ):
        names = ("beside:skew", "sys:exit", "nowhere:skew")
        kept = plain | {"features": features, "sources": dict.fromkeys(names, "0")}
        path.write_text(json.dumps(kept))
        with pytest.raises((DataError, ArgumentError), match=says):
            FeaturePipeline.load(path)
    assert "beside" not in sys.modules
    elsewhere = tmp_path / "features.json"
    elsewhere.write_text(json.dumps(plain | {"features": "os:system"}))
    with pytest.raises(DataError, match="of which it has no record"):
        FeaturePipeline.load(elsewhere)
    with pytest.raises(ArgumentError, match="Python itself"):
        FeaturePipeline.from_dict(plain | {"features": "os:system"}).transform(panel)


def test_what_has_no_name_works_in_memory_only(mine, panel, tmp_path):
    made = FeaturePipeline(["minimal", lambda bars: bars.close, mine.plain])
    market = made.transform(panel)
    market.save(tmp_path / "market.npz")
    assert load_market(tmp_path / "market.npz").hash == market.hash
    with pytest.raises(ArgumentError, match="declare it with @indicator"):
        made.save(tmp_path / "features.json")
    assert not (tmp_path / "features.json").exists()
    with pytest.raises(ArgumentError, match="declare it with @indicator"):
        FeaturePipeline.from_dict(dict(market.panel.provenance["features"]))


@pytest.mark.parametrize("features", ["none", []])
def test_no_features(panel, features):
    made = FeaturePipeline(features).fit(panel, 300)
    market = made.transform(panel.subset(slice(0, 490)))
    assert (market.n_features, market.warmup) == (0, 0)
    assert made.update(market, panel.subset(slice(490, 500))).features.shape == (500, 3, 0)
    assert FeaturePipeline.from_dict(made.to_dict()).transform(panel).n_features == 0


def test_all_is_public():
    assert ALL == -1
    done = subprocess.run(
        [sys.executable, "-c", "from portfolio_env.features import Bars, indicator"], check=False
    )
    assert done.returncode == 0


def test_an_indicator_of_no_module():
    space = {"indicator": indicator}
    exec(
        "@indicator('own', 'r', lookback=lambda w: 1)\ndef mine(bars): return bars.returns", space
    )  # as notebooks do
    market = load_market("synthetic?bars=80&assets=3", features=["minimal", space["mine"]])
    assert market.feature_names[-1].endswith("mine")
