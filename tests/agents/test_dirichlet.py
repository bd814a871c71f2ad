"""The Dirichlet policy: its densities, its weights, and what it must not do to a ratio of PPO."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln

from agents import make_agent, make_sb3_vec_env
from agents.policies import DirichletDistribution, PerAssetDirichletPolicy
from agents.policies.dirichlet import EPSILON, onto_simplex
from portfolio_env import Market, load_market
from portfolio_env.errors import ArgumentError

ASSETS, FEATURES = 4, 3
CONCENTRATIONS = st.lists(st.floats(0.1, 50), min_size=2, max_size=12)


@pytest.fixture(scope="module")
def small() -> Market:
    return load_market("synthetic?bars=80&assets=4", fit_end=60)


def build(n: int = ASSETS, low: float = 0.0, **options: Any) -> PerAssetDirichletPolicy:
    market = spaces.Box(-10, 10, (1, n, FEATURES), np.float32)
    tradable, weights = spaces.Box(0, 1, (n,), np.int8), spaces.Box(0, 1, (n + 1,), np.float32)
    return PerAssetDirichletPolicy(
        spaces.Dict(market=market, tradable=tradable, weights=weights),
        spaces.Box(low, 1, (n + 1,), np.float32),
        lambda _: 1e-3,
        features_extractor_kwargs={"n_features": FEATURES},
        **options,
    )


def observation(n: int = ASSETS, lanes: int = 6, seed: int = 0) -> dict[str, th.Tensor]:
    rng = np.random.default_rng(seed)
    values = {
        "market": rng.standard_normal((lanes, 1, n, FEATURES)),
        "tradable": rng.integers(0, 2, (lanes, n)),
        "weights": rng.dirichlet(np.ones(n + 1), lanes),
    }
    return {name: th.tensor(value, dtype=th.float32) for name, value in values.items()}


def scramble(policy: Any, size: float = 0.5) -> Any:
    with th.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(size * th.randn_like(parameter))
    return policy


@given(concentration=CONCENTRATIONS, seed=st.integers(0, 2**16))
@examples(50)
def test_density_entropy_and_mean_are_those_of_scipy(concentration: list[float], seed: int) -> None:
    alpha = np.array(concentration)
    inside = np.random.default_rng(seed).dirichlet(np.ones(len(alpha))) + 1e-3
    inside /= inside.sum()
    ours = DirichletDistribution().proba_distribution(th.tensor(alpha)[None])
    law = stats.dirichlet(alpha)
    assert ours.log_prob(th.tensor(inside)[None]).item() == pytest.approx(law.logpdf(inside))
    assert ours.entropy().item() == pytest.approx(law.entropy(), abs=1e-8)
    assert ours.mode()[0].numpy() == pytest.approx(law.mean())
    assert ours.actions_from_params(th.tensor(alpha)[None], deterministic=True)[
        0
    ].numpy() == pytest.approx(law.mean())


def test_entropy_is_largest_for_the_uniform() -> None:
    uniform = DirichletDistribution().proba_distribution(th.ones(1, 6))
    assert uniform.entropy().item() == pytest.approx(-gammaln(6), abs=1e-5)


def test_draws_have_the_moments_of_the_law() -> None:
    alpha = np.array([0.5, 2.0, 1.0, 4.0])
    ours = DirichletDistribution().proba_distribution(th.tensor(alpha).expand(40_000, 4))
    draws = ours.sample().numpy()
    np.testing.assert_allclose(draws.mean(axis=0), stats.dirichlet(alpha).mean(), atol=0.01)
    np.testing.assert_allclose(draws.var(axis=0), stats.dirichlet(alpha).var(), atol=0.003)


@given(seed=st.integers(0, 2**16), slots=st.integers(2, 300), level=st.sampled_from([0.02, 1, 40]))
@examples(40)
def test_draws_are_weights_whose_density_survives_the_buffer(
    seed: int, slots: int, level: float
) -> None:
    """The density of an action read back is the one it was drawn with, to the last bit."""
    th.manual_seed(seed)
    ours = DirichletDistribution()
    actions, density = ours.log_prob_from_params(level * (0.1 + th.rand(5, slots)))
    assert actions.min() > 0.99 * EPSILON
    th.testing.assert_close(actions.sum(1), th.ones(5), rtol=0, atol=1e-6)
    assert th.isfinite(density).all()
    stored = th.tensor(actions.numpy().astype(np.float32))
    assert th.equal(ours.log_prob(stored), density)


def test_corners_have_finite_densities_and_gradients() -> None:
    concentration = th.tensor([[0.1, 3.0, 0.2]], requires_grad=True)
    ours = DirichletDistribution().proba_distribution(concentration)
    density = ours.log_prob(th.tensor([[0.0, 1.0, 0.0]]))
    density.sum().backward()
    assert th.isfinite(density).all()
    assert concentration.grad is not None and th.isfinite(concentration.grad).all()
    projected = onto_simplex(th.tensor([0.0, 1.0, 0.0]))
    assert projected.min().item() == pytest.approx(EPSILON, rel=1e-4)


@pytest.mark.parametrize("start", [0.4, 1.0, 7.0])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_concentrations_start_where_asked_and_stay_above_the_floor(
    start: float, scale: float
) -> None:
    policy = build(concentration_init=start, floor=0.3, scale=scale)
    initial = policy.get_distribution(observation()).distribution.concentration
    assert initial.shape == (6, ASSETS + 1)
    th.testing.assert_close(initial, th.full_like(initial, start), rtol=0.1, atol=0.1)
    th.testing.assert_close(initial[:, 0], th.full((6,), start))
    with th.no_grad():
        policy.action_net.cash.fill_(-1e3)
        policy.action_net.asset.bias.fill_(-1e3)
    least = policy.get_distribution(observation()).distribution.concentration
    th.testing.assert_close(least, th.full_like(least, 0.3))


def test_cash_has_a_concentration_of_its_own_that_learns() -> None:
    policy = scramble(build())
    before = policy.get_distribution(observation()).distribution.concentration
    with th.no_grad():
        policy.action_net.cash.add_(1.0)
    after = policy.get_distribution(observation()).distribution.concentration
    assert th.equal(before[:, 1:], after[:, 1:])
    assert (after[:, 0] > before[:, 0]).all()
    weights = onto_simplex(th.rand(6, ASSETS + 1))
    policy.evaluate_actions(observation(), weights)[1].sum().backward()
    assert policy.action_net.cash.grad.abs().item() > 0
    assert not hasattr(policy, "log_std")


def test_forward_and_evaluation_agree_on_densities() -> None:
    policy = scramble(build())
    with th.no_grad():
        actions, values, density = policy(observation())
        again = policy.evaluate_actions(observation(), actions)
    assert th.equal(values, again[0]) and th.equal(density, again[1])
    entropy = policy.get_distribution(observation()).entropy()
    assert entropy is not None and th.equal(entropy, again[2])


def test_saving_and_loading_keeps_every_option(tmp_path: Any) -> None:
    policy = scramble(build(concentration_init=2.0, floor=0.4, scale=3.0, optimizer_kwargs={}))
    policy.save(tmp_path / "policy.pt")
    loaded = PerAssetDirichletPolicy.load(tmp_path / "policy.pt", device="cpu")
    assert (loaded.concentration_init, loaded.floor, loaded.scale) == (2.0, 0.4, 3.0)
    first, second = (p.get_distribution(observation()).distribution for p in (policy, loaded))
    assert th.equal(first.concentration, second.concentration)


def test_the_account_holds_the_weights_that_were_named(small: Market) -> None:
    venv = make_sb3_vec_env(
        small,
        4,
        seed=0,
        observation="index",
        window=1,
        action="weights",
        costs={"commission_bps": 0.0},
    )
    agent = make_agent("ppo", venv, policy="dirichlet", device="cpu", seed=0)
    scramble(agent.policy)
    action, _ = agent.predict(venv.reset())
    assert np.ptp(action, axis=0).max() > 0  # drawn, and different in every lane
    venv.step(action)
    held = venv.get_attr("simulator")[0].held
    np.testing.assert_allclose(held, action, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": -1.0}, 'action="weights"'),
        ({"floor": 0.0}, "0 < floor"),
        ({"floor": 2.0}, "0 < floor"),
        ({"concentration_init": np.inf}, "0 < floor"),
        ({"scale": 0.0}, "scale > 0"),
        ({"log_std_init": 0.0}, "log_std_init"),
        ({"use_sde": True}, "use_sde"),
    ],
)
def test_errors_name_the_mend(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build(**options)
