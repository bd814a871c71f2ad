"""A run is applied to data that continue its own, and to no others by mistake."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.small_runs import made_run

import evaluate
import trade
from agents import load_run
from agents.run_market import REVISED
from agents.settings.market import FillOptions, MarketConfig
from agents.training.tasks import market_task, with_frictions
from agents.training.train import resume
from portfolio_env import Fills, PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.task import EvaluationFold
from portfolio_env.evaluation.usage_log import read_usage_log

BARS, MORE = 300, 12
FRAME = load_market(f"synthetic?bars={BARS + MORE}&assets=4", features="none").to_frame()
FRAME = FRAME.drop(columns="tradable")
DAYS = sorted(FRAME["date"].unique())
OWN = FRAME[FRAME["date"].isin(DAYS[:BARS])]


def written(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newer")
    market = written(folder / "prices.csv", OWN)
    return made_run(folder / "runs" / "own", market=str(market), observation="index")


def values(run_: object, split: str = "test") -> np.ndarray:
    start, end = run_.ranges[split]
    options = {**run_.env_options, "market": run_.market, "start": start, "end": end}
    return backtest(run_.model, PortfolioEnv(**options)).values


def test_a_grown_file_gives_the_same_test_and_a_range_after_it(run: Path, tmp_path: Path) -> None:
    own, newer = load_run(run), load_run(run, data=written(tmp_path / "newer.csv", FRAME))
    assert newer.ranges == own.ranges | {"after": (BARS - 1, BARS + MORE)}
    assert newer.news == (
        f"The data go on for {MORE} bars after what was learned from, to {str(DAYS[-1])[:10]}.",
    )
    with pytest.raises(DataError, match=f"to the last at {str(DAYS[BARS - 1])[:10]}, is newer"):
        EvaluationFold(own.market, own.ranges, own.env_options).rows("after")
    assert np.array_equal(newer.market.features[:BARS], own.market.features)
    assert values(newer) == pytest.approx(values(own), rel=1e-12)
    assert len(values(newer, "after")) == MORE + 1


def test_another_market_of_another_frequency_is_told(run: Path, tmp_path: Path) -> None:
    weeks = FRAME[pd.to_datetime(FRAME["date"]).dt.day_of_week == 2]
    weekly = load_run(run, market=str(written(tmp_path / "weekly.csv", weeks)))
    assert re.search(r"It has 52 bars a year and the run's has \d+: ", weekly.news[0])
    same = load_run(run, market=str(written(tmp_path / "daily.csv", FRAME)))
    assert "bars a year" not in same.news[0]


def test_a_run_finds_its_own_file_grown_but_does_not_resume_on_it(tmp_path: Path) -> None:
    market = written(tmp_path / "prices.csv", OWN)
    path = made_run(tmp_path / "run", finished=False, market=str(market))
    before = load_run(path).ranges
    written(market, FRAME)
    assert load_run(path).ranges == before | {"after": (BARS - 1, BARS + MORE)}
    with pytest.raises(DataError, match="has changed since the run"):
        resume(path)
    (path / "prices.safetensors").unlink()  # as of runs of earlier versions
    assert load_run(path).ranges == before | {"after": (BARS - 1, BARS + MORE)}


def test_a_predictor_of_a_run_takes_bars_as_they_come(run: Path, tmp_path: Path) -> None:
    own, newer = load_run(run), load_run(run, data=written(tmp_path / "newer.csv", FRAME))
    options = {**newer.env_options, "market": newer.market, "start": BARS - 1}
    result = backtest(newer.model, PortfolioEnv(**options))
    predictors = [own.predictor(), own.predictor(newer.market.past(BARS + 2))]
    predictors[0].advance(FRAME[FRAME["date"].isin(DAYS[BARS : BARS + 3])])
    for t in range(BARS + 3, BARS + MORE):
        for predictor in predictors:
            decision = predictor.advance(FRAME[FRAME["date"] == DAYS[t]])
            assert decision.timestamp == newer.market.timestamps[t]
        np.testing.assert_array_equal(predictors[0].simulator.held[0], result.held[t - BARS])
        assert predictor.market.features[-1].tolist() == newer.market.features[t].tolist()
    assert np.array_equal(values(own), values(load_run(run)))  # which stays bound to its market
    higher = newer.market.panel.past(BARS + 2)
    close = higher.close * np.linspace(1, 1.2, BARS + 3)[:, None]
    with pytest.raises(DataError, match="contradict what was learned from"):
        own.predictor(replace(higher, open=None, high=None, low=None, close=close))


def test_a_revised_volume_is_said(run: Path, tmp_path: Path) -> None:
    first = (FRAME["date"] == DAYS[5]).to_numpy()
    other = FRAME.assign(volume=np.where(first, 2 * FRAME["volume"], FRAME["volume"]))
    newer = load_run(run, data=written(tmp_path / "newer.csv", other))
    assert newer.news[1:] == (REVISED,)


def test_rescaled_history_is_the_run_s_own(run: Path, tmp_path: Path) -> None:
    names = sorted(FRAME["symbol"].unique())
    scale = FRAME["symbol"].map(dict(zip(names, (0.25, 1.1, 3, 1), strict=True)))
    prices = ["open", "high", "low", "close"]
    moved = FRAME.assign(**{name: FRAME[name] * scale for name in prices})
    newer = load_run(run, data=written(tmp_path / "newer.csv", moved))
    assert values(newer) == pytest.approx(values(load_run(run)), rel=1e-6)


def test_a_past_that_differs_is_refused_with_bar_and_asset(run: Path, tmp_path: Path) -> None:
    name, day = FRAME["symbol"].iloc[1], DAYS[200]
    at = (FRAME["symbol"] == name) & (FRAME["date"] == day)
    other = FRAME.assign(low=FRAME["low"].where(~at, FRAME["low"] * 0.99))
    other["close"] = other["close"].where(~at, other["low"])
    for frame in (other, FRAME[~at]):
        with pytest.raises(DataError, match=f"at {str(day)[:10]} {name} "):
            load_run(run, data=written(tmp_path / "other.csv", frame))


def test_assets_may_come_and_go_where_the_policy_reads_each(run: Path, tmp_path: Path) -> None:
    names = sorted(FRAME["symbol"].unique())
    extra = FRAME[FRAME["symbol"] == names[0]].assign(symbol="NEW")
    renamed = FRAME.replace({"symbol": {names[1]: "OTHER"}})
    late = FRAME[~((FRAME["symbol"] == names[2]) & (FRAME["date"] == DAYS[-1]))]
    for frame, told in (
        (pd.concat([FRAME, extra]), ["New in the data: NEW."]),
        (renamed, ["New in the data: OTHER.", f"Gone from the data: {names[1]}."]),
        (late, []),
    ):
        newer = load_run(run, data=written(tmp_path / "newer.csv", frame.sort_values("date")))
        assert list(newer.news[1:]) == told
        assert len(values(newer, "after")) == MORE + 1


@pytest.mark.filterwarnings("ignore:a flat network")
def test_a_flat_policy_reads_its_own_assets_alone(tmp_path: Path) -> None:
    market = written(tmp_path / "prices.csv", OWN)
    path = made_run(
        tmp_path / "run", market=str(market), policy="flat_mlp", observation="flat", universe=0
    )
    assert len(values(load_run(path, data=written(tmp_path / "n.csv", FRAME)), "after")) == MORE + 1
    other = FRAME.replace({"symbol": {FRAME["symbol"].iloc[0]: "OTHER"}})
    with pytest.raises(ArgumentError, match="flat_mlp was trained for the assets"):
        load_run(path, data=written(tmp_path / "other.csv", other))


def test_a_delay_of_none_keeps_that_of_the_run_and_a_delay_of_0_is_one() -> None:
    task = market_task(MarketConfig(market="synthetic?bars=200&assets=2", delay=2))
    assert with_frictions(task, Fills(), None) is task
    assert with_frictions(task, Fills(), 2) is task
    prompt = with_frictions(task, Fills(), 0)
    assert prompt.whole.options["delay"] == prompt.folds[0].options["delay"] == 0
    assert prompt.place.endswith("delay_0") and "in the run it was 2" in prompt.warnings[-1]
    with pytest.raises(ArgumentError, match="delay=-1 must be"):
        with_frictions(task, Fills(), -1)
    assert market_task(MarketConfig(market="synthetic?bars=200")).whole.options["delay"] == 0


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_evaluate_judges_on_what_came_after_and_on_another_market(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: object) -> int:
        quick = ("--resamples", "20", "--baselines", "cash", "--format", "csv")
        monkeypatch.setattr(sys, "argv", ["evaluate.py", str(run), *map(str, arguments), *quick])
        return evaluate.main()

    newer = written(tmp_path / "newer.csv", FRAME)
    assert command("--data", newer) == 0
    account = pd.read_csv(next((run / "evaluation" / "after").rglob("ppo/account.csv")))
    assert len(account) == MORE + 1
    (use,) = read_usage_log(run)
    assert use.first == str(DAYS[BARS - 1])[:10]
    other = "synthetic?bars=200&assets=3&seed=9"
    assert command("--market", other) == 0
    assert (run / "evaluation" / "synthetic" / "test" / "report.html").exists()
    assert len(read_usage_log(run)) == 2
    assert command("--fills.participation", 1e-7, "--fills.failure", 0.2, "--delay", 1) == 0
    account = run / "evaluation" / "participation_1e-07_failure_0.2_delay_1" / "test"
    assert "not by those of the run: Fills()" in (account / "report.html").read_text()
    assert "orders unfilled" in (account / "table.csv").read_text()
    capsys.readouterr()
    assert command("--split", "after") == 1
    assert "the data have no range after" in capsys.readouterr().err


def test_today_on_data_that_grew_by_a_day(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(FRAME["symbol"].unique())
    grown = FRAME[FRAME["date"].isin(DAYS[: BARS + 1])]
    day = str(DAYS[BARS])[:10]
    prices = ["open", "high", "low", "close"]
    extra = grown[grown["symbol"] == names[0]].assign(symbol="NEW")
    holdings = tmp_path / "h.csv"
    holdings.write_text(f"asset,units\n{names[0]},2\n{names[1]},0.5\ncash,1000\n")

    def orders(frame: pd.DataFrame, out: str) -> pd.DataFrame:
        data = written(tmp_path / "newer.csv", frame.sort_values(["date", "symbol"]))
        found = (str(run), "today", "--data", data, "--holdings", holdings, "--as-of", day)
        arguments = [*found, "--lot", "0.01", "--out", tmp_path / out, "--alert-drift", "1"]
        monkeypatch.setattr(sys, "argv", ["trade.py", *map(str, arguments)])
        assert trade.main() == 0, capsys.readouterr().err
        told = capsys.readouterr().out
        assert f"decided at the close of {day}" in told
        assert "Validation gate" in " ".join(told.split())
        return pd.read_csv(tmp_path / out / "orders.csv", index_col="asset")

    plain = orders(grown, "plain")
    assert list(plain.index) == [*names, "cash"]
    scaled = grown.assign(**{name: grown[name] * 4 for name in prices})
    assert orders(scaled, "scaled")["price"].to_numpy()[:-1] == pytest.approx(
        4 * plain["price"].to_numpy()[:-1]
    )
    late = grown[~((grown["symbol"] == names[0]) & (grown["date"] == DAYS[BARS]))]
    found = orders(late, "late")
    assert found["reason"][names[0]] == "no bar now" and found["units_after"][names[0]] == 2
    assert "NEW" in orders(pd.concat([grown, extra]), "extra").index
    renamed = grown.replace({"symbol": {names[0]: "OTHER"}})
    with pytest.raises(AssertionError, match="line 2, unknown asset"):
        orders(renamed, "renamed")


def test_fills_that_are_given_replace_those_of_a_run_complete_ones_too() -> None:
    options = FillOptions(failure=0.5)
    task = market_task(MarketConfig(market="synthetic?bars=200&assets=2", fills=options))
    assert with_frictions(task, None, None) is with_frictions(task, options.fills, None) is task
    assert not FillOptions().given and FillOptions(failure=0).given
    whole = with_frictions(task, FillOptions(failure=0).fills, None)
    assert Fills(**whole.whole.options["fills"]).complete and whole.place.endswith("failure_0")
    assert "not by those of the run" in whole.warnings[-1]
    with pytest.raises(ArgumentError, match="failure=2"):
        FillOptions(failure=2)
