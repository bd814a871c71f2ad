"""Decisions, plans and orders make the same account as the backtest, bar by bar."""

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.accounts import CONSTRAINTS, COSTS
from helpers.bare_markets import random_market
from helpers.panels import panel_of

from agents import make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.networks import ENCODERS
from baselines import BASELINES, make_baseline
from baselines.ensemble import Ensemble
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.evaluation import GateDecision, GatedPolicy, backtest
from portfolio_env.live import (
    Holdings,
    Instrument,
    Predictor,
    RiskLimits,
    RiskManaged,
    orders_of,
    plan,
)
from portfolio_env.live.money import decimal_of
from portfolio_env.live.planning import last_prices

EXACT = 1e-12
NETWORKS = 5e-6  # outputs to 1e-6, whose softmax has the scale 5


ORACLES = {"best_asset", "best_constant_rebalanced"}
OPTIMISERS = ("herc", "hrp", "mean_variance", "min_variance", "nested_clusters", "risk_parity")
DEEP = ("deep_portfolio", "eiie", "gat_portfolio", "tcn_gnn_lstm_portfolio")
LONG_FIT = ("deep_momentum", "regime_switching")
FITTED = (*DEEP, "deep_momentum", "regime_switching", "volatility_managed")
_EPOCH = {"forecaster_options": {"window": 3, "epochs": 1}}
SHORT_HISTORY: dict[str, dict[str, Any]] = {
    **{name: {"lookback": 30, "every": 5} for name in OPTIMISERS},
    **{
        f"{name}_mean_variance": {"lookback": 30, "least": 15, "refit": "month", **more}
        for name, more in {
            "forecast": {"horizon": 5},
            "random_forest": {"horizon": 5},
            "lstm": _EPOCH,
            "state_space": _EPOCH,
            "transformer": _EPOCH,
        }.items()
    },
    **{name: {"window": 5, "training": {"iterations": 2, "steps": 3}} for name in DEEP},
    "ensemble": {"members": ("inverse_volatility", "momentum")},
    "cross_sectional_momentum": {"months": 1, "skip": 0.2, "every": "week"},
    "time_series_momentum": {"months": (0.5, 1), "skip": 0.2, "lookback": 10, "every": "week"},
    "low_volatility": {"months": 1, "every": "week"},
    "trend_filter": {"months": 1, "every": "week"},
    "deep_momentum": {"months": (0.2, 0.5), "sequence": 5, "hidden": 4, "epochs": 2},
}


ANY_FRACTION = Instrument(lot=Decimal(0))


def decimals(prices):
    return tuple(map(decimal_of, prices))


def walk(make, **options):
    """Held weights and values of every bar, from decisions, plans and orders alone.

    The predictor begins with the bars up to the first decision and is given the others one by one.
    The market as a whole is read for the account alone: prices, interest, delistings.
    """
    whole = PortfolioEnv(**options)
    simulator, market = whole.simulator, whole.market
    start, end = simulator.episodes.start, simulator.episodes.end
    env = PortfolioEnv(**options | {"market": market.past(start), "start": None})
    predictor = Predictor(make(env), env)
    account = Holdings.of_cash(market.assets, simulator.initial_value)
    values, held, turnovers = [simulator.initial_value], [], []
    for t in range(start, end - 1):
        closes = decimals(last_prices(market, t))
        now = {"weights": account.weights(closes), "value": float(account.value(closes))}
        if t == start:
            decision = predictor.decide(**now)
        else:
            names = [market.assets[i] for i in np.flatnonzero(simulator.arrays.delisted[t - 1])]
            bars = market.panel.subset(slice(t, t + 1))
            decision = predictor.advance(bars, **now, delisted=names)
        assert decision.timestamp == market.timestamps[t]
        prices, can = closes, market.tradable[t]
        gone = simulator.arrays.delisted[t]
        if options.get("execution") == "next_open":
            account = delisted(account, closes, gone, simulator.costs.delisting_haircut)
            opens = np.where(np.isfinite(market.close[t + 1]), market.open[t + 1], closes)
            prices, can = decimals(opens), market.tradable[t + 1]
        now = plan(
            decision,
            predictor.simulator,
            float(account.value(prices)),
            weights=account.weights(prices),
            prices=[float(price) for price in prices],
            tradable=can,
            turnovers=turnovers,
        )
        orders = orders_of(now, account, [ANY_FRACTION] * len(prices), prices)
        held.append(orders.after.weights(prices))
        turnovers.append(now.turnover)
        account = with_interest(orders.after, prices, simulator.arrays.interest[t])
        if options.get("execution") != "next_open":
            account = delisted(account, prices, gone, simulator.costs.delisting_haircut)
        values.append(float(account.value(decimals(last_prices(market, t + 1)))))
    return np.array(held), np.array(values)


def with_interest(account, prices, rates):
    """The account after a step's interest, to 34 digits."""
    short = sum((min(part, Decimal(0)) for part in account.worth(prices)), Decimal(0))
    with localcontext() as context:
        context.prec = 34
        rate = rates[0] if account.cash > 0 else rates[1]
        cash = account.cash * (1 + decimal_of(rate)) + short * decimal_of(rates[2])
    return Holdings(account.assets, account.units, cash)


def delisted(account, prices, gone, haircut):
    """The account after the holdings of some assets became cash."""
    units, cash = list(account.units), account.cash
    for place in np.flatnonzero(gone):
        if units[place]:
            cash += units[place] * prices[place] * (1 - decimal_of(haircut))
            units[place] = Decimal(0)
    return Holdings(account.assets, tuple(units), cash)


def ragged(bars: int = 130) -> Market:
    """Assets that start late, stop, and do not trade at times; with opens and volumes."""
    return load_market(f"synthetic?bars={bars}&assets=5&seed=15&ragged=true")


def check(make: Any, near: float = EXACT, **options: Any) -> None:
    """Compare the walk with the backtest of the policy that ``make`` makes for an environment."""
    env = PortfolioEnv(**options)
    result = backtest(make(env), env)
    held, values = walk(make, **options)
    assert result.turnovers.sum() > 0.05 or type(make(env)).__name__ == "Cash"
    assert np.abs(held - result.held).max() < near
    assert np.abs(values / result.values - 1).max() < near


def baseline(name: str, **options: Any) -> Any:
    return lambda env: make_baseline(name, env.market, **options)


BASE = {"observation": "index", "action": "weights", "window": 1, "start": 40}


@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize("name", ["equal_weight", "hrp", "olmar1"])
def test_baselines(name: str, execution: str) -> None:
    market = ragged()
    assert (~market.tradable[40:]).any()
    assert PortfolioEnv(market, **BASE).simulator.arrays.delisted[40:].any()
    options = {"lookback": 30, "every": 5} if name == "hrp" else {}
    check(baseline(name, **options), market=market, **BASE, execution=execution, costs=COSTS)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_constraints_and_adjustment(execution: str) -> None:
    options: dict[str, Any] = {"costs": COSTS, "constraints": CONSTRAINTS, "adjustment": 0.3}
    for name in ("random", "buy_and_hold"):  # whose targets are carried on until they are reached
        check(baseline(name), market=ragged(), **BASE, execution=execution, **options)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_bounds_of_groups(execution: str) -> None:
    market = ragged()
    labels = {"kind": tuple("ABABA"[: market.n_assets])}
    market = replace(market, panel=replace(market.panel, categories=labels))
    bounds = {"A": (0.2, 0.3), "B": (0.0, 0.25)}
    options: dict[str, Any] = {"market": market, **BASE, "execution": execution}
    options["constraints"] = {"group_by": "kind", "group_bounds": bounds}
    free = backtest(make_baseline("random", market), PortfolioEnv(market, **BASE))
    sums = free.held[:, 1:] @ np.array([[kind == "A" for kind in labels["kind"]]]).T
    assert (sums > 0.3).any()  # so that the bounds bind
    check(baseline("random"), **options, costs=COSTS)


class LongShort:
    """Weights with leverage and shorts that change from bar to bar."""

    action = "weights"

    def predict(self, observation: Any, state: Any = None, *_: Any, **__: Any) -> Any:
        rng = np.random.default_rng(int(observation["t"][0, 0]))
        risky = rng.uniform(-0.5, 0.7, observation["tradable"].shape[1])
        return np.r_[1 - risky.sum(), risky][None], state


def test_a_plan_is_the_first_half_of_a_step_to_the_last_bit() -> None:
    market = ragged()
    options: dict[str, Any] = {**BASE, "costs": COSTS, "constraints": {"max_turnover": 0.4}}
    env = PortfolioEnv(market, **options)
    predictor = Predictor(make_baseline("random", market), PortfolioEnv(market, **options))
    env.reset()
    for t in range(40, 100):
        value = float(env.simulator.ledger[0, 0])
        decision = predictor.decide(env.weights, t)
        now = plan(decision, predictor.simulator, value)
        info = env.step(decision.action)[4]
        assert np.array_equal(now.held, env.simulator.held[0])
        assert now.turnover == info["turnover"]
        assert now.cost == pytest.approx(info["cost"], rel=1e-10)  # a small part of the value


def test_leverage_and_short_positions() -> None:
    market = random_market(3, 200, 4, halted=0.1)
    constraints = {"long_only": False, "max_leverage": 1.6, "min_cash": -0.6}
    costs = COSTS | {"impact": 0}
    check(lambda env: LongShort(), market=market, **BASE, costs=costs, constraints=constraints)


def shaken(module: Any) -> None:
    """Move the weights of a network from their first ones, of which outputs hardly depend."""
    draws = th.Generator().manual_seed(0)
    with th.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * th.randn(weight.shape, generator=draws))


def sb3_agent(algo: str, **options: Any) -> Any:
    """Make an agent of an algorithm for an environment, with weights other than at first."""

    def make(env: PortfolioEnv) -> Any:
        names = ("observation", "window", "action")
        venv = make_sb3_vec_env(env.market, 1, **{name: env.env_options[name] for name in names})
        agent = make_agent(algo, venv, seed=1, device="cpu", **options)
        shaken(agent.policy)
        return agent

    return make


def direct_agent(encoder: str, **options: Any) -> Any:
    """Make an agent of an encoder, whose blocks have the same length in every environment."""

    def make(env: PortfolioEnv) -> Any:
        agent = DirectAgent(
            env.market.n_features, 8, encoder=encoder, encoder_kwargs=options, device="cpu"
        )
        shaken(agent.network)
        agent.bind(ragged())
        agent.bind(env.market)
        return agent

    return make


LOGITS: dict[str, Any] = {"observation": "index", "window": 8, "start": 60, "adjustment": 0.5}


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_agents(execution: str) -> None:
    algo = {"close": "ppo", "next_open": "sac"}[execution]
    for make in (sb3_agent(algo), direct_agent("lstm")):
        check(make, NETWORKS, market=ragged(), **LOGITS, execution=execution, costs=COSTS)


STREAM = {"history": "stream", "block": 10}
ENCODER_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ENCODERS),
    ("lstm", STREAM),
    ("lstm_attention", STREAM),
    ("state_space", STREAM),
    ("tcn_gnn_lstm_small", STREAM | {"bidirectional": False}),
]


def test_a_stream_encoder() -> None:
    check(direct_agent("lstm", **STREAM), NETWORKS, market=ragged(), **LOGITS, costs=COSTS)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize(("encoder", "options"), ENCODER_OPTIONS)
def test_every_encoder(encoder: str, options: dict[str, Any], execution: str) -> None:
    trading = {"execution": execution, "costs": COSTS, "constraints": CONSTRAINTS}
    make = direct_agent(encoder, **options)
    window = make(PortfolioEnv(ragged())).window
    check(make, NETWORKS, market=ragged(), **LOGITS | {"window": window}, **trading)


@pytest.mark.slow
@pytest.mark.parametrize("observation", ["index", "window", "flat"])
@pytest.mark.parametrize("algo", ["ppo", "a2c", "sac", "td3", "ddpg", "tqc", "trpo"])
def test_every_algorithm(algo: str, observation: str) -> None:
    options = LOGITS | {"observation": observation}
    check(sb3_agent(algo), market=ragged(), **options, execution="next_open", costs=COSTS)


@pytest.mark.slow
def test_other_policies() -> None:
    options: dict[str, Any] = {"market": ragged(), "costs": COSTS}
    check(sb3_agent("ppo", policy="dirichlet"), action="weights", **LOGITS, **options)
    with pytest.warns(UserWarning, match="memorises"):
        check(sb3_agent("ppo", policy="flat_mlp"), **LOGITS | {"observation": "flat"}, **options)


@pytest.mark.slow
@pytest.mark.parametrize("execution", ["close", "next_open"])
@pytest.mark.parametrize("name", sorted(set(BASELINES) - ORACLES))
def test_every_baseline(name: str, execution: str) -> None:
    start = 110 if name in LONG_FIT else 60

    def make(env: PortfolioEnv) -> Any:
        model = make_baseline(name, env.market, **SHORT_HISTORY.get(name, {}))
        return model.fit(env.market.panel, (0, start)) if name in FITTED else model

    trading = {"execution": execution, "costs": COSTS, "constraints": CONSTRAINTS}
    near = EXACT if name not in (*DEEP, "deep_momentum") and "former" not in name else NETWORKS
    market = ragged(start + 70)
    check(make, near, market=market, **BASE | {"start": start}, adjustment=0.5, **trading)


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_mixtures_and_policies_around_policies(execution: str) -> None:
    def mixed(env: PortfolioEnv) -> Any:
        members = {"ppo": sb3_agent("ppo")(env), "momentum": make_baseline("momentum", env.market)}
        return Ensemble(env.market, members=members, paces={"ppo": 0.5})

    def gated(env: PortfolioEnv) -> Any:
        passed = GateDecision(passed=True, estimate=1.0, low=0.5, p_value=0.01)
        return GatedPolicy(mixed(env), make_baseline("equal_weight", env.market), passed)

    def managed(env: PortfolioEnv) -> Any:
        limits = RiskLimits(max_weight=0.4, max_var=0.05, lookback=30, max_drawdown=0.02)
        return RiskManaged(mixed(env), limits, env)

    options = BASE | {"start": 60, "window": 8, "execution": execution, "costs": COSTS}
    for make in (gated, managed):
        if make is gated or execution == "close":
            check(make, market=ragged(), **options)


def test_hours_with_pauses() -> None:
    panel = panel_of("bh", 110, assets=3)
    market = load_market(panel, features=("minimal", "1d:return_1", "market_corr_20"), fit_end=60)
    options = {"market": market, "costs": COSTS, "execution": "next_open"}
    check(baseline("momentum", lookback=20, every=3), **BASE | {"start": 60}, **options)
    check(sb3_agent("ppo"), **LOGITS, **options)
