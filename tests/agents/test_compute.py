"""Options of computing change memory, not what is learned; and a training's memory is estimated."""

import copy
import logging
import weakref
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.small_runs import small

from agents import make_agent, make_sb3_vec_env
from agents.compute import estimate
from agents.compute.options import ComputeOptions, set_up
from agents.direct.agent import DirectAgent
from agents.direct.training import DirectTrainer
from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.networks import make_encoder
from agents.training.config import TrainConfig
from agents.training.train import train
from portfolio_env import ArgumentError, Market, load_market
from portfolio_env.files.atomic import read_json

TRAIN = (0, 250)


@pytest.fixture(scope="module")
def market() -> Market:
    th.set_num_threads(1)
    return load_market("synthetic?bars=300&assets=4", features="minimal", fit_end=250)


def gradients(network: th.nn.Module, loss: th.Tensor) -> th.Tensor:
    """All gradients of a loss, in one vector."""
    network.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call] # torch
    own = [weight.grad for weight in network.parameters() if weight.grad is not None]
    return th.cat([gradient.flatten() for gradient in own])


def encoded(embeddings: MarketEncoder) -> tuple[th.Tensor, th.Tensor]:
    """Vectors of some bars, and gradients of their mean square distance from 1."""
    out = embeddings(th.arange(100, 140))
    return out.detach(), gradients(embeddings, (out - 1).square().mean())


@pytest.mark.parametrize(
    ("name", "options"),
    [("gat", {}), ("lstm", {"history": "stream", "block": 20}), ("transformer", {})],
)
def test_bfloat16_is_close(market: Market, name: str, options: dict[str, Any]) -> None:
    """Vectors to 2 %, the direction of the gradient to a cosine of 0.99; weights stay float32."""
    th.manual_seed(0)
    embeddings = MarketEncoder(make_encoder(name, market.n_features, 10, **options))
    embeddings.bind(*market_tensors(market, "cpu"))
    exact, slope = encoded(embeddings)
    embeddings.lower = True
    if name == "lstm" and not th.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor computes no LSTM in bfloat16")
    close, other = encoded(embeddings)
    assert close.dtype == th.float32 and not th.equal(close, exact)
    assert float((close - exact).norm() / exact.norm()) < 0.02
    assert float(th.cosine_similarity(slope, other, dim=0)) > 0.99


@pytest.mark.parametrize("has_one", [True, False])
def test_a_processor_without_the_lstm_in_bfloat16_is_told(
    market: Market, monkeypatch: pytest.MonkeyPatch, has_one: bool
) -> None:
    monkeypatch.setattr(th.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_one)
    low = ComputeOptions(precision="bfloat16")
    set_up(low, MarketEncoder(make_encoder("gat", market.n_features, 10)))
    lstm = MarketEncoder(make_encoder("lstm", market.n_features, 10))
    with nullcontext() if has_one else pytest.raises(ArgumentError, match="leave it out"):
        set_up(low, lstm)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch
def test_compiled_equals_plain_and_a_copy_has_weights_of_its_own(market: Market) -> None:
    """To 1e-5 of the norm; the program of a copy is not that of its original."""
    embeddings = MarketEncoder(make_encoder("mlp", market.n_features, 3, flatten=True))
    embeddings.bind(*market_tensors(market, "cpu"))
    plain = encoded(embeddings)
    embeddings.compiled = True
    for exact, other in zip(plain, encoded(embeddings), strict=True):
        assert float((exact - other).norm() / exact.norm()) < 1e-5
    assert embeddings._programs
    twin = copy.deepcopy(embeddings)
    with th.no_grad():
        for weight in twin.parameters():
            weight.mul_(0.5)
    twin.compiled = False
    halved = encoded(twin)[0]
    twin.compiled = True
    th.testing.assert_close(encoded(twin)[0], halved, atol=1e-5, rtol=1e-4)


def policy_gradient(market: Market, options: ComputeOptions, policy: str) -> th.Tensor:
    venv = make_sb3_vec_env(
        market,
        6,
        observation="index",
        window=5,
        random_start=True,
        action="weights" if policy == "dirichlet" else "logits",
    )
    network: dict[str, Any] = {
        "encoder": "mlp",
        "encoder_kwargs": {"depth": 1, "width": 8, "flatten": True},
    }
    agent = make_agent("ppo", venv, policy=policy, window=5, seed=0, device="cpu", **network)
    set_up(options, agent.policy)
    venv.seed(0)
    first: Any = venv.reset()
    seen = {name: th.as_tensor(part) for name, part in first.items()}
    actions = th.full((6, 5), 0.2)
    policy_: Any = agent.policy
    values, likelihoods, entropies = policy_.evaluate_actions(seen, actions)
    assert values.shape == (6, 1) and likelihoods.shape == (6,)
    loss = values.square().sum() + likelihoods.mean() + (0 if entropies is None else entropies[0])
    return gradients(agent.policy, loss)


@pytest.mark.parametrize("policy", ["per_asset", "dirichlet"])
def test_parts_of_a_minibatch_add_up(market: Market, policy: str) -> None:
    """To 1e-5 of the norm, parts of unequal size and recomputed windows included."""
    whole = policy_gradient(market, ComputeOptions(), policy)
    for options in (ComputeOptions(accumulation=4), ComputeOptions(checkpointed=1)):
        parts = policy_gradient(market, options, policy)
        assert float((whole - parts).norm() / whole.norm()) < 1e-5


@pytest.mark.parametrize("loss", ["growth", "sharpe"])
def test_parts_of_the_lanes_add_up(market: Market, loss: str) -> None:
    """Also for a loss of all lanes together, which is no mean over them."""
    found = []
    for parts in (1, 3):
        agent = DirectAgent(market.n_features, window=3, seed=0)
        trainer = DirectTrainer(agent, market, *TRAIN, parts=parts, lanes=8, steps=5, loss=loss)
        numbers = trainer._loss(trainer._rollout(np.random.default_rng(0)))[0]
        found.append(gradients(agent.network, numbers))
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-5


@pytest.mark.slow
def test_a_run_takes_the_options_and_writes_them(tmp_path: Any) -> None:
    config = small(
        tmp_path,
        timesteps=2048,
        encoder="mlp",
        window=5,
        compute=ComputeOptions(precision="bfloat16", accumulation="auto", checkpointed=4),
    )
    path = train(config)
    written = read_json(path / "config.json")
    assert written["compute"]["accumulation"] == 1  # as much as it takes
    assert TrainConfig.from_json(written).compute.precision == "bfloat16"
    del written["compute"]  # of an earlier version
    assert TrainConfig.from_json(written).compute == ComputeOptions()


def learner(market: Market, **options: Any) -> Any:
    venv = make_sb3_vec_env(market, 64, observation="index", window=5, random_start=True)
    return make_agent("ppo", venv, window=5, seed=0, device="cpu", n_steps=32, **options)


@pytest.mark.parametrize("encoder", ["per_asset", "gat"])
def test_a_larger_batch_needs_more_and_its_parts_less(market: Market, encoder: str) -> None:
    small_batch = learner(market, encoder=encoder, batch_size=64)
    large_batch = learner(market, encoder=encoder, batch_size=2048)
    few = estimate.estimate(small_batch, market, TRAIN)
    many = estimate.estimate(large_batch, market, TRAIN)
    parts = estimate.estimate(large_batch, market, TRAIN, 32)
    assert many["a batch"] == pytest.approx(32 * few["a batch"], rel=0.01)
    assert parts["a batch"] == pytest.approx(few["a batch"], rel=0.01)
    buffers = vars(large_batch.rollout_buffer)
    held = sum(v.nbytes for v in buffers.values() if isinstance(v, np.ndarray))
    assert many["transitions"] > held


def test_what_an_estimate_computed_is_free_again(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = learner(market)
    made: list[Any] = []

    def evaluated(*given: Any) -> Any:
        # SB3's policies can end in a function whose backward pass reads its own output.
        found = own(*given)[0].tanh()
        made.append(weakref.ref(found))
        return found

    own = agent.policy.evaluate_actions
    monkeypatch.setattr(agent.policy, "evaluate_actions", evaluated)
    estimate.estimate(agent, market, TRAIN)
    assert [out() for out in made] == [None, None]


def test_the_fewest_parts_that_fit_are_found(market: Market) -> None:
    agent = learner(market, batch_size=2048)
    whole = sum(estimate.estimate(agent, market, TRAIN).values()) / estimate.GIB
    batch = estimate.estimate(agent, market, TRAIN)["a batch"] / estimate.GIB
    assert estimate.fitted(agent, market, TRAIN, "auto", whole + 1) == 1
    # The resident memory moves by a few pages between two readings.
    assert estimate.fitted(agent, market, TRAIN, "auto", whole - 0.3 * batch) == 2


def test_a_training_that_cannot_fit_is_refused_before_it_has_a_folder(tmp_path: Any) -> None:
    config = replace(small(tmp_path), compute=ComputeOptions(memory_limit=0.01))
    with pytest.raises(ArgumentError, match=r"compute\.memory_limit is 0\.0: give fewer num_envs"):
        train(config)
    assert not [*tmp_path.rglob("config.json")]


def test_a_training_beyond_the_free_memory_warns(
    market: Market, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(estimate, "available_bytes", lambda: 0)
    with caplog.at_level(logging.WARNING):
        estimate.fitted(learner(market), market, TRAIN, 1, None)
    assert "it may be killed" in caplog.text


def test_workers_are_told_once_that_the_free_memory_is_not_for_all_of_them(
    market: Market, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = learner(market)
    monkeypatch.setattr(estimate, "resident_bytes", lambda: estimate.GIB)
    more = sum(estimate.estimate(agent, market, TRAIN).values()) - estimate.GIB
    monkeypatch.setattr(estimate, "available_bytes", lambda: 5 * more // 2)
    monkeypatch.setattr(estimate, "_workers", 1)
    for workers, told in ((2, False), (3, True)):
        estimate.count_workers(workers)
        for _ in range(2):
            estimate.fitted(agent, market, TRAIN, 1, None)
        assert ("fewer at once, e.g. by --workers 2" in caplog.text) is told
    assert caplog.text.count("3 workers need") == 1 and "this training needs" not in caplog.text


def test_parts_are_for_algorithms_that_have_them() -> None:
    with pytest.raises(ArgumentError, match="not for sac"):
        TrainConfig(algo="sac", compute=ComputeOptions(accumulation=2))
    with pytest.raises(ArgumentError, match=r"compute\.accumulation=0"):
        ComputeOptions(accumulation=0)


def test_networks_read_the_features_of_the_market_itself(market: Market) -> None:
    """Of 500 assets and 120 features they are a gigabyte; a copy of them would be another."""
    features = market_tensors(market, "cpu")[0]
    assert features.data_ptr() == market.features.ctypes.data
