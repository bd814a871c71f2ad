"""Weights by name and tables of weights by date: pandas as a pandas user writes it."""

import numpy as np
import pandas as pd
import pytest

import portfolio_env as pe
from baselines import evaluate, make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.market.slots import in_slots

MARKET = pe.load_market("synthetic?assets=4&bars=120&seed=1", features="none")
NAMES = ["cash", *MARKET.assets]


def target(past):
    strength = 1.0 + np.arange(5) + len(past.timestamps) % 7
    return strength / strength.sum()


@pytest.mark.parametrize(
    "written",
    [
        lambda past: pd.Series(target(past), NAMES)[::-1],
        lambda past: dict(zip(NAMES[1:], target(past)[1:], strict=True)),  # cash is the rest
    ],
)
def test_weights_by_name_do_not_depend_on_their_order(written):
    by_place, by_name = (make_baseline(rule, MARKET) for rule in (target, written))
    for t in (20, 21, 90):
        pd.testing.assert_series_equal(by_place.predict_weights(t), by_name.predict_weights(t))


def test_weights_by_name_are_refused_with_the_nearest_name():
    with pytest.raises(ArgumentError, match="unknown slot 'A09'"):
        in_slots({"A09": 1.0}, MARKET.assets)
    with pytest.raises(ArgumentError, match="'cash' may be cash or the asset of this name"):
        in_slots({"cash": 0.5, "AAA": 0.5}, ("AAA", "cash"))
    with pytest.raises(ArgumentError, match="more than one weight"):
        in_slots(pd.Series([0.5, 0.5], ["A00", "A00"]), MARKET.assets)
    with pytest.raises(ArgumentError, match="must be numbers"):
        in_slots({"A00": "much"}, MARKET.assets)


def test_an_evaluation_says_at_once_what_could_not_run(caplog):
    found = evaluate({"typo": lambda past: {"A09": 1.0}}, MARKET, start=100, n_resamples=20)
    assert "typo could not run" in caplog.text and "typo" in found.comparison.failed


def test_an_environment_steps_by_name():
    envs = [pe.PortfolioEnv(MARKET, action="weights", window=5) for _ in range(2)]
    for env in envs:
        env.reset(seed=0)
    by_place = envs[0].step([0.5, 0.0, 0.3, 0.2, 0.0])
    by_name = envs[1].step(pd.Series({"A02": 0.2, "A01": 0.3}))
    assert by_place[1] == by_name[1]
    with pytest.raises(ArgumentError, match='need action="weights"'):
        env = pe.PortfolioEnv(MARKET, window=5)
        env.reset(seed=0)
        env.step({"A01": 0.3})


def test_a_reset_takes_weights_in_the_ways_of_initial():
    ways = ({"A01": 0.3, "A02": 0.2}, pd.Series({"A02": 1.0}), "equal_weight", [0.5, 0.5, 0, 0, 0])
    for weights in ways:
        for made, options in ((weights, None), ("cash", {"weights": weights})):
            env = pe.PortfolioEnv(MARKET, window=5, initial=made)
            lanes = pe.PortfolioVectorEnv(2, MARKET, window=5, initial=made)
            env.reset(seed=0, options=options)
            lanes.reset(seed=0, options=options)
            if options is None:
                expected = env.weights
            for found in (env.weights, *lanes.weights):
                np.testing.assert_array_equal(found, expected)
    sampled = pe.PortfolioEnv(MARKET, window=5, universe=2)
    with pytest.raises(ArgumentError, match=r"\['weights'\]=.* names assets, and universe=2"):
        sampled.reset(options={"weights": {"A01": 0.3}})
    with pytest.raises(ArgumentError, match=r"options\['weights'\]='half' must be one of"):
        env.reset(options={"weights": "half"})


def table():
    dates = MARKET.panel.timestamps[[30, 45, 80]] - np.timedelta64(1, "h")  # between two bars
    return pd.DataFrame([[0.5, 0.5], [0.1, 0.2], [0.0, 1.0]], dates, ["A03", "A01"])


def test_a_table_is_traded_at_its_dates_and_drifts_between_them():
    model = make_baseline(table(), MARKET)
    env = pe.PortfolioEnv(MARKET, observation="index", action="weights", window=1)
    result = backtest(model, env)
    traded = np.flatnonzero(result.turnovers)
    assert traded.tolist() == [30, 45, 80]
    np.testing.assert_allclose(result.held[45], [0.7, 0, 0.2, 0, 0.1], atol=1e-12)
    assert (result.held[:30, 0] == 1).all()


def test_a_table_in_an_evaluation_and_its_errors():
    mine = table().sample(frac=1, random_state=0)  # the order of rows says nothing
    found = evaluate({"mine": mine}, MARKET, start=60, n_resamples=100)
    assert found.results["mine"].turnovers.nonzero()[0].tolist() == [0, 20]
    wrong = {
        "'A05'": mine.rename(columns={"A03": "A05"}),
        "DatetimeIndex": mine.reset_index(drop=True),
        "fillna": mine.where(mine > 0.05),
        "two rows": pd.concat([mine, mine[:1]]),
    }
    for fault, faulty in wrong.items():
        with pytest.raises(ArgumentError, match=fault):
            make_baseline(faulty, MARKET)
    for alone in ([mine], mine, target):
        with pytest.raises(ArgumentError, match="give"):
            evaluate(alone, MARKET, start=60)


def test_an_account_begins_with_weights_by_name():
    options = {"window": 1, "action": "weights", "observation": "index"}
    market = pe.load_market("synthetic?bars=60&assets=3")
    env = pe.PortfolioEnv(market, initial={market.assets[1]: 0.5}, **options)
    env.reset()
    assert env.weights.tolist() == [0.5, 0.0, 0.5, 0.0]
    with pytest.raises(ArgumentError, match="NONE"):
        pe.PortfolioEnv(market, initial={"NONE": 0.5}, **options)
    with pytest.raises(ArgumentError, match="universe=2 draws others"):
        pe.PortfolioEnv(market, initial={market.assets[1]: 0.5}, universe=2, **options)


def test_a_table_that_can_never_trade_is_refused():
    late = pd.DatetimeIndex([MARKET.timestamps[-1] + np.timedelta64(1, "D")])
    with pytest.raises(ArgumentError, match="nothing would be traded; give earlier dates"):
        make_baseline(pd.DataFrame({MARKET.assets[0]: [1.0]}, late), MARKET)
    now = pd.DatetimeIndex([MARKET.timestamps[5]])
    with pytest.raises(ArgumentError, match="no column of an asset"):
        make_baseline(pd.DataFrame({"cash": [1.0]}, now), MARKET)
