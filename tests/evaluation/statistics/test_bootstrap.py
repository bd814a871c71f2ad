"""The stationary bootstrap: blocks, their automatic length, and what its intervals cover."""

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length as arch_block_length
from hypothesis import example, given
from hypothesis import strategies as st

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import growth_difference
from portfolio_env.evaluation.statistics import optimal_block_length, stationary_bootstrap_indices
from portfolio_env.evaluation.statistics.bootstrap import percentile_interval, resampled

DAYS = 252


def autoregressive(generator, n, coefficient, burn_in=50):
    series = generator.normal(size=n + burn_in)
    for t in range(1, n + burn_in):
        series[t] += coefficient * series[t - 1]
    return series[burn_in:]


# ---- resamples


def test_indices_are_blocks_of_the_asked_length():
    n, mean_block = 20_000, 10
    indices = stationary_bootstrap_indices(n, mean_block, np.random.default_rng(0))
    assert indices.min() >= 0 and indices.max() < n
    continues = indices[1:] == (indices[:-1] + 1) % n
    assert (~continues).mean() == pytest.approx(1 / mean_block, rel=0.1)
    starts = indices[1:][~continues]
    assert starts.mean() == pytest.approx(n / 2, rel=0.05)


def test_indices_are_those_of_a_loop():
    n, mean_block = 200, 3
    found = stationary_bootstrap_indices(n, mean_block, np.random.default_rng(1))
    generator = np.random.default_rng(1)
    chances, origins = generator.random(n), generator.integers(n, size=n)
    expected = [origins[0]]
    for chance, origin in zip(chances[1:], origins[1:], strict=True):
        expected.append(origin if chance < 1 / mean_block else (expected[-1] + 1) % n)
    assert found.tolist() == expected


def test_rows_stay_together_and_lanes_do_not_matter():
    rows = np.arange(50.0)[:, None, None] + np.array([0, 100, 200.0])[:, None]
    taken = []

    def keep(n_resamples):
        taken.append(n_resamples)
        return n_resamples.mean(axis=0)

    draws = resampled(rows, keep, mean_block=5, n_resamples=7, seed=4)
    (n_resamples,) = taken
    assert n_resamples.shape == (50, 3, 1, 7) and draws.shape == (3, 1, 7)
    assert (n_resamples == n_resamples[:, :1] + np.array([0, 100, 200.0])[:, None, None]).all()
    alone = resampled(rows[:, 0, 0], lambda x: x.mean(axis=0), mean_block=5, n_resamples=7, seed=4)
    assert (draws[0, 0] == alone).all()


def test_chunks_make_no_difference(monkeypatch):
    series = np.random.default_rng(0).normal(size=(40, 2))
    at_once = []

    def deviation(n_resamples):
        at_once.append(n_resamples.shape[-1])
        return n_resamples.std(axis=0)

    def draw():
        return resampled(series, deviation, mean_block=3, n_resamples=5, seed=1)

    whole = draw()
    for numbers in (200, 1):  # room for two resamples of 80 numbers, and for none
        monkeypatch.setattr("portfolio_env.evaluation.statistics.bootstrap._CHUNK", numbers)
        assert (draw() == whole).all()
    assert at_once == [5, *(2, 2, 1), *(1, 1, 1, 1, 1)]


@pytest.mark.parametrize("chunk", [200, 2**20])
def test_indices_that_are_kept_are_those_that_would_be_drawn(monkeypatch, chunk):
    series = np.random.default_rng(0).normal(size=(40, 2))
    monkeypatch.setattr("portfolio_env.evaluation.statistics.bootstrap._CHUNK", chunk)

    def draws(**options):
        asked = {"mean_block": 3, "n_resamples": 5, "seed": 1} | options
        return resampled(series, lambda x: x.mean(axis=0), **asked)

    cases = [{}, {}, {"seed": 2}, {"mean_block": 4}, {"n_resamples": 6}, {}]
    kept = [draws(**options) for options in cases]
    monkeypatch.setattr("portfolio_env.evaluation.statistics.bootstrap._KEPT", 0)
    for found, options in zip(kept, cases, strict=True):
        assert (found == draws(**options)).all()


def test_one_resample_is_enough():
    draws = resampled(np.arange(9.0), lambda x: x.mean(axis=0), mean_block=1, n_resamples=1, seed=0)
    assert draws.shape == (1,)


# ---- block length


@pytest.mark.parametrize("n", [100, 2000])
@pytest.mark.parametrize("coefficient", [0.0, 0.2, 0.6, -0.4, 1.0])
def test_block_length_agrees_with_arch(coefficient, n):
    for seed in range(5):
        series = autoregressive(np.random.default_rng(seed), n, coefficient)
        library = max(1, arch_block_length(series)["stationary"].iloc[0])
        assert optimal_block_length(series) == pytest.approx(library, rel=1e-10)


def test_block_length_grows_with_dependence():
    generator = np.random.default_rng(5)
    lengths = [optimal_block_length(autoregressive(generator, 5000, c)) for c in (0, 0.3, 0.6, 0.9)]
    assert lengths == sorted(lengths)
    assert lengths[0] < 3 and lengths[-1] > 25


@example([4, -8, 1, 5, 7, 2, 1, -6, 6], 0.0625)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40),
    st.integers(-2, 2).map(lambda power: 4.0**power),
)
def test_block_length_is_bounded_and_has_no_scale(values, scale):
    length = optimal_block_length(values)
    assert 1 <= length <= max(1, np.ceil(min(3 * np.sqrt(len(values)), len(values) / 3)))
    assert optimal_block_length(np.array(values) * scale) == length


def test_block_length_where_the_spectrum_is_nothing_or_one():
    nothing = [-2, 1, 1, 0, 0, 2, -2, 1, -1]
    with np.errstate(divide="raise"):
        assert optimal_block_length(nothing) == 3  # the longest of nine periods
    one = [0, -1, 0, 1, 1, -2, 2, 1, 0, -2]
    assert optimal_block_length(one) == pytest.approx((0.6**2 * 10) ** (1 / 3))


@pytest.mark.parametrize(("n", "longest"), [(60, 20), (400, 60)])
def test_block_length_of_a_cycle_is_the_longest(n, longest):
    assert optimal_block_length(np.sin(np.arange(n))) == longest


def test_block_length_needs_nine_periods():
    assert optimal_block_length(np.arange(8)) == 1 < optimal_block_length(np.arange(9))


# ---- intervals


def test_percentile_interval_and_its_p_value_agree():
    """The interval begins to hold 0 at the confidence that the p-value names."""
    draws = np.random.default_rng(1).normal(1.5, 1, 4999)
    p_value = percentile_interval(1.5, draws, 0.9).p_value
    assert p_value == pytest.approx(0.1336, abs=0.02)
    assert percentile_interval(1.5, draws, 1 - p_value - 0.002).low > 0
    assert percentile_interval(1.5, draws, 1 - p_value + 0.002).low <= 0
    mirrored = percentile_interval(-1.5, -draws, 0.9)
    assert mirrored.p_value == p_value
    assert mirrored.high == pytest.approx(-percentile_interval(1.5, draws, 0.9).low, abs=0.01)


def test_p_value_counts_the_data_as_one_more_draw():
    draws = np.arange(1.0, 10)
    assert percentile_interval(5, draws, 0.9).p_value == 2 * 1 / 10
    draws[0] = -1
    assert percentile_interval(5, draws, 0.9).p_value == 2 * 2 / 10


def test_unknown_and_infinite_draws():
    interval = percentile_interval(1.0, np.array([1.0, np.nan, 2.0]), 0.9)
    assert interval.estimate == 1
    assert np.isnan(interval[1:]).all()
    wide = percentile_interval(2.0, np.r_[np.arange(80.0) + 1, np.full(20, np.inf)], 0.9)
    assert wide.low == pytest.approx(5, abs=1) and wide.high == np.inf


def test_equal_accounts_do_not_differ():
    returns = np.random.default_rng(7).normal(size=100)
    assert growth_difference(returns, returns, DAYS) == (0, 0, 0, 1)


def test_interval_is_paired_and_repeatable():
    common = np.random.default_rng(1).normal(0, 0.1, 500)
    interval = growth_difference(common + 0.001, common, DAYS)
    assert interval == growth_difference(common + 0.001, common, DAYS)
    assert interval.estimate == pytest.approx(0.252)
    assert interval.high - interval.low < 1e-12  # what both accounts share cancels
    assert interval.p_value < 0.002
    opposite = growth_difference(common, common + 0.001, DAYS)
    assert opposite.estimate == pytest.approx(-interval.estimate)


def test_single_period_blocks_give_the_textbook_standard_error():
    noise = np.random.default_rng(2).normal(0, 0.01, 400)
    interval = growth_difference(noise, np.zeros(400), 1, mean_block=1, n_resamples=4000)
    error = noise.std() / np.sqrt(400)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_coverage_under_autocorrelation():
    """Single periods pretend to know more than they do; blocks of automatic length do not."""
    generator = np.random.default_rng(3)
    hits = {1: 0, None: 0}
    for _ in range(120):
        series = np.convolve(generator.normal(size=400), np.ones(5) / 5, "valid")
        for mean_block in hits:
            interval = growth_difference(
                series, np.zeros_like(series), 1, mean_block=mean_block, n_resamples=200
            )
            hits[mean_block] += interval.low <= 0 <= interval.high
    assert hits[1] / 120 < 0.75
    assert 0.86 <= hits[None] / 120 <= 0.99


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        (([0.1], [0.1, 0.2]), {}, "paired"),
        (([], []), {}, "paired"),
        (([-np.inf, 0.0], [0.0, 0.0]), {}, "not finite"),
        (([-np.inf, 0.0], [-np.inf, 0.0]), {}, "not finite"),
        (([0.0, 0.1], [0.0, 0.0]), {"mean_block": 0.5}, "mean_block"),
        (([0.0, 0.1], [0.0, 0.0]), {"mean_block": np.nan}, "mean_block"),
        (([0.0, 0.1], [0.0, 0.0]), {"n_resamples": 0}, "n_resamples"),
        (([0.0, 0.1], [0.0, 0.0]), {"confidence": 1.0}, "confidence"),
        (([0.0, 0.1], [0.0, 0.0]), {"confidence": 0.0}, "confidence"),
        (([0.0, 0.1], [0.0, 0.0]), {"confidence": -0.5}, "confidence"),
    ],
)
def test_bad_comparisons(series, options, message):
    with pytest.raises(ArgumentError, match=message):
        growth_difference(*series, DAYS, **options)
