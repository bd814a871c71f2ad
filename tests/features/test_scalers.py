import json
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from portfolio_env.features.scalers import SCALERS, Scaler

columns = arrays(
    np.float64, st.tuples(st.integers(2, 30), st.just(2)), elements=st.floats(-1e6, 1e6)
)


@given(columns)
def test_standard_and_robust_agree_with_plain_numbers(values):
    pooled = [float(x) for x in values.ravel()]
    mean, spread = fmean(pooled), pstdev(pooled)
    scaler = Scaler.fit("standard", values, per_asset=False)
    np.testing.assert_allclose(scaler.numbers[0, 0], mean, rtol=1e-9, atol=1e-9)
    if spread > 1e-6:
        np.testing.assert_allclose(scaler(values), (values - mean) / spread, rtol=1e-6, atol=1e-6)
    bottom, low, middle, high, top = np.percentile(values, (1, 25, 50, 75, 99))
    robust = Scaler.fit("robust", values, per_asset=False)
    spread = max(high - low, 0.1 * (top - bottom)) or 1.0
    np.testing.assert_allclose(robust.numbers, [[middle, spread]], rtol=1e-12)


def test_robust_scaling_keeps_98_percent_of_any_values_within_ten():
    rng = np.random.default_rng(0)
    mostly_zero = np.where(rng.random((5000, 2)) < 0.4, rng.normal(size=(5000, 2)), 0.0)
    for values in (mostly_zero, rng.standard_cauchy((5000, 2)), rng.normal(size=(5000, 2))):
        scaled = Scaler.fit("robust", values, per_asset=False)(values)
        assert (np.abs(scaled) <= 10).mean() >= 0.98
    np.testing.assert_allclose(np.quantile(scaled, 0.75) - np.quantile(scaled, 0.25), 1)


@given(columns)
def test_ranks_are_bounded_monotone_and_centred(values):
    scaler = Scaler.fit("rank", values, per_asset=True)
    scaled = scaler(values)
    assert (np.abs(scaled) <= 1 + 1e-12).all()
    for i in range(2):
        order = np.argsort(values[:, i], kind="stable")
        assert (np.diff(scaled[order, i]) >= -1e-12).all()
    beyond = scaler(np.array([[-1e9, -1e9], [1e9, 1e9]]))
    np.testing.assert_allclose(beyond, [[-1, -1], [1, 1]])


def test_ranks_of_uniform_numbers_and_of_ties():
    scaler = Scaler.fit("rank", np.linspace(0, 1, 1001)[:, None], per_asset=False)
    np.testing.assert_allclose(scaler(np.array([[0.25], [0.5], [0.9]])), [[-0.5], [0], [0.8]])
    ties = Scaler.fit("rank", np.repeat([0.0, 1.0], 50)[:, None], per_asset=False)
    np.testing.assert_allclose(ties(np.array([[0.0], [1.0]])), [[-0.5], [0.5]], atol=0.02)
    constant = Scaler.fit("rank", np.full((9, 1), 7.0), per_asset=False)
    np.testing.assert_allclose(constant(np.array([[7.0], [6.0], [8.0]])), [[0], [-1], [1]])


@pytest.mark.parametrize("kind", SCALERS)
def test_unknown_values_are_ignored_and_stay_unknown(kind):
    values = np.random.default_rng(0).normal(size=(40, 3))
    holes = np.where(np.arange(120).reshape(40, 3) % 7 == 0, np.nan, values)
    scaler = Scaler.fit(kind, holes, per_asset=False)
    known = holes[~np.isnan(holes)][:, None]
    np.testing.assert_array_equal(scaler.numbers, Scaler.fit(kind, known, False).numbers)
    assert (np.isnan(scaler(holes)) == np.isnan(holes)).all()
    restored = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    np.testing.assert_array_equal(restored(holes), scaler(holes))


@pytest.mark.parametrize("kind", SCALERS)
def test_an_asset_without_values_takes_the_pooled_numbers(kind):
    values = np.random.default_rng(0).normal(size=(40, 3))
    values[:, 1] = np.nan
    scaler = Scaler.fit(kind, values, per_asset=True)
    pooled = Scaler.fit(kind, values, per_asset=False)
    np.testing.assert_array_equal(scaler.numbers[1], pooled.numbers[0])
    own = Scaler.fit(kind, values[:, :1], per_asset=False)
    np.testing.assert_array_equal(scaler.numbers[0], own.numbers[0])
    nothing = Scaler.fit(kind, np.full((4, 2), np.nan), per_asset=True)
    assert np.isnan(nothing.numbers).all()


def test_numbers_that_are_not_known_are_null_in_json():
    scaler = Scaler.fit("robust", np.full((5, 2), np.nan), per_asset=False)
    plain = json.dumps(scaler.to_dict(), allow_nan=False)
    assert np.isnan(Scaler.from_dict(json.loads(plain)).numbers).all()
