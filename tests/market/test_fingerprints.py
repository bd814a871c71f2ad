"""An index observation belongs to one market, and whoever holds another refuses it."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import FlattenObservation, FrameStackObservation
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from agents import bind_market, make_agent, make_sb3_vec_env, policy_for
from agents.direct.agent import DirectAgent
from agents.sb3.buffers import IndexReplayBuffer, buffer_state, restore_buffer
from baselines import BASELINES, Ensemble, make_baseline
from baselines.portfolio_model import PortfolioModel
from portfolio_env import ArgumentError, Market, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.evaluation import backtest
from portfolio_env.market.fingerprints import LIMIT, FingerprintSpace, check_fingerprints

OPTIONS: dict[str, Any] = {"observation": "index", "window": 4, "episode_length": 20}
SMALL: dict[str, dict[str, Any]] = {
    "ppo": {"n_steps": 8, "batch_size": 16, "n_epochs": 1},
    "a2c": {},
    "sac": {"learning_starts": 8, "buffer_size": 200, "batch_size": 16},
    **{
        algo: {"learning_starts": 8, "buffer_size": 200, "batch_size": 16}
        for algo in ("td3", "ddpg", "tqc")
    },
}


@pytest.fixture(scope="module")
def markets() -> list[Market]:
    """Two of the same assets, bars and features: no shape tells them apart."""
    return [load_market(f"synthetic?seed={seed}&bars=200&assets=4") for seed in (1, 2)]


def lanes(market: Market, **options: Any) -> Any:
    return make_sb3_vec_env(market, 2, seed=0, **OPTIONS | options)


def agent_in(market: Market, algo: str = "ppo", encoder: str = "per_asset", **options: Any) -> Any:
    return make_agent(
        algo,
        lanes(market, **options),
        window=4,
        encoder=encoder,
        seed=0,
        device="cpu",
        **SMALL[algo],
    )


@pytest.mark.parametrize("universe", [None, 3])
def test_every_index_observation_says_its_market(
    markets: list[Market], universe: int | None
) -> None:
    options = OPTIONS | {"universe": universe}
    for market in markets:
        env = PortfolioEnv(market, **options)
        vector = PortfolioVectorEnv(3, market, autoreset_mode="SameStep", **options)
        observation, _ = env.reset(seed=0)
        batch, _ = vector.reset(seed=0)
        for _ in range(25):
            assert observation["market"].tolist() == [market.fingerprint]
            assert batch["market"].tolist() == [[market.fingerprint]] * 3
            assert env.observation_space.contains(observation)
            assert vector.observation_space.contains(batch)
            assert np.float32(market.fingerprint) == market.fingerprint < LIMIT
            observation, _, _, ended, _ = env.step(env.action_space.sample())
            batch, *_ = vector.step(vector.action_space.sample())
            if ended:
                observation, _ = env.reset()
    assert markets[0].fingerprint != markets[1].fingerprint


def test_equal_data_have_one_fingerprint_and_parts_of_them_others(
    markets: list[Market], tmp_path: Any
) -> None:
    market = markets[0]
    market.save(tmp_path / "market.npz")
    for same in (
        load_market("synthetic?seed=1&bars=200&assets=4"),
        pickle.loads(pickle.dumps(market)),
        Market.load(tmp_path / "market.npz"),
        market.past(market.n_bars - 1),
    ):
        assert same.fingerprint == market.fingerprint
    parts = [market.past(150), market.past(151), market.select(market.assets[:3])]
    parts += [market.select(market.assets[::-1]), market.subset(slice(1, None)), market]
    assert len({part.fingerprint for part in parts}) == len(parts)


@pytest.mark.parametrize("universe", [None, 3])
@pytest.mark.parametrize(
    ("algo", "encoder"),
    [("ppo", "per_asset"), ("ppo", "gat"), ("a2c", "per_asset"), ("sac", "gat"), ("td3", "gat")],
)
def test_an_agent_is_not_evaluated_on_a_market_it_does_not_hold(
    markets: list[Market], algo: str, encoder: str, universe: int | None
) -> None:
    agent = agent_in(markets[0], algo, encoder, universe=universe)
    agent.learn(32)
    own, other = (lanes(market, universe=universe) for market in markets)
    evaluate_policy(agent, own, 2)
    with pytest.raises(
        ArgumentError, match=r"belongs to market \d+ \(4 assets.*is bound"
    ) as caught:
        evaluate_policy(agent, other, 2)
    for part in (*(str(market.fingerprint) for market in markets), "bind_market", "policy_for"):
        assert part in str(caught.value)
    with pytest.raises(ArgumentError, match="is bound"):
        backtest(agent, PortfolioEnv(markets[1], **OPTIONS, universe=universe))
    score = evaluate_policy(policy_for(agent, other), other, 2)
    assert np.isfinite(score).all()
    if algo in ("ppo", "a2c"):
        bind_market(agent, markets[1])
        other.seed(0)
        assert np.isfinite(evaluate_policy(agent, other, 2)).all()
        with pytest.raises(ArgumentError, match="is bound"):
            evaluate_policy(agent, own, 2)
    else:  # its replay buffer holds transitions of the first market
        with pytest.raises(ArgumentError, match="replay buffer"):
            bind_market(agent, markets[1])
        agent.replay_buffer.reset()
        bind_market(agent, markets[1])


def test_callbacks_that_evaluate_on_another_market_stop_the_training(markets: list[Market]) -> None:
    agent = agent_in(markets[0])
    callback = EvalCallback(lanes(markets[1]), eval_freq=4, verbose=0)
    with pytest.raises(ArgumentError, match="is bound"):
        agent.learn(64, callback)
    agent.learn(64, EvalCallback(lanes(markets[0]), eval_freq=4, verbose=0))


@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_an_agent_is_not_trained_on_a_market_it_does_not_hold(
    markets: list[Market], algo: str
) -> None:
    agent = agent_in(markets[0], algo)
    agent.set_env(lanes(markets[1]))
    with pytest.raises(ArgumentError, match="is bound"):
        agent.learn(32)


def test_lanes_of_two_markets_are_not_mixed(markets: list[Market]) -> None:
    agent = agent_in(markets[0])
    mixed = DummyVecEnv([lambda m=market: PortfolioEnv(m, **OPTIONS) for market in markets])
    with pytest.raises(ArgumentError, match="is bound"):
        evaluate_policy(agent, VecMonitor(mixed), 2)


def test_gradients_are_not_taken_from_another_market_either(markets: list[Market]) -> None:
    agent = agent_in(markets[0])
    tensors, _ = agent.policy.obs_to_tensor(lanes(markets[1]).reset())
    actions = th.zeros(2, 5)
    with pytest.raises(ArgumentError, match="is bound"):
        agent.policy.evaluate_actions(tensors, actions)


def test_a_direct_agent_reads_the_market_it_is_bound_to(markets: list[Market]) -> None:
    agent = DirectAgent(markets[0].n_features, window=4)
    agent.bind(markets[0])
    envs = [PortfolioEnv(market, **OPTIONS) for market in markets]
    backtest(agent, envs[0])
    for ask in (agent.predict, lambda o: agent.predict({k: v[None] for k, v in o.items()})):
        with pytest.raises(ArgumentError, match=r"agent\.bind\(market\)"):
            ask(envs[1].reset(seed=0)[0])
    agent.bind(markets[1])
    backtest(agent, envs[1])


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_that_reads_prices_reads_those_of_its_market(
    markets: list[Market], name: str
) -> None:
    options = OPTIONS | {"action": "weights", "start": 100}
    model: Any = make_baseline(name, markets[0])
    if isinstance(model, PortfolioModel | Ensemble):
        with pytest.raises(ArgumentError, match=r"build the model on the market of its env"):
            backtest(model, PortfolioEnv(markets[1], **options))
    else:  # it reads the observation alone
        assert len(backtest(model, PortfolioEnv(markets[1], **options)).values) == 21


def test_an_ensemble_reads_its_market(markets: list[Market]) -> None:
    options = OPTIONS | {"action": "weights"}
    ensemble = Ensemble(markets[0], members=["equal_weight", "buy_and_hold"])
    backtest(ensemble, PortfolioEnv(markets[0], **options))
    with pytest.raises(ArgumentError, match="build the model on the market"):
        backtest(ensemble, PortfolioEnv(markets[1], **options))


def test_a_baseline_follows_a_market_that_went_on_when_it_is_built_on_it(
    markets: list[Market],
) -> None:
    """What was decided at the old bars stays; the new ones need the market that has them."""
    old, new = markets[0].past(150), markets[0]
    options = OPTIONS | {"action": "weights", "start": 130, "end": 151}
    first = backtest(make_baseline("hrp", old), PortfolioEnv(old, **options))
    second = backtest(make_baseline("hrp", new), PortfolioEnv(new, **options))
    assert np.array_equal(first.held, second.held)
    with pytest.raises(ArgumentError, match=r"151 bars.*200 bars|200 bars.*151 bars"):
        backtest(make_baseline("hrp", old), PortfolioEnv(new, **options))


def test_the_replay_buffer_knows_its_market_and_stores_it_once(markets: list[Market]) -> None:
    venvs = [lanes(market) for market in markets]
    buffer = IndexReplayBuffer(40, venvs[0].observation_space, venvs[0].action_space, "cpu", 2)
    assert "market" not in buffer.columns
    buffer.bind(markets[0])
    seen = [venv.reset() for venv in venvs]
    rest = (np.zeros((2, 5)), np.zeros(2), np.zeros(2, bool), [{}, {}])
    buffer.add(seen[0], seen[0], *rest)
    with pytest.raises(ArgumentError, match="is bound"):
        buffer.add(seen[1], seen[1], *rest)
    sample = buffer.sample(8)
    for part in (sample.observations, sample.next_observations):
        assert part["market"].tolist() == [[markets[0].fingerprint]] * 8
        assert part.keys() == venvs[0].observation_space.spaces.keys()
    with pytest.raises(ArgumentError, match="holds transitions"):
        buffer.bind(markets[1])
    buffer.bind(markets[0])
    buffer.reset()
    buffer.bind(markets[1])
    buffer.add(seen[1], seen[1], *rest)


def test_the_replay_buffer_remembers_its_market_unbound(markets: list[Market]) -> None:
    spaces = (lanes(markets[0]).observation_space, lanes(markets[0]).action_space)
    seen = [lanes(market).reset() for market in markets]
    rest = (np.zeros((2, 5)), np.zeros(2), np.zeros(2, bool), [{}, {}])

    def filled(which: int, market: Market | None = None) -> IndexReplayBuffer:
        buffer = IndexReplayBuffer(40, *spaces, "cpu", 2)
        if market is not None:
            buffer.bind(market)
        buffer.add(seen[which], seen[which], *rest)
        return buffer

    for bound in (None, markets[0]):
        for first, second in ((0, 1), (1, 0), (1, 1)):
            buffer = filled(0, bound)
            with pytest.raises(ArgumentError, match=f"market {markets[1].fingerprint} "):
                buffer.add(seen[first], seen[second], *rest)
            assert buffer.size() == 1
        stripped = {key: part for key, part in seen[0].items() if key != "market"}
        for pair in ((seen[0], stripped), (stripped, seen[0])):
            with pytest.raises(ArgumentError, match="lacks 'market'"):
                filled(0, bound).add(*pair, *rest)
    buffer = filled(0)
    with pytest.raises(ArgumentError, match="holds transitions"):
        buffer.bind(markets[1])
    buffer.bind(markets[0])
    assert set(buffer.sample(4).observations["market"].flatten().tolist()) == {
        markets[0].fingerprint
    }
    scaled = seen[0] | {"market": np.full((2, 1), np.float32(0.25))}
    empty = IndexReplayBuffer(40, *spaces, "cpu", 2)
    with pytest.raises(ArgumentError, match="scaled or cast"):
        empty.add(scaled, scaled, *rest)


def test_a_replay_buffer_is_restored_on_its_own_market_only(markets: list[Market]) -> None:
    agents = [agent_in(market, "sac").learn(16) for market in markets]
    state = buffer_state(agents[0].replay_buffer)
    assert state["market"] == markets[0].fingerprint
    with pytest.raises(ArgumentError, match="is bound"):
        restore_buffer(agents[1].replay_buffer, state)
    restore_buffer(agents[0].replay_buffer, state)
    venv = lanes(markets[0])
    unbound = IndexReplayBuffer(200, venv.observation_space, venv.action_space, "cpu", 2)
    restore_buffer(unbound, state)
    with pytest.raises(ArgumentError, match="holds transitions"):
        unbound.bind(markets[1])
    older = {name: part for name, part in state.items() if name != "market"}
    restore_buffer(agents[0].replay_buffer, older)
    assert agents[0].replay_buffer.fingerprint == markets[0].fingerprint


@pytest.mark.parametrize(
    "algo", ["ppo", "a2c", "sac", "td3", "ddpg", "tqc", "direct", "hrp", "mix"]
)
def test_an_observation_that_does_not_say_its_market_is_not_acted_on(
    markets: list[Market], algo: str
) -> None:
    observation = lanes(markets[0]).reset()
    if algo == "direct":
        agent: Any = DirectAgent(markets[0].n_features, window=4)
        agent.bind(markets[0])
    elif algo == "mix":
        agent = Ensemble(markets[0], members=("hrp", "cash"))
    elif algo == "hrp":
        agent = make_baseline("hrp", markets[0])
    else:
        agent = agent_in(markets[0], algo)
    agent.predict(observation)
    for batch in (observation, {name: part[0] for name, part in observation.items()}):
        del batch["market"]
        with pytest.raises(ArgumentError, match=r"lacks 'market', the fingerprint.*any market"):
            agent.predict(batch)


@pytest.mark.parametrize("mode", ["index", "window"])
@pytest.mark.parametrize("algo", ["ppo", "sac", "direct"])
def test_an_observation_that_lacks_a_part_is_refused_by_its_name(
    markets: list[Market], algo: str, mode: str
) -> None:
    observation = lanes(markets[0], observation=mode).reset()
    if algo == "direct":
        agent: Any = DirectAgent(markets[0].n_features, window=4)
        agent.bind(markets[0])
    else:
        agent = agent_in(markets[0], algo, observation=mode)
    for name in observation:
        if name == "t" and algo == "direct":
            continue  # what is left could be a window
        rest = {key: part for key, part in observation.items() if key != name}
        with pytest.raises(ArgumentError, match=f"lacks '{name}'"):
            agent.predict(rest)


@pytest.mark.parametrize("change", ["normalised", "clipped", "float16", "nan", "bfloat16"])
def test_an_observation_that_was_scaled_or_cast_is_told_from_one_of_another_market(
    markets: list[Market], change: str
) -> None:
    agent, venv = agent_in(markets[0]), lanes(markets[0])
    observation = venv.reset()
    if change == "normalised":
        scaling = VecNormalize(venv)
        scaling.reset()
        observation = scaling.step(np.zeros((2, 5), np.float32))[0]
    elif change == "float16":
        with np.errstate(over="ignore"):
            observation["market"] = observation["market"].astype(np.float16)
    elif change == "bfloat16":
        with pytest.raises(ArgumentError, match=r"as torch\.bfloat16 it cannot hold"):
            check_fingerprints(th.zeros(2, 1, dtype=th.bfloat16), markets[0].fingerprint, "")
        return
    else:
        value = {"clipped": -10.0, "nan": np.nan}[change]
        observation["market"] = np.full((2, 1), value, np.float32)
    holders = [agent.predict, lambda o: make_baseline("hrp", markets[0]).predict(o)]
    for ask in holders:
        with pytest.raises(ArgumentError, match=r"scaled or cast.*norm_obs_keys=\[\"weights\"\]"):
            ask(observation)


def test_weights_alone_may_be_normalised(markets: list[Market]) -> None:
    with pytest.raises(ArgumentError, match="scaled or cast"):
        make_agent("ppo", VecNormalize(lanes(markets[0])), window=4, device="cpu").learn(8)
    venv = VecNormalize(lanes(markets[0]), norm_obs_keys=["weights"])
    make_agent("ppo", venv, window=4, device="cpu", **SMALL["ppo"]).learn(16)


def test_index_observations_are_not_flattened(markets: list[Market]) -> None:
    env = PortfolioEnv(markets[0], **OPTIONS)
    observation, _ = env.reset(seed=0)
    attempts = (
        lambda: FlattenObservation(env),
        lambda: gym.spaces.flatten_space(env.observation_space),
        lambda: gym.spaces.flatten(env.observation_space, observation),
        lambda: PPO("MultiInputPolicy", lanes(markets[0]), device="cpu"),
        lambda: make_agent("ppo", lanes(markets[0]), policy="flat_mlp"),
        lambda: PPO("MultiInputPolicy", FrameStackObservation(env, 2), device="cpu"),
        lambda: FlattenObservation(FrameStackObservation(env, 2)),
        lambda: gym.spaces.flatten_space(
            PortfolioVectorEnv(3, markets[0], **OPTIONS).observation_space
        ),
        lambda: gym.spaces.flatdim(differing(markets).observation_space),
    )
    for attempt in attempts:
        with pytest.raises(ArgumentError, match=r"index observation.*memorise dates"):
            attempt()
    PPO("MultiInputPolicy", lanes(markets[0], observation="window"), device="cpu")


def differing(markets: list[Market]) -> gym.vector.SyncVectorEnv:
    """Lanes whose spaces differ, which Gymnasium batches by a function of its own."""
    makers = [lambda m=market: PortfolioEnv(m, **OPTIONS) for market in markets]
    return gym.vector.SyncVectorEnv(makers, observation_mode="different")


def test_batches_of_fingerprints_are_those_of_boxes(markets: list[Market]) -> None:
    venv = differing(markets)
    observation, _ = venv.reset(seed=0)
    assert observation["market"].tolist() == [[market.fingerprint] for market in markets]
    space = venv.observation_space["market"]
    assert isinstance(space, FingerprintSpace) and space.contains(observation["market"])
    assert pickle.loads(pickle.dumps(space)) == space
    box, own = gym.spaces.Box(0, LIMIT - 1, (1,), np.int64, seed=3), FingerprintSpace(seed=3)
    batches = [gym.vector.utils.batch_space(each, 5) for each in (box, own)]
    assert batches[0] == batches[1]
    assert np.array_equal(*(batch.sample() for batch in batches))


def test_the_space_of_fingerprints_is_a_space_like_others(markets: list[Market]) -> None:
    space = PortfolioEnv(markets[0], **OPTIONS).observation_space["market"]
    copy = pickle.loads(pickle.dumps(space))
    assert copy == space
    assert space.contains(space.sample())
    assert copy.contains(np.array([markets[0].fingerprint]))
    assert space == gym.spaces.Box(0, LIMIT - 1, (1,), np.int64)
