"""The benchmark of verdicts on a few short markets: its arithmetic and its repeatability."""

import json

import numpy as np
import pytest

from benchmarks import verdicts
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


def test_summaries_count_markets():
    row = {"market": "null", "commission": 0.0, "judge": "growth", "strategy": "s"}
    row |= {"best_beats": False}
    low, high = [-3.0, 0.5, 2.5, -4.0], [1.0, 2.0, 3.0, -1.0]
    rows = [
        row
        | {"seed": seed, "expected": expected, "difference": (a + b) / 2, "low": a, "high": b}
        | {"beats": a > 0, "gate": seed == 0, "ahead_before": seed < 3}
        for seed, (expected, a, b) in enumerate(zip([0.0, 2.0, 1.0, 1.0], low, high, strict=True))
    ]
    (found,) = verdicts.summary(rows)
    expected = {"truth": 1.0, "beats": 0.5, "behind": 0.25, "covered": 0.5, "markets": 4}
    expected |= {"low_above_truth": 0.25, "gate": 0.25, "ahead_before": 0.75, "difference": 0.125}
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
