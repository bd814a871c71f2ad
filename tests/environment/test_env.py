"""PortfolioEnv as a Gymnasium environment: checkers, spaces, timing, options, errors."""

import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from portfolio_env import ArgumentError, PortfolioEnv, rendering
from portfolio_env.market import fingerprints
from portfolio_env.market.fingerprints import find_market
from portfolio_env.simulation.dynamics import LEDGER

MARKET = "synthetic?seed=3&bars=300&assets=5"
RAGGED = "synthetic?seed=1&bars=300&assets=4&ragged=true"
OBSERVATIONS = ("window", "flat", "index")
VARIANTS = {
    "default": {},
    "sampled": {"universe": 3, "random_start": True, "episode_length": 30},
    "next_open": {"execution": "next_open", "adjustment": 0.3},
    "constrained": {"constraints": {"max_weight": 0.4, "max_turnover": 0.2, "top_k": 4}},
    "costly": {"costs": {"commission_bps": [1, 2, 3, 4, 5], "impact": 0.5, "fixed_fee": 1.0}},
    "stateful_reward": {"reward": "differential_sharpe"},
    "ragged": {"market": RAGGED},
}
# What SB3 finds worth saying, and why it is meant so: a window is (W, N, F), which SB3 takes for a
# picture;
# weights are in [0, 1], which suits baselines and simplex policies.
SB3_REMARKS = {
    "window": (
        "minimal resolution for an image",
        "Treating image space as channels-last",
        "is an image but",
    ),
    "weights": ("We recommend you to use a symmetric and normalized Box action space",),
}


def make(**options):
    return gym.make("portfolio_env:Portfolio-v0", **{"market": MARKET, "window": 8, **options})


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("action", ["logits", "weights"])
def test_both_checkers_pass(variant, observation, action):
    from stable_baselines3.common.env_checker import check_env as check_env_sb3

    env = make(observation=observation, action=action, **VARIANTS[variant]).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env, skip_render_check=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env_sb3(env)
    allowed = SB3_REMARKS.get(observation, ()) + SB3_REMARKS.get(action, ())
    remarks = [str(warning.message) for warning in caught]
    assert [r for r in remarks if not any(part in r for part in allowed)] == []


def test_checker_passes_on_short_and_levered_accounts():
    constraints = {"long_only": False, "max_leverage": 2.0, "max_weight": 1.0}
    with pytest.warns(UserWarning, match="symmetric and normalized"):  # weights are what they are
        env = make(action="weights", constraints=constraints).unwrapped
        check_env(env, skip_render_check=True)


def test_checker_passes_on_every_render_mode(monkeypatch):
    monkeypatch.setattr(rendering, "_opened_window", lambda: None)  # wherever this runs
    with pytest.warns(UserWarning, match="matplotlib window"):
        check_env(make(render_mode="ansi").unwrapped)


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_seed_same_rollout(variant):
    runs = []
    for _ in range(2):
        env = make(observation="flat", **VARIANTS[variant])
        observation, info = env.reset(seed=7)
        env.action_space.seed(7)
        rows = [observation]
        for _ in range(60):
            observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
            rows += [observation, reward, terminated, truncated, *info.values()]
            if terminated or truncated:
                rows.append(env.reset()[0])
        runs.append(rows)
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))


def test_registered_id_is_json_and_pickle_safe():
    env = make(costs={"commission_bps": 5}, reward={"name": "excess_log_return", "scale": 100})
    spec = EnvSpec.from_json(env.spec.to_json())
    assert json.loads(env.spec.to_json())["kwargs"]["market"] == MARKET
    copies = [gym.make(spec), pickle.loads(pickle.dumps(env))]
    for copy in copies:
        first, second = env.reset(seed=5)[0], copy.reset(seed=5)[0]
        assert all(np.array_equal(first[name], second[name]) for name in first)
        action = np.linspace(-1, 1, 6, dtype=np.float32)
        assert env.step(action)[1] == copy.step(action)[1]


def test_a_pickled_environment_continues_where_it_was():
    env = PortfolioEnv(MARKET, window=5, universe=3, random_start=True)
    env.reset(seed=1)
    env.step(np.zeros(4))
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(5):
        a, b = env.step(np.ones(4)), copy.step(np.ones(4))
        assert a[1:] == b[1:]


def test_a_pickled_environment_carries_its_market_once_and_is_found_by_it():
    env = PortfolioEnv(MARKET, observation="index")
    before = len(pickle.dumps(env))
    observation, _ = env.reset(seed=1)
    assert len(pickle.dumps(env)) < before + 2000
    text = pickle.dumps(env)
    swapped = pickle.loads(text)
    swapped.step(np.zeros(6))
    fingerprints._observed.discard(env.market)  # as in the process that a copy is sent to
    assert find_market(observation["market"]) is swapped.market


def test_flat_is_the_flattened_window():
    window, flat = make(observation="window"), make(observation="flat")
    assert gym.spaces.flatten_space(window.observation_space) == flat.observation_space
    a, _ = window.reset(seed=0)
    b, _ = flat.reset(seed=0)
    for _ in range(5):
        assert np.array_equal(gym.spaces.flatten(window.observation_space, a), b)
        action = window.action_space.sample()
        a, b = window.step(action)[0], flat.step(action)[0]


def test_index_points_at_the_bars_of_the_window():
    options = {"universe": 3, "random_start": True, "episode_length": 20}
    window, index = make(observation="window", **options), make(observation="index", **options)
    for seed in range(5):
        a, b = window.reset(seed=seed)[0], index.reset(seed=seed)[0]
        market = index.unwrapped.simulator.market
        t = int(b["t"][0])
        assert np.array_equal(a["market"], market.features[t - 7 : t + 1][:, b["assets"]])
        assert np.array_equal(a["tradable"], market.tradable[t, b["assets"]])


def test_observed_weights_are_the_drifted_ones():
    env = make(observation="index", action="weights", costs={"commission_bps": 0})
    env.reset(seed=0)
    target = np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.0])
    observation = env.step(target)[0]
    market, t = env.unwrapped.simulator.market, int(observation["t"][0])
    grown = target * np.r_[1, market.close[t] / market.close[t - 1]]
    assert observation["weights"] == pytest.approx((grown / grown.sum()).astype(np.float32))


def test_observations_are_fresh_memory():
    for observation in OBSERVATIONS:
        env = make(observation=observation).unwrapped
        first, _ = env.reset(seed=0)
        second = env.step(np.zeros(6))[0]
        arrays = [
            row
            for obs in (first, second)
            for row in (obs.values() if isinstance(obs, dict) else [obs])
        ]
        inside = [env.simulator.market.features, *env.simulator.lanes]
        for i, array in enumerate(arrays):
            others = arrays[:i] + inside
            assert not any(np.shares_memory(array, other) for other in others)


# ---- actions


@pytest.mark.parametrize("n", [30, 100])
def test_one_asset_alone_is_reachable(n):
    market = f"synthetic?seed=0&bars=60&assets={n}"
    env = PortfolioEnv(market, window=1)
    env.reset(seed=0)
    scores = np.full(n + 1, -1.0)
    scores[7] = 1.0
    env.step(scores)
    assert env.simulator.held[0, 7] == pytest.approx(1 / (1 + n * np.exp(-10)), abs=1e-12)
    assert env.simulator.held[0, 7] > 0.99
    wide = PortfolioEnv(market, window=1, logits_scale=20.0)
    wide.reset(seed=0)
    wide.step(scores)
    assert wide.simulator.held[0, 7] > 1 - 1e-14
    exact = PortfolioEnv(market, window=1, action="weights")
    exact.reset(seed=0)
    exact.step(np.eye(n + 1)[7])
    assert exact.simulator.held[0, 7] == 1.0


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6))
@examples(60)
def test_any_finite_action_is_accepted(action):
    for kind in ("logits", "weights"):
        env = PortfolioEnv(pe.load_market(MARKET), window=1, action=kind)
        env.reset(seed=0)
        observation, reward, terminated, _, _ = env.step(np.array(action))
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
        assert not terminated
        assert env.simulator.held[0].min() >= 0
        assert env.simulator.held[0].sum() == pytest.approx(1, abs=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(-0.3, 0.3))
def test_softmax_ignores_a_common_shift_and_the_order_of_assets(seed, shift):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(-0.7, 0.7, 6)
    env = PortfolioEnv(pe.load_market(MARKET), window=1)

    def held(action):
        env.reset(seed=0)
        env.step(action)
        return env.simulator.held[0].copy()

    assert held(scores + shift) == pytest.approx(held(scores), abs=1e-14)
    exact = np.exp(5 * scores) / np.exp(5 * scores).sum()
    assert held(scores) == pytest.approx(exact, abs=1e-15)


def test_targets_keep_their_precision():
    env = PortfolioEnv(MARKET, window=1, action="weights")
    target = np.array([0.1, 0.2, 0.3, 0.15, 0.15, 0.1]) + 1e-12 * np.array([1, -1, 1, -1, 0, 0])
    env.reset(seed=0)
    env.step(target)
    assert env.simulator.held[0] == pytest.approx(target, abs=1e-16)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((1, 6)), "shape"),
        (np.full(6, np.nan), "not finite"),
        (np.array(list("abcdef")), "type"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(action, message):
    env = PortfolioEnv(MARKET, window=1)
    env.reset(seed=0)
    before = [array.copy() for array in env.simulator.lanes]
    with pytest.raises(ArgumentError, match=message):
        env.step(action)
    state = zip(before, env.simulator.lanes, strict=True)
    assert all(np.array_equal(a, b) for a, b in list(state)[:7])


# ---- reset options, info, rendering


def test_reset_options():
    env = PortfolioEnv(MARKET, window=5, observation="index")
    weights = [0.5, 0.5, 0, 0, 0, 0]
    observation, info = env.reset(options={"t": 77, "weights": weights})
    assert observation["t"][0] == 77
    assert observation["weights"].tolist() == weights
    assert info["cash"] == 0.5
    date = str(env.simulator.market.timestamps[90].astype("datetime64[D]"))
    assert env.reset(options={"t": date})[0]["t"][0] == 90
    for options, message in [
        ({"t": 3}, "options\\['t'\\]=3"),
        ({"t": 299}, "must be a row"),
        ({"t": 80.5}, "must be a row"),
        ({"weights": [1, 0]}, "shape"),
        ({"weights": [0.5, 0, 0, 0, 0, 0]}, "sum to 1"),
        ({"weights": [2, -1, 0, 0, 0, 0]}, "short position"),
        ({"start": 3}, "unknown reset options"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            env.reset(options=options)


def test_an_account_cannot_start_with_an_asset_that_is_not_listed():
    market = pe.load_market(RAGGED)
    late = int(np.flatnonzero(~np.isfinite(market.close[market.warmup]))[0])
    weights = np.eye(5)[late + 1]
    env = PortfolioEnv(market, window=1)
    with pytest.raises(ArgumentError, match="not listed"):
        env.reset(options={"weights": weights})
    even = PortfolioEnv(market, window=1, initial="equal_weight")
    observation, _ = even.reset()
    assert (observation["weights"][1:] > 0).tolist() == market.tradable[market.warmup].tolist()


def test_info_has_the_same_scalar_keys_at_every_step():
    env = make()
    _, info = env.reset(seed=0)
    assert tuple(info) == LEDGER
    for _ in range(3):
        info = env.step(env.action_space.sample())[4]
        assert tuple(info) == LEDGER
        assert all(type(value) is float for value in info.values())


def test_rendering():
    text = make(render_mode="ansi")
    text.reset(seed=0)
    text.step(np.zeros(6, np.float32))
    assert "cash" in text.render().lower()
    picture = make(render_mode="rgb_array")
    picture.reset(seed=0)
    picture.step(np.zeros(6, np.float32))
    frame = picture.render()
    assert frame.dtype == np.uint8
    assert frame.shape[-1] == 3
    assert frame.std() > 0
    with pytest.raises(ArgumentError, match="render_mode"):
        PortfolioEnv(MARKET, render_mode="human_readable")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"market": 3}, "must be a Market"),
        ({"market": pd.DataFrame({"A": [1.0, 2.0]})}, "DataFrame must be .*; load_market makes a "),
        ({"window": 0}, "window"),
        ({"window": 2.5}, "window"),
        ({"observation": "image"}, "observation"),
        ({"action": "softmax"}, "action"),
        ({"reward": "sharpe"}, "unknown reward"),
        ({"reward": {"scale": 3}}, "has no 'name'; it is one of log_return"),
        ({"reward": {"name": "excess_log_return", "scal": 3}}, "parameter 'scal'; did you mean"),
        ({"obs": "flat"}, "no keyword 'obs'; the mode is observation"),
        ({"features": "full"}, "belongs to the market: market=load_market"),
        ({"costs": {"fee": 1}}, "no field 'fee'"),
        ({"costs": 0.001}, "must be a TransactionCosts"),
        ({"constraints": {"max_weight": 0.1, "max_cash": 0.2}}, "cannot reach 1"),
        ({"execution": "open"}, "execution"),
        ({"start": 3}, "move start or shorten window"),
        ({"start": 299}, "leave no step.*: move start or end, or shorten window"),
        ({"end": 20}, "leave no step"),
        ({"episode_length": 0}, "episode_length"),
        ({"episode_length": 1000}, "exceeds the"),
        ({"universe": 0}, "universe"),
        ({"universe": 6}, "universe"),
        ({"universe": 4, "market": RAGGED}, "listed throughout"),
        ({"adjustment": 0}, "adjustment"),
        ({"adjustment": 1.5}, "adjustment"),
        ({"initial": "invested"}, "initial"),
        ({"initial": [1, 0]}, "initial"),
        ({"initial_value": -5}, "initial_value"),
        ({"logits_scale": 0}, "logits_scale"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        PortfolioEnv(**{"market": MARKET, "window": 8, **options})


def test_next_open_needs_opening_prices():
    rng = np.random.default_rng(0)
    close = np.exp(rng.normal(0, 0.01, (40, 2)).cumsum(0))
    dates = np.datetime64("2020-01-01", "ns") + np.arange(40) * np.timedelta64(1, "D")
    market = pe.load_market(pe.PricePanel(timestamps=dates, assets=("A", "B"), close=close))
    with pytest.raises(ArgumentError, match="needs opening prices"):
        PortfolioEnv(market, window=1, execution="next_open")


def test_universe_is_drawn_among_assets_listed_throughout():
    market = pe.load_market(RAGGED)
    env = PortfolioEnv(
        market, window=1, universe=2, random_start=True, episode_length=20, observation="index"
    )
    alive = np.isfinite(market.close)
    seen = set()
    for seed in range(60):
        observation, _ = env.reset(seed=seed)
        t = int(observation["t"][0])
        assert len(set(observation["assets"].tolist())) == 2
        assert alive[t, observation["assets"]].all()
        assert alive[t + 20, observation["assets"]].all()
        seen |= set(observation["assets"].tolist())
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda **k: PortfolioEnv(MARKET, **k), "PortfolioEnv has no keyword 'windoww'"),
        (lambda **k: pe.PortfolioVectorEnv(2, MARKET, **k), "PortfolioVectorEnv has no keyword"),
        (lambda **k: gym.make("portfolio_env:Portfolio-v0", **k), "PortfolioEnv has no keyword"),
        (
            lambda **k: gym.make_vec("portfolio_env:Portfolio-v0", num_envs=2, **k),
            "PortfolioVectorEnv has no keyword",
        ),
        (
            lambda **k: gym.make_vec("portfolio_env:Portfolio-v0", 2, "sync", **k),
            "PortfolioEnv has no keyword",
        ),
        (lambda **k: make_sb3(**k), "PortfolioVectorEnv has no keyword"),
    ],
)
def test_unknown_keywords_are_refused_with_the_nearest(build, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        build(windoww=3)
    assert str(caught.value).endswith("did you mean 'window'?")


def make_sb3(**options):
    from agents import make_sb3_vec_env

    return make_sb3_vec_env(MARKET, **options)


def test_hints_name_the_nearest_keyword_field_or_all_of_them():
    cases = {
        r"gym\.make and PortfolioVectorEnv take it; .*episode_length": {"max_episode_steps": 5},
        "'autoreset_mode'; it belongs to PortfolioVectorEnv": {"autoreset_mode": "NextStep"},
        "'num_envs'; lanes are of PortfolioVectorEnv": {"num_envs": 4},
        "costs has no field 1; it has .*commission_bps": {"costs": {1: 5}},
        "did you mean 'commission_bps'": {"costs": {"comission_bps": 5}},
        "constraints has no field 'maximum_weight'; did you mean 'max_weight'": {
            "constraints": {"maximum_weight": 0.5}
        },
        r"no keyword 'xyz'; it has action, adjustment, .*, window\.": {"xyz": 1},
    }
    for message, options in cases.items():
        with pytest.raises(ArgumentError, match=message):
            PortfolioEnv(MARKET, **options)
    with pytest.raises(ArgumentError, match="leave autoreset_mode out"):
        make_sb3(autoreset_mode="Disabled")


def test_a_market_is_opened_by_its_path(tmp_path):
    pd.DataFrame({"A": np.arange(1.0, 101)}, pd.date_range("2020-01-01", periods=100)).to_csv(
        tmp_path / "prices.csv", index_label="date"
    )
    assert PortfolioEnv(tmp_path / "prices.csv", window=5).market.assets == ("A",)
