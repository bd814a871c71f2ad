"""Stressed markets are what the scenario says and nothing else, and backtests run through them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.backtest import backtest
from portfolio_env.evaluation.diagnostics.scenarios import (
    CorrelationShock,
    Delay,
    IncompleteFills,
    OpeningGaps,
    Outage,
    PriceGap,
    Scenario,
    ThinLiquidity,
    VolatilityShock,
)
from portfolio_env.evaluation.diagnostics.stress import stress_table, stress_test, stressed

MARKET = pe.load_market("synthetic?bars=150&assets=4&ragged=true", fit_end=60)
WHOLE = pe.load_market("synthetic?bars=150&assets=4", fit_end=60)
FIELDS = ("open", "high", "low", "close", "volume")


def log_returns(panel):
    return np.diff(np.log(panel.close), axis=0)


def known_equal(first, second):
    """Equal bars, missing ones in the same places."""
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True)
        for name in FIELDS
    )


@pytest.mark.parametrize(
    "scenario",
    [
        PriceGap(size=0.3, at=100),
        VolatilityShock(factor=3, start=100, end=130),
        CorrelationShock(start=100, end=130),
        ThinLiquidity(factor=4, start=100),
        Outage(at=100, bars=10),
        OpeningGaps(start=100),
    ],
    ids=lambda scenario: type(scenario).__name__,
)
def test_nothing_happens_before(scenario):
    """Bars and features before the scenario are the same to the last bit."""
    made = stressed(MARKET, scenario)
    assert known_equal(made.panel.subset(slice(0, 100)), MARKET.panel.subset(slice(0, 100)))
    assert (made.features[:100] == MARKET.features[:100]).all()
    assert made.hash != MARKET.hash
    assert made.periods_per_year == MARKET.periods_per_year
    about = json.loads(json.dumps(made.panel.provenance))
    assert about["stress"][0]["scenario"] == type(scenario).__name__
    assert about["features"] == json.loads(json.dumps(MARKET.panel.provenance["features"]))
    assert len(stressed(made, scenario).panel.provenance["stress"]) == 2


@settings(max_examples=20)
@given(
    factor=st.floats(0.05, 6),
    strength=st.floats(0, 1),
    size=st.floats(-3, 0.95),
    seed=st.integers(0, 9),
)
def test_any_scenario_gives_bars_that_can_be(factor, strength, size, seed):
    """Prices stay positive and in order, and missing bars missing: the panel refuses all else."""
    generator = np.random.default_rng(seed)
    panel = MARKET.panel
    for scenario in (
        VolatilityShock(factor=factor, start=20),
        CorrelationShock(strength=strength, assets=["A00", "A02"]),
        PriceGap(size=size),
        Outage(bars=3, start=20),
        OpeningGaps(size=factor),
    ):
        panel = scenario.prices(panel, generator)
    gone = np.isnan(panel.close) & ~np.isnan(MARKET.close)
    assert gone.any(axis=1).sum() == 3


def test_a_gap_is_lost_once():
    made = stressed(WHOLE, PriceGap(size=0.25, at=80, assets=["A01"])).panel
    change = log_returns(made) - log_returns(WHOLE.panel)
    assert change[79, 1] == pytest.approx(np.log(0.75))
    change[79, 1] = 0
    np.testing.assert_allclose(change, 0, atol=1e-12)
    assert made.open[80, 1] == pytest.approx(0.75 * WHOLE.open[80, 1])


def test_volatility_is_scaled_and_the_mean_stays():
    where = slice(49, 99)  # returns that end at bars 50 to 99
    made = stressed(WHOLE, VolatilityShock(factor=2.5, start=50, end=100)).panel
    before, after = log_returns(WHOLE.panel), log_returns(made)
    means = [np.expm1(returns[where]).mean(axis=0) for returns in (before, after)]
    np.testing.assert_allclose(means[1], means[0], atol=1e-12)
    np.testing.assert_allclose(after[where].std(axis=0), 2.5 * before[where].std(axis=0))
    for rest in (slice(0, 49), slice(99, None)):
        np.testing.assert_allclose(after[rest], before[rest], atol=1e-12)
    reach = np.log(made.high / made.low)[50:100], np.log(WHOLE.high / WHOLE.low)[50:100]
    np.testing.assert_allclose(reach[0], 2.5 * reach[1])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_correlations_rise_and_volatilities_stay(strength):
    made = stressed(WHOLE, CorrelationShock(strength=strength, start=50, end=100)).panel
    before, after = (log_returns(panel)[49:99] for panel in (WHOLE.panel, made))
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(after.std(axis=0), before.std(axis=0))
    lowest = [np.corrcoef(returns, rowvar=False).min() for returns in (before, after)]
    if strength == 0:
        np.testing.assert_allclose(after, before, atol=1e-12)
    elif strength == 1:
        assert lowest[1] == pytest.approx(1)
    else:
        assert lowest[0] < lowest[1] < 1


def test_thin_markets_cost_more():
    scenario = ThinLiquidity(factor=4)
    costs = pe.TransactionCosts(
        commission_bps=[1.0, 2, 3, 4], slippage_bps=5, impact=1, fixed_fee=2
    )
    dear = scenario.costs(costs)
    for side in (0, 1):
        np.testing.assert_allclose(dear.rates(4)[side], 4 * costs.rates(4)[side])
    made = stressed(WHOLE, scenario)
    np.testing.assert_allclose(made.panel.volume, WHOLE.volume / 4)
    np.testing.assert_allclose(
        dear.impact_coefficients(made.panel), 4 * 2 * costs.impact_coefficients(WHOLE.panel)
    )
    assert dear.fixed_fee == 8 and dear.buy_commission_bps is None


def options(**others):
    return {"observation": "index", "action": "weights", "window": 1, "start": 60} | others


def test_strategies_run_through_every_scenario():
    scenarios = {
        "gap": PriceGap(size=0.3, at=100),
        "outage": Outage(at=100, bars=10),
        "thin": ThinLiquidity(factor=5),
        "all": Scenario(),
    }
    results = stress_test(
        lambda market: make_baseline("buy_and_hold", market), WHOLE, scenarios, **options()
    )
    none = results["none"]
    assert list(results) == ["none", *scenarios]
    assert (results["all"].values == none.values).all()
    # bought at once and held, it loses the gap once and nothing by an outage
    fall = np.log(results["gap"].values[40] / results["gap"].values[39])
    assert fall - none.log_returns[39] == pytest.approx(np.log(0.7), abs=1e-12)
    assert results["outage"].values[-1] == pytest.approx(none.values[-1])
    assert (results["outage"].log_returns[39:49] == 0).all()  # nothing is known of the prices
    assert results["thin"].costs[0] == pytest.approx(5 * none.costs[0], rel=0.01)
    table = stress_table(results)
    assert table.loc["gap", "growth_lost"] == pytest.approx(-np.log(0.7), abs=1e-9)
    assert table.loc["gap", "max_drawdown"] > 0.3
    assert table.loc["none", "growth_lost"] == 0
    assert not table["ruined"].any()


def test_nothing_is_traded_in_an_outage():
    results = stress_test(
        lambda market: make_baseline("equal_weight", market),
        WHOLE,
        {"outage": Outage(at=100, bars=10)},
        **options(),
    )
    assert (results["outage"].turnovers[40:50] == 0).all()
    assert (results["none"].turnovers[40:50] > 0).all()


def test_gaps_at_the_open_matter_to_what_is_traded_there_alone():
    """Closes stay, so that what is held earns the same; a purchase is dearer by its gap."""
    made = stressed(WHOLE, OpeningGaps(size=0.05, assets=["A01"])).panel
    assert (made.close == WHOLE.close).all()
    gaps = np.log(made.open / WHOLE.open)
    assert 0.04 < gaps[:, 1].std() < 0.06 and not gaps[:, [0, 2, 3]].any()
    results = stress_test(
        lambda market: make_baseline("buy_and_hold", market),
        WHOLE,
        {"gaps": OpeningGaps(size=0.05, start=62)},
        **options(execution="next_open"),
    )
    first, later = results["gaps"].values / results["none"].values, slice(2, None)
    assert first[later] == pytest.approx(np.full(len(first) - 2, first[2]), rel=1e-12)


def test_fills_are_stressed_with_the_same_draws_for_every_strategy():
    def stress(name, **scenario):
        return stress_test(
            lambda market: make_baseline(name, market),
            WHOLE,
            {"poor": IncompleteFills(**scenario), "failed": IncompleteFills(failure=1, partial=0)},
            **options(),
        )

    first, again = stress("equal_weight"), stress("equal_weight")
    table = stress_table(first)
    assert (first["poor"].values == again["poor"].values).all()
    assert table.loc["none", "unfilled"] == 0 and 0.1 < table.loc["poor", "unfilled"] < 0.3
    assert first["failed"].idle and table.loc["failed", "unfilled"] == 1
    momentum = stress("momentum")
    assert (momentum["poor"].unfilled > 0).any() and (momentum["poor"].values[-1] > 0)
    tight = stress("equal_weight", participation=1e-9)["poor"]
    assert tight.held[:, 0].min() > 0.9


def test_seeds_decide_what_is_left_open():
    for scenario in (PriceGap(), Outage(bars=4), OpeningGaps()):
        first, again, other = (stressed(WHOLE, scenario, seed=seed) for seed in (1, 1, 2))
        assert first.hash == again.hash != other.hash
    for seed in range(6):
        out = np.isnan(stressed(WHOLE, Outage(bars=4, start=100, end=106), seed=seed).close)
        assert out.sum() == 4 * 4 and out[100:106].sum() == 4 * 4


def test_dates_and_assets_are_understood():
    day = str(WHOLE.timestamps[80])
    dated = stressed(WHOLE, PriceGap(at=day, assets=("A01",)))
    assert dated.hash == stressed(WHOLE, PriceGap(at=80, assets=("A01",))).hash


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PriceGap(size=1.0), "size=1.0"),
        (lambda: stressed(WHOLE, PriceGap(at=150)), "at=150"),
        (lambda: stressed(WHOLE, Outage(bars=20, start=140)), "at most the 10"),
        (lambda: VolatilityShock(factor=0), "factor=0"),
        (lambda: CorrelationShock(strength=2), "strength=2"),
        (lambda: ThinLiquidity(factor=-1), "factor=-1"),
        (lambda: OpeningGaps(size=0), "size=0"),
        (lambda: IncompleteFills(failure=0.9, partial=0.9), "sum to more than 1"),
        (lambda: stressed(WHOLE, Outage(bars=0)), "bars=0"),
        (lambda: stressed(WHOLE, VolatilityShock(start=9, end=9)), "rows 9 and 9"),
        (lambda: stressed(WHOLE, PriceGap(assets=["B"], at=9)), "unknown asset"),
        (lambda: stress_test(lambda m: None, WHOLE, {"none": PriceGap()}), "call the scenario"),
    ],
)
def test_bad_scenarios_are_refused(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()


def test_a_market_of_unknown_features_is_refused():
    panel = synthetic_panel(bars=30, assets=2)
    market = pe.Market(replace(panel), np.zeros((30, 2, 1), np.float32), ("own",))
    with pytest.raises(DataError, match="does not say how its features are made"):
        stressed(market, PriceGap())


def test_a_delay_is_that_of_the_environment_and_all_start_alike():
    rules = {"observation": "index", "action": "weights", "window": 2}
    scenarios = {"late": Delay(bars=2), "later": Delay(bars=3)}
    results = stress_test(
        lambda m: make_baseline("momentum", m), WHOLE, scenarios, delay=1, **rules
    )
    assert len({result.timestamps[0] for result in results.values()}) == 1
    for name, bars in {"none": 1, "late": 3, "later": 4}.items():
        rules |= {"delay": bars, "start": WHOLE.warmup + 1 + 4}
        env = pe.PortfolioEnv(WHOLE, **rules)
        expected = backtest(make_baseline("momentum", WHOLE), env)
        assert (results[name].values == expected.values).all()
    with pytest.raises(ArgumentError, match="bars=0 must be"):
        Delay(bars=0)
