"""Folds never learn from what they test, and the tests join to one path of returns."""

from dataclasses import fields, replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.statistics.overfitting import backtest_overfitting
from portfolio_env.evaluation.walk_forward import combinatorial_folds, stitch, walk_forward_folds

SIZES = st.fixed_dictionaries(
    {
        "start": st.integers(0, 50),
        "first_test": st.integers(40, 300),
        "end": st.integers(200, 600),
        "folds": st.integers(1, 9),
        "validation": st.integers(0, 40),
        "rolling": st.booleans(),
        "purge": st.integers(0, 9),
        "embargo": st.integers(0, 9),
    }
)


def rows(span):
    return set(range(*span))


@given(SIZES)
def test_folds_learn_from_the_past_alone(sizes):
    try:
        folds = walk_forward_folds(**sizes)
    except ArgumentError:
        assume(False)
    gap = sizes["purge"] + sizes["embargo"]
    tested = [row for fold in folds for row in range(*fold.test)]
    assert tested == list(range(sizes["first_test"], sizes["end"]))  # every row once, in order
    lengths = {fold.test[1] - fold.test[0] for fold in folds}
    assert len(folds) == sizes["folds"] and max(lengths) - min(lengths) <= 1
    for fold in folds:
        parts = [fold.train, fold.validation, fold.test]
        used = [part for part in parts if rows(part)]
        assert fold.validation[1] - fold.validation[0] == sizes["validation"]
        assert sizes["start"] <= fold.train[0] < fold.train[1]
        for earlier, later in pairwise(used):
            assert later[0] - earlier[1] == gap
    trained = [fold.train[1] - fold.train[0] for fold in folds]
    if sizes["rolling"]:
        assert len(set(trained)) == 1
    else:
        assert {fold.train[0] for fold in folds} == {sizes["start"]}


@settings(max_examples=20)
@given(
    start=st.integers(0, 20),
    bars=st.integers(60, 200),
    blocks=st.integers(3, 7),
    tests=st.integers(2, 6),
    purge=st.integers(0, 6),
    embargo=st.integers(0, 6),
)
def test_combinatorial_folds_are_purged(start, bars, blocks, tests, purge, embargo):
    assume(tests < blocks and purge + embargo < bars // blocks - 1)
    end = start + bars
    folds = combinatorial_folds(
        start, end, blocks=blocks, tests=tests, purge=purge, embargo=embargo
    )
    paths: dict[int, list[int]] = {}
    for fold in folds:
        tested = set().union(*(rows(part) for part in fold.tests))
        trained = set().union(*(rows(part) for part in fold.train))
        after = {row + k for row in tested for k in range(1, purge + embargo + 1)}
        before = {row - k for row in tested for k in range(1, purge + 1)}
        assert trained == set(range(start, end)) - tested - after - before
        for part, path in zip(fold.tests, fold.paths, strict=True):
            paths.setdefault(path, []).extend(range(*part))
    for covered in paths.values():
        assert sorted(covered) == list(range(start, end))  # every path goes through all rows once


def test_bad_folds_are_refused():
    sizes = {"start": 0, "first_test": 50, "end": 100, "folds": 5, "validation": 10}
    for changes, match in (
        ({"folds": 30}, "too few for 30 tests"),
        ({"validation": 49}, "leave 1 for training"),
        ({"purge": 30}, "leave -20 for training"),
        ({"embargo": -1}, "embargo=-1"),
    ):
        with pytest.raises(ArgumentError, match=match):
            walk_forward_folds(**(sizes | changes))
    with pytest.raises(ArgumentError, match="do not split 20 rows"):
        combinatorial_folds(0, 20, blocks=6, purge=3)


MARKET = pe.load_market("synthetic?assets=3&bars=120")
OPTIONS = {"observation": "index", "action": "weights", "window": 1}


def run(start, end, **options):
    policy = make_baseline("equal_weight", MARKET)
    return backtest(policy, pe.PortfolioEnv(MARKET, start=start, end=end, **OPTIONS, **options))


def out_of_sample(folds, end, **options):
    return [run(*fold.test_bars(end), **options) for fold in folds]


def test_stitched_tests_are_one_run_but_for_buying_in():
    """Equal weight remembers nothing: without costs a restart changes nothing."""
    folds = walk_forward_folds(25, 60, 120, 4, validation=10)
    free, whole = {"costs": {"commission_bps": 0}}, run(60, 120, costs={"commission_bps": 0})
    joined = stitch(out_of_sample(folds, 120, **free))
    for name in ("timestamps", "held", "turnovers", "values", "drifted", "trades"):
        own, other = getattr(joined, name), getattr(whole, name)
        first = [fold.test[0] - 60 for fold in folds]  # rows where the folds buy in
        if name in ("drifted", "trades", "turnovers"):
            own, other = (np.delete(series, first, axis=0) for series in (own, other))
        if name == "timestamps":
            assert (own == other).all()
        else:
            np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-9)
    paid = stitch(out_of_sample(folds, 120))
    at_once = run(60, 120)
    lost = at_once.log_returns - paid.log_returns
    # Buying in costs 10 bp in full, restoring the weights less; elsewhere nothing differs.
    assert np.flatnonzero(lost > 1e-6).tolist() == [15, 30, 45]
    assert lost[[15, 30, 45]] == pytest.approx([1e-3] * 3, rel=0.1)


def test_stitching_chains_returns_not_money():
    first, second = (
        run(start, start + 11, initial_value=10.0 ** (start - 57)) for start in (60, 70)
    )
    joined = stitch([first, second])
    assert second.values[0] != first.values[0]
    assert joined.values[0] == first.values[0]
    np.testing.assert_allclose(
        joined.log_returns, np.r_[first.log_returns, second.log_returns], atol=1e-14
    )
    steps = {"timestamps": 21, "values": 21, "last_weights": 4}
    for field in fields(joined):  # also those that are added some day
        if isinstance(array := getattr(joined, field.name), np.ndarray):
            assert len(array) == steps.get(field.name, 20), field.name
    assert (joined.last_weights == second.last_weights).all()
    shares = [r.costs / r.values[:-1] for r in (first, second)]
    np.testing.assert_allclose(joined.costs / joined.values[:-1], np.concatenate(shares))
    np.testing.assert_allclose(joined.trades.sum(axis=1), -joined.costs)
    measures = joined.metrics()
    assert measures["annual_turnover"] == pytest.approx(
        np.mean([r.metrics()["annual_turnover"] for r in (first, second)])
    )


def test_what_does_not_join_is_refused():
    first, later, gap = run(60, 70), run(69, 80), run(70, 80)
    assert len(stitch([first, later]).costs) == len(first.costs) + len(later.costs)
    with pytest.raises(ArgumentError, match="run each to the bar at which the next starts"):
        stitch([first, gap])
    with pytest.raises(ArgumentError, match="one market"):
        stitch([first, replace(later, assets=("X", "Y", "Z"))])
    with pytest.raises(ArgumentError, match="no results"):
        stitch([])
    ruined = replace(first, values=np.linspace(1e4, 1.0, len(first.values)))
    assert len(stitch([ruined, gap]).costs) == len(first.costs)  # a ruined path ends


def test_overfitting_tells_luck_from_skill():
    generator = np.random.default_rng(3)
    noise = generator.normal(0, 1, (400, 40, 8))
    lucky = [backtest_overfitting(each, blocks=8) for each in noise.transpose(1, 0, 2)]
    assert np.mean([found.probability for found in lucky]) == pytest.approx(0.5, abs=0.12)
    skilled = noise[:, 0] + np.r_[np.zeros(7), 0.6]
    found = backtest_overfitting(skilled, blocks=8)
    assert found.probability == 0
    assert found.out_of_sample.mean() == pytest.approx(0.6, abs=0.1)
    assert len(found.logits) == 70


def test_overfitting_agrees_with_the_definition():
    """Against the procedure written out, one split at a time, with a tie."""
    series = np.random.default_rng(1).normal(0.05, 1, (43, 4))
    series[:, 3] = series[:, 2]
    found = backtest_overfitting(series, blocks=6)
    cut = np.split(series[1:], 6)
    logits = []
    for inside in combinations(range(6), 3):
        half = np.concatenate([cut[i] for i in inside])
        rest = np.concatenate([cut[i] for i in range(6) if i not in inside])
        chosen = int((half.mean(0) / half.std(0)).argmax())
        outside = rest.mean(0) / rest.std(0)
        ranks = np.array([[1.0 * (a > b) + 0.5 * (a == b) for b in outside] for a in outside])
        share = (ranks.sum(axis=1)[chosen] + 0.5) / 5
        logits.append(np.log(share / (1 - share)))
    np.testing.assert_allclose(np.sort(found.logits), np.sort(logits), atol=1e-9)
    assert found.probability == np.mean(np.array(logits) <= 0)


def test_overfitting_refuses_what_it_cannot_rank():
    series = np.random.default_rng(1).normal(size=(40, 3))
    for bad, match in (
        (series[:, :1], "at least 2"),
        (series[:10], "at most half"),
        (series * [1, 1, 0], "no risk"),
    ):
        with pytest.raises(ArgumentError, match=match):
            backtest_overfitting(bad, blocks=8)
