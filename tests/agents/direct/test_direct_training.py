"""Training by net growth or Sharpe ratio, with forecasts, averages and a frozen start."""

from typing import Any

import numpy as np
import pytest
import torch as th

from agents.direct.agent import DirectAgent
from agents.direct.training import DirectTrainer
from portfolio_env import ArgumentError, Market, PortfolioEnv
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.evaluation import backtest

SHORT: dict[str, Any] = {"iterations": 6, "lanes": 8, "steps": 5, "validation_every": 2}


@pytest.fixture(scope="module")
def planted() -> Market:
    return PlantedMarket.draw(seed=0, bars=600, assets=4).market


def weights_of(agent: DirectAgent) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in agent.network.state_dict().items()}


def same(a: dict[str, th.Tensor], b: dict[str, th.Tensor]) -> bool:
    return set(a) == set(b) and all(th.equal(a[name], b[name]) for name in a)


def forecasting(market: Market, **options: Any) -> DirectTrainer:
    """A trainer of an agent whose encoder forecasts."""
    agent = DirectAgent(
        market.n_features,
        window=3,
        encoder="mlp",
        encoder_kwargs={"depth": 1, "width": 8},
        embedding_kwargs={"forecasts": True},
    )
    return DirectTrainer(agent, market, 0, 400, **(SHORT | options))


@pytest.mark.parametrize("universe", [0, 3])
def test_forecasts_join_the_loss_with_their_weight(planted, universe):
    """By the gradient: with the weight w it is that of trading plus w times that of the NLL."""
    gradients = {}
    for weight in (0.0, 0.1, 1.0):
        trainer = forecasting(planted, universe=universe, prediction=weight, max_grad_norm=1e9)
        numbers = trainer.advance()
        assert ("train/nll" in numbers) == (weight > 0)
        parts = trainer.agent.network.named_parameters()
        gradients[weight] = {n: th.zeros(()) if p.grad is None else p.grad for n, p in parts}
    of_head = [name for name in gradients[0.0] if "head.out" in name]
    assert of_head and not any(gradients[0.0][name].any() for name in of_head)
    for name, trading in gradients[0.0].items():
        nll = gradients[1.0][name] - trading
        th.testing.assert_close(gradients[0.1][name], trading + 0.1 * nll, atol=1e-5, rtol=1e-3)
        if "encoder" in name:
            assert nll.abs().max() > 1e-3


def test_forecasts_are_those_of_the_assets_traded(planted):
    """With a sampled universe the likelihood is that of each lane's own assets and bars."""
    trainer = forecasting(planted, universe=3, prediction=1.0)
    assert trainer.returns is not None
    with th.no_grad():
        rollout = trainer._rollout(np.random.default_rng(0))
        _, nll = trainer._loss(rollout)
        terms = []
        for lane in range(8):
            for k in range(5):
                t = rollout.bars[lane, k]
                mean, sigma = trainer.embeddings.forecast(t[None])
                for asset in rollout.assets[lane]:
                    t0, a = int(t), int(asset)
                    move = planted.close[t0 + 1, a] / planted.close[t0, a] - 1
                    z = (move / trainer.returns.scale - mean[0, a]) / sigma[0, a]
                    terms.append(float(sigma[0, a].log() + 0.5 * z**2))
    assert float(nll) == pytest.approx(np.mean(terms), rel=1e-4)


def test_the_sharpe_ratio_can_be_climbed(planted):
    trainer = DirectTrainer(
        DirectAgent(planted.n_features), planted, 0, 400, **(SHORT | {"loss": "sharpe"})
    )
    with th.no_grad():
        rollout = trainer._rollout(np.random.default_rng((0, 0)))
        loss, _ = trainer._loss(rollout)
    returns = np.expm1(rollout.growth.numpy().astype(float)).ravel()
    concentration = rollout.held.numpy()[..., 1:] ** 2
    ratio = np.sqrt(252) * returns.mean() / np.hypot(returns.std(ddof=1), 1e-4)
    assert float(loss) == pytest.approx(-ratio + 0.1 * concentration.sum(-1).mean(), rel=1e-4)
    assert trainer.advance()["train/loss"] == pytest.approx(float(loss), rel=1e-5)


def test_the_sharpe_ratio_that_is_climbed_is_over_cash(planted):
    options = SHORT | {"loss": "sharpe", "env_options": {"costs": {"cash_rate_annual": 0.3}}}
    trainer = DirectTrainer(DirectAgent(planted.n_features), planted, 0, 400, **options)
    with th.no_grad():
        rollout = trainer._rollout(np.random.default_rng((0, 0)))
        loss, _ = trainer._loss(rollout)
    bars = rollout.bars.numpy()
    days = (planted.timestamps[bars + 1] - planted.timestamps[bars]) / np.timedelta64(1, "D")
    returns = np.expm1(rollout.growth.numpy().astype(float)) - 0.3 * days / 365.25
    concentration = rollout.held.numpy()[..., 1:] ** 2
    ratio = np.sqrt(252) * returns.mean() / np.hypot(returns.std(ddof=1), 1e-4)
    assert float(loss) == pytest.approx(-ratio + 0.1 * concentration.sum(-1).mean(), rel=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_averages_and_schedules_are_resumed_exactly(planted, schedule):
    options = {"ema": 0.7, "schedule": schedule, "validation": (400, 450), "prediction": 0.1}
    whole = forecasting(planted, **options)
    whole.run()
    stopped, resumed = (forecasting(planted, **options) for _ in range(2))
    for _ in range(3):
        stopped.advance()
    resumed.fit.load_state_dict(stopped.fit.state_dict())
    resumed.run()
    assert same(weights_of(resumed.agent), weights_of(whole.agent))
    env = PortfolioEnv(planted, window=3, observation="index", start=400, end=450)
    assert backtest(whole.agent, env).log_returns.mean() == pytest.approx(whole.best)
    averages = [trainer.fit.state_dict()["average"] for trainer in (resumed, whole)]
    assert averages[0]
    assert all(map(th.equal, *averages))


def test_an_encoder_stays_for_its_share_of_the_iterations(planted):
    trainer = forecasting(planted, frozen=0.5, prediction=0.1)
    start = {name: value.clone() for name, value in trainer.embeddings.state_dict().items()}
    scorer = weights_of(trainer.agent)
    for iteration in range(6):
        trainer.advance()
        assert same(start, trainer.embeddings.state_dict()) == (iteration < 3)
        assert not same(scorer, weights_of(trainer.agent))


def test_what_lacks_a_head_or_a_validation_is_refused(planted):
    agent = DirectAgent(planted.n_features)
    with pytest.raises(ArgumentError, match="needs a validation range"):
        DirectTrainer(agent, planted, 0, 400, **SHORT, schedule="plateau")
    with pytest.raises(ArgumentError, match="forecasts=True"):
        DirectTrainer(agent, planted, 0, 400, **SHORT, prediction=0.1).advance()
