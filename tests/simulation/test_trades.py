"""One trade of one lane beside the slow account, for holdings, costs and limits of every kind."""

from typing import NamedTuple

import numpy as np
import pytest
from helpers.oracles.account import Account
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portfolio_env.simulation.rebalancing import fill_lane, money_lost, solve_trade, trade_lane


class Trade(NamedTuple):
    """The arguments of ``trade_lane`` but the last, and whether the account may borrow."""

    d: np.ndarray
    a: np.ndarray
    fixed: np.ndarray
    free: float
    costs: tuple
    limits: tuple
    may_borrow: bool


def random_trade(seed: int) -> Trade:
    """A trade of one to five assets; everything that makes a case of its own is frequent."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 6))
    may_borrow = bool(rng.random() < 0.4)
    fixed = rng.random(n) < rng.choice([0.0, 0.5])
    least = float(rng.choice([-6.0, -0.5, 0.0, 0.05, 0.3] if may_borrow else [0.0, 0.05, 0.3]))
    d = rng.dirichlet(np.full(n + 1, 0.7))
    a = rng.normal(0, 1, n + 1) if may_borrow else rng.dirichlet(np.ones(n + 1))
    if rng.random() < 0.4:  # what cannot be traded may be short, or more than there is
        d[1:] += np.where(fixed | may_borrow, rng.normal(0, 0.7, n), 0.0)
    for weights in (d, a):
        weights[1:] *= rng.random(n) < 0.9
        if rng.random() < 0.5:  # cash at its bound: all the rest is in one asset more
            weights[1 + rng.integers(n)] += 1.0 - least - weights[1:].sum()
    d[0] = 1.0 - d[1:].sum()
    free = 1.0 if may_borrow else 1.0 - d[1:][fixed].sum()
    if not may_borrow:
        asked = a[0] + a[1:][~fixed].sum()
        a *= max(free, 0.0) / asked if asked > 0 else 0.0
    a[1:][fixed] = d[1:][fixed]
    if rng.random() < 0.1:  # nothing is asked for, or so little that it is rounding
        a[1:] = d[1:] + rng.choice([0.0, 1e-14]) * ~fixed
    a[0] = 1.0 - a[1:].sum()
    most = rng.choice([0.0, 0.003, 0.1, 0.95])
    impact = rng.uniform(0, rng.choice([0.02, 0.5, 6.0]), n) if rng.random() < 0.4 else np.zeros(0)
    fee = float(rng.choice([0.0, 0.001, 0.02, 0.4, 1.2], p=[0.4, 0.2, 0.2, 0.1, 0.1]))
    part = rng.choice([np.inf, 0.0, rng.uniform(0, 1)], p=[0.3, 0.1, 0.6])
    limit = float(part * abs(a - d)[1:].sum()) if part < np.inf else np.inf
    costs = (*rng.uniform(0, most, (2, n)), impact, fee)
    return Trade(d, a, fixed, free, costs, (limit, least), may_borrow)


def made(trade: Trade) -> tuple[float, float, np.ndarray]:
    """Wealth left, turnover and held weights, by the package."""
    held = np.full(len(trade.d), np.nan)
    mu, turnover, _ = trade_lane(*trade[:6], held)
    return mu, turnover, held


def expected(trade: Trade) -> tuple[float, float, np.ndarray]:
    """The same by the slow account, of a wealth of 1 in assets that cost 1."""
    buy, sell, impact, fee = trade.costs
    account = Account(float(trade.d[0]), trade.d[1:].tolist(), buy.tolist(), sell.tolist(), fee)
    ones = [1.0] * len(buy)
    account.rebalance(
        trade.a.tolist(), ones, (~trade.fixed).tolist(), impact.tolist(), *trade.limits,
        trade.may_borrow,
    )  # fmt: skip
    mu = account.value(ones)
    ruined = np.r_[1.0, np.zeros(len(buy))]
    return mu, account.traded, np.array(account.weights(ones)) if mu > 1e-13 else ruined


def check(trade: Trade) -> None:
    for own, other in zip(made(trade), expected(trade), strict=True):
        assert own == pytest.approx(other, abs=1e-9, rel=1e-9), trade
    mu, turnover, held = made(trade)
    assert turnover <= trade.limits[0] + 1.1e-12, trade
    lost = money_lost(trade.d, held, trade.fixed, trade.costs, mu, turnover)
    assert lost < 1e-12, trade
    check_way(trade)


def check_way(trade: Trade) -> None:
    """The way is whole unless the turnover limit cuts the trade, and is its share then."""
    held, whole = np.full((2, len(trade.d)), np.nan)
    _, turnover, way = trade_lane(*trade[:6], held)
    free = trade._replace(limits=(np.inf, trade.limits[1]))
    _, asked, all_of_it = trade_lane(*free[:6], whole)
    assert all_of_it == 1.0, trade
    if 0 < asked <= trade.limits[0]:
        assert way == 1.0 and (held == whole).all(), trade
    elif asked > trade.limits[0] + 1e-12 and turnover > 0:
        assert 0 <= way < 1 and way <= trade.limits[0] / asked + 1e-12, trade
        assert turnover >= way * asked - 1e-12, trade


@example(244107443)  # rounding asked for with so much credit that no trade can be paid
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_a_trade_equals_that_of_the_slow_account(seed):
    check(random_trade(seed))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_what_is_filled_of_a_trade_equals_that_of_the_slow_account(seed):
    """No fill exceeds its bound, what is not filled is told, and cash keeps to its bound."""
    rng, trade = np.random.default_rng((seed, 1)), random_trade(seed)
    d, a, fixed, _, costs, (_, least), _ = trade
    n, rest, ones = len(fixed), np.zeros(len(fixed)), [1.0] * len(fixed)
    most = rng.choice([np.inf, 0.1, 1.0]) * rng.exponential(1.0, n)
    share = rng.uniform(-1, 2, n).clip(0, 1)
    held = np.full(n + 1, np.nan)
    whole = trade_lane(*trade[:6], held)
    planned = held.copy()
    orders = np.where(fixed, 0.0, (whole[0] * held if whole[0] > 0 else a)[1:] - d[1:])
    done = fill_lane(d, a, fixed, costs, least, (share, most, rest), whole, held)
    mu, turnover, way = done
    buy, sell, impact, fee = costs
    account = Account(float(d[0]), d[1:].tolist(), buy.tolist(), sell.tolist(), fee)
    account.rebalance_as_filled(
        lambda i, q: np.sign(q) * min(share[i] * abs(q), most[i]),
        a.tolist(), ones, (~fixed).tolist(), impact.tolist(), *trade.limits, trade.may_borrow,
    )  # fmt: skip
    assert mu == pytest.approx(account.value(ones), abs=1e-9, rel=1e-9), trade
    assert turnover == pytest.approx(account.traded, abs=1e-9, rel=1e-9), trade
    assert abs(rest).sum() == pytest.approx(account.unfilled, abs=1e-9, rel=1e-9), trade
    assert money_lost(d, held, fixed, costs, mu, turnover) < 1e-12, trade
    if not rest.any():
        assert done == whole and (held == planned).all(), trade
        return
    assert held == pytest.approx(account.weights(ones), abs=1e-9), trade
    traded = mu * held[1:] - d[1:]
    scale = max(1.0, abs(orders).max())
    assert traded + rest == pytest.approx(orders, abs=1e-11 * scale), trade
    assert (abs(traded) <= np.minimum(share * abs(orders), most) + 1e-11 * scale).all(), trade
    assert (traded * orders >= -1e-11 * scale).all() and 0 <= way <= whole[2], trade
    assert held[0] >= min(least, d[0], planned[0] if whole[0] > 0 else a[0]) - 1e-12, trade


def test_nothing_is_left_to_trade_with_where_frozen_holdings_are_all_the_wealth():
    """Not even what would pay a debt back, and cost nothing."""
    d, a, fixed = np.array([-0.2, 0.2, 1.0]), np.array([0.0, 0.0, 1.0]), np.array([False, True])
    for rate in (0.0, 0.01):
        rates = np.full(2, rate)
        trade = Trade(d, a, fixed, 0.0, (rates, rates, np.zeros(0), 0.0), (np.inf, 0.0), False)
        check(trade)
        mu, turnover, held = made(trade)
        assert (mu, turnover, held.tolist()) == (1.0, 0.0, d.tolist())


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_what_a_trade_leaves_solves_its_equation_or_is_nothing(seed):
    trade = random_trade(seed)
    d, a, fixed, free, costs, _, _ = trade
    buy, sell, impact, fee = costs
    if free <= 0:
        return
    x = solve_trade(d, a, fixed, free, buy, sell, impact, fee)
    assert 0 <= x <= 1

    def excess(x):
        q = np.where(fixed, 0.0, x * a[1:] - d[1:])
        push = impact * np.sqrt(abs(q)) if len(impact) else 0.0
        return free * (1 - x) - fee * q.any() - ((np.where(q > 0, buy, sell) + push) * abs(q)).sum()

    if x > 0:
        assert excess(x) == pytest.approx(0, abs=1e-12)
    more = x + (1 - x) * np.linspace(0.01, 1, 50)
    assert all(excess(y) < 1e-12 for y in more)  # no larger one does


@pytest.mark.parametrize("off", [-7e-13, -1e-14, 1e-14])
def test_a_trade_that_exceeds_its_limit_by_rounding_alone_is_not_cut(off):
    """Neither in what it trades nor in what becomes of one that cannot be paid."""
    d, a, fixed = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.zeros(1, bool)
    limits = (1.0 + off, 0.0)
    for fee, left in ((0.0, 1.0), (1.2, 0.0)):
        trade = Trade(d, a, fixed, 1.0, (np.zeros(1), np.zeros(1), FREE, fee), limits, False)
        check(trade)
        mu, turnover, held = made(trade)
        assert (mu, turnover, held.tolist()) == (left, left, [1.0 - left, left])


@pytest.mark.parametrize("limit", [np.inf, 1e-14, 0.0])
def test_rounding_ruins_nobody_however_levered(limit):
    """With 7 times the wealth at a rate of 90 % no trade can be paid, and none is asked for."""
    d, rates = np.array([-6.0, 7.0]), np.full(1, 0.9)
    a = np.array([-6.0 + 1e-14, 7.0 - 1e-14])
    costs = (rates, rates, FREE, 0.0)
    trade = Trade(d, a, np.zeros(1, bool), 1.0, costs, (limit, -6.0), True)
    check(trade)
    assert made(trade)[0] == 1.0


@pytest.mark.parametrize(("frozen", "left"), [(1e-13, 0.0), (1e-9, 1.0)])
def test_holdings_that_are_rounding_do_not_save_an_account_from_ruin(frozen, left):
    d, a = np.array([1.0 - frozen, 0.0, frozen]), np.array([0.0, 1.0 - frozen, frozen])
    costs = (np.zeros(2), np.zeros(2), FREE, 1.2)
    trade = Trade(d, a, np.array([False, True]), 1.0 - frozen, costs, (np.inf, 0.0), False)
    check(trade)
    assert made(trade)[0] == left


FREE, SAME = np.zeros(0), np.full(2, 0.5)


@pytest.mark.parametrize(
    "trade",
    [
        # What is held on credit is asked for: the equation has no root but the first guess.
        Trade(
            np.array([-4.0, 5.0]), np.array([-4.0, 5.0]), np.zeros(1, bool), 1.0,
            (SAME[:1], SAME[:1], FREE, 0.0), (np.inf, -4.0), True,
        ),
        # A fee leaves less than what a frozen short owes.
        Trade(
            np.array([1.5, 0.0, -0.5]), np.array([0.0, 1.5, -0.5]), np.array([False, True]), 1.5,
            (0 * SAME, 0 * SAME, FREE, 1.2), (np.inf, 0.0), False,
        ),
        # The impact alone, of the only asset, takes more than the sale brings in.
        Trade(
            np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.zeros(1, bool), 1.0,
            (0 * SAME[:1], 0 * SAME[:1], 40 * SAME[:1], 0.0), (0.1, 0.0), False,
        ),
    ],
)  # fmt: skip
def test_rare_trades_equal_those_of_the_slow_account(trade):
    check(trade)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=100)
def test_what_is_lost_is_the_sum_of_all_that_does_not_add_up(seed):
    """Of trades that are none: any weights before and after, whatever they sum to."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    d, held = rng.normal(0, rng.choice([0.1, 1.0]), (2, n + 1))
    frozen = rng.random(n) < 0.4
    buy, sell, impact = rng.uniform(0, 0.5, (3, n))
    impact = impact if rng.random() < 0.5 else np.zeros(0)
    mu, turnover, fee = (rng.choice(x) for x in ([0.0, 1.0, 0.7], [0.0, 0.5, 2.0], [0.0, 0.1]))
    q = mu * held[1:] - d[1:]
    cost = np.where(q > 0, buy, sell) * abs(q) + (impact * abs(q) ** 1.5 if len(impact) else 0.0)
    lost = abs(held.sum() - 1)
    if mu > 0:
        cash = d[0] - q.sum() - cost.sum() - (fee if turnover > 0 else 0.0)
        lost += abs(cash - mu * held[0]) + abs(q[frozen]).sum()
    found = money_lost(d, held, frozen, (buy, sell, impact, fee), mu, turnover)
    assert found == pytest.approx(lost / max(abs(held).sum(), 1.0), rel=1e-12)
