"""Summaries of sweeps, against sums in plain Python."""

import math
import statistics
from pathlib import Path

import pandas as pd
import pytest

from agents.sweep.plan import SweepPlan
from agents.sweep.summary import spreads, summarise, summary_text
from agents.training.config import TrainConfig

VALUES = {
    ("a", 0, 0): 0.01,
    ("a", 0, 1): 0.03,
    ("a", 1, 0): 0.05,
    ("a", 1, 1): 0.02,
    ("b", 0, 0): -0.01,
    ("b", 0, 1): 0.00,
    ("b", 1, 0): 0.04,
    ("b", 1, 1): 0.01,
}
RESULTS = pd.DataFrame(
    [(*cell, value) for cell, value in VALUES.items()],
    columns=["setting", "fold", "seed", "excess_growth"],
)


def mean(**where: object) -> float:
    names = ("setting", "fold", "seed")
    chosen = [
        value
        for cell, value in VALUES.items()
        if all(dict(zip(names, cell, strict=True))[key] == each for key, each in where.items())
    ]
    return statistics.mean(chosen)


def test_means_and_spreads_of_settings() -> None:
    table = summarise(RESULTS)
    assert list(table.index) == ["a", "b"] and list(table["cells"]) == [4, 4]
    for name in ("a", "b"):
        row = table.loc[name]
        assert row["mean"] == pytest.approx(mean(setting=name))
        seeds = [mean(setting=name, seed=seed) for seed in (0, 1)]
        folds = [mean(setting=name, fold=fold) for fold in (0, 1)]
        assert row["seeds"] == pytest.approx(statistics.stdev(seeds))
        assert row["folds"] == pytest.approx(statistics.stdev(folds))
    found = spreads(RESULTS)
    pairs = [
        (VALUES[name, fold, 0], VALUES[name, fold, 1]) for name in ("a", "b") for fold in (0, 1)
    ]
    pooled = math.sqrt(statistics.mean(statistics.variance(pair) for pair in pairs))
    assert found["seeds"] == pytest.approx(pooled)
    assert found["chance"] == pytest.approx(pooled / 2)
    assert found["settings"] == pytest.approx(
        statistics.stdev([mean(setting="a"), mean(setting="b")])
    )


def test_a_table_of_long_names_is_80_columns_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    long = "adjustment=0.1," * 6 + "encoder=gat"
    results = RESULTS.replace({"setting": {"b": long}})
    plan = SweepPlan(TrainConfig(market="sp500"), {"a": {}, long: {}})
    monkeypatch.setattr("agents.sweep.summary.read_sweep", lambda root: plan)
    monkeypatch.setattr("agents.sweep.summary.cell_results", lambda root: results)
    shown = summary_text(Path(), summarise(results)).partition("Standard")[0]
    assert max(map(len, shown.splitlines())) <= 80
    assert long in shown.replace("\n", "") and "  4    1.00" in shown


def test_one_cell_has_no_spread() -> None:
    found = spreads(RESULTS.iloc[:1])
    assert all(math.isnan(each) for each in found.values())
    assert math.isnan(summarise(RESULTS.iloc[:1])["seeds"].item())
    assert not len(summarise(RESULTS.iloc[:0]))
