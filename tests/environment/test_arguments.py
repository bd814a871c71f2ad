"""What both environments tell of themselves: their keywords, the account, a line and a card."""

import inspect

import gymnasium as gym
import numpy as np
import pytest

from portfolio_env import ArgumentError, PortfolioEnv, PortfolioVectorEnv, load_market
from portfolio_env.simulation.simulator import Simulator

MARKET = load_market("synthetic?bars=120&assets=4&seed=1")
SECTIONS = (
    *("Action space", "Observation space", "Rewards", "Starting state", "Episode end"),
    *("Args", "Version history"),
)


@pytest.mark.parametrize("kind", [PortfolioEnv, PortfolioVectorEnv])
def test_the_signature_shows_every_keyword_with_its_default(kind):
    own, there = inspect.signature(kind).parameters, inspect.signature(Simulator).parameters
    assert not [each for each in own.values() if each.kind is each.VAR_KEYWORD]
    for name, each in there.items():
        if each.kind is each.KEYWORD_ONLY:
            assert own[name].default == each.default
            assert f"``{name}``" in PortfolioEnv.__doc__


@pytest.mark.parametrize("kind", [PortfolioEnv, PortfolioVectorEnv])
def test_docstrings_have_the_sections_of_gymnasium(kind):
    lines = [line.strip() for line in kind.__doc__.splitlines()]
    assert all(f"{section}:" in lines for section in SECTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"costs": {"fixed_fee": 1e308}}, r"fixed_fee=1e\+308 must be .* in \[0, 1e\+15\]"),
        (
            {"costs": {"fixed_fee": 1e4}},
            "fixed_fee=10000 of costs must be below initial_value=10000",
        ),
        ({"costs": {"impact": 1e100}}, r"impact=1e\+100 must be .* in \[0, 1000\]"),
        ({"initial_value": 1e16}, r"initial_value=1e\+16 must be"),
        (
            {"constraints": {"max_leverage": 1e16}},
            r"max_leverage=1e\+16 must be .* in \(0, 1e\+06\]",
        ),
        ({"constraints": {"max_weight": 1e100}}, r"max_weight=1e\+100 must be"),
        ({"constraints": {"max_cash": 1e308}}, r"max_cash=1e\+308 must be"),
        ({"constraints": {"min_cash": -1e308}}, r"min_cash=-1e\+308 must be"),
        ({"reward": {"name": "excess_log_return", "scale": 1e308}}, r"scale=1e\+308 must be"),
        ({"reward": {"name": "risk_adjusted", "turnover_penalty": 1e308}}, "turnover_penalty=1e"),
        ({"reward": {"name": "risk_adjusted", "risk_aversion": 1e308}}, "risk_aversion=1e"),
        ({"reward": {"name": "drawdown_penalised", "penalty": 1e308}}, "penalty=1e"),
    ],
)
def test_finite_numbers_that_no_account_can_hold_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        PortfolioEnv(MARKET, window=1, **options)


def test_bars_per_year_beyond_any_clock_are_refused():
    with pytest.raises(ArgumentError, match=r"periods_per_year=1e\+308 must be"):
        load_market("synthetic?bars=120", periods_per_year=1e308)


def test_a_subclass_may_have_keywords_of_its_own():
    class Own(PortfolioEnv):
        def __init__(self, market, *, level=1, **options):
            super().__init__(market, window=level, **options)

    assert "level" in inspect.signature(Own).parameters
    with pytest.raises(ArgumentError, match=r"Own has no keyword 'episode_lenght'; .*episode_len"):
        Own(MARKET, episode_lenght=3)


def test_env_options_build_the_same_again():
    envs = PortfolioVectorEnv(
        3, MARKET, observation="index", window=2, action="weights", initial=[0.2] * 5, start=50
    )
    env = PortfolioEnv(MARKET, **envs.env_options)
    assert env.env_options == envs.env_options
    assert env.reset()[1]["cash"] == envs.reset()[1]["cash"][0] == 0.2
    assert env.action_space == envs.single_action_space
    assert env.observation_space == envs.single_observation_space
    assert PortfolioEnv(MARKET).env_options["logits_scale"] == 5.0  # a default


def test_the_account_is_at_hand_also_behind_wrappers():
    env = gym.make("portfolio_env:Portfolio-v0", market=MARKET, window=3, start=40)
    observation, _ = env.reset(seed=0)
    account = env.unwrapped
    assert account.market is MARKET
    assert account.timestamp == MARKET.timestamps[40]
    observation, *_ = env.step(np.ones(5))
    assert account.timestamp == MARKET.timestamps[41]
    assert observation["weights"] == pytest.approx(account.weights)
    account.weights[:] = 7.0  # a copy
    assert account.weights.sum() == pytest.approx(1.0)


def test_every_lane_is_at_hand():
    envs = PortfolioVectorEnv(3, MARKET, window=3, random_start=True, observation="index")
    observations, _ = envs.reset(seed=0)
    assert envs.market is MARKET
    assert (envs.timestamp == MARKET.timestamps[observations["t"][:, 0]]).all()
    assert envs.weights.shape == (3, 5)


def test_environments_introduce_themselves():
    env = PortfolioEnv(MARKET, window=3, costs={"commission_bps": 3}, initial=[0.2] * 5)
    assert repr(env).startswith("PortfolioEnv(Market(4 assets A00, A01, A02, A03; 120 bars from ")
    assert "observation 'window', window 3, action 'logits'" in repr(env)
    assert "value" not in repr(env)
    env.reset(seed=0)
    assert f"value 10,000.00 at {str(env.timestamp)[:10]}" in repr(env)
    assert str(env) == f"<{env!r}>"  # in brackets, as wrappers of Gymnasium expect
    page = env._repr_html_()
    assert "market (3, 4, 5), tradable (4,), weights (5,)" in page
    assert "window=3" in page and "commission_bps" in page and "logits_scale" not in page
    envs = PortfolioVectorEnv(2, MARKET, observation="flat", autoreset_mode="Disabled")
    assert repr(envs).startswith("PortfolioVectorEnv(2 lanes, Disabled; Market(4 assets")
    assert "flat: (1209,)" in envs._repr_html_()


@pytest.mark.parametrize("make", [PortfolioEnv, lambda *a, **k: PortfolioVectorEnv(2, *a, **k)])
def test_bad_resets_say_what_is_wrong(make):
    env = make(MARKET, window=5, random_start=True, render_mode="ansi")
    with pytest.raises(ArgumentError, match="no episode was started; call reset"):
        env.render()
    for options in ("t", 5, [("t", 50)]):
        with pytest.raises(ArgumentError, match="must be a mapping of reset options"):
            env.reset(options=options)
    for seed in (-1, 1.5, "1", True):
        with pytest.raises(ArgumentError, match=r"seed=.* must be an integer of 0 or more"):
            env.reset(seed=seed)
    env.reset(seed=np.int64(7))  # as generators draw them
    start = env.timestamp
    env.reset(seed=7)
    np.testing.assert_array_equal(start, env.timestamp)


def test_bad_seeds_of_lanes_are_refused_before_any_lane_is_seeded():
    envs = PortfolioVectorEnv(3, MARKET, window=5, random_start=True)
    envs.reset(seed=np.array([4, 5, 6]))
    starts = envs.simulator.t.copy()
    envs.reset(seed=[4, 5, 6])
    np.testing.assert_array_equal(envs.simulator.t, starts)
    before = envs.state()["generators"]
    with pytest.raises(ArgumentError, match="seed=-1 must be"):
        envs.reset(seed=[1, 2, -1])
    assert envs.state()["generators"] == before


def test_a_text_is_no_flag_and_no_name_is_no_market():
    with pytest.raises(ArgumentError, match="random_start='False' must be True or False"):
        PortfolioEnv(MARKET, random_start="False")
    with pytest.raises(ArgumentError, match="unknown market or file ''"):
        PortfolioEnv("")  # as a path it would be the present folder


def test_tensors_that_numpy_cannot_read_are_refused():
    torch = pytest.importorskip("torch")
    env = PortfolioEnv(MARKET, window=5)
    env.reset(seed=0)
    with pytest.raises(ArgumentError, match=r"cannot be read as numbers .*BFloat16"):
        env.step(torch.zeros(5, dtype=torch.bfloat16))
