"""Encoding each bar once gives what encoding every sample's window gives."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.utils import polyak_update
from torch import Tensor, nn

from agents.encoding.market_encoder import MarketEncoder
from agents.encoding.memory import training_bytes
from agents.networks import Encoder
from portfolio_env.errors import ArgumentError

BARS, ASSETS, FEATURES, WINDOW = 60, 4, 3, 5


class Small(Encoder):
    """Weights, memory, attention between assets, dropout and codes in a few lines."""

    mixes_assets = True
    uses_codes = True

    def __init__(self, n_features: int, window: int, dropout: float = 0.0) -> None:
        super().__init__(n_features, window)
        self.channels = 6
        self.gru = nn.GRU(n_features, 6, batch_first=True)
        self.labels = nn.Embedding(3, 6)
        self.dropout = nn.Dropout(dropout)
        self.calls: list[int] = []

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        self.calls.append(len(windows))
        batch, bars, assets, features = windows.shape
        flat = windows.transpose(1, 2).reshape(batch * assets, bars, features)
        rows = self.gru(flat)[0][:, -1].reshape(batch, assets, -1)
        if codes is not None:
            rows = rows + self.labels(codes[..., 0])
        scores = (rows @ rows.transpose(1, 2)).masked_fill(tradable[:, None] == 0, -1e9)
        mixed: Tensor = self.dropout(rows + scores.softmax(-1) @ rows)
        return mixed


class AgainstMean(Encoder):
    """Attention of one kind, by operations that can be mapped."""

    channels, mixes_assets = FEATURES, True

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.layer: nn.Module = nn.Linear(n_features, n_features)

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        last: Tensor = self.layer(windows[:, -1])
        return last - last.mean(1, keepdim=True)


def small(**options: Any) -> MarketEncoder:
    th.manual_seed(0)
    dropout = options.pop("dropout", 0.0)
    return MarketEncoder(Small(FEATURES, WINDOW, dropout), **options)


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(0)
    features = th.tensor(rng.normal(size=(BARS, ASSETS, FEATURES)), dtype=th.float32)
    tradable = th.tensor(rng.integers(0, 2, (BARS, ASSETS)), dtype=th.float32)
    return features, tradable, th.tensor([[1], [2], [0], [1]])


@pytest.fixture
def market() -> tuple[Tensor, Tensor, Tensor]:
    return drawn()


def naive(
    embeddings: MarketEncoder, market: Any, t: Tensor, assets: Tensor | None = None
) -> Tensor:
    """Every sample on its own."""
    features, tradable, codes = market
    rows = th.cat(
        [
            embeddings.encoder(
                features[None, i - WINDOW + 1 : i + 1], tradable[None, i], codes[None]
            )
            for i in t.tolist()
        ]
    )
    return rows if assets is None else rows[th.arange(len(t))[:, None], assets]


T = th.tensor([9, 4, 59, 9, 30, 4, 9, 31])
LANES = th.tensor([[0, 2], [1, 0], [3, 2], [2, 0], [0, 1], [1, 3], [3, 0], [2, 1]])


@pytest.mark.parametrize("assets", [None, LANES])
@pytest.mark.parametrize("options", [{}, {"frozen": True}, {"checkpointed": 2}])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_rows_are_those_of_every_sample_on_its_own(
    market: Any, assets: Tensor | None, options: dict[str, Any], grad: bool, mode: bool
) -> None:
    embeddings = small(**options).train(mode)
    embeddings.bind(*market)
    with th.set_grad_enabled(grad):
        rows = embeddings(T, assets)
        expected = naive(embeddings, market, T, assets)
    th.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-6)
    assert rows.shape == (8, ASSETS if assets is None else 2, 6)
    assert rows.requires_grad == (grad and not embeddings.frozen)


class Apart(Small):
    """The same of one asset at a time: none depends on another."""

    mixes_assets = False

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        assert codes is not None
        alone = windows.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        rows = super().forward(alone, tradable.reshape(-1, 1), codes.flatten(0, 1).unsqueeze(1))
        return rows.view(*tradable.shape, -1)


@pytest.mark.parametrize("checkpointed", [None, 1])
def test_only_drawn_assets_are_encoded_with_gradients(
    market: Any, checkpointed: int | None
) -> None:
    weights = th.randn(8, 2, 6, generator=th.Generator().manual_seed(1))
    gradients = []
    for compute in (lambda e: e(T, LANES), lambda e: naive(e, market, T, LANES)):
        th.manual_seed(0)
        encoder = Apart(FEATURES, WINDOW)
        embeddings = MarketEncoder(encoder, checkpointed=checkpointed)
        embeddings.bind(*market)
        rows = compute(embeddings)
        encoded = sum(encoder.calls)
        (rows * weights).sum().backward()
        gradients.append([rows.detach(), *(p.grad for p in encoder.parameters())])
        if len(gradients) == 1:
            assert encoded == len(
                set(zip(T.repeat_interleave(2).tolist(), LANES.flatten().tolist(), strict=True))
            )
    for own, expected in zip(*gradients, strict=True):
        th.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_drawn_assets_are_cached_and_read_ahead_each_by_itself(market: Any) -> None:
    encoder = Apart(FEATURES, WINDOW)
    embeddings = MarketEncoder(encoder).eval()
    embeddings.bind(*market)
    walk = th.arange(WINDOW - 1, BARS)
    with th.no_grad():
        for t in walk:
            lanes = th.tensor([[0, 3], [3, 2]])
            rows = embeddings(t.expand(2), lanes)
            encoder_calls = list(encoder.calls)
            expected = naive(embeddings, market, t.expand(2), lanes)
            encoder.calls[:] = encoder_calls
            th.testing.assert_close(rows, expected, rtol=1e-4, atol=1e-5)
    assert sum(encoder.calls) == 3 * len(walk)  # never asset 1, and no bar twice
    assert len(encoder.calls) < 10


@pytest.mark.parametrize("checkpointed", [None, 1, 3])
def test_gradients_are_those_of_every_sample_on_its_own(
    market: Any, checkpointed: int | None
) -> None:
    weights = th.randn(8, ASSETS, 6, generator=th.Generator().manual_seed(1))
    gradients = []
    for compute in (lambda e: e(T), lambda e: naive(e, market, T)):
        embeddings = small(checkpointed=checkpointed)
        embeddings.bind(*market)
        (compute(embeddings) * weights).sum().backward()
        gradients.append([p.grad for p in embeddings.encoder.parameters()])
    for own, expected in zip(*gradients, strict=True):
        assert own is not None and expected is not None
        th.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)


def test_what_is_kept_is_bounded_by_memory(market: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = small()  # of itself
    one = training_bytes(embeddings.encoder, ASSETS, 1, th.device("cpu"))
    encoder: Any = embeddings.encoder
    for fit, calls in ((2, [2, 2, 1]), (4, [4, 1]), (8, [5])):
        memory = 4 * fit * one
        monkeypatch.setattr(
            "agents.encoding.market_encoder.memory_of", lambda device, memory=memory: memory
        )
        embeddings.bind(*market)
        encoder.calls = []
        rows = embeddings(T)
        assert encoder.calls == calls
        rows.sum().backward()
        assert sum(encoder.calls) == (5 if fit == 8 else 10)  # computed again, or not


def test_each_bar_is_encoded_once_while_weights_stay(market: Any) -> None:
    embeddings = small().eval()
    embeddings.bind(*market)
    encoder: Any = embeddings.encoder
    with th.no_grad():
        embeddings(T)
        assert encoder.calls == [5]  # distinct bars
        embeddings(T.flip(0))
        assert encoder.calls == [5]
        first = embeddings(th.tensor([9, 10, 11]))
        assert encoder.calls == [5, 3]  # 10, 11 and, ahead, 12
        optimizer = th.optim.Adam(encoder.parameters(), lr=0.1)
    embeddings(T).sum().backward()
    assert encoder.calls == [5, 3, 5]
    optimizer.step()
    with th.no_grad():
        second = embeddings(th.tensor([9, 10, 11]))
        assert encoder.calls == [5, 3, 5, 3]
        assert not th.allclose(first, second)
        state = copy.deepcopy(embeddings.state_dict())
        for name in state:
            state[name] *= 0.5
        embeddings.load_state_dict(state)
        assert not th.allclose(embeddings(th.tensor([9, 10, 11])), second)


@given(st.lists(st.lists(st.integers(WINDOW - 1, BARS - 1), min_size=1, max_size=5), min_size=1))
@examples(25)
def test_reading_ahead_encodes_no_bar_twice_and_the_first_bars_alone(
    asked: list[list[int]],
) -> None:
    market = drawn()
    embeddings = small().eval()
    embeddings.bind(*market)
    encoder: Any = embeddings.encoder
    with th.no_grad():
        for t in map(th.tensor, asked):
            rows = embeddings(t)
            assert encoder.calls[0] == len(set(asked[0]))
            assert sum(encoder.calls) <= BARS - WINDOW + 1
            calls = list(encoder.calls)
            th.testing.assert_close(rows, naive(embeddings, market, t), rtol=1e-5, atol=1e-6)
            encoder.calls = calls


def test_one_lane_that_walks_calls_the_encoder_a_few_times(market: Any) -> None:
    embeddings = small(frozen=True)
    embeddings.bind(*market)
    for t in range(WINDOW - 1, BARS):
        embeddings(th.tensor([t]))
    calls = embeddings.encoder.calls
    assert calls == [1, 2, 4, 8, 16, 25]


def test_training_mode_draws_dropout_anew_and_frozen_encoders_do_not_drop(market: Any) -> None:
    embeddings = small(dropout=0.5)
    embeddings.bind(*market)
    with th.no_grad():
        assert not th.equal(embeddings(T), embeddings(T))
    embeddings.freeze()
    assert th.equal(embeddings.train()(T), embeddings(T))
    assert not embeddings(T).requires_grad
    embeddings.freeze(False)
    assert embeddings.encoder.training
    assert embeddings(T).requires_grad


def test_frozen_encoders_whose_weights_move_without_a_trace_are_run_again(market: Any) -> None:
    embeddings = small(frozen=True)
    embeddings.cached = False  # as of a target network
    embeddings.bind(*market)
    encoder: Any = embeddings.encoder
    online = [weight.detach().clone() for weight in encoder.parameters()]
    first = embeddings(T)
    polyak_update(online, encoder.parameters(), 0.1)
    assert th.equal(embeddings(T), first) and encoder.calls == [5]
    polyak_update([weight + 1.0 for weight in online], encoder.parameters(), 0.1)
    moved = embeddings(T)
    assert encoder.calls == [5, 5] and not th.allclose(moved, first)
    th.testing.assert_close(moved, naive(embeddings, market, T))


def test_frozen_encoders_get_no_gradients_and_what_is_frozen_by_hand_stays(market: Any) -> None:
    module = Small(FEATURES, WINDOW)
    module.labels.requires_grad_(False)  # as users do with a part that they have trained
    embeddings = MarketEncoder(module)
    embeddings.bind(*market)
    windows, tradable = market[0][None, :WINDOW], market[1][None, WINDOW - 1]
    for frozen in (True, False):
        embeddings.freeze(frozen)
        for out in (embeddings(T), embeddings.encode(windows, tradable)):
            assert out.requires_grad != frozen
        assert not module.labels.weight.requires_grad
        assert module.gru.weight_hh_l0.requires_grad


@pytest.mark.parametrize("assets", [None, th.tensor([[0, 2], [3, 1]] * 4)])
def test_encoders_can_be_mapped(market: Any, assets: Tensor | None) -> None:
    """By torch.vmap, in which nobody knows which bars are the same."""
    embeddings = MarketEncoder(AgainstMean(FEATURES, WINDOW)).eval()
    embeddings.bind(*market)
    rows = T.reshape(2, 4)
    own = None if assets is None else assets.reshape(2, 4, 2)
    with th.no_grad():
        mapped = th.vmap(embeddings)(*((rows,) if own is None else (rows, own)))
        expected = naive(embeddings, market, T, assets)
    th.testing.assert_close(mapped.flatten(0, 1), expected)


def test_an_encoder_without_weights_may_mix_assets(market: Any) -> None:
    encoder = AgainstMean(FEATURES, WINDOW)
    encoder.layer = nn.Identity()
    embeddings = MarketEncoder(encoder)
    embeddings.bind(*market)
    assets = th.tensor([[0, 2]] * len(T))
    th.testing.assert_close(embeddings(T, assets), naive(embeddings, market, T, assets))


def test_binding_another_market_forgets_the_first(market: Any) -> None:
    embeddings = small(frozen=True)
    embeddings.bind(*market)
    first = embeddings(T)
    other = (2 * market[0], *market[1:])
    embeddings.bind(*other)
    assert not th.allclose(embeddings(T), first)
    th.testing.assert_close(embeddings(T), naive(embeddings, other, T))


def test_what_cannot_be_encoded_is_refused(market: Any) -> None:
    embeddings = small()
    with pytest.raises(ArgumentError, match="bind_market"):
        embeddings(T)
    with pytest.raises(ArgumentError, match="load the features it was trained on"):
        embeddings.bind(market[0][..., :2])
    embeddings.bind(*market)
    with pytest.raises(ArgumentError, match="row 3 does not have; give the environment window=5"):
        embeddings(th.tensor([8, 3]))
    for options, text in (
        ({"checkpointed": 0}, "at least 1"),
        ({"checkpointed": "all"}, "checkpointed is all"),
    ):
        with pytest.raises(ArgumentError, match=text):
            small(**options)
