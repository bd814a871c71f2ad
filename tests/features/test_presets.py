import pytest
from helpers.panels import closes_only, panel_of

from portfolio_env import ArgumentError, load_market
from portfolio_env.features import GROUPS, PRESETS, FeaturePipeline, describe, select, table


@pytest.fixture(scope="module")
def panel():
    return panel_of("D", 400)


@pytest.mark.parametrize("frequency", ["D", "B", "h", "4h", "30min", "W"])
def test_the_full_preset_has_more_than_99_features_at_every_frequency(frequency):
    panel = panel_of(frequency, 300)
    names = [feature.name for feature in select("full", panel)]
    assert len(names) == len(set(names)) >= 99
    assert load_market(panel, features="full").feature_names == tuple(names)


def test_every_preset_and_group_makes_features_of_its_own(panel):
    for name in (*PRESETS, *GROUPS):
        chosen = select(name, panel)
        assert chosen or name == "none"
        if name in GROUPS:
            assert {feature.group for feature in chosen} == {name}
    assert [len(select(name, panel)) - 1 for name in ("minimal", "technical", "factor")] == [
        5,
        40,
        17,
    ]
    assert len(FeaturePipeline("full").transform(closes_only(panel)).feature_names) > 50


def test_features_of_the_full_preset_are_distinct():
    market = FeaturePipeline("full", bound=1e9).transform(panel_of("h", 2000, ragged=False))
    rows = slice(market.warmup, None)
    columns = {
        name: market.features[rows, 0, f].astype(float)
        for f, name in enumerate(market.feature_names)
    }
    seen = {}
    for name, column in columns.items():
        spread = column.std()
        if spread > 0:
            key = tuple(((column - column.mean()) / spread)[:5].round(3))
            assert key not in seen, (name, seen[key])
            seen[key] = name


def test_names_of_any_window_and_timeframe_work(panel):
    names = ("rsi_9", "sma_ratio_37", "1w:rsi_9", "1M:return_2", "1w:market_corr_4", "roc_3")
    assert tuple(feature.name for feature in select(names, panel)) == names
    assert tuple(f.name for f in select(" return_1, rsi_14,return_1".replace(" ", ""), panel)) == (
        "return_1",
        "rsi_14",
    )
    both = [feature.name for feature in select(("minimal", "liquidity"), panel)]
    assert both[:5] == list(PRESETS["minimal"][:5])
    assert "amihud_20" in both


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rsi_1_4", "unknown feature 'rsi_1_4': did you mean rsi_14"),
        ("rsi", "feature 'rsi' needs a window: write rsi_20"),
        ("macd_12", "feature 'macd' has no window, and 12 was given: write macd"),
        ("rsi_1", "rsi_1 is too short: it must be at least 2"),
        ("return_0", "return_0 is too short: it must be at least 1"),
        ("2w:rsi_14", "unknown feature '2w:rsi_14'"),
        ("1w:1M:rsi_14", "unknown feature"),
        ("1h:rsi_14", "1h"),
        ("", "unknown feature ''"),
    ],
)
def test_names_that_stand_for_nothing(panel, name, text):
    with pytest.raises(ArgumentError, match=text):
        load_market(panel, features=name)


def test_warm_up_is_the_longest_lookback(panel):
    for names, warmup in (("return_1", 1), ("technical", 99), ("minimal", 19), ("close_level", 0)):
        assert load_market(panel, features=names).warmup == warmup


def test_describe_prints_name_group_inputs_window_formula_source(panel, capsys):
    describe("technical,levels")
    printed = capsys.readouterr().out
    for text in ("name", "formula", "source", "rsi_14", "Wilder 1978", "high low close", "levels"):
        assert text in printed
    rows = table("full", panel).set_index("name")
    assert rows.loc["atr_14", "inputs"] == "high low close"
    assert rows.loc["atr_14", "window"] == "14"
    assert rows.loc["1w:return_3", "group"] == "timeframes"
    assert rows["formula"].str.len().min() > 3
    assert len(rows) == len(select("full", panel))
