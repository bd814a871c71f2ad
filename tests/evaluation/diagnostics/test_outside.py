"""Prices from outside of the market: what they are worth at every bar, and where they show."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.accounts import account

import evaluate as command
import portfolio_env as pe
from baselines import evaluate
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.diagnostics.outside import outside_account, read_outside
from portfolio_env.evaluation.left_out import remark_sentences, remarks
from portfolio_env.evaluation.summary import sentence, universe_lines

SOURCE = "synthetic?bars=300&assets=3&seed=1"


def series(days, closes, file, **others):
    """A file of daily closes of SPY, and of others."""
    frame = pd.DataFrame({"SPY": closes, **others}, index=pd.DatetimeIndex(days, name="date"))
    frame.to_csv(file)
    return file


@pytest.fixture
def spy(tmp_path):
    """Closes of SPY and of a stock over the whole market."""
    times = pe.load_market(SOURCE).timestamps
    closes = 100 * 1.0002 ** np.arange(len(times))
    return series(times, closes, tmp_path / "prices.csv", DULL=closes[::-1])


def test_it_is_worth_the_last_close_known_at_every_bar(tmp_path):
    days = ["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-06"]
    file = series(days, [50.0, 100.0, 110.0, 99.0], tmp_path / "prices.csv")
    like = account(np.array([0.01, 0.02, -0.01, 0.0]), start="2020-01-02")
    found = outside_account(read_outside(file), like)
    assert found.values == pytest.approx([10_000, 10_000, 10_000, 11_000, 9_900])
    assert found.outside == "SPY" and not found.costs.any() and not found.trades.any()
    assert found.metrics()["annual_turnover"] == 0


def test_a_daily_close_is_known_to_bars_within_a_day_only_when_it_is_over(tmp_path):
    file = series(["2020-01-01", "2020-01-02"], [100.0, 120.0], tmp_path / "prices.csv")
    like = account(np.zeros(3))
    hours = np.array(["02T00", "02T12", "03T00", "03T12"], "U5")
    times = np.array([f"2020-01-{hour}" for hour in hours], "datetime64[ns]")
    object.__setattr__(like, "timestamps", times)
    found = outside_account(read_outside(file), like)
    assert found.values == pytest.approx([10_000, 10_000, 12_000, 12_000])


@pytest.mark.parametrize("days", [("2020-01-03", 30), ("2019-12-01", 40), ("2020-01-01", 2)])
def test_prices_that_do_not_cover_the_range_are_refused(tmp_path, days):
    first, count = days
    times = pd.date_range(first, periods=count)
    file = series(times, np.linspace(1, 2, count), tmp_path / "prices.csv")
    like = account(np.zeros(20))
    with pytest.raises(DataError, match=r"prices of SPY from .* give a series without gaps from"):
        outside_account(read_outside(file), like)


def test_one_asset_of_a_file_with_several(spy):
    assert read_outside(f"{spy}:DULL").close[0, 0] > read_outside(f"{spy}:SPY").close[0, 0]
    with pytest.raises(ArgumentError, match=r"holds 2 assets; name one of them"):
        read_outside(spy)
    with pytest.raises(ArgumentError, match="NONE"):
        read_outside(f"{spy}:NONE")
    with pytest.raises((ArgumentError, DataError)):
        read_outside("missing.csv")


def test_it_is_a_line_but_no_strategy_that_was_tried(spy):
    given = {"start": 200, "n_resamples": 40, "commissions": [0, 50]}
    plain = evaluate("momentum", SOURCE, **given).comparison
    whole = evaluate("momentum", SOURCE, benchmark=f"{spy}:SPY", **given)
    found = whole.comparison
    assert set(found.results) == {"momentum", "equal_weight", "SPY"}
    assert found.trials == plain.trials and found.superiority == plain.superiority
    assert found.table.loc["SPY", "remark"] == "outside prices"
    costs = whole.runs.growth_by_cost["SPY"]
    assert costs[0] == costs[50] == pytest.approx(found.table.loc["SPY", "annual_log_growth"])
    same = ["annual_log_growth", "growth_difference", "growth_difference_p", "deflated_sharpe"]
    table = found.table.loc[["momentum", "equal_weight"], same]
    pd.testing.assert_frame_equal(table, plain.table.loc[table.index, same])
    growth = found.table["annual_log_growth"]
    [line] = universe_lines(found)
    less = 100 * (growth["equal_weight"] - growth["SPY"])
    assert line.startswith(f"Equal weight of this universe made {less:+.1f} [")
    assert "against SPY" in line
    with pytest.raises(ArgumentError, match="needs the prices of one"):
        evaluate("momentum", SOURCE, reference="benchmark", **given)


@pytest.mark.usefixtures("undrawn")
def test_it_can_be_the_reference_of_the_command_line(spy, tmp_path, monkeypatch, capsys):
    def run(*more):
        start = ("--market", SOURCE, "--no-agent", "--resamples", "40", "--out", tmp_path / "x")
        arguments = (*start, "--baselines", "cash", *more)
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        return command.main(), capsys.readouterr()

    status, told = run(
        "--benchmark", f"{spy}:SPY", "--reference", "benchmark", "--commissions", "50",
        "--format", "json",
    )  # fmt: skip
    assert status == 0
    rows = json.loads(told.out)["strategies"]
    for name, row in rows.items():
        less = row["annual_log_growth"] - rows["SPY"]["annual_log_growth"]
        assert row["growth_difference"] == pytest.approx(less, abs=1e-9), name
    page = next((tmp_path / "x").rglob("report.html")).read_text()
    assert "Equal weight of this universe made" in page
    status, told = run("--benchmark", spy)
    assert status == 1 and "name one of them" in told.err


def test_an_account_that_is_mostly_one_asset_says_so():
    def most(past):
        return np.array([0.1, 0.7, 0.1, 0.1])

    found = evaluate({"most": most}, SOURCE, start=200, n_resamples=40).comparison
    name = pe.load_market(SOURCE).assets[0]
    assert found.table.loc["most", "remark"] == f"70 % {name} on average"
    assert f"It held 70 % {name} on average." in sentence(found, "most")
    assert found.table.loc["equal_weight", "remark"] == ""


def test_a_turnover_that_a_limit_cuts_is_said():
    given = {"start": 200, "n_resamples": 40}

    def swings(past):
        up = past.close[-1, 0] > past.close[-2, 0]
        return np.array([0.0, float(up), float(not up), 0.0])

    for limit, cut in ((None, False), (0.5, True)):
        rules = {"max_turnover": limit}
        found = evaluate({"swings": swings}, SOURCE, constraints=rules, **given).comparison
        assert np.any(found.results["swings"].cut) == cut
        assert ("turnover cut on" in found.table.loc["swings", "remark"]) == cut
        assert ("It had its turnover cut on" in sentence(found, "swings")) == cut


@pytest.mark.parametrize(("fee", "silent"), [(150.0, True), (50.0, False)])
def test_a_fee_that_sales_cannot_pay_is_said(fee, silent):
    """A limit lets a tenth of the account be sold, which a fee of 15 % takes up and more."""

    class One:
        action = "weights"

        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            return np.array([[0.0, 1.0, 0.0]]), state

    env = pe.PortfolioEnv(
        "synthetic?bars=70&assets=2",
        window=1,
        observation="index",
        action="weights",
        initial="equal_weight",
        constraints={"max_turnover": 0.2},
        costs={"fixed_fee": fee, "commission_bps": 0.0},
        initial_value=1000.0,
    )
    result = backtest(One(), env)
    assert (result.turnovers[0] == 0) == silent
    said = "trades cut to nothing on "
    assert any(each.startswith(said) for each in remarks(result)) == silent
    assert any("It had its trades cut" in each for each in remark_sentences(result)) == silent
