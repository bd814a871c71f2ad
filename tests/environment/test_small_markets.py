"""Markets without features, and of a single asset beside cash: environments, agents, baselines."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import portfolio_env as pe
from agents import make_agent, make_sb3_vec_env
from baselines import BASELINES, Baseline, make_baseline
from portfolio_env.evaluation import backtest

LOADED = {
    "one": {"source": "synthetic?assets=1&bars=400", "features": "minimal"},
    "bare": {"source": "synthetic?assets=3&bars=400", "features": "none"},
    "both": {"source": "synthetic?assets=1&bars=400", "features": []},
}
QUICK = sorted(
    name for name, kind in BASELINES.items() if not kind.reads_features and name != "ensemble"
)


@pytest.fixture(scope="module", params=LOADED)
def market(request):
    options = dict(LOADED[request.param])
    return pe.load_market(options.pop("source"), **options)


@pytest.mark.filterwarnings("ignore::UserWarning")  # bounds and modes, which are meant
@pytest.mark.parametrize("observation", ["window", "flat", "index"])
@pytest.mark.parametrize("action", ["logits", "weights"])
def test_both_environments(market, observation, action):
    options = {"observation": observation, "action": action, "window": 4, "random_start": True}
    options |= {"episode_length": 50}
    single = pe.PortfolioEnv(market, **options)
    check_env(single, skip_render_check=True)
    lanes = pe.PortfolioVectorEnv(3, market, **options)
    first, _ = single.reset(seed=5)
    both, _ = lanes.reset(seed=5)
    assert single.observation_space.contains(first)
    assert lanes.observation_space.contains(both)
    rng = np.random.default_rng(0)
    for _ in range(20):
        asked = rng.uniform(0, 1, (3, market.n_assets + 1)).astype(np.float32)
        observed, reward, *_, info = single.step(asked[0])
        seen, rewards, *_, infos = lanes.step(asked)
        assert rewards[0] == reward
        assert infos["portfolio_value"][0] == info["portfolio_value"]
        if observation == "flat":
            np.testing.assert_array_equal(seen[0], observed)
        else:
            assert observed.keys() == seen.keys()
            for name, entry in observed.items():
                np.testing.assert_array_equal(seen[name][0], entry)


def test_what_is_not_there_is_not_observed():
    bare = pe.load_market("synthetic?assets=3&bars=400", features="none")
    assert set(pe.PortfolioEnv(bare, window=4).observation_space) == {"tradable", "weights"}
    flat = pe.PortfolioEnv(bare, window=4, observation="flat")
    assert flat.observation_space.shape == (3 + 4,)


@pytest.mark.parametrize("name", QUICK)
def test_baselines(market, name):
    options = {"lookback": 60} if "lookback" in BASELINES[name]._options() else {}
    if name == "deep_momentum":
        options = {"months": (0.5, 1), "sequence": 5, "hidden": 4, "epochs": 2}
    model = make_baseline(name, market, **options)
    if hasattr(model, "fit"):
        model.fit(market.panel, (0, 250))
    env = pe.PortfolioEnv(
        market, observation="index", action="weights", window=1, start=300, end=330
    )
    held = backtest(model, env).held
    np.testing.assert_allclose(held.sum(axis=1), 1)
    if market.n_assets == 1 and name in ("hrp", "herc", "nested_clusters", "risk_parity"):
        np.testing.assert_allclose(held[:, 1], 1)  # no other is there to spread over


@pytest.mark.parametrize("name", sorted(set(BASELINES) - set(QUICK) - {"ensemble"}))
def test_what_reads_features_says_so(name):
    bare = pe.load_market("synthetic?assets=3&bars=100", features="none")
    with pytest.raises(pe.ArgumentError, match="reads features, and the market has none"):
        make_baseline(name, bare)


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
@pytest.mark.parametrize("observation", ["index", "flat", "window"])
def test_agents(algorithm, observation):
    options = {"window": 1, "random_start": True, "episode_length": 20, "observation": observation}
    bare = pe.load_market("synthetic?assets=3&bars=100", features="none")
    with pytest.raises(pe.ArgumentError, match="has no features"):
        make_agent(algorithm, make_sb3_vec_env(bare, num_envs=2, **options))
    one = pe.load_market("synthetic?assets=1&bars=100")
    venv = make_sb3_vec_env(one, num_envs=2, **options)
    short = {"n_steps": 4, "batch_size": 8} if algorithm == "ppo" else {}
    agent = make_agent(algorithm, venv, **short).learn(8)
    actions, _ = agent.predict(venv.reset(), deterministic=True)
    assert np.shape(actions) == (2, 2)


def test_a_baseline_that_reads_no_features_is_not_asked_for_them():
    assert not Baseline.reads_features
