"""The direct agent: every observation mode, exact resumption, files, and that it learns."""

from typing import Any

import numpy as np
import pytest
import torch as th

from agents.direct.agent import DirectAgent
from agents.direct.training import DirectOptions, DirectTrainer
from agents.fitting import take_up
from agents.networks import ENCODERS, Encoder
from agents.tensors import save_tensors
from portfolio_env import (
    ArgumentError,
    DataError,
    Market,
    PortfolioEnv,
    PortfolioVectorEnv,
    load_market,
)
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.evaluation import backtest
from portfolio_env.market.fingerprints import LIMIT

SHORT: dict[str, Any] = {"iterations": 6, "lanes": 8, "steps": 5, "validation_every": 2}


@pytest.fixture(scope="module")
def planted() -> Market:
    return PlantedMarket.draw(seed=0, bars=600, assets=4).market


@pytest.fixture(scope="module")
def many() -> Market:
    return load_market("synthetic?seed=3&bars=400&assets=12&ragged=true")


def agent_for(market: Market, **options: Any) -> DirectAgent:
    """Scrambled, so that actions differ between assets."""
    agent = DirectAgent(market.n_features, **options)
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in agent.network.parameters():
            parameter.copy_(0.4 * th.randn(parameter.shape, generator=generator))
    return agent


def weights_of(agent: DirectAgent) -> dict[str, th.Tensor]:
    return {name: value.clone() for name, value in agent.network.state_dict().items()}


def same(a: dict[str, th.Tensor], b: dict[str, th.Tensor]) -> bool:
    return set(a) == set(b) and all(th.equal(a[name], b[name]) for name in a)


def test_all_modes_of_observation_give_the_same_backtest(market):
    agent = agent_for(market, window=4)
    agent.bind(market)
    results = [
        backtest(agent, PortfolioEnv(market, window=6, observation=mode))
        for mode in ("index", "window", "flat")
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.values, results[0].values, rtol=1e-6)
    assert results[0].turnovers.max() > 0.1


def test_window_observations_need_no_market(market):
    agent = agent_for(market)
    env = PortfolioEnv(market, window=2)
    observation, _ = env.reset(seed=0)
    action, state = agent.predict(observation, state="kept")
    assert state == "kept" and action.dtype == np.float32
    assert env.action_space.contains(action)
    batch = {name: np.stack([part] * 3) for name, part in observation.items()}
    np.testing.assert_allclose(agent.predict(batch)[0], np.tile(action, (3, 1)), rtol=1e-5)


def test_flat_observations_cannot_be_read_without_a_market(market):
    observation, _ = PortfolioEnv(market, window=2, observation="flat").reset(seed=0)
    with pytest.raises(ArgumentError, match="bind"):
        agent_for(market).predict(observation)


def test_index_observations_find_the_market_of_their_environment(market):
    env = PortfolioEnv(market, window=2, observation="index")
    observation, _ = env.reset(seed=0)
    unbound, bound = agent_for(market), agent_for(market)
    bound.bind(market)
    assert (unbound.predict(observation)[0] == bound.predict(observation)[0]).all()
    nobody = observation | {"market": (observation["market"] + 1) % LIMIT}
    with pytest.raises(ArgumentError, match="bind"):
        agent_for(market).predict(nobody)


def test_actions_are_the_logits_of_its_own_weights(market):
    agent = agent_for(market)
    agent.bind(market)
    env = PortfolioEnv(market, window=1, observation="index", costs={"commission_bps": 0.0})
    observation, _ = env.reset(seed=0)
    action = agent.predict(observation)[0]
    assert action.max() == 1.0
    env.step(action)
    tradable = market.tradable[env.simulator.t[0] - 1]
    wanted = np.exp(5 * action.astype(float)) * np.r_[1.0, tradable]
    np.testing.assert_allclose(env.simulator.held[0], wanted / wanted.sum(), atol=1e-12)


def test_a_sampled_universe_is_read_and_other_sizes_run(many):
    agent = agent_for(many)
    agent.bind(many)
    env = PortfolioVectorEnv(
        3, many, observation="index", window=1, universe=5, random_start=True, episode_length=20
    )
    observation, _ = env.reset(seed=0)
    assert agent.predict(observation)[0].shape == (3, 6)
    wide, _ = PortfolioEnv(many, observation="index", window=1).reset(seed=0)
    assert agent.predict(wide)[0].shape == (13,)


@pytest.mark.parametrize("options", [{}, {"window": 3, "net_arch": (8,), "logits_scale": 3.0}])
def test_saved_agents_load_exactly(market, tmp_path, options):
    agent = agent_for(market, **options)
    agent.save(tmp_path / "agent.safetensors")
    loaded = DirectAgent.load(tmp_path / "agent.safetensors")
    assert loaded.config == agent.config and same(weights_of(loaded), weights_of(agent))
    assert not [path for path in tmp_path.iterdir() if path.name != "agent.safetensors"]


def test_files_with_code_or_without_an_agent_are_refused(market, tmp_path):
    th.save({"config": agent_for(market)}, tmp_path / "code")
    (tmp_path / "text").write_text("hello")
    save_tensors(tmp_path / "other", {}, kind="weights")
    agent = {"config": agent_for(market).config, "weights": {}}
    save_tensors(tmp_path / "empty", agent, kind="direct agent")
    unknown = agent | {"config": {"no such": "option"}}
    save_tensors(tmp_path / "unknown", unknown, kind="direct agent")
    for name in ("code", "text", "other", "empty", "unknown", "missing"):
        with pytest.raises(DataError, match=name):
            DirectAgent.load(tmp_path / name)


def test_the_same_seed_gives_the_same_agent(planted):
    agents = [DirectAgent(planted.n_features, seed=s) for s in (1, 1, 2)]
    th.manual_seed(0)
    state = th.random.get_rng_state()
    for agent in agents:
        agent.train(planted, 0, 500, **SHORT)
    first, second, third = (weights_of(agent) for agent in agents)
    assert same(first, second) and not same(first, third)
    assert th.equal(state, th.random.get_rng_state())  # nobody else's draws are touched


def test_a_stopped_training_goes_on_exactly(planted, tmp_path):
    whole = DirectAgent(planted.n_features)
    straight = whole.train(planted, 0, 400, validation=(400, 450), **SHORT)
    half = DirectAgent(planted.n_features)
    trainer = DirectTrainer(half, planted, 0, 400, validation=(400, 450), **SHORT)
    for _ in range(3):
        trainer.advance()
    save_tensors(tmp_path / "state", trainer.fit.state_dict(), kind="fit")
    other = DirectAgent(planted.n_features, seed=9)
    resumed = DirectTrainer(other, planted, 0, 400, validation=(400, 450), **SHORT)
    take_up(resumed, tmp_path / "state")
    resumed.run()
    assert resumed.fit.round == straight.fit.round == 6
    assert resumed.best == straight.best
    assert same(weights_of(other), weights_of(whole))
    changed = DirectTrainer(other, planted, 0, 400, **(SHORT | {"lanes": 4}))
    with pytest.raises(ArgumentError, match="made with"):
        changed.fit.load_state_dict(trainer.fit.state_dict())


def test_a_state_does_not_change_with_the_training(planted):
    trainer = DirectTrainer(DirectAgent(planted.n_features), planted, 0, 400, **SHORT)
    state = trainer.fit.state_dict()
    before = {name: value.clone() for name, value in state["network"].items()}
    trainer.advance()
    assert same(state["network"], before)


def test_a_training_that_only_loses_leaves_the_untrained_model(planted, caplog):
    agent = DirectAgent(planted.n_features)
    untrained = weights_of(agent)
    dear = {"costs": {"commission_bps": 500.0}}  # every trade loses
    options = SHORT | {"env_options": dear, "learning_rate": 0.3}
    with caplog.at_level("INFO", logger="agents"):
        trainer = agent.train(planted, 0, 400, validation=(400, 500), **options)
    assert trainer.fit.round == SHORT["iterations"]
    assert trainer.fit.best_steps == 0
    assert same(weights_of(agent), untrained)
    assert "the untrained one" in caplog.text


def test_the_best_model_is_restored(planted):
    agent = DirectAgent(planted.n_features)
    seen: list[tuple[float, dict[str, th.Tensor]]] = []

    def watch(iteration: int, numbers: dict[str, float]) -> None:
        assert {"train/growth", "train/turnover", "train/learning_rate"} < set(numbers)
        if "validation/growth" in numbers:
            seen.append((numbers["validation/growth"], weights_of(agent)))

    options = SHORT | {"iterations": 10, "learning_rate": 0.1}
    trainer = agent.train(planted, 0, 400, validation=(400, 500), callback=watch, **options)
    assert len(seen) == 5
    best = max(growth for growth, _ in seen)
    assert best > seen[-1][0]  # or the test shows nothing
    assert same(weights_of(agent), next(w for growth, w in seen if growth == best))
    env = PortfolioEnv(planted, window=1, observation="index", start=400, end=500)
    result = backtest(agent, env)
    growth = result.log_returns.mean() * result.periods_per_year
    assert growth == pytest.approx(best, rel=1e-6)
    assert trainer.best * result.periods_per_year == pytest.approx(best)


def test_patience_ends_the_training(planted):
    options = SHORT | {"iterations": 40, "learning_rate": 0.5, "patience": 2}
    trainer = DirectAgent(planted.n_features).train(
        planted, 0, 400, validation=(400, 500), **options
    )
    assert trainer.fit.finished and trainer.fit.round < 40


def test_training_sees_no_bar_after_its_range(planted):
    """Another future, of features and prices, gives the same agent."""
    other = PlantedMarket.draw(seed=7, bars=600, assets=4).market
    close = np.array(planted.close)
    close[400:] = 7 * other.close[400:]
    features = np.array(planted.features)
    features[400:] = other.features[400:]
    panel = type(planted.panel)(planted.timestamps, planted.assets, close)
    changed = Market(panel, features, planted.feature_names)
    agents = []
    for market in (planted, changed):
        agents.append(DirectAgent(market.n_features))
        agents[-1].train(market, 0, 400, **(SHORT | {"steps": 60, "lanes": 64}))
    assert same(*(weights_of(agent) for agent in agents))


def test_ragged_markets_train_on_a_sampled_universe(many):
    agent = DirectAgent(many.n_features)
    trainer = DirectTrainer(
        agent, many, 0, 300, env_options={"costs": {"delisting_haircut": 0.3}}, **SHORT
    )
    assert trainer.simulator.episodes.universe == 8
    before = weights_of(agent)
    numbers = trainer.advance()
    assert all(np.isfinite(value) for value in numbers.values())
    assert not same(before, weights_of(agent))
    everything = DirectTrainer(agent, many, 0, 300, universe=0, **SHORT)
    assert everything.simulator.n_assets == 12
    assert np.isfinite(everything.advance()["train/growth"])


class Counting(Encoder):
    """A linear map of the window, which counts the windows of single assets it is given."""

    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.channels = 3
        self.linear = th.nn.Linear(n_features * window, 3)
        self.windows: list[int] = []

    def forward(
        self, windows: th.Tensor, tradable: th.Tensor, codes: th.Tensor | None = None
    ) -> th.Tensor:
        self.windows.append(windows.shape[0] * windows.shape[2])
        return self.linear(windows.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("universe", [0, 3])
def test_an_encoder_learns_and_sees_each_bar_once_an_iteration(planted, monkeypatch, universe):
    monkeypatch.setitem(ENCODERS, "counting", Counting)
    agent = DirectAgent(planted.n_features, window=4, encoder="counting")
    options = SHORT | {"lanes": 64, "universe": universe}
    trainer = DirectTrainer(agent, planted, 0, 60, **options)
    encoder = agent.network.extractor.encoder
    before = encoder.linear.weight.clone()
    encoder.windows.clear()
    trainer.advance()
    assert len(encoder.windows) == 1 and encoder.windows[0] <= 57 * planted.n_assets
    assert not th.equal(encoder.linear.weight, before)
    encoder.windows.clear()
    backtest(agent, PortfolioEnv(planted, window=4, observation="index", end=40))
    assert (
        sum(encoder.windows) <= 2 * 37 * planted.n_assets
    )  # each once, and as many again read ahead at most


def test_starts_are_listed_portfolios_of_three_kinds(many):
    trainer = DirectTrainer(
        DirectAgent(many.n_features), many, 0, 300, universe=0, **(SHORT | {"lanes": 400})
    )
    rng = np.random.default_rng(0)
    trainer.simulator.reset(lambda _: rng)
    weights = trainer._start_weights(rng)
    listed = trainer.simulator.episodes.is_listed(
        trainer.simulator.t[:, None], trainer.simulator.assets
    )
    assert not listed.all() and not weights[:, 1:][~listed].any()
    np.testing.assert_allclose(weights.sum(1), 1.0)
    cash = weights[:, 0] == 1
    own = np.where(listed, weights[:, 1:], np.nan)
    spread = np.nanmax(own, 1) - np.nanmin(own, 1)
    equal = (weights[:, 0] == 0) & (spread < 1e-12)
    for kind, share in ((cash, 0.25), (equal, 0.25), (~cash & ~equal, 0.5)):
        assert abs(kind.mean() - share) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lanes": 0}, "lanes"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"patience": 0}, "patience"),
        ({"loss": "profit"}, "loss='profit'"),
        ({"prediction": -0.1}, "prediction=-0.1"),
        ({"frozen": 1.5}, "frozen=1.5"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        DirectOptions(**options)


@pytest.mark.parametrize(
    ("env_options", "message"),
    [
        ({"logits_scale": 2.0}, "logits_scale"),
        ({"action": "weights"}, "logits"),
        (
            {"constraints": {"max_period_turnover": 1.0, "turnover_period": 5}},
            "max_period_turnover",
        ),
    ],
)
def test_environments_it_does_not_suit_are_refused(planted, env_options, message):
    with pytest.raises(ArgumentError, match=message):
        DirectTrainer(
            DirectAgent(planted.n_features), planted, 0, 400, env_options=env_options, **SHORT
        )


@pytest.mark.slow
def test_it_learns_a_planted_signal():
    """It beats equal weight far outside what chance allows, on bars it has not seen."""
    market = PlantedMarket.draw(seed=0, bars=4000, assets=5).market
    agent = DirectAgent(market.n_features)
    agent.train(market, 0, 2000, iterations=40)
    env = PortfolioEnv(market, window=1, observation="index", start=2000)
    result = backtest(agent, env)
    equal = np.log(np.diff(market.close[2000:], axis=0) / market.close[2000:-1] + 1).mean()
    excess = result.log_returns - equal
    assert excess.mean() / (excess.std() / np.sqrt(len(excess))) > 4


@pytest.mark.skipif(not th.cuda.is_available(), reason="no CUDA device")
def test_it_trains_on_cuda(many):
    agents = [DirectAgent(many.n_features, device=device) for device in ("cpu", "cuda")]
    growth = []
    for agent in agents:
        trainer = agent.train(many, 0, 300, **SHORT)
        growth.append(trainer.advance()["train/growth"])
    assert growth[1] == pytest.approx(growth[0], rel=1e-2, abs=1e-3)
