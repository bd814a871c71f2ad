"""Training where weights and market are on a GPU: no device is mixed, no window is copied there.

Without a GPU they run on a pretended one (`pretend_gpu.py`), which gives the numbers of the CPU.
"""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.pretend_gpu import OnGpu, PretendGpu, pretend_gpu
from stable_baselines3.common.base_class import BaseAlgorithm

from agents import make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.direct.training import DirectTrainer
from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.inspection import attention_maps
from agents.networks import ENCODERS, make_encoder
from agents.supervised.training import SupervisedOptions, SupervisedTrainer
from portfolio_env import Market, load_market

GPU = "cuda:0"
DEVICES = [
    pytest.param("pretended", id="pretended"),
    pytest.param(
        "real", marks=pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
    ),
]
WINDOW, LANES, BATCH = 6, 4, 16
SMALL = {"width": 8, "layers": 1, "lstm_hidden": 4}


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market("synthetic?assets=3&bars=60")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Any:
    # It has no driver that could be asked for its memory.
    monkeypatch.setattr("agents.encoding.market_encoder.memory_of", lambda device: 0)
    monkeypatch.setattr("agents.encoding.market_encoder.max_batch_size", lambda *_: 1_000_000)
    with pretend_gpu() as mode:
        yield mode


@pytest.fixture(params=DEVICES)
def gpu(request: pytest.FixtureRequest) -> None:
    if request.param == "pretended":
        request.getfixturevalue("pretended")


def agent(market: Market, algo: str, device: str, **options: Any) -> BaseAlgorithm:
    venv = make_sb3_vec_env(
        market,
        num_envs=LANES,
        seed=0,
        observation="index",
        window=WINDOW,
        episode_length=10,
        random_start=True,
    )
    settings: dict[str, Any] = {"batch_size": BATCH, "learning_starts": 8, "buffer_size": 100}
    if algo == "ppo":
        settings = {"batch_size": BATCH, "n_steps": 8, "n_epochs": 1}
    network = {"encoder": "tcn_gnn_lstm_small", "encoder_kwargs": SMALL} | options
    return make_agent(algo, venv, window=WINDOW, device=device, seed=0, **settings, **network)


def weights(module: th.nn.Module) -> np.ndarray:
    return th.cat([weight.detach().flatten() for weight in module.parameters()]).cpu().numpy()


def test_mixed_devices_are_refused(pretended: PretendGpu) -> None:
    there = th.arange(4.0, device=GPU)
    assert isinstance(there, OnGpu) and there.device.type == "cuda"
    for mistake in (
        lambda: there + th.ones(4),
        lambda: th.cat([there, th.ones(4)]),
        lambda: th.ones(4)[there.long()],
        lambda: th.where(there > 1, there, th.zeros(4)),
    ):
        with pytest.raises(RuntimeError, match="on cuda and on the CPU"):
            mistake()
    assert pretended.uploads == []
    assert float((there + th.ones(4).to(GPU) * th.tensor(2.0)).sum()) == 14
    assert pretended.uploads == [4]


@pytest.mark.parametrize("algo", ["ppo", "sac", "td3"])
def test_algorithms_train_as_on_the_cpu_and_copy_no_window(market: Market, algo: str) -> None:
    expected = agent(market, algo, "cpu").learn(48)
    with pretend_gpu() as mode:
        found = agent(market, algo, GPU)
        mode.uploads.clear()  # weights and market
        found.learn(48)
        assert all(isinstance(weight, OnGpu) for weight in found.policy.parameters())
        np.testing.assert_allclose(
            weights(found.policy), weights(expected.policy), rtol=1e-3, atol=1e-5
        )
    assert 0 < max(mode.uploads) <= BATCH * (1 + market.n_assets)
    assert BATCH * (1 + market.n_assets) < WINDOW * market.n_assets * market.n_features


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("options", [{"frozen": True}, {"checkpointed": 2}])
def test_every_way_to_run_an_encoder_trains(market: Market, options: dict[str, Any]) -> None:
    model = agent(market, "ppo", GPU, encoder="gat", encoder_kwargs={}, embedding_kwargs=options)
    before = weights(model.policy)
    after = weights(model.learn(64).policy)
    assert np.isfinite(after).all() and not np.array_equal(after, before)


def test_streams_train_there_as_on_the_cpu(market: Market) -> None:
    kwargs = SMALL | {"history": "stream", "bidirectional": False, "block": 10}
    expected = agent(market, "ppo", "cpu", encoder_kwargs=kwargs).learn(48)
    with pretend_gpu():
        found = agent(market, "ppo", GPU, encoder_kwargs=kwargs).learn(48)
        np.testing.assert_allclose(
            weights(found.policy), weights(expected.policy), rtol=1e-3, atol=1e-5
        )


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_encoders_give_the_numbers_of_the_cpu(name: str) -> None:
    th.manual_seed(0)
    encoder = make_encoder(name, 5, WINDOW).eval()
    windows, tradable = th.randn(3, encoder.bars, 4, 5), th.ones(3, 4)
    tradable[:, -1] = 0
    expected = encoder(windows, tradable).detach().numpy()
    encoder.to(GPU)
    found = encoder(windows.to(GPU), tradable.to(GPU))
    np.testing.assert_allclose(found.detach().cpu().numpy(), expected, rtol=1e-3, atol=1e-4)
    if found.requires_grad:
        found.square().sum().backward()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("options", [{}, {"history": "stream", "bidirectional": False}])
def test_embeddings_that_move_forget_what_they_kept_on_the_cpu(
    market: Market, options: dict[str, Any]
) -> None:
    kind = "tcn_gnn_lstm_small"
    embeddings = MarketEncoder(make_encoder(kind, market.n_features, WINDOW, **options))
    embeddings.eval().bind(*market_tensors(market, "cpu"))
    t = th.tensor([20, 21, 22])
    with th.no_grad():
        expected = embeddings(t).numpy()
        embeddings.to(GPU)
        for _ in range(2):
            found = embeddings(t.to(GPU)).cpu().numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("gpu")
def test_forecasts_and_net_growth_are_trained_there(market: Market) -> None:
    kwargs: dict[str, Any] = {"encoder_kwargs": SMALL, "embedding_kwargs": {"forecasts": True}}
    direct = DirectAgent(
        market.n_features, WINDOW, encoder="tcn_gnn_lstm_small", device=GPU, **kwargs
    )
    embeddings = direct.network.extractor.embeddings
    before = weights(direct.network)
    options = SupervisedOptions(epochs=1, batch=BATCH)
    numbers = SupervisedTrainer(embeddings, market, (0, 40), (40, 60), options).advance()
    trainer = DirectTrainer(
        direct, market, 0, 40, validation=(40, 60), lanes=4, steps=3, iterations=2, prediction=0.1
    )
    numbers |= trainer.advance()
    assert all(np.isfinite(value) for value in numbers.values())
    after = weights(direct.network)
    assert np.isfinite(after).all() and not np.array_equal(after, before)
    maps = attention_maps(embeddings.encoder, market, 30)
    assert maps and all(isinstance(part, np.ndarray) for part in maps.values())
