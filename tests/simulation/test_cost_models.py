"""Costs by asset's name, and cost models of one's own: the same in both environments, checked."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from portfolio_env import (
    ArgumentError,
    PortfolioEnv,
    PortfolioVectorEnv,
    TransactionCosts,
    load_market,
)
from portfolio_env.evaluation.diagnostics.scenarios import ThinLiquidity
from portfolio_env.evaluation.diagnostics.stress import stress_test
from portfolio_env.simulation.cost_models import (
    CostModel,
    checked_rates,
    half_spreads,
    made_costs,
)

SOURCE = """
import numpy as np
from portfolio_env.simulation.cost_models import CostModel

made = []

class Flat(CostModel):
    def __init__(self, bps=10.0, fee=0.0, b=0.0):
        self.bps, self.b = bps, b
        self.fixed_fee = fee
        made.append(self)

    def rates(self, assets):
        rate = np.full(len(assets), self.bps / 1e4)
        return rate, rate

    def impact_coefficients(self, panel):
        return np.full(panel.close.shape, self.b) if self.b else np.zeros((0, 0))

class Other:
    def __init__(self, **options):
        made.append(options)

def function(**options):
    made.append(options)

instance = Flat(5.0)
"""


@pytest.fixture
def mine(own_module):
    own_module("my_costs", SOURCE)
    import my_costs

    return my_costs


@pytest.fixture(scope="module")
def market():
    return load_market("synthetic?seed=2&bars=120&assets=3")


def account(market, costs, lanes=None, **options):
    options = {"window": 1, "costs": costs, **options}
    env = (
        PortfolioEnv(market, **options)
        if lanes is None
        else PortfolioVectorEnv(lanes, market, **options)
    )
    env.reset(seed=3)
    rng = np.random.default_rng(4)
    shape = env.action_space.shape
    steps = [rng.uniform(-1, 1, shape) for _ in range(30)]
    if lanes is not None:  # every lane does what the single account does
        steps = [np.repeat(step[:1], lanes, axis=0) for step in steps]
    return np.array([env.step(step)[4]["portfolio_value"] for step in steps])


def test_costs_by_asset_are_those_in_the_order_of_the_market(market):
    a, b, c = market.assets
    listed = TransactionCosts([5, 20, 10], slippage_bps=[0, 0, 3])
    named = {"commission_bps": {c: 10, b: 20, a: 5}, "slippage_bps": {c: 3, "*": 0}}
    np.testing.assert_array_equal(account(market, listed), account(market, named))
    swapped, by_name = market.select([c, a]), {"commission_bps": {c: 10, a: 5}}
    listed = TransactionCosts([10, 5])
    np.testing.assert_array_equal(account(swapped, listed), account(swapped, by_name))


def test_by_name_in_json_and_pickles(market):
    costs = TransactionCosts(commission_bps={"A01": 5.0, "*": 10})
    env = PortfolioEnv(
        market, window=1, costs=json.loads(json.dumps({"commission_bps": {"A01": 5, "*": 10}}))
    )
    assert env.simulator.costs == costs == pickle.loads(pickle.dumps(costs))
    assert PortfolioEnv(market, window=1, costs=costs).simulator.arrays.rates[0].tolist() == [
        0.001, 0.0005, 0.001,
    ]  # fmt: skip


def test_drawn_assets_pay_their_own_rates(market):
    a, b, c = market.assets
    costs = {"commission_bps": {a: 0, b: 50, c: 100}}
    env = PortfolioVectorEnv(40, market, window=1, universe=2, costs=costs, action="weights")
    env.reset(seed=0)
    _, _, _, _, info = env.step(np.tile(np.float32([0, 1, 0]), (40, 1)))
    rates = np.array([0, 0.005, 0.01])[env.simulator.assets[:, 0]]
    np.testing.assert_allclose(info["cost"] / 10_000, rates / (1 + rates), rtol=1e-9)
    assert len(set(rates)) == 3


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            {"A00": 1, "A01": 2},
            r"commission_bps has no number for A02; give one, or one for \"\*\"",
        ),
        ({"A00": 1, "B01": 2, "*": 3}, "unknown asset of commission_bps 'B01': did you mean A01"),
        ({"A00": 1, "A01": 2, "A02": 3, "A3": 1}, "unknown asset of commission_bps 'A3'"),
        ({"*": -1}, "basis points"),
        ({"*": "1"}, "commission_bps="),
        ({1: 1}, "commission_bps="),
    ],
)
def test_what_is_wrong_with_names(market, value, says):
    with pytest.raises(ArgumentError, match=says):
        PortfolioEnv(market, window=1, costs={"commission_bps": value})


def test_rates_by_name_need_names():
    with pytest.raises(ArgumentError, match="give rates"):
        TransactionCosts({"*": 5}).rates(3)


def test_a_model_of_ones_own_is_equal_to_transaction_costs(mine, market):
    expected = account(market, TransactionCosts(7, fixed_fee=2))
    for costs in (
        mine.Flat(7, 2),
        {"model": "my_costs:Flat", "bps": 7, "fee": 2},
        {"model": mine.Flat, "bps": 7, "fee": 2},
    ):
        np.testing.assert_array_equal(account(market, costs), expected)
        lanes = account(market, costs, lanes=2)
        np.testing.assert_array_equal(lanes[:, 0], lanes[:, 1])
    np.testing.assert_array_equal(account(market, "my_costs:Flat"), account(market, {}))
    five = account(market, TransactionCosts(5))
    np.testing.assert_array_equal(account(market, "my_costs:instance"), five)


def test_the_differentiable_twin_reads_the_same(mine, market):
    from agents.direct.differentiable_simulator import DifferentiableSimulator

    env = PortfolioEnv(market, window=1, costs=mine.Flat(7, 2, 1e-5))
    twin = DifferentiableSimulator.of(env.simulator)
    assert twin.rates.tolist() == [[pytest.approx(7e-4)] * 3] * 2
    assert twin.rules["fixed_fee"] == 2
    assert twin.impact.shape == (120, 3)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("my_costs:Flt", "did you mean Flat"),
        ({"model": "my_costs:Flat", "bsp": 1}, r"\['bsp'\] raised TypeError"),
        ({"model": "my_costs:Other", "x": 1}, "must be a TransactionCosts"),
        ({"model": "my_costs:function", "x": 1}, "must be a TransactionCosts"),
        ({"model": "my_costs:instance", "x": 1}, r"takes no \['x'\]"),
        ({"model": "os:system", "command": "touch here"}, "a module of Python itself"),
        ({"model": "subprocess:run", "args": ["touch", "here"]}, "a module of Python itself"),
        ("free", "unknown costs 'free'"),
        ({"commision_bps": 1}, "did you mean 'commission_bps'"),
        (7, "must be a TransactionCosts"),
    ],
)
def test_nothing_else_is_called(mine, spec, says):
    before = [*mine.made]
    with pytest.raises(ArgumentError, match=says):
        made_costs(spec)
    assert mine.made == before


class Wrong(CostModel):
    def __init__(self, rate=0.001, impact=None, **numbers):
        self.rate, self.impact = rate, impact
        vars(self).update(numbers)

    def rates(self, assets):
        return self.rate, self.rate

    def impact_coefficients(self, panel):
        return np.zeros((0, 0)) if self.impact is None else self.impact(panel)


class Unwritten(CostModel):
    pass


def one_bar_ahead(panel):
    """Small coefficients that know the next bar, every third row."""
    out = np.full(panel.close.shape, 1e-9)
    rows = np.arange(0, len(out) - 1, 3)
    out[rows] *= 1 + (panel.close[rows + 1] > panel.close[rows])
    return out


def test_numbers_of_numpy_are_numbers(market):
    env = PortfolioEnv(market, window=1, costs=Wrong(np.full(3, 0.1), fixed_fee=np.float32(1)))
    assert env.simulator.rules["fixed_fee"] == 1


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Wrong(np.full(2, 0.1)), r"rates of Wrong must be two arrays \(3,\)"),
        (Wrong(np.full(3, -0.1)), r"\[0, 1\)"),
        (Wrong(np.full(3, np.nan)), r"\[0, 1\)"),
        (Wrong(np.full(3, 0.1), fixed_fee=-1), "fixed_fee of Wrong is -1"),
        (Wrong(np.full(3, 0.1), delisting_haircut=2), "delisting_haircut"),
        (Wrong(np.full(3, 0.1), lambda p: p.close[:4]), "must have the shape"),
        (Wrong(np.full(3, 0.1), lambda p: -p.close), r"must be within \[0, 1e\+09\]"),
        (Wrong(np.full(3, 0.1), lambda p: 0 * p.close + 1e17), r"that of .* at 20.* is 1e\+17"),
        (Wrong(np.full(3, 0.1), lambda p: p.close * np.nan), "is nan. Check its units"),
        (Wrong(np.full(3, 0.1), lambda p: p.close / p.close[-1]), "know the future"),
        (Wrong(np.full(3, 0.1), one_bar_ahead), "know the future"),
        (Wrong(np.full(3, 0.1), fixed_fee="1"), "must be a finite number"),
        (Unwritten(), r"Unwritten must define rates\(assets\)"),
        (Wrong(np.full(3, 0.1), lambda p: 1 / 0), "raised ZeroDivisionError"),
        (Wrong("many"), "rates of Wrong returned values of type <U4: they must be numbers"),
        (Wrong(np.full(3, 0.1j)), "rates of Wrong returned values of type complex128"),
    ],
)
def test_what_a_model_gives_is_checked(market, model, says):
    with pytest.raises(ArgumentError, match=says):
        PortfolioEnv(market, window=1, costs=model)


class Derived(TransactionCosts):
    """Costs of the package with rates and impact of one's own."""

    answers, known = None, None

    def rates(self, assets):
        return super().rates(assets) if self.answers is None else self.answers(super(), assets)

    def impact_coefficients(self, panel):
        own = super().impact_coefficients(panel)
        return own if self.known is None else self.known(panel)


@pytest.mark.parametrize(
    ("member", "answer", "says"),
    [
        ("answers", lambda own, assets: 2 * own.rates(assets), "must be two arrays"),  # a tuple
        ("answers", lambda own, assets: np.full((2, 3), -0.01), r"\[0, 1\)"),
        ("answers", lambda own, assets: np.full((2, 3), np.nan), r"\[0, 1\)"),
        ("answers", lambda own, assets: 0.001, "must be two arrays"),
        ("answers", lambda own, assets: np.full((2, 1), 0.1), "must be two arrays"),
        ("answers", lambda own, assets: 1 // 0, "raised ZeroDivisionError"),
        ("known", lambda panel: panel.close / panel.close[-1], "know the future"),
        ("known", one_bar_ahead, "know the future"),
    ],
)
def test_what_a_class_derived_from_transaction_costs_gives_is_checked(market, member, answer, says):
    own = type("Derived", (Derived,), {member: staticmethod(answer)})
    with pytest.raises(ArgumentError, match=says):
        PortfolioEnv(market, window=1, costs=own())


def test_a_class_derived_from_transaction_costs_pays_what_it_says(market):
    def doubled(own, assets):
        return tuple(2 * rate for rate in own.rates(assets))

    own = type("Derived", (Derived,), {"answers": staticmethod(doubled)})(slippage_bps=4)
    twice = TransactionCosts(commission_bps=20, slippage_bps=8)
    found = [account(market, costs) for costs in (own, twice)]
    np.testing.assert_allclose(*found, rtol=1e-13)
    assert not half_spreads(own, market.assets).any()
    dear = ThinLiquidity(factor=2.0).costs(own)
    np.testing.assert_allclose(checked_rates(dear, market.assets), 2 * 28e-4)


def test_costs_at_the_bounds_are_counted(market):
    """The dearest impact for the largest account: every trade still keeps money."""
    impact = Wrong(np.full(3, 0.1), lambda p: np.full(p.close.shape, 1e9))
    env = PortfolioEnv(market, window=1, costs=impact, initial_value=1e15, action="weights")
    rng, ended = np.random.default_rng(0), False
    env.reset(seed=0)
    while not ended:
        *_, terminated, truncated, _ = env.step(rng.dirichlet(np.full(4, 0.3)))
        ended = terminated or truncated


def test_built_in_impact_of_what_hardly_trades_is_refused(market):
    thin = replace(market.panel, volume=1e-60 * market.panel.volume)
    with pytest.raises(ArgumentError, match="impact_coefficients of TransactionCosts must be with"):
        PortfolioEnv(load_market(thin), window=1, costs={"impact": 1.0})


def test_scenarios_scale_any_costs(mine, market):
    from baselines import make_baseline

    def stressed(costs):
        return stress_test(
            lambda changed: make_baseline("equal_weight", changed), market,
            {"thin": ThinLiquidity(factor=3)}, costs=costs, window=1, observation="index",
            action="weights",
        )["thin"].values  # fmt: skip

    np.testing.assert_allclose(
        stressed(mine.Flat(7, 2)), stressed({"commission_bps": 7, "fixed_fee": 2})
    )
    by_name = stressed({"commission_bps": {"*": 7}, "fixed_fee": 2})
    np.testing.assert_allclose(by_name, stressed(mine.Flat(7, 2)))
