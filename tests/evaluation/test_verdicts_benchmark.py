"""The benchmarks of verdicts and of the search for an edge on short markets: their arithmetic."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import edge, verdicts
from portfolio_env.data.generators import noise

SHORT = {"BARS": 420, "VALIDATION": (270, 320), "TEST": (320, 420)}


@pytest.fixture(autouse=True)
def short_markets(monkeypatch):
    for name, value in SHORT.items():
        monkeypatch.setattr(verdicts, name, value)


def test_every_account_is_judged_and_reported(tmp_path, monkeypatch, capsys):
    out = tmp_path / "verdicts.json"
    monkeypatch.setattr(verdicts, "COMMISSIONS", {"null": (0.0,), "weak": (10.0,)})
    monkeypatch.setattr("sys.argv", f"x --markets 2 --workers 1 --out {out}".split())
    verdicts.main()
    report = json.loads(out.read_text())
    rivals, known = len(verdicts.STRATEGIES), len(verdicts.STRATEGIES) + 1
    assert len(report["accounts"]) == 3 * (2 * rivals + known)  # by each measure
    assert [row["markets"] for row in report["summary"]] == [2] * 3 * rivals + [1] * 3 * known
    for row in report["accounts"]:
        assert row["low"] <= row["difference"] <= row["high"]
        assert row["beats"] == (row["low"] > 0)
        assert row["ahead_before"] or not row["gate"]
    printed = capsys.readouterr().out
    for row in report["summary"]:
        for share in verdicts.COLUMNS:
            assert 0 <= row[share] <= 1
        scale, form, _ = verdicts.SCALES[row["judge"]]
        assert f"| {row['strategy']} | {form.format(scale * row['truth'])} |" in printed
    assert "bar 8 %" in printed
    assert report["accounts"][: 3 * rivals] == verdicts.judged("null", 0)
    monkeypatch.setattr(verdicts, "judged", None)  # what is kept is not computed again
    verdicts.main()
    assert json.loads(out.read_text())["accounts"] == report["accounts"]


def test_summaries_count_markets():
    row = {"market": "null", "commission": 0.0, "judge": "growth", "strategy": "s"}
    row |= {"best_beats": False}
    low, high = [-3.0, 0.5, 2.5, -4.0], [1.0, 2.0, 3.0, -1.0]
    rows = [
        row
        | {"seed": seed, "expected": expected, "difference": (a + b) / 2, "low": a, "high": b}
        | {"beats": a > 0, "gate": seed == 0, "ahead_before": seed < 3, "beats_on_both": seed == 3}
        for seed, (expected, a, b) in enumerate(zip([0.0, 2.0, 1.0, 1.0], low, high, strict=True))
    ]
    (found,) = verdicts.summary(rows)
    expected = {"truth": 1.0, "beats": 0.5, "behind": 0.25, "covered": 0.5, "markets": 4}
    expected |= {
        "beats_on_both": 0.25,
        "low_above_truth": 0.25,
        "gate": 0.25,
        "ahead_before": 0.75,
        "difference": 0.125,
    }
    assert {name: found[name] for name in expected} == expected


def test_expected_growth_is_the_mean_over_fresh_noise():
    start, draws = verdicts.TEST[0], 40_000
    planted = verdicts.draw("medium", 0)
    result = verdicts.account(verdicts.LogOptimal(planted), planted, (start, start + 2), 10.0)
    assert result.costs[0] > 0
    shocks = planted.sigma * noise.draw(np.random.default_rng(0), (draws, planted.noise.shape[1]))
    gross = np.column_stack([np.ones(draws), 1 + planted.expected[start] + shocks])
    grown = np.log((result.values[0] - result.costs[0]) * gross @ result.held[0])
    grown = (grown - np.log(result.values[0])) * result.periods_per_year
    error = grown.std() / np.sqrt(draws)
    simple = (1 - result.costs[0] / result.values[0]) * (gross @ result.held[0]) - 1
    mean, deviation = verdicts.expected_moments(planted, result)
    assert mean == pytest.approx(simple.mean(), abs=4 * simple.std() / np.sqrt(draws))
    assert deviation == pytest.approx(simple.std(), rel=0.03)
    levered = np.log1p(2 * simple) * result.periods_per_year
    assert verdicts.expected_growth(planted, result, 2.0) == pytest.approx(
        levered.mean(), abs=4 * levered.std() / np.sqrt(draws)
    )
    found = verdicts.expected_growth(planted, result)
    assert found == pytest.approx(grown.mean(), abs=4 * error)
    assert result.costs[0] / result.values[0] * result.periods_per_year > 8 * error  # not left out


PLAN = """
seeds = [0, 1]
commission_bps = 10.0
n_resamples = 20
measures = ["growth", "sharpe", "equal_risk"]
[families]
rules = ["buy_and_hold", "momentum(lookback=20)"]
learners = ["direct"]
[agents]
features = "minimal"
adjustment = 0.1
universe = 2
[agents.direct]
lanes = 4
steps = 3
iterations = 1
[[data]]
name = "walk"
note = "noise"
file = "walk.csv"
start = "2020-01-01"
validation = "2020-09-01"
test = "2020-12-01"
end = "2021-03-01"
[[data]]
name = "missing"
file = "nowhere.csv"
"""


def test_the_search_for_an_edge_selects_before_the_test_and_reads_it_by_a_fixed_plan(
    tmp_path, monkeypatch, capsys
):
    days = pd.date_range("2020-01-01", periods=500, name="date")
    steps = np.random.default_rng(0).normal(0, 0.01, (500, 3))
    prices = pd.DataFrame(100 * np.exp(steps.cumsum(axis=0)), days, ["A", "B", "C"])
    prices.to_csv(tmp_path / "walk.csv")
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)

    def search(*flags):
        out = tmp_path / "edge.json"
        monkeypatch.setattr("sys.argv", f"x --data {tmp_path} --plan {plan} --out {out}".split())
        sys.argv += flags
        edge.main()
        return json.loads(out.read_text())

    with pytest.raises(SystemExit, match=r"commit plan\.toml first"):
        search()
    (before,) = search("--only-validation")["data"]
    assert "test" not in before
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "plan.toml"], ["commit", "-qm", "plan"]):
        subprocess.run([*git, *command], check=True)
    report = search()
    (found,) = report["data"]
    assert found["validation"] == before["validation"] and found["selected"] == before["selected"]
    names = {"buy_and_hold", "momentum(lookback=20)", "direct 0", "direct 1"}
    names |= {"direct mean", "direct mean at 10 %"}
    assert set(found["test"]) == set(found["validation"]) == names and not found["failed"]
    for family, chosen in found["selected"].items():
        own = (
            names
            if family == "all"
            else [n for n in names if ("direct" in n) == (family[0] == "l")]
        )
        for measure, name in chosen.items():
            sizes = {n: found["validation"][n][measure]["difference"] for n in own}
            assert name == max(sizes, key=sizes.get)
            assert 0 <= found["hansen"][family][measure] <= 1
    printed = capsys.readouterr().out
    assert "missing is left out" in printed and report["sha256"][:16] in printed
    plan.write_text(PLAN + "# changed\n")
    with pytest.raises(SystemExit, match="commit"):
        search()
