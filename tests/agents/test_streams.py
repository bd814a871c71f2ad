"""Streams: one pass over a block gives each bar what its own series gives, and nothing later."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from torch import Tensor

from agents import MarketExtractor, load_agent, make_agent, make_sb3_vec_env, save_agent
from agents.direct.agent import DirectAgent
from agents.encoding.blocks import Blocks, span_of
from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.encoding.market_rows import MarketRows
from agents.networks import make_encoder
from agents.sb3.buffers import GroupedRolloutBuffer
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError

WINDOW, BLOCK = 6, 10
SMALL: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 6, "channels": 4},
    "lstm_attention": {"channels": 8, "heads": 2},
    "state_space": {"state": 4, "memory": 8, "heads": 2},
    "tcn_gnn_lstm": {
        "width": 8,
        "layers": 2,
        "heads": 2,
        "lstm_hidden": 4,
        "lstm_layers": 2,
        "bidirectional": False,
    },
    "tcn_gnn_lstm_small": {"width": 4, "layers": 1, "lstm_hidden": 4, "bidirectional": False},
}
LSTM: dict[str, Any] = SMALL["lstm"] | {"history": "stream", "block": BLOCK}


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market("synthetic?bars=130&assets=3")


def embedded(name: str, market: Market, bind: bool = True, **options: Any) -> MarketEncoder:
    """An encoder in blocks, with weights of the size that training gives them."""
    th.manual_seed(0)
    stream = {"history": "stream", "block": BLOCK}
    encoder = make_encoder(name, market.n_features, WINDOW, **SMALL[name], **stream)
    with th.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.2 * th.randn_like(weight))
    embeddings = MarketEncoder(encoder, **options).eval()
    if bind:
        embeddings.bind(*market_tensors(market, "cpu"))
    return embeddings


def rows(market: Market) -> Tensor:
    return th.arange(market.warmup + WINDOW - 1, market.n_bars)


def starts(embeddings: MarketEncoder, t: Tensor) -> Tensor:
    """Which rows are the first of a block."""
    of = embeddings._blocks().of
    return th.from_numpy(of[t.numpy()] != of[t.numpy() - 1])


def one_by_one(embeddings: MarketEncoder, t: Tensor) -> Tensor:
    """Each bar by a pass that ends there."""
    features, tradable = embeddings._market()
    of, found = embeddings._blocks().of, []
    for row in t.tolist():
        first = max(0, int(np.flatnonzero(of == of[row])[0]) - (WINDOW - 1))
        own = slice(first, row + 1)
        found.append(embeddings.encoder.stream(features[None, own], tradable[None, own])[0, -1])
    return th.stack(found)


@pytest.mark.parametrize("checkpointed", [None, 1])
@pytest.mark.parametrize("name", ["lstm", "state_space"])
def test_assets_that_are_drawn_stream_by_themselves(
    name: str, checkpointed: int | None, market: Market
) -> None:
    embeddings = embedded(name, market, checkpointed=checkpointed)
    generator = th.Generator().manual_seed(0)
    t = rows(market)[th.randperm(len(rows(market)), generator=generator)[:40]]
    assets = th.randint(0, 3, (40, 2), generator=generator)
    gradients = []
    for own in (embeddings(t, assets), embeddings(t)[th.arange(40)[:, None], assets]):
        embeddings.zero_grad()
        own.square().sum().backward()
        gradients.append([own.detach(), *(p.grad.clone() for p in embeddings.parameters())])
    for one, other in zip(*gradients, strict=True):
        th.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with th.no_grad():  # as in a rollout, from the cache
        for lanes in (slice(0, 3), slice(2, 30), slice(0, 40)):
            kept = embeddings(t[lanes], assets[lanes])
            th.testing.assert_close(kept, gradients[0][0][lanes], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_a_bar_is_what_the_series_up_to_it_gives(name: str, market: Market) -> None:
    embeddings, t = embedded(name, market), rows(market)
    features, tradable = embeddings._market()
    found = embeddings(t)
    with th.no_grad():
        expected, kept, mapped = (
            one_by_one(embeddings, t),
            embeddings(t),
            embeddings._each(t[::7], None, features, tradable),
        )
        windows = embeddings.encode(features[embeddings._bars(t)], tradable[t])
    th.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    th.testing.assert_close(kept, expected, rtol=1e-5, atol=1e-6)
    th.testing.assert_close(mapped, expected[::7], rtol=1e-5, atol=1e-6)
    first = starts(embeddings, t)
    assert 9 <= first.sum() <= 13
    th.testing.assert_close(found[first], windows[first], rtol=1e-5, atol=1e-6)
    assert (found - windows)[~first].abs().amax((1, 2)).median() > 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_no_bar_depends_on_a_later_one(name: str, market: Market) -> None:
    embeddings, t = embedded(name, market), rows(market)
    features, tradable, _, times = market_tensors(market, "cpu")
    before, moved = embeddings(t).detach(), features.clone()
    for row in (60, 67, 68):
        moved[row + 1 :] = 10 * th.randn_like(moved[row + 1 :]).sign()
        embeddings.bind(moved, tradable, None, times)
        after = embeddings(t).detach()
        assert th.equal(after[t <= row], before[t <= row])
        assert not th.allclose(after[t > row], before[t > row])
        moved = features.clone()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("checkpointed", [None, 1, 2])
def test_gradients_are_those_of_every_bar_on_its_own(
    name: str, checkpointed: int | None, market: Market
) -> None:
    embeddings, t = embedded(name, market, checkpointed=checkpointed), rows(market)[[3, 40, 7, 41]]
    weights = th.randn(4, 3, embeddings.encoder.channels)
    parameters = list(embeddings.encoder.parameters())
    for own, expected in zip(
        th.autograd.grad((embeddings(t) * weights).sum(), parameters),
        th.autograd.grad((one_by_one(embeddings, t) * weights).sum(), parameters),
        strict=True,
    ):
        th.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_a_part_of_a_market_has_the_embeddings_of_the_whole(market: Market) -> None:
    whole, part = embedded("lstm", market), embedded("lstm", market, bind=False)
    part.load_state_dict(whole.state_dict())
    cut = 37
    part.bind(*market_tensors(market.subset(slice(cut, None)), "cpu"))
    t = rows(market)
    t = t[t >= cut + BLOCK + WINDOW]
    with th.no_grad():
        th.testing.assert_close(part(t - cut), whole(t), rtol=1e-5, atol=1e-6)
    assert int(part.encoder.span) == int(whole.encoder.span) > 0


def test_blocks_hold_the_bars_that_they_should() -> None:
    times = np.array([3, 4, 9, 10, 11, 12, 25, 39, 40, 41])
    blocks = Blocks(times, 10, 2)
    assert blocks.of.tolist() == [0, 0, 0, 1, 1, 1, 2, 3, 4, 4]
    assert blocks.series(np.array([0, 1])).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert blocks.series(np.array([4])).tolist() == [[7, 8, 9]]
    assert blocks.start.tolist() == [0, 0, 0, 2, 2, 2, 5, 6, 7, 7]
    assert blocks.place(np.array([1, 2, 3, 5, 9])).tolist() == [0, 1, 0, 2, 1]
    assert [part.tolist() for part in blocks.parts(np.array([1, 3, 5, 7, 9]), 2)] == [
        [1, 3, 5],
        [7, 9],
    ]
    rows, lengths = blocks.rows(blocks.of[np.array([2, 8])])
    assert (rows.tolist(), lengths.tolist()) == ([1, 2, 8, 9], [2, 2])
    assert span_of(times, 20) == 20 * 38 // 9 and span_of(times[:1], 20) == 20


def test_a_block_is_passed_over_once(market: Market) -> None:
    embeddings, t = embedded("lstm", market), rows(market)
    encoder: Any = embeddings.encoder
    seen: list[int] = []
    encoder.first.register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    series = len(np.unique(embeddings._blocks().of)) * market.n_assets
    embeddings._sizes = None, None
    embeddings(t)
    assert 0 < sum(seen) <= series
    seen.clear()
    with th.no_grad():
        embeddings(t[20:21])
        assert seen == [market.n_assets]
        embeddings(t[starts(embeddings, t)])
        embeddings(t)
    assert sum(seen) <= series
    assert len(np.unique(embeddings.groups(t.numpy()))) * market.n_assets == sum(seen)


def test_what_cannot_be_a_stream_is_refused(market: Market) -> None:
    with pytest.raises(ArgumentError, match="bidirectional=True must be False"):
        make_encoder("tcn_gnn_lstm", 4, WINDOW, history="stream")
    with pytest.raises(ArgumentError, match="no option 'history'"):
        make_encoder("transformer", 4, WINDOW, history="stream")
    env = PortfolioEnv(market, window=WINDOW, observation="window")
    with pytest.raises(ArgumentError, match='observation="index"'):
        MarketRows.of(env, encoder="lstm", encoder_kwargs=LSTM)
    with pytest.raises(ArgumentError, match="row 3 does not have"):
        embedded("lstm", market)(th.tensor([20, 3]))
    with pytest.raises(ArgumentError, match="row 3 does not have"), th.no_grad():
        embedded("lstm", market)(th.tensor([20, 3]))


def lanes(market: Market, **options: Any) -> Any:
    given = {"window": WINDOW, "observation": "index", "random_start": True, "episode_length": 20}
    return make_sb3_vec_env(market, 4, seed=0, **given | options)


NETWORK: dict[str, Any] = {"encoder": "lstm", "encoder_kwargs": LSTM, "window": WINDOW}


@pytest.mark.parametrize("algo", ["ppo", "a2c", "sac"])
def test_agents_train_and_are_saved_exactly(algo: str, market: Market, tmp_path: Path) -> None:
    venv = lanes(market)
    steps = {"ppo": {"n_steps": 16, "batch_size": 16, "n_epochs": 1}, "sac": {"batch_size": 16}}
    options = {"device": "cpu", "seed": 0, **steps.get(algo, {})}
    agent = make_agent(algo, venv, **NETWORK, **options).learn(96)
    assert isinstance(getattr(agent, "rollout_buffer", None), GroupedRolloutBuffer) == (
        algo == "ppo"
    )
    file = tmp_path / "model.safetensors"
    save_agent(agent, file)
    loaded = load_agent(file, lanes(market.subset(slice(20, None))), device="cpu")
    for t, row in ((rows(market)[-30:], 0), (rows(market)[-30:] - 20, 1)):
        model = (agent, loaded)[row]
        extractor = next(m for m in model.policy.modules() if isinstance(m, MarketExtractor))
        with th.no_grad():
            found = extractor.embeddings.eval()(t)
        if row == 0:
            expected = found
    th.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_minibatches_take_the_samples_of_a_block_together(market: Market) -> None:
    agent = make_agent(
        "ppo", lanes(market), **NETWORK, n_steps=32, batch_size=32, n_epochs=1, device="cpu"
    )
    agent.learn(128)
    (extractor,) = {m for m in agent.policy.modules() if isinstance(m, MarketExtractor)}
    batches = [
        extractor.embeddings.groups(batch.observations["t"].long().numpy().ravel())
        for batch in agent.rollout_buffer.get(32)
    ]
    order = np.concatenate(batches)
    assert len(order) == 128 and len(batches) == 4
    assert np.count_nonzero(np.diff(order)) == len(np.unique(order)) - 1
    assert len(np.unique(order)) > 5


def test_minibatches_of_many_blocks_end_where_a_block_does(market: Market) -> None:
    agent = make_agent(
        "ppo", lanes(market), **NETWORK, n_steps=32, batch_size=64, n_epochs=1, device="cpu"
    )
    agent.learn(128)
    buffer = agent.rollout_buffer
    for _ in range(5):
        batches = list(buffer.get(64))
        first, second = (
            {*buffer.groups(batch.observations["t"].long().numpy().ravel())} for batch in batches
        )
        assert not first & second
        assert sum(len(batch.actions) for batch in batches) == 128


def test_training_and_evaluation_see_the_same_numbers(market: Market) -> None:
    """Where nothing is learnt, the ratio of new to old probabilities is one."""
    agent = make_agent(
        "ppo", lanes(market), **NETWORK, n_steps=16, batch_size=16, n_epochs=1, device="cpu"
    )
    ratios: list[Tensor] = []
    evaluate = agent.policy.evaluate_actions

    def recorded(observation: Any, actions: Tensor) -> Any:
        out = evaluate(observation, actions)
        ratios.append(out[1].detach())
        return out

    agent.policy.evaluate_actions = recorded
    agent.learning_rate = agent.lr_schedule = lambda _: 0.0
    old: list[Tensor] = []
    get = agent.rollout_buffer.get

    def kept(size: int) -> Any:
        for batch in get(size):
            old.append(batch.old_log_prob)
            yield batch

    agent.rollout_buffer.get = kept
    agent.learn(64)
    th.testing.assert_close(th.cat(ratios), th.cat(old), rtol=1e-4, atol=1e-4)


def test_plain_sb3_and_direct_training_take_streams(market: Market, tmp_path: Path) -> None:
    env = PortfolioEnv(market, window=WINDOW, observation="index", random_start=True)
    network = {"features_extractor_class": MarketExtractor, "features_extractor_kwargs": NETWORK}
    plain = PPO("MultiInputPolicy", env, policy_kwargs=network, n_steps=32, batch_size=16, seed=0)
    plain.learn(64)
    direct = DirectAgent(market.n_features, WINDOW, encoder="lstm", encoder_kwargs=LSTM)
    direct.train(market, 0, 100, iterations=2, lanes=4, steps=5)
    direct.save(tmp_path / "direct.safetensors")
    loaded = DirectAgent.load(tmp_path / "direct.safetensors")
    loaded.bind(market)
    observation, _ = env.reset(seed=1)
    assert np.array_equal(loaded.predict(observation)[0], direct.predict(observation)[0])
