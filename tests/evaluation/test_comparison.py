"""The table is ranked truly, says how sure it is, and its sentences say what the numbers do."""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers.accounts import DAYS, account, ruined

from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import (
    GateDecision,
    compare,
    comparison,
    growth_difference,
    metrics,
    write_comparison,
)
from portfolio_env.evaluation.report.holdings import _advice
from portfolio_env.evaluation.report.tear_sheet import months_table
from portfolio_env.evaluation.statistics import (
    deflated_sharpe_ratio,
    growth_difference_test,
    resample_measures,
    sharpe_difference,
)
from portfolio_env.evaluation.summary import (
    gate_sentence,
    number_text,
    overall,
    sentence,
    text_table,
)

K = 150
FEW = {"n_resamples": 200}


def noise(seed, mean=0.0, size=K):
    return np.random.default_rng(seed).normal(mean, 0.01, size)


MARKET = noise(0, 0.0005)
RESULTS = {
    "worse": account(MARKET - 0.0005 + noise(1) / 5),
    "equal_weight": account(MARKET),
    "seer": account(MARKET + 0.02),
    "much_better": account(MARKET + 0.003 + noise(2) / 10),
    "twin": account(MARKET + 1e-14),
    "broke": ruined(60),
    "worst": account(MARKET - 0.004 + noise(3) / 10),
}
RESULTS["broke"] = account(np.r_[MARKET[:59], np.log(1e-3)])
FOUND = compare(RESULTS, oracles=["seer"], failed={"heavy": "needs a library"}, **FEW)


def test_best_first_oracles_apart_failures_last():
    table = FOUND.table
    growth = {n: r.metrics()["annual_log_growth"] for n, r in RESULTS.items() if n != "seer"}
    ranked = [name for name in table.index if name in growth]
    assert [growth[name] for name in ranked] == sorted(growth.values(), reverse=True)
    assert list(table.index) == [*ranked, "seer", "heavy"]
    assert table["annual_log_growth"].max() == table.loc["seer", "annual_log_growth"]
    assert np.isnan(table.loc["seer", "rank"])
    assert np.isnan(table.loc["heavy", "rank"])
    assert table.loc["much_better", "rank"] == 1
    assert table.loc["twin", "rank"] == table.loc["equal_weight", "rank"] == 2
    assert table.loc["worse", "rank"] == 4
    assert list(FOUND.ranked) == ranked
    remarks = {"seer": "oracle", "heavy": "could not run: needs a library", "broke": "ruined"}
    remarks["twin"] = "same as equal_weight"
    for name, remark in table["remark"].items():
        assert remark == remarks.get(name, "")


def test_order_does_not_depend_on_the_order_of_the_results():
    backwards = {name: RESULTS[name] for name in reversed(RESULTS) if name != "twin"}
    forwards = {name: RESULTS[name] for name in RESULTS if name != "twin"}
    one, other = (compare(each, oracles=["seer"], **FEW) for each in (forwards, backwards))
    pd.testing.assert_frame_equal(one.table, other.table, check_exact=False, rtol=1e-12)


def test_columns_are_the_statistics_of_these_names():
    row, own, other = FOUND.table.loc["worse"], RESULTS["worse"], RESULTS["equal_weight"]
    pair = own.log_returns, other.log_returns, DAYS
    parts = [f"growth_difference{part}" for part in ("", "_low", "_high", "_p")]
    assert tuple(row[parts]) == growth_difference(*pair, **FEW)
    assert row["hac_p"] == growth_difference_test(*pair).p_value
    assert row["sharpe"] == own.metrics()["sharpe"]
    assert row["beta"] == metrics.beta(own.returns, other.returns)
    records = {name: result.track_record() for name, result in FOUND.solvent.items()}
    drawn = resample_measures(records, DAYS, measures=["sharpe", "annual_log_growth"], **FEW)
    for measure in ("sharpe", "annual_log_growth"):
        interval = drawn.interval("worse", measure)
        assert tuple(row[[f"{measure}_low", f"{measure}_high"]]) == (interval.low, interval.high)


def test_every_different_strategy_and_earlier_trial_counts():
    tried = [n for n in RESULTS if n not in ("seer", "twin")]
    sharpes = [RESULTS[name].metrics()["sharpe"] for name in tried]
    assert FOUND.trials == 5
    for earlier in ([], [0.3, 2.0]):
        found = compare(RESULTS, oracles=["seer"], earlier_sharpes=earlier, **FEW)
        assert found.trials == 5 + len(earlier)
        expected = deflated_sharpe_ratio(
            RESULTS["much_better"].returns, DAYS, [*sharpes, *earlier]
        ).probability
        assert found.table.loc["much_better", "deflated_sharpe"] == pytest.approx(expected)


def test_nothing_is_claimed_of_oracles_and_ruined_accounts():
    claims = ["growth_difference", "hac_p", "deflated_sharpe", "sharpe_low", "in_confidence_set"]
    for name in ("seer", "broke", "heavy"):
        assert FOUND.table.loc[name, claims].isna().all()
    assert set(FOUND.solvent) == set(RESULTS) - {"seer", "broke"}


def test_equal_accounts_are_one():
    assert FOUND.duplicate_of["twin"] == "equal_weight"
    assert set(FOUND.unique) == set(RESULTS) - {"seer", "twin"}
    row = FOUND.table.loc["twin", ["growth_difference", "growth_difference_low"]]
    assert (row == 0).all()
    assert np.isnan(FOUND.table.loc["twin", "hac_p"])


def test_test_of_the_best_and_set_of_the_best():
    assert FOUND.superiority.best == "much_better"
    assert FOUND.superiority.p_value < 0.01
    inside = FOUND.table["in_confidence_set"]
    assert inside["much_better"] == 1
    assert inside["worst"] == 0
    assert inside["twin"] == inside["equal_weight"]


def test_verbs_follow_the_intervals():
    """Of growth and of Sharpe ratios: what beats does so in both."""
    verbs = {
        (1, 1): ", taken alone, beats equal weight: ",
        (1, 0): ", taken alone, outgrows equal weight, but is not shown to beat it at equal risk: ",
        (0, 1): ", taken alone, beats equal weight at equal risk: ",
        (0, 0): " does not beat equal weight: ",
        (-1, 0): " falls behind equal weight: ",
        (-1, -1): " falls behind equal weight: ",
    }
    seen = set()
    shapes = ((-0.0012, 1), (0, 1), (0.0012, 1), (0.002, 2.5), (0.0002, 0.6))
    for (mean, risk), seed in itertools.product(shapes, range(3)):
        own = account(risk * MARKET + noise(seed + 10, mean=mean) / 2)
        results = {"own": own, "equal_weight": RESULTS["equal_weight"]}
        found = compare(results, **FEW)
        year, few = found.results["own"].periods_per_year, FEW
        growth = growth_difference(own.log_returns, MARKET, year, **few)
        sharpe = sharpe_difference(own.returns, results["equal_weight"].returns, year, **few)
        signs = tuple((each.low > 0) - (each.high < 0) for each in (growth, sharpe))
        seen.add(signs)
        said = sentence(found, "own")
        assert said.startswith("own" + verbs[signs])
        numbers = {float(text) for text in re.findall(r"[+-]\d+\.\d+", said)}
        parts = [*(100 * np.array(growth[:3])).round(1), *np.round(sharpe[:3], 2)]
        assert numbers == {float(f"{part:.2f}") for part in parts}
    assert {(1, 1), (0, 1), (0, 0), (-1, -1)} <= seen


def levered(excess, factor, cost=0.0):
    return account(np.log1p(factor * np.expm1(excess) - cost))


def test_a_levered_benchmark_does_not_beat_it_and_a_better_account_of_less_risk_does():
    """On a market that rises, where leverage outgrows; with the costs of borrowing or without."""
    market = noise(4, 0.0015, 1500)
    results = {
        "levered": levered(market, 2.0),
        "levered_at_a_cost": levered(market, 2.0, cost=1e-5),
        "careful": levered(market + noise(5, 0.001, 1500) / 4, 0.5),
        "equal_weight": levered(market, 1.0),
    }
    found = compare(results, **FEW)
    for name in ("levered", "levered_at_a_cost"):
        assert found.table.loc[name, "growth_difference_low"] > 0
        said = f"{name}, taken alone, outgrows equal weight, but is not shown to beat it"
        assert sentence(found, name).startswith(said)
        assert found.table.loc[name, "sharpe_difference"] == pytest.approx(0, abs=0.05)
        assert found.table.loc[name, "equal_risk_difference"] == pytest.approx(0, abs=0.01)
    assert found.table.loc["careful", "growth_difference"] < 0
    assert "beats equal weight at equal risk" in sentence(found, "careful")
    for judge, best in (("growth", "levered"), ("sharpe", "careful"), ("equal_risk", "careful")):
        judged = compare(results, judge=judge, **FEW)
        assert judged.superiority.best == best and judged.superiority.p_value < 0.05
        assert overall(judged).startswith(best)
        column = comparison.DIFFERENCES[judge]
        assert judged.superiority.estimate == pytest.approx(judged.table.loc[best, column])


def test_at_equal_risk_accounts_without_risk_are_not_judged():
    still = account(np.full(K, 1e-4))
    results = {"still": still, "own": RESULTS["worse"], "equal_weight": account(MARKET)}
    for judge in ("sharpe", "equal_risk"):
        found = compare(results, judge=judge, **FEW)
        assert found.superiority.best == "own"
        assert np.isnan(found.table.loc["still", "in_confidence_set"])
        assert np.isnan(found.table.loc["still", "sharpe_difference"])
    with pytest.raises(ArgumentError, match="judge"):
        compare(results, judge="luck", **FEW)


def test_sentences_of_special_cases():
    said = {name: sentence(FOUND, name) for name in FOUND.table.index}
    assert "knows the future" in said["seer"]
    assert "nothing to compare" in said["broke"]
    assert said["heavy"] == "heavy could not run: needs a library"
    assert "is the benchmark" in said["equal_weight"]
    assert said["twin"] == "twin is the same account as equal_weight."


def test_overall_sentence():
    assert overall(FOUND).startswith(
        "much_better, the best of 3, significantly outperforms equal weight"
    )
    luck = {f"noise_{seed}": account(MARKET + noise(seed) / 3) for seed in range(20, 30)}
    found = compare(luck | {"equal_weight": account(MARKET)}, **FEW)
    assert found.superiority.p_value > 0.05
    assert overall(found).startswith(
        "No strategy significantly outperforms equal weight (best of 10: "
    )
    behind = compare({"own": account(MARKET - 1e-4), "equal_weight": account(MARKET)}, **FEW)
    said = "No strategy is ahead of equal weight (best of 1: own, -2.5 % a year)."
    assert overall(behind).startswith(said)
    alone = compare({"equal_weight": account(MARKET)}, **FEW)
    assert overall(alone) == "No test of the best strategy against equal weight."


def test_the_best_is_not_said_to_beat_because_another_one_does():
    """The test goes by differences over their errors, the best is the largest difference."""
    results = {
        "wild": account(MARKET + 3 * noise(1, 0.001)),
        "steady": account(MARKET + 1e-4 + noise(2) / 1000),
        "equal_weight": account(MARKET),
    }
    found = compare(results, **FEW)
    assert found.superiority.best == "wild" and found.superiority.p_value < 0.01
    assert "wild does not beat" in sentence(found, "wild")
    assert "steady, taken alone, beats equal weight: " in sentence(found, "steady")
    said = "At least one of 2 strategies significantly outperforms equal weight (p = 0.0"
    assert overall(found).startswith(said)
    assert "but for wild, the first of them, this is not significant" in overall(found)


def test_what_never_held_anything_is_told_from_skill():
    """A model whose look-back is longer than the history holds cash, and gains when others lose."""
    idle = account(np.zeros(K))
    idle.held[:] = np.eye(3)[0]
    found = compare({"hrp": idle, "equal_weight": account(MARKET - 0.004)}, **FEW)
    assert found.table.loc["hrp", "remark"] == "never invested"
    said = sentence(found, "hrp")
    assert ", taken alone, outgrows" in said and said.endswith(" It never invested.")
    assert overall(found).startswith("hrp (never invested), the best of 1, significantly outperf")
    assert "hrp (never invested) is ahead" in _advice(found)


def test_numbers_that_round_to_zero_have_no_sign():
    texts = [number_text("{:+.1f}")(value) for value in (-0.04, 0.04, -0.06, -2.0, np.nan)]
    assert texts == ["+0.0", "+0.0", "-0.1", "-2.0", ""]
    assert not re.search(r"-0\.0\b", months_table(account(np.full(K, -1e-6))))


def test_text_table_shows_the_numbers():
    texts = text_table(FOUND)
    assert list(texts.index) == list(FOUND.table.index)
    row = FOUND.table.loc["worse"]
    low, high = (100 * row[f"growth_difference_{side}"] for side in ("low", "high"))
    shown = f"{100 * row['growth_difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    assert texts.loc["worse", "vs equal weight %"] == shown
    assert list(texts["#"]) == ["1", "2", "2", "4", "5", "6", "oracle", "failed"]
    assert texts.loc["seer", "vs equal weight %"] == texts.loc["heavy", "Sharpe"] == ""
    assert texts.loc["much_better", "set"] == "yes"


def test_a_reference_that_was_ruined_leaves_no_comparison():
    results = {"own": account(MARKET), "equal_weight": RESULTS["broke"]}
    found = compare(results, **FEW)
    assert found.superiority is None
    assert np.isnan(found.table.loc["own", "growth_difference"])
    assert "equal_weight was ruined" in sentence(found, "own")


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9, 10, 59, 60])
def test_few_periods_leave_nothing_to_be_sure_of(steps):
    results = {"own": account(MARKET[:steps] + 0.001), "equal_weight": account(MARKET[:steps])}
    found = compare(results, n_resamples=20)
    assert (found.superiority is None) == (steps < 60)
    assert list(found.table.index) == ["own", "equal_weight"]
    bounds = [name for name in found.table if name.endswith(("_low", "_high"))]
    assert found.table.loc["own", bounds].isna().all() == (steps < 10)
    said = sentence(found, "own")
    assert (", taken alone, " in said) == (steps >= 10)
    if steps < 10:
        assert said.endswith(f"+25.2 % a year, over {steps} periods, too few for an interval.")
        assert f"{steps} periods are too few for intervals" in found.notes[0]


def test_no_account_of_an_earlier_evaluation_is_left_beside(tmp_path):
    for records in ("csv", "parquet", "csv"):
        write_comparison(tmp_path, FOUND, {}, records)
        files = {path.name for path in (tmp_path / "worse").iterdir()}
        assert files == {f"account.{records}", f"holdings.{records}"}


def test_says_what_it_could_not_compute(monkeypatch):
    real = comparison.find_spec
    monkeypatch.setattr(
        comparison,
        "find_spec",
        lambda name: real(name) if name not in ("arch", "statsmodels") else None,
    )
    found = compare(RESULTS, oracles=["seer"], **FEW)
    assert len(found.notes) == 2
    assert all("pip install" in note for note in found.notes)
    assert found.table[["hac_p", "in_confidence_set"]].isna().all(axis=None)
    assert found.table["rank"].equals(FOUND.table["rank"].drop("heavy"))


def test_refuses_other_dates_and_unknown_references():
    other = account(MARKET, start="2021-01-01")
    with pytest.raises(ArgumentError, match="different dates"):
        compare(RESULTS | {"other": other})
    with pytest.raises(ArgumentError, match="'nothing'"):
        compare(RESULTS, benchmark="nothing")


def test_files(tmp_path):
    write_comparison(tmp_path, FOUND, {"split": "test"})
    read = pd.read_csv(
        tmp_path / "table.csv", index_col="strategy", keep_default_na=False, na_values=""
    )
    assert list(read.index) == list(FOUND.table.index)
    assert read["annual_log_growth"].to_numpy() == pytest.approx(
        FOUND.table["annual_log_growth"].to_numpy(), nan_ok=True
    )
    measures = json.loads((tmp_path / "metrics.json").read_text())
    assert measures["split"] == "test"
    assert measures["superiority"]["best"] == "much_better"
    assert measures["strategies"]["seer"]["hac_p"] is None  # NaN is not JSON
    assert measures["strategies"]["heavy"]["remark"] == "could not run: needs a library"
    for name in RESULTS:
        assert (tmp_path / name / "account.csv").stat().st_size > 0
        assert (tmp_path / name / "holdings.csv").stat().st_size > 0
    assert not list(tmp_path.rglob(".*"))  # nothing half-written is left
    write_comparison(tmp_path / "more", FOUND, {}, "parquet")
    assert (tmp_path / "more" / "worse" / "holdings.parquet").exists()


def test_gate_sentences():
    opened = GateDecision(passed=True, estimate=0.05, low=0.01, p_value=0.01)
    closed = GateDecision(passed=False, estimate=0.05, low=-0.01, p_value=0.1)
    assert gate_sentence("ppo", opened).startswith("Validation gate open: ppo made +5.0 % a year")
    assert "(lower bound +1.0)" in gate_sentence("ppo", opened)
    short = GateDecision(passed=False, estimate=0.1, low=-np.inf, p_value=np.nan)
    assert gate_sentence("ppo", short).startswith(
        "Validation gate closed: ppo made +10.0 % a year against"
    )
    assert "on the validation range (too short for a lower bound)" in gate_sentence("ppo", short)
    assert gate_sentence("ppo", closed).endswith(", so ppo_gated holds equal weight.")
    assert "flatters" in gate_sentence("ppo", closed, chosen_there=True)
    broke = GateDecision(passed=False, estimate=-np.inf, low=-np.inf, p_value=1.0)
    assert "ruined on the validation range" in gate_sentence("ppo", broke)


def test_the_headline_is_the_table_in_few_columns():
    few = FOUND.headline()
    assert list(few.index) == list(FOUND.table.index)
    row, whole = few.loc["worse"], FOUND.table.loc["worse"]
    assert row["growth"] == round(100 * whole["annual_log_growth"], 2)
    assert row["low"] == round(100 * whole["growth_difference_low"], 2)
    assert few.loc["seer", "remark"] == "oracle"


def test_accounts_side_by_side():
    found = compare(RESULTS, oracles=["seer"], **FEW)
    values, returns = found.values(), found.returns()
    assert list(values) == list(found.results)
    assert values.index.equals(pd.DatetimeIndex(RESULTS["worse"].timestamps))
    assert returns.index.equals(values.index[1:])
    np.testing.assert_allclose(returns["worse"], RESULTS["worse"].returns, atol=1e-14)
    assert returns["broke"].isna().sum() == K - len(RESULTS["broke"].returns)


def test_comparisons_introduce_themselves():
    growth = 100 * FOUND.table["annual_log_growth"]["much_better"]
    assert repr(FOUND).startswith(
        f"Comparison(much_better {growth:+.1f} % a year, 7 others; benchmark "
    )
    page = FOUND._repr_html_()
    assert page.count("<tr>") >= len(FOUND.table) and "nan" not in page
    result = RESULTS["worse"]
    assert repr(result).startswith(
        "BacktestResult(150 decisions from 2020-01-01 to 2020-05-30; 2 assets; "
    )
    assert f"Sharpe {result.metrics()['sharpe']:.2f}" in repr(result)
    assert "largest drawdown" in result._repr_html_()


def test_plots_are_figures_that_show_themselves():
    figure = FOUND.plot()
    values, losses = figure.axes
    drawn = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(drawn) == set(FOUND.unique)  # each account once, no oracle
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert values.get_title() == "Account value" and losses.get_title() == "Drawdown"
    chosen = FOUND.plot(["seer", "worse"])
    assert [text.get_text() for text in chosen.legends[0].get_texts()] == ["seer", "worse"]
    with pytest.raises(ArgumentError, match="unknown strategy 'wors': did you mean"):
        FOUND.plot(["wors"])
    account = RESULTS["worse"].plot("mine")
    assert [axes.get_title() for axes in account.axes] == ["mine", "Drawdown", "Weights"]
