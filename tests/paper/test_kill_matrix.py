"""A process that dies at any boundary of a rebalancing loses no order and doubles none."""

import pytest
from helpers.paper.crashes import SECONDS, START, World

from portfolio_env.paper import Accepted, State, execution
from portfolio_env.paper.faults import Faults

FAULTS = {
    "none": Faults(),
    "answers": Faults(seed=1, lost_answer=0.4, lost_request=0.3),
    "late": Faults(seed=2, late_request=0.5, repeated=0.5, lagging=0.3),
    "venue": Faults(seed=3, partial=0.4, refused=0.2, lost_answer=0.2),
}


def boundaries_of(faults):
    """How many boundaries the second rebalancing has, and what is held after it."""
    world = World(faults=faults)
    session = world.trade(START)[1]
    world.boundaries.arm(0)
    phase, _ = world.trade(START + 1, session)
    world.check()
    return world.boundaries.count, phase, world.ledger.all_units()


def killed_at(place, faults=None):
    world = World(faults=faults)
    session = world.trade(START)[1]
    world.boundaries.arm(place)
    phase, _ = world.trade(START + 1, session)
    world.clock.sleep(60 * SECONDS)
    return world, phase


def test_every_boundary_of_a_rebalancing():
    count, phase, held = boundaries_of(None)
    assert (phase, count >= 25) == ("done", True), count
    for place in range(1, count + 1):
        world, phase = killed_at(place)
        assert world.boundaries.kills == 1
        world.check()
        assert phase == "done"
        for name, units in world.ledger.all_units().items():  # sized some seconds later, at most
            assert abs(float(units - held[name])) < (0.01 * float(held[name]) if name else 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAULTS if name != "none"])
def test_every_boundary_under_faults(name):
    count, _, _ = boundaries_of(FAULTS[name])
    for place in range(1, count + 1):
        world, _ = killed_at(place, FAULTS[name])
        world.check()


def send_then_commit(ledger, broker, clock, order):
    """The wrong protocol of sending an order before it is written that it is sent."""
    now = clock.now()
    outcome = broker.submit(order, now + execution.VALIDITY)
    with ledger.batch():
        ledger.move(order, State.SENDING, now, valid_until=str(now + execution.VALIDITY))
        known = isinstance(outcome, Accepted)
        ledger.move(order, State.OPEN if known else State.UNKNOWN, now)


def resend_with_the_same_id(ledger, broker, clock, order):
    """The wrong protocol of trusting a venue to refuse an id twice: it does so of open orders."""
    outcome = broker.submit(order, clock.now() + execution.VALIDITY)
    assert isinstance(outcome, Accepted)
    execution._settle(ledger, broker, clock, order, outcome.report)


@pytest.mark.parametrize(
    ("name", "wrong"), [("send", send_then_commit), ("_look_up", resend_with_the_same_id)]
)
def test_wrong_protocols_double_orders(monkeypatch, name, wrong):
    count = boundaries_of(None)[0]
    monkeypatch.setattr(execution, name, wrong)
    monkeypatch.setattr(execution, "PATIENCE", 30 * SECONDS)
    for place in range(1, count + 1):
        try:
            world, _ = killed_at(place)
        except AssertionError:  # a sale of what was sold already was refused
            continue
        if world.doubles():
            return
    pytest.fail("it doubled none")


def test_an_order_that_is_found_by_nobody_is_sent_again_once():
    world = World(faults=Faults(seed=5, lost_request=0.5))
    phases = [world.trade(START + step)[0] for step in range(6)]
    world.check()
    attempts = world.ledger.query("SELECT max(attempts), sum(attempts > 1) FROM orders")[0]
    assert (attempts[0] > 1, attempts[0] <= execution.ATTEMPTS) == (True, True)
    assert "done" in phases
    unsent = world.ledger.query("SELECT reason FROM orders WHERE state = 'not_accepted'")
    assert all("not found 3 times" in row[0] for row in unsent)
