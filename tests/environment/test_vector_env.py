"""PortfolioVectorEnv: bit-equal to single environments in every autoreset mode."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from portfolio_env import ArgumentError, PortfolioEnv, PortfolioVectorEnv
from portfolio_env.simulation.dynamics import LEDGER

MARKET = "synthetic?seed=3&bars=200&assets=5"
RAGGED = "synthetic?seed=1&bars=300&assets=4&ragged=true"
VARIANTS = {
    "fixed": {"episode_length": 12},
    "random": {"episode_length": 12, "random_start": True},
    "sampled": {"episode_length": 9, "random_start": True, "universe": 3},
    "next_open": {"episode_length": 12, "random_start": True, "execution": "next_open"},
    "ragged": {"market": RAGGED, "episode_length": 40, "random_start": True},
    "constrained": {
        "episode_length": 12,
        "random_start": True,
        "reward": "differential_sharpe",
        "constraints": {"max_weight": 0.4, "max_period_turnover": 0.5, "turnover_period": 4},
        "costs": {"impact": 0.5, "fixed_fee": 1.0, "commission_bps": [1, 2, 3, 4, 5]},
        "adjustment": 0.5,
    },
}
LANES, STEPS = 5, 45


def same(a, b):
    """Whether two observations, infos or arrays are equal bit for bit, types and all."""
    if isinstance(a, dict):
        assert sorted(a) == sorted(b)
        return all(same(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray) and a.dtype == object:
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and np.array_equal(a, b)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("observation", ["window", "flat", "index"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_equals_gymnasiums_vector_of_single_environments(variant, observation, mode):
    options = {"market": MARKET, "window": 4, "observation": observation, **VARIANTS[variant]}
    ours = PortfolioVectorEnv(LANES, **options, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: PortfolioEnv(**options)] * LANES, autoreset_mode=mode)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for a, b in zip(ours.reset(seed=11), theirs.reset(seed=11), strict=True):
        assert same(a, b)
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(STEPS):
        actions = rng.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
        left, right = ours.step(actions), theirs.step(actions)
        for a, b in zip(left, right, strict=True):
            assert same(a, b)
        ended += int((left[2] | left[3]).sum())
    assert ended >= LANES


def test_disabled_autoreset_holds_ended_lanes_until_they_are_reset():
    options = {"market": MARKET, "window": 4, "observation": "index", "random_start": True}
    env = PortfolioVectorEnv(4, **options, episode_length=6, autoreset_mode="Disabled", universe=3)
    singles = [PortfolioEnv(**options, episode_length=6, universe=3) for _ in range(4)]
    env.reset(seed=20)
    for i, single in enumerate(singles):
        single.reset(seed=20 + i)
    rng = np.random.default_rng(1)
    for _ in range(6):
        actions = rng.uniform(-1, 1, (4, 4))
        _, rewards, _, truncated, _ = env.step(actions)
        assert rewards.tolist() == [s.step(a)[1] for s, a in zip(singles, actions, strict=True)]
    assert truncated.all()
    before = env.simulator.ledger.copy()
    with pytest.raises(ArgumentError, match=r"every lane has ended.*reset_mask.*NextStep"):
        env.step(rng.uniform(-1, 1, (4, 4)))
    assert (env.simulator.ledger == before).all()
    mask = np.array([True, False, True, False])
    options = {"reset_mask": mask}
    observation, info = env.reset(options=options)
    assert options == {"reset_mask": mask}  # the caller's dict is left alone
    assert info["_portfolio_value"].tolist() == mask.tolist()
    for i in (0, 2):
        expected, _ = singles[i].reset()
        assert all(np.array_equal(observation[name][i], expected[name]) for name in expected)
    _, rewards, _, truncated, _ = env.step(actions)
    assert truncated.tolist() == [False, True, False, True]
    assert (rewards[[1, 3]] == 0).all()
    assert rewards[0] == singles[0].step(actions[0])[1]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_lanes_that_reset_themselves_never_stand_still(mode):
    env = PortfolioVectorEnv(
        3, MARKET, window=4, observation="index", episode_length=5, autoreset_mode=mode
    )
    t = env.reset(seed=0)[0]["t"]
    for _ in range(40):
        observation, *_ = env.step(env.action_space.sample())
        assert (observation["t"] != t).all()
        t = observation["t"]


def test_the_first_reset_starts_every_lane():
    env = PortfolioVectorEnv(3, MARKET, window=4, autoreset_mode="Disabled")
    with pytest.raises(ArgumentError, match="first reset must start every lane"):
        env.reset(options={"reset_mask": np.array([True, False, True])})
    env.reset(options={"reset_mask": np.ones(3, bool)})
    env.reset(options={"reset_mask": np.array([True, False, True])})


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize("variant", ["random", "sampled", "next_open"])
def test_make_and_make_vec_truncate_after_the_same_number_of_steps(variant, mode):
    options = {"market": MARKET, "window": 4, "observation": "index", **VARIANTS[variant]}
    del options["episode_length"]
    options |= {"max_episode_steps": 7, "end": 60}  # some episodes end with the range before that
    made = [
        gym.make_vec("portfolio_env:Portfolio-v0", LANES, kind, **given, **options)
        for kind, given in (
            ("vector_entry_point", {"autoreset_mode": mode}),
            ("sync", {"vector_kwargs": {"autoreset_mode": AutoresetMode(mode)}}),
        )
    ]
    for a, b in zip(*(env.reset(seed=4) for env in made), strict=True):
        assert same(a, b)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(STEPS):
        actions = rng.uniform(-1, 1, made[0].action_space.shape).astype(np.float32)
        left, right = (env.step(actions) for env in made)
        for a, b in zip(left, right, strict=True):
            assert same(a, b)
        ended += int(left[3].sum())
    assert ended >= LANES * STEPS // 9


def test_a_limit_of_steps_holds_where_lanes_are_reset_one_by_one():
    env = PortfolioVectorEnv(2, MARKET, window=4, autoreset_mode="Disabled", max_episode_steps=3)
    env.reset(seed=0)
    ends = [env.step(env.action_space.sample())[3].tolist() for _ in range(2)]
    env.reset(options={"reset_mask": np.array([False, True])})
    ends += [env.step(env.action_space.sample())[3].tolist() for _ in range(3)]
    assert ends == [[False, False]] * 2 + [[True, False]] * 2 + [[True, True]]
    for steps in (0, -2, 1.5, True):
        with pytest.raises(ArgumentError, match="max_episode_steps"):
            PortfolioVectorEnv(2, MARKET, max_episode_steps=steps)
    PortfolioVectorEnv(2, MARKET, max_episode_steps=-1)  # as gym.make spells "none"


@pytest.mark.parametrize("value", [mode.value for mode in AutoresetMode])
def test_made_by_id_in_every_mode(value):
    env = gym.make_vec(
        "portfolio_env:Portfolio-v0", num_envs=3, market=MARKET, window=4, autoreset_mode=value
    )
    assert isinstance(env.unwrapped, PortfolioVectorEnv)
    assert env.unwrapped.autoreset_mode is AutoresetMode(value)
    assert env.metadata["autoreset_mode"] is AutoresetMode(value)
    env.reset(seed=0)
    observation, *_ = env.step(env.action_space.sample())
    assert env.observation_space.contains(observation)
    env.close()


def test_two_environments_may_differ_in_mode():
    a = PortfolioVectorEnv(2, MARKET, window=4, autoreset_mode="SameStep")
    b = PortfolioVectorEnv(2, MARKET, window=4, autoreset_mode="NextStep")
    assert a.metadata["autoreset_mode"] != b.metadata["autoreset_mode"]


def test_gymnasium_makes_sync_and_async_vectors_of_it():
    for kind in ("sync", "async"):
        env = gym.make_vec(
            "portfolio_env:Portfolio-v0",
            num_envs=2,
            vectorization_mode=kind,
            vector_kwargs={"autoreset_mode": "SameStep"},
            market=MARKET,
            window=4,
            observation="flat",
        )
        env.reset(seed=0)
        assert np.isfinite(env.step(env.action_space.sample())[1]).all()
        env.close()


def test_gymnasiums_vector_wrappers_apply():
    env = gym.wrappers.vector.RecordEpisodeStatistics(
        PortfolioVectorEnv(3, MARKET, window=4, episode_length=5, autoreset_mode="SameStep")
    )
    env.reset(seed=0)
    total = np.zeros(3)
    for _ in range(5):
        _, rewards, _, _, info = env.step(env.action_space.sample())
        total += rewards
    assert info["episode"]["l"].tolist() == [5, 5, 5]
    assert info["episode"]["r"] == pytest.approx(total)


def test_seeds_one_per_lane_and_unseeded_lanes_go_on():
    env = PortfolioVectorEnv(3, MARKET, window=4, random_start=True, observation="index")
    first = env.reset(seed=[5, 6, 7])[0]["t"]
    again = env.reset(seed=[7, 6, 5])[0]["t"]
    assert first[:, 0].tolist() == again[::-1, 0].tolist()
    env.reset(seed=[5, None, None])
    with pytest.raises(ArgumentError, match="one per lane"):
        env.reset(seed=[1, 2])


def test_reset_options_per_lane():
    env = PortfolioVectorEnv(3, MARKET, window=4, observation="index")
    weights = np.eye(6)[[0, 1, 2]]
    observation, _ = env.reset(options={"t": np.array([50, 60, 70]), "weights": weights})
    assert observation["t"][:, 0].tolist() == [50, 60, 70]
    assert (observation["weights"] == weights).all()
    for mask in (np.ones(3), np.zeros(3, bool), [True] * 3, np.ones(2, bool)):
        with pytest.raises(ArgumentError, match="reset_mask"):
            env.reset(options={"reset_mask": mask})


def test_infos_have_masks_and_the_same_keys_at_every_step():
    env = PortfolioVectorEnv(3, MARKET, window=4)
    _, info = env.reset(seed=0)
    keys = {name for key in LEDGER for name in (key, f"_{key}")}
    assert set(info) == keys
    info = env.step(env.action_space.sample())[4]
    assert set(info) == keys
    assert all(info[f"_{key}"].all() and info[key].dtype == np.float64 for key in LEDGER)


def test_returned_arrays_do_not_change_later():
    env = PortfolioVectorEnv(3, MARKET, window=4, observation="index")
    env.reset(seed=0)
    kept = env.step(env.action_space.sample())
    copies = pickle.loads(pickle.dumps(kept))
    for _ in range(3):
        env.step(env.action_space.sample())
    for a, b in zip(kept, copies, strict=True):
        assert same(a, b)


def test_render_gives_one_frame_per_lane():
    env = PortfolioVectorEnv(2, MARKET, window=4, render_mode="ansi")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert len(env.render()) == 2
    assert all(isinstance(frame, str) for frame in env.render())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "^num_envs=0 must be an integer of 1 or more"),
        ({"num_envs": MARKET}, "^num_envs="),
        ({"autoreset_mode": "sometimes"}, "autoreset_mode"),
        ({"render_mode": "video"}, "render_mode"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        PortfolioVectorEnv(**{"num_envs": 2, "market": MARKET, "window": 4, **options})


def test_bad_actions_name_the_lane():
    env = PortfolioVectorEnv(3, MARKET, window=4)
    with pytest.raises(ArgumentError, match="call reset"):
        env.step(np.zeros((3, 6)))
    env.reset(seed=0)
    actions = np.zeros((3, 6))
    actions[2, 1] = np.nan
    with pytest.raises(ArgumentError, match="lane 2"):
        env.step(actions)
    with pytest.raises(ArgumentError, match="shape"):
        env.step(np.zeros((2, 6)))
