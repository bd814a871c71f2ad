"""The state space with memory: contract of encoders, exact steps, recall, bounds."""

import math
from collections.abc import Callable

import pytest
import torch as th
from helpers.encoder_checks import (
    ASSETS,
    BATCH,
    CHECKS,
    FEATURES,
    WINDOW,
    Make,
    attention_sums_to_one,
    build,
    inputs,
    parameters,
)
from torch import Tensor

from agents.networks.state_space import Dynamics, Recall, StateSpace
from portfolio_env.errors import ArgumentError


def scramble(module: th.nn.Module, scale: float) -> None:
    with th.no_grad():
        for weight in module.parameters():
            weight.copy_(scale * th.randn_like(weight))


@pytest.mark.parametrize("check", [*CHECKS, attention_sums_to_one])
def test_it_keeps_the_contract_of_encoders(check: Callable[[Make], None]) -> None:
    check(StateSpace)


def matrix(dynamics: Dynamics, memory: Tensor) -> Tensor:
    """A(m) written out, (state, state)."""
    raw, turn = dynamics.poles(memory).chunk(2)
    decay = th.diag(0.1 + th.log1p(raw.exp()))
    return th.cat([th.cat([-decay, -turn.diag()], 1), th.cat([turn.diag(), -decay], 1)])


@pytest.mark.parametrize("dt", [0.01, 0.1, 2.0])
def test_a_step_is_the_exact_solution(dt: float) -> None:
    dynamics = Dynamics(6, 4, dt).double()
    scramble(dynamics, 1.0)
    hidden, memory, drive = (th.randn(5, width).double() for width in (6, 4, 6))
    out = dynamics(hidden, memory, drive)
    for row in range(5):
        a = matrix(dynamics, memory[row])
        # Input held over the step: the exponential of the system with the input as a state.
        system = th.zeros(7, 7).double()
        system[:6, :6], system[:6, 6] = a, drive[row]
        start = th.cat([hidden[row], th.ones(1).double()])
        th.testing.assert_close(out[row], (th.linalg.matrix_exp(system * dt) @ start)[:6])
    euler, parts = hidden[0], 2_000
    a = matrix(dynamics, memory[0])
    for _ in range(parts):
        euler = euler + dt / parts * (a @ euler + drive[0])
    th.testing.assert_close(out[0], euler, atol=1e-2, rtol=1e-2)


def test_the_dynamics_depend_on_the_memory_and_are_always_stable() -> None:
    dynamics = Dynamics(6, 4, 0.1)
    for scale in (0.1, 1.0, 100.0):
        memory = scale * th.randn(50, 4)
        a = th.stack([matrix(dynamics.double(), row.double()) for row in memory])
        symmetric = (a + a.transpose(1, 2)) / 2
        assert (th.linalg.eigvalsh(symmetric) <= -0.1 + 1e-9).all()
        assert a.std(0).abs().max() > 0.01 * scale
        hidden = th.randn(50, 6)
        rest = dynamics.float()(hidden, memory, th.zeros(50, 6))
        assert (rest.norm(dim=1) <= math.exp(-0.1 * 0.1) * hidden.norm(dim=1) * (1 + 1e-5)).all()


def test_pairs_start_with_times_from_one_step_to_fifty() -> None:
    raw, turn = Dynamics(32, 64, 0.1).poles.bias.chunk(2)
    steps = 1 / (0.1 * (0.1 + th.nn.functional.softplus(raw)))
    th.testing.assert_close((steps.max(), steps.min()), (th.tensor(50.0), th.tensor(1.0)))
    periods = 2 * math.pi / (0.1 * turn)
    th.testing.assert_close(
        (periods.min(), periods.max()), (th.tensor(6.2832), th.tensor(math.inf))
    )


def test_recall_is_attention_of_every_head_over_keys_and_values() -> None:
    recall = Recall(6, 8, 2, 0.0)
    state, past = th.randn(3, 6), th.randn(3, 5, 6)
    found, weights = recall(state, past)
    query, key, value = recall.query(state), recall.key(past), recall.value(past)
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = th.einsum("rd,rkd->rk", query[:, part], key[..., part]) / 2.0
        th.testing.assert_close(weights[:, head], scores.softmax(-1))
        expected = (scores.softmax(-1).unsqueeze(-1) * value[..., part]).sum(1)
        th.testing.assert_close(found[:, part], expected)


@pytest.mark.parametrize("buffer", [None, 3])
def test_bars_recall_states_before_them_as_far_as_they_are_kept(buffer: int | None) -> None:
    encoder = build(StateSpace, buffer=buffer)
    windows, tradable, _ = inputs(encoder)
    maps = encoder.attention(windows, tradable)["time"]
    assert maps.shape == (BATCH, ASSETS, 4, WINDOW, WINDOW)
    for bar in range(WINDOW):
        first = max(0, bar + 1 - (buffer or WINDOW))
        assert (maps[..., bar, first : bar + 1] > 0).all()
        assert (maps[..., bar, :first] == 0).all() and (maps[..., bar, bar + 1 :] == 0).all()
    before = encoder.attention(windows[:, :4], tradable)["time"]
    th.testing.assert_close(maps[..., :4, :4], before)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, 0.5, 3.0])
def test_states_stay_bounded_over_long_series(scale: float | None) -> None:
    encoder = build(StateSpace, window=8)
    if scale is not None:
        scramble(encoder, scale)
    random = 20 * th.rand(5_000, 2, FEATURES) - 10
    jumps = (10 * (-1.0) ** th.arange(5_000)[:, None, None]).expand(5_000, 1, FEATURES)
    series = th.cat([random, jumps, jumps.abs()], 1)
    sizes: list[float] = []
    encoder.dynamics.register_forward_hook(lambda *call: sizes.append(float(call[-1].abs().max())))
    with th.no_grad():
        drive = math.sqrt(2) * float(encoder.drive(series).abs().max())
        last = encoder.read[-1]
        read = math.sqrt(2) * float(math.sqrt(32) * last.weight.abs().max() + last.bias.abs().max())
        states, maps = encoder.run(series.unsqueeze(0))
    largest = max(*sizes, float(states[-1][..., : encoder.state].abs().max()))
    assert len(sizes) == 5_000
    assert all(part.isfinite().all() for part in (states[-1], *maps))
    # What comes in at most per step, over what goes out at least.
    bound = (drive * -math.expm1(-0.01) / 0.1 + read) / -math.expm1(-0.01)
    assert largest <= bound
    if scale is None:
        assert largest < 10


def test_parameters_are_accounted_for() -> None:
    encoder = StateSpace(20, 60)
    assert parameters(encoder.drive) == 672
    # A pole per pair of states in place of 32 x 32 free entries, 66,560.
    assert parameters(encoder.dynamics) == 64 * 32 + 32
    assert parameters(encoder.recall) == 6_336 - 64  # no bias of the keys
    assert parameters(encoder.write) == 6_528
    assert parameters(encoder.read) + parameters(encoder.read_gate) == 15_872
    norms = 2 * 32 + 2 * 96
    write_gate = 96 * 64 + 64  # new: the memory is gated, too
    heads = 38_019  # of forecasts, in the original
    residual = (20 + 1) * 96 + 96  # new: what the states add to, and their gain
    total = 133_987 - heads - 66_560 + 2_080 - 64 + norms + write_gate + residual
    assert parameters(encoder) == total == 40_000


def test_bad_options_are_named() -> None:
    for options, part in [
        ({"state": 5}, "state is 5"),
        ({"state": 0}, "state=0"),
        ({"heads": 5}, "5 heads do not divide 64"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"dt": math.inf}, "dt is inf"),
        ({"buffer": 0}, "buffer=0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
    ]:
        with pytest.raises(ArgumentError, match=part):
            StateSpace(3, 4, **options)
