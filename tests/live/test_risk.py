"""All risk limits hold together, on the farthest point of the way to the wish."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.bare_markets import market_of, random_market

from baselines import make_baseline
from portfolio_env import PortfolioEnv, PortfolioVectorEnv
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.live import (
    DrawdownStop,
    Predictor,
    RiskLimits,
    RiskManaged,
    limited,
    plan,
    tail_risk,
)

CLOSE = 1e-9
LABELS = ("a", "a", "a", "b", "b", "", "", "")
N = len(LABELS)


def plain_risk(returns, weights, confidence, half_life=None):
    """Value at risk as a quantile of NumPy, shortfall as the mean of the tail."""
    losses = -np.array([row @ weights for row in returns])
    each = np.ones(len(losses))
    if half_life is not None:
        each = np.array([0.5 ** ((len(losses) - 1 - k) / half_life) for k in range(len(losses))])
    var = np.quantile(losses, confidence, method="inverted_cdf", weights=each)
    left, total = 1 - confidence, 0.0
    for k in np.argsort(losses)[::-1]:
        part = min(left, each[k] / each.sum())
        left, total = left - part, total + part * losses[k]
    return var, total / (1 - confidence)


def plain_excess(weights, limits, returns):
    """Excess of each limit on what is held, by name."""
    own, excess = weights[1:], {}
    if limits.long_only:
        excess["long_only"] = -own.min()
    excess["max_weight"] = abs(own).max() - limits.max_weight
    for label, (low, high) in (limits.group_bounds or {}).items():
        held = sum(w for w, of in zip(own, LABELS, strict=True) if of == label)
        worst = max(low - held, held - high)
        excess["group_bounds"] = max(worst, excess.get("group_bounds", -np.inf))
    excess["max_leverage"] = abs(own).sum() - limits.max_leverage
    floor = 1 - limits.max_leverage if limits.min_cash is None else limits.min_cash
    excess["min_cash"] = floor - weights[0]
    var, shortfall = plain_risk(returns, own, limits.confidence, limits.half_life)
    if limits.max_var is not None:
        excess["max_var"] = var - limits.max_var
    if limits.max_expected_shortfall is not None:
        excess["max_expected_shortfall"] = shortfall - limits.max_expected_shortfall
    return excess


def random_case(rng):
    returns = 0.01 * rng.standard_t(4, (60, N)) + rng.normal(0, 0.01, (60, 1))
    long_only = bool(rng.random() < 0.7)
    limits = RiskLimits(
        long_only=long_only,
        max_weight=rng.uniform(0.15, 0.6),
        group_by="kind",
        group_bounds={"a": (0.0 if rng.random() < 0.7 else 0.05 * long_only, 0.5), "b": (0.0, 0.4)},
        max_leverage=1.0 if long_only else rng.uniform(1.0, 1.5),
        min_cash=0.02,
        max_turnover=rng.uniform(0.1, 0.8),
        max_var=rng.uniform(0.01, 0.03),
        max_expected_shortfall=rng.uniform(0.01, 0.04),
        confidence=0.9,
        half_life=rng.choice([None, 20.0]),
    )
    wish, held = rng.dirichlet(np.full(N + 1, 0.5)), rng.dirichlet(np.full(N + 1, 3.0))
    if rng.random() < 0.4:  # a portfolio of little risk, often within all limits
        held = 0.4 * held + 0.6 * np.eye(N + 1)[0]
        wish = 0.5 * (held + wish)
    if not long_only:
        for weights in (wish, held):
            weights[1:] *= rng.choice([-1, 1], N)
            weights[0] = 1 - weights[1:].sum()
    return wish, held, limits, returns, rng.random(N) < rng.choice([0.0, 0.2])


def test_no_limit_is_broken_and_none_more_than_by_the_holdings():
    rng = np.random.default_rng(18)
    obeyed = broke = unchanged = 0
    for _ in range(500):
        wish, held, limits, returns, fixed = random_case(rng)
        found = limited(wish, held, limits, returns, fixed=fixed, labels=LABELS)
        weights = found.weights
        assert abs(weights.sum() - 1) < CLOSE
        np.testing.assert_array_equal(weights[1:][fixed], held[1:][fixed])
        before = plain_excess(held, limits, returns)
        after = plain_excess(weights, limits, returns)
        turnover = abs(weights - held)[1:].sum() - limits.max_turnover
        assert set(found.broken) - {"max_turnover"} == {k for k, x in after.items() if x > CLOSE}
        assert ("max_turnover" in found.broken) == (turnover > CLOSE)
        if max(before.values()) <= 0:
            obeyed += 1
            assert not found.broken
        else:
            broke += 1
            assert max(after.values()) <= max(before.values()) + CLOSE
        asked = plain_excess(wish, limits, returns)
        if not fixed.any() and max(asked.values()) <= 0 and found.step == 1:
            unchanged += 1
            np.testing.assert_allclose(weights, wish, atol=1e-15)
            assert not found.bound
    assert min(obeyed, broke, unchanged) > 20, (obeyed, broke, unchanged)


def test_what_a_limit_takes_goes_into_cash():
    """No asset is held more than asked for or held before, unless a group needs it."""
    rng = np.random.default_rng(4)
    for _ in range(200):
        wish, held, limits, returns, fixed = random_case(rng)
        groups = {name: (0.0 if limits.long_only else -0.5, b) for name, (_, b) in
                  limits.group_bounds.items()}  # fmt: skip
        limits = replace(limits, group_bounds=groups)
        found = limited(wish, held, limits, returns, fixed=fixed, labels=LABELS)
        if limits.long_only and not fixed.any():
            assert (found.weights[1:] <= np.maximum(wish, held)[1:] + CLOSE).all()
    pair = limited([0, 0.7, 0.3, 0], [1, 0, 0, 0], RiskLimits(max_weight=0.4))
    assert pair.weights == pytest.approx([0.3, 0.4, 0.3, 0])


def test_a_wish_within_all_limits_is_held_unchanged():
    returns = np.random.default_rng(0).normal(0, 0.01, (60, N))
    wish = np.r_[0.44, np.full(N, 0.07)]
    limits = RiskLimits(max_weight=0.1, max_var=0.05, max_turnover=2, min_cash=0.1)
    found = limited(wish, np.eye(N + 1)[0], limits, returns)
    assert found.weights.tolist() == wish.tolist()
    assert (found.step, found.bound, dict(found.broken)) == (1.0, (), {})


def test_nothing_farther_on_the_way_obeys():
    rng = np.random.default_rng(1)
    for _ in range(30):
        returns = rng.normal(0, 0.02, (60, N))
        wish, held = np.r_[0.0, rng.dirichlet(np.full(N, 0.3))], np.eye(N + 1)[0]
        limits = RiskLimits(max_expected_shortfall=0.01, max_turnover=0.6, max_weight=0.5)
        found = limited(wish, held, limits, returns)
        assert 0 < found.step < 1
        further = held + (found.step + 1e-7) * (found.projected - held)
        excess = plain_excess(further, limits, returns)
        assert max(*excess.values(), further[1:].sum() - 0.6) > 0


@pytest.mark.parametrize("half_life", [None, 7.0])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_measures_of_risk_match_plain_ones(confidence, half_life):
    rng = np.random.default_rng(2)
    for bars in (20, 100, 101):
        returns, weights = rng.normal(0, 0.02, (bars, 5)), rng.normal(0, 0.5, (4, 5))
        found = np.array(tail_risk(returns, weights, confidence, half_life))
        plain = [plain_risk(returns, row, confidence, half_life) for row in weights]
        np.testing.assert_allclose(found.T, plain, rtol=1e-10, atol=1e-14)
        assert (found[1] >= found[0] - 1e-14).all()


def test_scale_of_returns_and_order_of_assets_change_nothing():
    rng = np.random.default_rng(3)
    for _ in range(10):
        wish, held, limits, returns, fixed = random_case(rng)
        values = {name: getattr(limits, name) for name in limits.__dataclass_fields__}
        scaled = RiskLimits(
            **values | {name: 64 * values[name] for name in ("max_var", "max_expected_shortfall")},
        )
        first = limited(wish, held, limits, returns, fixed=fixed, labels=LABELS).weights
        found = limited(wish, held, scaled, 64 * returns, fixed=fixed, labels=LABELS).weights
        np.testing.assert_allclose(found, first, atol=1e-7)
        order = rng.permutation(N)
        slots, labels = np.r_[0, 1 + order], [LABELS[i] for i in order]
        found = limited(
            wish[slots], held[slots], limits, returns[:, order], fixed=fixed[order], labels=labels
        ).weights
        np.testing.assert_allclose(found, first[slots], atol=1e-7)


def test_turnover_gives_way_by_no_more_than_the_others_need():
    held = np.array([0.1, 0.6, 0.3])
    limits = RiskLimits(max_weight=0.4, max_turnover=0.1)
    found = limited([0.0, 0.3, 0.7], held, limits)
    assert found.weights[1] == pytest.approx(0.4)
    assert found.broken["max_turnover"] == pytest.approx(abs(found.weights - held)[1:].sum() - 0.1)
    assert set(found.broken) == {"max_turnover"}
    assert abs(found.weights - held)[1:].sum() <= 0.3 + CLOSE


def test_halted_excess_is_said_and_the_rest_still_trades():
    limits = RiskLimits(max_weight=0.3)
    fixed = [True, False, False]
    found = limited([0.2, 0.2, 0.3, 0.3], [0.5, 0.5, 0, 0], limits, fixed=fixed)
    assert found.weights == pytest.approx([0.1, 0.5, 0.2, 0.2])
    assert found.broken == pytest.approx({"max_weight": 0.2})


def test_a_missing_return_is_that_of_the_others():
    returns = np.random.default_rng(4).normal(0, 0.02, (40, 3))
    gaps = returns.copy()
    gaps[5:20, 1] = np.nan
    filled = gaps.copy()
    filled[5:20, 1] = gaps[5:20][:, [0, 2]].mean(axis=1)
    wish, held, limits = [0, 0.2, 0.8, 0], [1, 0, 0, 0], RiskLimits(max_var=0.01)
    first, second = (limited(wish, held, limits, each).weights for each in (gaps, filled))
    np.testing.assert_allclose(first, second, atol=1e-12)
    assert first[0] > 0.1


def test_the_drawdown_stop_ends_after_its_bars_and_measures_anew():
    limits = RiskLimits(max_drawdown=0.1, reentry_after=2)
    stop, seen = DrawdownStop(), []
    for value in (100, 120, 109, 107, 107, 106, 97, 95, 95, 95):
        stop = stop.at(value, limits)
        seen.append(stop.bars)
    assert seen == [None, None, None, 0, 1, None, None, 0, 1, None]
    forever = RiskLimits(max_drawdown=0.1)
    assert DrawdownStop(100.0, 5).at(1000.0, forever) == DrawdownStop(100.0, 6)
    assert DrawdownStop(100.0).at(1.0, RiskLimits()).bars is None


def test_a_stopped_account_sells_whatever_the_turnover_limit():
    limits = RiskLimits(max_turnover=0.1, max_drawdown=0.1)
    found = limited([0, 0.5, 0.5], [0.2, 0.4, 0.4], limits, stopped=True, fixed=[False, True])
    assert found.weights == pytest.approx([0.6, 0.0, 0.4])
    assert found.bound[0] == "max_drawdown"


class Dice:
    """Random weights or scores, the same ones in every run; its memory counts the decisions."""

    def __init__(self, logits=False):
        self.logits = logits

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        step = 0 if state is None else state
        rng, lanes = np.random.default_rng(step), len(observation["weights"])
        draw = rng.uniform(-1, 1, N + 1) if self.logits else rng.dirichlet(np.full(N + 1, 0.3))
        return np.tile(draw, (lanes, 1)), step + 1


TIGHT = {"max_weight": 0.3, "min_cash": 0.05, "max_turnover": 0.5, "lookback": 40}
TIGHT |= {"max_var": 0.012, "max_expected_shortfall": 0.018, "half_life": 15.0}


def options_of(market, **more):
    return {
        "market": market,
        "window": 1,
        "start": 45,
        "action": "weights",
        "costs": {"commission_bps": 10},
    } | more


def test_no_limit_is_broken_in_a_backtest():
    market, limits = random_market(5, 100, N), RiskLimits(**TIGHT)
    env = PortfolioEnv(**options_of(market))
    managed = RiskManaged(Dice(), limits, env)
    result = backtest(managed, env)
    bare = backtest(Dice(), env)
    returns = market.close[1:] / market.close[:-1] - 1
    worst = []
    for k, held in enumerate(result.held):
        known = returns[45 + k - 40 : 45 + k]
        assert max(plain_excess(held, limits, known).values()) < CLOSE
        worst.append(max(plain_excess(bare.held[k], limits, known).values()))
        if max(plain_excess(result.drifted[k], limits, known).values()) <= 0:
            assert abs(held - result.drifted[k])[1:].sum() <= 0.5 + CLOSE
    assert np.mean(np.array(worst) > CLOSE) > 0.8
    assert managed.last[0].bound


def test_decisions_do_not_depend_on_later_prices():
    first, second = random_market(6, 80, N), random_market(6, 80, N)
    close = second.close.copy()
    close[61:] *= np.random.default_rng(0).uniform(0.8, 1.2, close[61:].shape)
    limits = RiskLimits(**TIGHT, max_drawdown=0.05, reentry_after=3)
    held = []
    for market in (first, market_of(close)):
        env = PortfolioEnv(**options_of(market))
        held.append(backtest(RiskManaged(Dice(), limits, env), env).held)
    np.testing.assert_array_equal(held[0][: 61 - 45], held[1][: 61 - 45])
    assert (held[0][62 - 45 :] != held[1][62 - 45 :]).any()


def test_a_stopped_account_holds_cash_for_the_bars_of_the_rule():
    close = np.full((30, N), 100.0)
    close[10:] = 80.0
    env = PortfolioEnv(**options_of(market_of(close), start=5, costs={}))
    limits = RiskLimits(max_drawdown=0.1, reentry_after=4)
    equal = make_baseline("equal_weight", env.market)
    result = backtest(RiskManaged(equal, limits, env), env)
    assert np.flatnonzero(result.held[:, 0] == 1).tolist() == [5, 6, 7, 8]


def test_lanes_and_scores_are_those_of_a_single_account():
    market, limits = random_market(7, 60, N, halted=0.1), RiskLimits(**TIGHT)
    env, lanes = (
        PortfolioEnv(**options_of(market)),
        PortfolioVectorEnv(num_envs=2, autoreset_mode="Disabled", **options_of(market)),
    )
    single = backtest(RiskManaged(Dice(), limits, env), env)
    for result in backtest(RiskManaged(Dice(), limits, lanes), lanes):
        np.testing.assert_allclose(result.held, single.held, atol=1e-12)
    scored = PortfolioEnv(**options_of(market, action="logits"))
    loose = RiskManaged(Dice(logits=True), RiskLimits(), env, answers="logits")
    np.testing.assert_allclose(
        backtest(loose, env).held, backtest(Dice(logits=True), scored).held, atol=1e-9
    )


def test_a_plan_keeps_the_limits_and_a_stop_needs_values():
    market, limits = random_market(5, 60, N), RiskLimits(**TIGHT)
    env = PortfolioEnv(**options_of(market))
    held, t = np.full(N + 1, 1 / (N + 1)), market.n_bars - 1
    predictor = Predictor(RiskManaged(Dice(), limits, env), env)
    trades = plan(predictor.decide(held, t), predictor.simulator, 1000.0)
    returns = market.close[1:] / market.close[:-1] - 1
    assert max(plain_excess(trades.held, limits, returns[-40:]).values()) < CLOSE
    stopping = Predictor(RiskManaged(Dice(), RiskLimits(max_drawdown=0.1), env), env)
    with pytest.raises(ArgumentError, match="drawdown stop"):
        stopping.decide(held, t)
    stopping.decide(held, t, value=1000.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_weight": 0}, "max_weight"),
        ({"max_var": -0.1}, "max_var=-0.1 must be a finite number above 0"),
        ({"confidence": 1}, "confidence"),
        ({"lookback": 10}, "lookback=10"),
        ({"half_life": 0}, "half_life"),
        ({"half_life": 2}, "half_life=2 leaves .* at least 13.5"),
        ({"max_drawdown": 1.0}, "max_drawdown"),
        ({"reentry_after": 3}, "needs max_drawdown"),
        ({"group_bounds": {"a": (0, 1)}}, "group_by"),
        ({"max_wait": 1}, "max_w"),
    ],
)
def test_bad_limits_are_refused(values, message):
    with pytest.raises(ArgumentError, match=message):
        RiskLimits(**values)


def test_what_cannot_be_measured_is_refused():
    limits = RiskLimits(max_var=0.02)
    for returns, message in (
        (None, "need 20 or more"),
        (np.zeros((5, 2)), "not 5"),
        ([1.0], "K, 2"),
    ):
        with pytest.raises(ArgumentError, match=message):
            limited([1, 0, 0], [1, 0, 0], limits, returns)
    for wish, held in (([1, 0], [1, 0, 0]), ([np.nan, 0, 0], [1, 0, 0]), ([1, 0, 0], [1, 1, 0])):
        with pytest.raises(ArgumentError, match=r"must be|must sum"):
            limited(wish, held, RiskLimits())
    env = PortfolioEnv(**options_of(random_market(8, 60, N), start=5))
    with pytest.raises(ArgumentError, match="start later"):
        backtest(RiskManaged(Dice(), limits, env), env)


@pytest.mark.parametrize(
    "options",
    [
        {"action": "logits"},
        {"adjustment": 0.5},
        {"constraints": {"no_trade_band": 0.01}},
        {"constraints": {"max_turnover": 0.5}},
    ],
)
def test_environments_that_hold_something_else_are_refused(options):
    env = PortfolioEnv(**options_of(random_market(9, 60, N), **options))
    with pytest.raises(ArgumentError):
        RiskManaged(Dice(), RiskLimits(), env)


def test_orders_obey_where_fills_are_incomplete():
    """An environment with fills used to be refused, and with it every run trained with them."""
    env = PortfolioEnv(**options_of(random_market(2, 80, N), fills={"failure": 0.3}))
    policy = RiskManaged(Dice(), RiskLimits(max_weight=0.2), env)
    seen, state = env.reset(seed=0)[0], None
    for _ in range(20):
        batch = {name: np.asarray(part)[None] for name, part in seen.items()}
        answer, state = policy.predict(batch, state)
        assert answer[0, 1:].max() <= 0.2 + 1e-12
        seen, *_ = env.step(answer[0])
