"""Orders keep every unit of money, fit the cash there is, and say what they leave out."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.live import Holdings, Instrument, orders_of, read_holdings, read_instruments
from portfolio_env.live.instruments import instruments_of
from portfolio_env.live.money import decimal_of, exactly
from portfolio_env.live.planning import Plan

NAMES = ("A", "B", "C", "D")
LOTS = ("1", "0.001", "10", "0", "0.3")


@st.composite
def cases(draw):
    """A plan and the holdings it is for, with lots, ticks and least orders."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    instruments = [
        Instrument(
            lot=Decimal(draw(st.sampled_from(LOTS))),
            tick=Decimal(draw(st.sampled_from(("0", "0.01", "0.5")))),
            min_notional=Decimal(draw(st.sampled_from(("0", "10", "500")))),
            fee_bps=draw(st.sampled_from((None, Decimal("7.5")))),
        )
        for _ in NAMES
    ]
    raw = np.exp(rng.uniform(0, 7, 4))
    prices = tuple(i.price(decimal_of(p)) for i, p in zip(instruments, raw, strict=True))
    units = tuple(decimal_of(round(u, 4)) for u in rng.uniform(0, 50, 4) * (rng.random(4) < 0.7))
    holdings = Holdings(NAMES, units, decimal_of(round(rng.uniform(1, 5000), 2)))
    held = rng.dirichlet(np.ones(5)) * (rng.random(5) < 0.8)
    held = held / held.sum() if held.sum() > 0 else np.eye(5)[0]
    value = float(holdings.value(prices))
    weights = holdings.weights(prices)
    rates = rng.uniform(0, 0.005, (2, 4))
    tradable = rng.random(4) < 0.9
    held[1:] = np.where(tradable, held[1:], weights[1:])
    held[0] = 0
    held[0] = max(1 - held.sum(), 0)
    held = held / held.sum()
    plan = Plan(
        assets=NAMES,
        timestamp=np.datetime64("2024-01-05"),
        prices=np.array([float(price) for price in prices]),
        tradable=tradable,
        value=value,
        weights=weights,
        held=held,
        cost=0.002 * value,
        turnover=0.5,
        rates=rates,
        impact=rng.uniform(0, 1e-6, 4),
        fee=draw(st.sampled_from((0.0, 1.5))),
        min_cash=0.0,
    )
    return plan, holdings, instruments, prices


@given(cases())
def test_no_money_is_lost_or_made_and_none_is_borrowed(case):
    plan, holdings, instruments, prices = case
    orders = orders_of(plan, holdings, instruments, prices)
    with exactly():
        assert orders.before.value(prices) - orders.after.value(prices) == orders.cost
        for place, each in enumerate(instruments):
            change = orders.after.units[place] - orders.before.units[place]
            assert change == orders.units[place]
            if each.lot:
                assert change % each.lot == 0
            assert change == 0 or abs(change) * prices[place] >= each.min_notional
            assert orders.after.units[place] >= 0
            assert plan.tradable[place] or change == 0
    assert orders.after.cash >= 0
    table = orders.table()
    assert list(table.index) == [*NAMES, "cash"]  # nothing vanishes
    wanted = np.abs(plan.units - np.array([float(u) for u in holdings.units])) * plan.prices
    silent = (table["order_units"][:-1] == 0) & (wanted > 1e-6 * plan.value)
    assert (table["reason"][:-1][silent] != "").all()


@given(cases())
def test_tracking_error_is_bounded_by_what_was_left_out(case):
    plan, holdings, instruments, prices = case
    orders = orders_of(plan, holdings, instruments, prices)
    if any("cash" in reason or "cost" in reason for reason in orders.reasons):
        return
    left_out = sum(
        float(max(each.lot * price, each.min_notional))
        for each, price in zip(instruments, prices, strict=True)
    )
    spent = abs(float(orders.cost) - plan.cost)
    after = float(orders.after.value(prices))
    frozen = (~plan.tradable).any()
    assert frozen or orders.tracking_error <= (left_out + spent) / min(after, plan.value) + 1e-9


def test_sales_alone_that_do_not_pay_their_fee_are_left():
    plan = Plan(
        ("A",), np.datetime64("NaT"), np.array([1.0]), np.array([True]), 10.0,
        np.array([0.0, 1.0]), np.array([0.5, 0.5]), 3.0, 0.5, np.zeros((2, 1)), np.zeros(1),
        7.0, 0.0,
    )  # fmt: skip
    orders = orders_of(
        plan, Holdings(("A",), (Decimal(10),), Decimal(0)), [Instrument()], (Decimal(1),)
    )
    assert orders.units == (0,)
    assert orders.reasons == ("under its costs",)


# ---- files


PRICES = tuple(map(Decimal, ("10", "20", "30", "NaN")))


def read(tmp_path, text, **options):
    path = tmp_path / "h.csv"
    path.write_text(text)
    return read_holdings(path, NAMES, PRICES, **options)


def test_holdings_are_read_exactly(tmp_path):
    found = read(tmp_path, "Symbol,Units\nB,0.1\ncash,1e2\n\nA,3\n")
    assert found == Holdings(
        NAMES, (Decimal(3), Decimal("0.1"), Decimal(0), Decimal(0)), Decimal(100)
    )
    rest = read(tmp_path, "asset,units\nA,3\nB,0.1\n", capital=100)
    assert rest.cash == Decimal("68.0")
    assert read(tmp_path, "asset,units\nA,-3\ncash,50\n", long_only=False).units[0] == -3


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("asset,units\nX,1\ncash,5\n", {}, "line 2, .*'X'"),
        ("asset,units\nA,-1\ncash,5\n", {}, "line 2, -1 units of A are a short position"),
        ("asset,units\nA,1\n", {}, "has no row cash"),
        ("asset,units\nA,1\ncash,1\nA,2\n", {}, "line 4, A is there twice"),
        ("asset,units\ncash,1\nCash,2\n", {}, "twice"),
        ("asset,units\nA,one\ncash,5\n", {}, "line 2, units of A is 'one': give a number"),
        ("asset,units\nA,nan\ncash,5\n", {}, "units of A is 'nan'"),
        ("asset,units\nA,\ncash,5\n", {}, "units of A is ''"),
        ("asset,units\nA,1e99\ncash,5\n", {}, "units of A is '1e99'"),
        ("asset,units\nD,1\ncash,5\n", {}, "D is held, but has no price"),
        (
            "asset,units\nA,1\ncash,1,000\n",
            {},
            "line 3, has 3 cells, and the first line 2: write num",
        ),
        ("asset,amount\nA,1\n", {}, "needs one column 'units'"),
        ("", {}, "needs one column 'asset'"),
        ("asset,units\nA,1\n", {"capital": 5}, "capital=5 is less than the 10.00"),
        ("asset,units\nA,1\ncash,5\n", {"capital": 50}, "a capital is given beside it"),
    ],
)
def test_bad_holdings_are_refused_in_one_line(tmp_path, text, options, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, text, **options)
    assert "\n" not in str(caught.value)


def test_lots_by_asset(tmp_path):
    path = tmp_path / "lots.csv"
    path.write_text("asset,lot,min_notional,fee_bps\nA,0.001,10,\n*,1,,2.5\n")
    first, *others = instruments_of(read_instruments(path), NAMES)
    assert first == Instrument(Decimal("0.001"), min_notional=Decimal(10))
    assert others == [Instrument(fee_bps=Decimal("2.5"))] * 3
    path.write_text("asset,lot\nA,1\n")
    with pytest.raises(ArgumentError, match=r"no lot of B, C, D"):
        instruments_of(read_instruments(path), NAMES)
    for text, message in (
        ("asset,lot\nA,-1\n", r"line 2, A: lot=-1 must be"),
        ("asset,size\nA,1\n", "has a column 'size'"),
        ("asset,lot\nA,x\n", "lot of A is 'x'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_instruments(path)
