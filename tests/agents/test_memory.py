"""The batch that fits a memory: below the budget, larger with it, and nothing else is touched."""

import weakref
from typing import Any

import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from agents.encoding import memory
from agents.encoding.memory import max_batch_size, memory_of, training_bytes
from agents.networks import ENCODERS, Encoder, make_encoder
from portfolio_env.errors import ArgumentError

CPU = th.device("cpu")
ASSETS, FEATURES, WINDOW = 3, 4, 12


class Two(Encoder):
    """Keeps its windows and what the first layer makes of them, which the second reads."""

    def __init__(self, hidden: int) -> None:
        super().__init__(FEATURES, WINDOW)
        self.layers = nn.Sequential(nn.Linear(FEATURES, hidden), nn.Linear(hidden, 2))

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        out: Tensor = self.layers(windows).sum(1)
        return out


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_bytes_are_those_of_the_arrays_that_are_kept(hidden: int, assets: int, n: int) -> None:
    floats = n * WINDOW * assets * (FEATURES + hidden)
    assert training_bytes(Two(hidden), assets, n, CPU) == 4 * floats


class Curved(Two):
    """Ends in a function whose backward pass reads its own output."""

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        out = super().forward(windows, tradable, codes).tanh()
        MADE.append(weakref.ref(out))
        return out


MADE: list["weakref.ref[Tensor]"] = []


def test_what_was_measured_is_free_again() -> None:
    MADE.clear()
    training_bytes(Curved(2), ASSETS, 1, CPU)
    assert [out() for out in MADE] == [None]


LEARNED = sorted(set(ENCODERS) - {"per_asset"})


@pytest.mark.parametrize("name", LEARNED)
def test_training_stays_within_the_budget(name: str) -> None:
    encoder = make_encoder(name, FEATURES, WINDOW)
    one = training_bytes(encoder, ASSETS, 1, CPU)
    for budget in (one, 5 * one, 21 * one):
        windows = max_batch_size(encoder, ASSETS, budget)
        assert windows == 2 ** int(windows.bit_length() - 1)
        assert training_bytes(encoder, ASSETS, windows, CPU) <= budget
        # Weights that are copied for each pass are reckoned to every window.
        assert training_bytes(encoder, ASSETS, 4 * windows, CPU) > budget


@given(st.lists(st.integers(10**5, 10**9), min_size=2, max_size=6))
@settings(max_examples=10, deadline=None)
def test_more_memory_never_fits_less(budgets: list[int]) -> None:
    encoder = make_encoder("gat", FEATURES, WINDOW)
    sizes = [max_batch_size(encoder, ASSETS, budget) for budget in sorted(budgets)]
    assert sizes == sorted(sizes)


def test_fewer_assets_fit_more() -> None:
    encoder = make_encoder("tcn_gnn_lstm_small", FEATURES, WINDOW)
    sizes = [max_batch_size(encoder, assets, 10**8) for assets in (2, 8, 32)]
    assert sizes[0] > sizes[1] > sizes[2] >= 1


def test_the_encoder_and_the_generator_stay_as_they_are() -> None:
    encoder = make_encoder("mlp", FEATURES, WINDOW, norm="batch", dropout=0.5).eval()
    learning = max_batch_size(encoder, ASSETS, 10**6)
    encoder.requires_grad_(False)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = th.get_rng_state()
    with th.no_grad():
        assert max_batch_size(encoder, ASSETS, 10**6) == learning
    assert not any(weight.requires_grad for weight in encoder.parameters())
    assert th.equal(th.get_rng_state(), state)
    assert not encoder.training
    assert all(weight.grad is None for weight in encoder.parameters())
    for name, value in encoder.state_dict().items():
        assert th.equal(value, before[name])


def test_what_does_not_fit_is_refused() -> None:
    encoder = make_encoder("tcn_gnn_lstm", FEATURES, WINDOW)
    with pytest.raises(ArgumentError, match=r"one window of 3 assets needs .* budget is 10,000:"):
        max_batch_size(encoder, ASSETS, 10_000)
    with pytest.raises(ArgumentError, match="keeps nothing"):
        max_batch_size(make_encoder("per_asset", FEATURES, WINDOW), ASSETS, 10_000)


def test_a_gpu_that_refuses_gets_half(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def on_a_small_gpu(encoder: Encoder, n_assets: int, windows: int, *others: Any) -> int:
        tried.append(windows)
        if windows > 4:
            raise th.cuda.OutOfMemoryError("as CUDA says it")
        return 100

    monkeypatch.setattr(memory, "training_bytes", on_a_small_gpu)
    assert max_batch_size(Two(2), ASSETS, 3_300, "cuda") == 4
    assert tried == [1, 32, 16, 8, 4]


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_peak_is_measured() -> None:
    device = th.device("cuda")
    encoder = make_encoder("tcn_gnn_lstm", FEATURES, WINDOW)
    budget = 50 * training_bytes(encoder, ASSETS, 1, device)
    windows = max_batch_size(encoder, ASSETS, budget, device)
    assert 1 < training_bytes(encoder, ASSETS, windows, device) <= budget
    assert 0 < memory_of(device) <= th.cuda.get_device_properties(device).total_memory


def test_the_memory_of_the_machine_is_known() -> None:
    assert 2**28 < memory_of(CPU) < 2**50
