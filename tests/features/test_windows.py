"""Moving windows against pandas and numpy, and their rules for what is missing or constant."""

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env.features import windows

ROWS = 90


def series(seed=0, holes=0.0, shape=(ROWS, 3), ties=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(5, 2, shape)
    if ties:
        x = np.round(x)
    x[rng.random(shape) < holes] = np.nan
    return x


def frame(x, w):
    return pd.DataFrame(x).rolling(w)


def positions_of_average(part):
    """Share of the values before the last that are smaller, ties counting half."""
    *past, now = part
    return (np.sum(past < now) + np.sum(past == now) / 2) / len(past)


ROLLING = {
    "total": (windows.total, lambda x, w: frame(x, w).sum()),
    "mean": (windows.mean, lambda x, w: frame(x, w).mean()),
    "highest": (windows.highest, lambda x, w: frame(x, w).max()),
    "lowest": (windows.lowest, lambda x, w: frame(x, w).min()),
    "deviation 0": (
        lambda x, w: windows.deviation(x, w, 0),
        lambda x, w: frame(x, w).apply(np.std, raw=True),
    ),
    "deviation 1": (
        lambda x, w: windows.deviation(x, w, 1),
        lambda x, w: frame(x, w).apply(lambda part: np.std(part, ddof=1), raw=True),
    ),
    "standing": (
        windows.standing,
        lambda x, w: frame(x, w).apply(positions_of_average, raw=True),
    ),
}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("holes", [0.0, 0.04])
@pytest.mark.parametrize("w", [2, 5, 20, ROWS])
@pytest.mark.parametrize("name", ROLLING)
def test_windows_agree_with_pandas(name, w, holes, ties):
    ours, theirs = ROLLING[name]
    x = series(1, holes, ties=ties)
    np.testing.assert_allclose(ours(x, w), theirs(x, w).to_numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("holes", [0.0, 0.04])
@pytest.mark.parametrize("w", [2, 7, 30])
def test_covariance_and_correlation_agree_with_pandas(w, holes):
    x, y = series(2, holes), series(3, holes)
    y = y + 0.5 * np.nan_to_num(x)
    both, own, other = windows.covariance(x, y, w)
    a, b = pd.DataFrame(x), pd.DataFrame(y)
    for ours, theirs in (
        (both, a.rolling(w).cov(b, ddof=0)),
        (own, a.rolling(w).var(ddof=0)),
        (other, b.rolling(w).var(ddof=0)),
        (windows.correlation(x, y, w), a.rolling(w).corr(b)),
    ):
        np.testing.assert_allclose(ours, theirs.to_numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("w", [2, 12, 26])
def test_averages_agree_with_pandas(w):
    x = series(4)
    theirs = pd.DataFrame(x).ewm(span=w, adjust=False, min_periods=w).mean()
    np.testing.assert_allclose(windows.ema(x, w), theirs.to_numpy(), rtol=1e-12)
    seeded = np.vstack([x[:w].mean(axis=0), x[w:]])  # Wilder's starts as a mean
    theirs = pd.DataFrame(seeded).ewm(alpha=1 / w, adjust=False).mean()
    ours = windows.wilder(x, w)
    assert np.isnan(ours[: w - 1]).all()
    np.testing.assert_allclose(ours[w - 1 :], theirs.to_numpy(), rtol=1e-12)


def test_averages_by_hand():
    x = np.array([2.0, 4.0, 9.0, 3.0, np.nan, 6.0, 12.0, 3.0])[:, None]
    # span 3: alpha = 1/2: 2, 3, 6, 4.5; from the gap on: 6, 9, 6
    np.testing.assert_array_equal(
        windows.ema(x, 3)[:, 0], [np.nan, np.nan, 6, 4.5, np.nan, np.nan, np.nan, 6]
    )
    # Wilder 2: (2 + 4) / 2 = 3, (3 + 9) / 2 = 6, (6 + 3) / 2 = 4.5; from the gap on 9, 6
    np.testing.assert_array_equal(
        windows.wilder(x, 2)[:, 0], [np.nan, 3, 6, 4.5, np.nan, np.nan, 9, 6]
    )


ALL = {
    **{name: pair[0] for name, pair in ROLLING.items()},
    "covariance": lambda x, w: windows.covariance(x, x[:, ::-1].copy(), w)[0],
    "correlation": lambda x, w: windows.correlation(x, x[:, ::-1].copy(), w),
    "ema": windows.ema,
    "wilder": windows.wilder,
    "lagged": windows.lagged,
    "change": windows.change,
}


@pytest.mark.parametrize("name", ALL)
def test_short_series_give_nothing(name):
    for rows in (1, 2, 4):
        values = ALL[name](series(shape=(rows, 2)), 5)
        assert values.shape == (rows, 2)
        assert np.isnan(values).all()


@examples(30)
@given(seed=st.integers(0, 999), w=st.integers(2, 30), t=st.integers(0, ROWS - 1))
@pytest.mark.parametrize("name", ALL)
def test_nothing_after_a_row_changes_it(name, seed, w, t):
    x = series(seed, holes=0.02)
    changed = x.copy()
    changed[t + 1 :] = 1e6 * series(seed + 1, holes=0.3)[t + 1 :]
    values = ALL[name](x, w)
    assert values[: t + 1].tobytes() == ALL[name](changed, w)[: t + 1].tobytes()
    assert values[t].tobytes() == ALL[name](x[: t + 1], w)[t].tobytes()


FORGETFUL = [name for name in ALL if name not in ("ema", "wilder")]


@examples(30)
@given(seed=st.integers(0, 999), w=st.integers(2, 20), first=st.integers(1, 40))
@pytest.mark.parametrize("name", FORGETFUL)
def test_a_window_has_the_same_bits_whatever_came_before(name, seed, w, first):
    x = series(seed)
    x[: max(0, first - w)] *= 1e12
    x[0] = np.nan
    whole, tail = ALL[name](x, w), ALL[name](x[first:].copy(), w)
    assert whole[first + w :].tobytes() == tail[w:].tobytes()


@given(
    value=st.floats(1e-9, 1e12),
    w=st.integers(2, 60),
    before=st.floats(1e-9, 1e12),
)
def test_constants_deviate_by_exactly_nothing(value, w, before):
    x = np.full((130, 2), value)
    x[:60] = before
    x[30, 1] = np.nan
    for ddof in (0, 1):
        np.testing.assert_array_equal(windows.deviation(x, w, ddof)[60 + w :], 0.0)
    _, own, other = windows.covariance(x, x, w)
    np.testing.assert_array_equal(own[60 + w :], 0.0)
    np.testing.assert_array_equal(other[60 + w :], 0.0)


def test_small_deviations_are_not_taken_for_rounding():
    x = 1e6 + 1e-5 * np.arange(50.0)[:, None]
    expected = [np.std(x[t - 9 : t + 1, 0]) for t in range(9, 50)]
    np.testing.assert_allclose(windows.deviation(x, 10, 0)[9:, 0], expected, rtol=1e-6)


def test_correlation_with_a_constant_is_unknown_without_a_warning():
    x, constant = series(5), np.full((ROWS, 3), 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(windows.correlation(x, constant, 10)).all()
        assert np.isnan(windows.correlation(constant, constant, 10)).all()


@given(seed=st.integers(0, 999), w=st.integers(2, 20))
def test_correlations_lie_between_minus_one_and_one(seed, w):
    x = series(seed)
    for y in (3 * x, -x, x + 1e-9 * series(seed + 1), x[:, ::-1].copy()):
        values = windows.correlation(x, y, w)[w - 1 :]
        assert (np.abs(values) <= 1).all()
    np.testing.assert_allclose(windows.correlation(x, 3 * x, w)[w - 1 :], 1, rtol=1e-7)


def test_lags_and_changes():
    x = np.array([[2.0], [3.0], [6.0]])
    np.testing.assert_array_equal(windows.lagged(x, 1)[:, 0], [np.nan, 2, 3])
    np.testing.assert_array_equal(windows.lagged(x, 3)[:, 0], [np.nan] * 3)
    np.testing.assert_array_equal(windows.change(x, 2)[:, 0], [np.nan, np.nan, 2])


@pytest.mark.parametrize("w", [1, 7, 60])
def test_many_windows_side_by_side_are_each_window_alone(w):
    x, y = series(0, 0.002, (700, 2)), series(1, shape=(700, 2))
    kinds = (
        lambda a, b: windows.total(a, w),
        lambda a, b: windows.deviation(a, w, 0),
        lambda a, b: np.hstack(windows.covariance(a, b, w)),
    )
    for kind in kinds:
        rows = kind(x, y)
        assert np.isnan(rows[: w - 1]).all()
        alone = [kind(x[t - w + 1 : t + 1], y[t - w + 1 : t + 1])[-1] for t in range(w - 1, 700)]
        np.testing.assert_array_equal(rows[w - 1 :], alone)
