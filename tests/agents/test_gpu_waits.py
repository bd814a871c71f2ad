"""What a GPU is waited for: on the paths that training repeats, for nothing.

Whatever asks a GPU for a value, or for a size that depends on values, waits until it has done all
that it was asked before, and it idles until it is asked again. `pretend_gpu.py` counts such
operations where there is no GPU.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.pretend_gpu import PretendGpu, pretend_gpu
from stable_baselines3 import PPO

from agents import make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.direct.training import DirectTrainer
from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.networks import make_encoder
from portfolio_env import Market, load_market

GPU = "cuda:0"
WINDOW = 6
SMALL: dict[str, Any] = {"width": 8, "layers": 1, "lstm_hidden": 4}
STREAM: dict[str, Any] = {"history": "stream", "bidirectional": False, "block": 10}
HISTORIES = pytest.mark.parametrize("history", [{}, STREAM], ids=["window", "stream"])


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market("synthetic?assets=3&bars=60")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendGpu]:
    monkeypatch.setattr("agents.encoding.market_encoder.memory_of", lambda device: 0)
    monkeypatch.setattr("agents.encoding.market_encoder.max_batch_size", lambda *_: 1_000_000)
    with pretend_gpu() as mode:
        yield mode


def embedded(market: Market, **options: Any) -> MarketEncoder:
    encoder = make_encoder("tcn_gnn_lstm_small", market.n_features, WINDOW, **SMALL, **options)
    embeddings = MarketEncoder(encoder).to(GPU)
    embeddings.bind(*market_tensors(market, GPU))
    return embeddings


def test_what_waits_is_counted(gpu: PretendGpu) -> None:
    there = th.arange(4.0, device=GPU)
    gpu.waits.clear()
    for wait in (
        lambda: bool((there > 1).any()),
        lambda: there.unique(),
        lambda: there[there > 1],
        lambda: there.cpu(),
        lambda: th.ones(2).to(GPU),
        lambda: th.equal(there, there),
    ):
        before = len(gpu.waits)
        wait()
        assert len(gpu.waits) > before
    gpu.waits.clear()
    th.ones(2).to(GPU, non_blocking=True)
    th.where(there > 1, there, 0.0).sum().add_(1.0)
    assert not gpu.waits


@HISTORIES
def test_learning_of_a_batch_waits_for_nothing(
    market: Market, history: dict[str, Any], gpu: PretendGpu
) -> None:
    embeddings = embedded(market, **history)
    t = th.tensor([30, 12, 30, 44, 45])
    embeddings(t)  # finds the blocks
    gpu.waits.clear()
    embeddings(t).square().sum().backward()
    assert not gpu.waits
    embeddings(t.to(GPU))
    assert gpu.waits == ["aten._to_copy.default"] * 2  # there, and back


@HISTORIES
def test_a_step_of_lanes_waits_for_the_comparison_of_weights_alone(
    market: Market, history: dict[str, Any], gpu: PretendGpu
) -> None:
    embeddings = embedded(market, **history).eval()
    with th.no_grad():
        embeddings(th.tensor([30, 12]))
        for row in (31, 32, 50):
            gpu.waits.clear()
            embeddings(th.tensor([row, 13]))
            assert gpu.waits == ["aten.equal.default"]


@HISTORIES
@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_samples_come_and_are_encoded_without_waiting(
    market: Market, algo: str, history: dict[str, Any], gpu: PretendGpu
) -> None:
    venv = make_sb3_vec_env(
        market, num_envs=4, seed=0, observation="index", window=WINDOW, random_start=True
    )
    ppo = {"batch_size": 16, "n_steps": 8, "n_epochs": 1}
    agent: Any = make_agent(
        algo,
        venv,
        window=WINDOW,
        encoder="tcn_gnn_lstm_small",
        encoder_kwargs=SMALL | history,
        device=GPU,
        seed=0,
        **(ppo if algo == "ppo" else {"batch_size": 16, "buffer_size": 100}),
    ).learn(32)
    policy = agent.policy.set_training_mode(True) or agent.policy
    gpu.waits.clear()
    if isinstance(agent, PPO):
        (batch, *_) = agent.rollout_buffer.get(16)
        assert not gpu.waits
        rows = policy.extract_features(batch.observations)
        rows.sum().backward()
        assert not gpu.waits
        values, log_prob, _ = policy.evaluate_actions(batch.observations, batch.actions)
        (values.sum() + log_prob.sum()).backward()
        assert len(gpu.waits) <= 3  # torch.distributions checks mean, deviation and actions
    else:
        batch = agent.replay_buffer.sample(16)
        policy.actor.features_extractor(batch.observations).sum().backward()
        assert not gpu.waits


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"costs": {"commission_bps": 10, "impact": 0.1, "fixed_fee": 1.0}},
        {
            "constraints": {"max_weight": 0.5, "max_turnover": 0.3, "no_trade_band": 0.02},
            "adjustment": 0.5,
        },
    ],
    ids=["plain", "impact and fee", "constraints"],
)
def test_accounts_live_and_learn_without_passing_through_the_cpu(
    market: Market, task: dict[str, Any], gpu: PretendGpu
) -> None:
    direct = DirectAgent(
        market.n_features,
        WINDOW,
        encoder="tcn_gnn_lstm_small",
        encoder_kwargs=SMALL | STREAM,
        device=GPU,
    )
    trainer = DirectTrainer(direct, market, 0, 60, env_options=task, lanes=4, steps=6, iterations=9)
    trainer._rollout(np.random.default_rng(0))
    gpu.waits.clear()
    gpu.uploads.clear()
    loss, _ = trainer._loss(trainer._rollout(np.random.default_rng(1)))
    trainer.fit.step(loss)
    assert not gpu.waits
    assert sum(gpu.uploads) < 4 * 6 * 10  # rows and starts, and no window
    trainer.advance()
    assert len(gpu.waits) == 5  # what it reports, and whether weights are finite


def test_the_numbers_are_those_of_the_cpu(market: Market) -> None:
    losses = []
    for device in ("cpu", GPU):
        with pretend_gpu():
            direct = DirectAgent(market.n_features, WINDOW, encoder="per_asset", device=device)
            trainer = DirectTrainer(direct, market, 0, 60, lanes=4, steps=6, iterations=2)
            losses.append([trainer.advance()["train/loss"] for _ in range(2)])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
