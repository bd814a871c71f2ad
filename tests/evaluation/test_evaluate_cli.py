"""The command lines, end to end: evaluate.py judges baselines alone, and what train.py wrote."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import evaluate
from agents.tensors import load_tensors, save_tensors
from baselines import BASELINES, PortfolioModel, make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.evaluation import backtest
from portfolio_env.files.atomic import read_json

ROOT = Path(__file__).parents[2]
MARKET = "synthetic?assets=3&bars=300&seed=1"
QUICK = ("--resamples", "40", "--market", MARKET, "--no-agent")


def command(monkeypatch, capsys, *arguments):
    """What evaluate.py prints."""
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    evaluate.main()
    return capsys.readouterr().out


class Needy(PortfolioModel):
    """A baseline whose library is not installed."""

    def target(self, past):
        raise NotImplementedError

    def _fit(self, bars):
        from portfolio_env.errors import ArgumentError

        raise ArgumentError("Needy needs a library; pip install it")


class Fitted(PortfolioModel):
    """A baseline that remembers what it was fitted on."""

    seen = None

    def target(self, past):
        return np.array([0.1, 0.2, 0.3, 0.4])

    def _fit(self, bars):
        type(self).seen = bars.timestamps


RANGES = ("--train", "0.5", "--validation", "0.1")
ALONE = "equal_weight,cash,best_asset,momentum,needy,fitted"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of an evaluation of baselines alone, and what was printed."""
    folder, out = tmp_path_factory.mktemp("alone") / "run", io.StringIO()
    more = ("--commissions", "0,10,50", "--capital", 5000, "--records", "parquet")
    arguments = (*QUICK, *RANGES, *more, "--baselines", ALONE, "--out", folder)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setitem(BASELINES, "needy", Needy)
        patch.setitem(BASELINES, "fitted", Fitted)
        patch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        assert evaluate.main() == 0
    return folder, out.getvalue()


def test_the_table_holds_every_strategy_oracles_and_failures_last(alone):
    folder, printed = alone
    table = pd.read_csv(folder / "evaluation" / "test" / "table.csv", index_col="strategy")
    assert set(table.index) == set(ALONE.split(","))
    assert list(table.index[-2:]) == ["best_asset", "needy"]
    assert table.loc["needy", "remark"] == "could not run: Needy needs a library; pip install it"
    for name in table.index:
        assert f"{name} " in printed
    assert "evaluation" not in printed.partition("\n")[0]


def test_a_failure_of_a_baseline_of_ones_own_is_the_exit_status(
    own_module, monkeypatch, capsys, tmp_path
):
    own_module("failing_rules", "def broken(past):\n    1 / 0\n")
    chosen = ("--baselines", "failing_rules:broken,cash", "--out", tmp_path / "run", "--quick")
    arguments = ["evaluate.py", *map(str, (*QUICK, *RANGES, *chosen))]
    monkeypatch.setattr(sys, "argv", arguments)
    assert evaluate.main() == 1
    shown = capsys.readouterr()
    assert "equal_weight" in shown.out and "could not run" in shown.out  # in the table
    assert re.search("error: broken could not run: .*ZeroDivisionError", shown.err)


def test_growth_at_other_commissions_and_orders_are_printed(alone):
    printed = alone[1]
    assert "Growth % at other commissions" in printed and "50 bp" in printed
    assert "Orders of momentum for 5,000" in printed
    table, _, sentences = printed.partition("Growth %")[0].rpartition("└")
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "- momentum" in sentences


def test_orders_are_decided_at_the_last_bar(alone):
    orders = pd.read_csv(alone[0] / "evaluation" / "test" / "orders.csv")
    assert set(orders["strategy"]) == {"equal_weight", "cash", "momentum", "fitted"}  # no oracle
    market = load_market(MARKET)
    for name, frame in orders.groupby("strategy"):
        assert list(frame["asset"]) == [*market.assets, "cash"]
        after = frame["money_after"].sum() + frame["cost"].sum()
        assert after == pytest.approx(5000), name
    fixed = orders[orders["strategy"] == "fitted"].set_index("asset")
    assert fixed["target_weight"].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.1], abs=1e-9)


@pytest.mark.usefixtures("undrawn")
def test_orders_for_what_is_held(tmp_path, monkeypatch, capsys):
    names = load_market(MARKET).assets
    holdings, lots = tmp_path / "h.csv", tmp_path / "lots.csv"
    holdings.write_text(f"asset,units\n{names[1]},7\ncash,100\n")
    lots.write_text("asset,lot\n*,3\n")
    more = ("--baselines", "cash", "--holdings", holdings, "--lots", lots, "--out", tmp_path / "x")
    found = json.loads(command(monkeypatch, capsys, *QUICK, *more, "--format", "json"))
    rows = found["orders"]["cash"]
    assert rows[names[1]]["order_units"] == -6  # of whole lots
    assert rows[names[1]]["reason"] == "sell, dust left"
    holdings.write_text("asset,units\nnobody,7\ncash,100\n")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, (*QUICK, *more))])
    assert evaluate.main() == 1
    assert "h.csv, line 2, unknown asset 'nobody'" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_numbers_are_printed_for_programs(tmp_path, monkeypatch, capsys):
    more = ("--baselines", "cash", "--commissions", "0,50", "--out", tmp_path / "runs" / "x")
    found = json.loads(command(monkeypatch, capsys, *QUICK, *more, "--format", "json"))
    assert set(found["strategies"]) == {"cash", "equal_weight"}
    assert found["growth_by_commission"]["equal_weight"].keys() == {"0.0", "50.0"}
    told = command(monkeypatch, capsys, *QUICK, *more, "--format", "csv")
    table = pd.read_csv(io.StringIO(told), index_col="strategy")
    written = pd.read_csv(
        tmp_path / "runs" / "x" / "evaluation" / "test" / "table.csv", index_col="strategy"
    )
    pd.testing.assert_frame_equal(table, written)
    told = command(monkeypatch, capsys, *QUICK, *more, "--format", "markdown")
    assert "| cash | " in told and "\n| --- | ---: |" in told


def test_a_wrong_path_is_told_before_torch_is_imported(tmp_path):
    code = "import sys, evaluate; sys.argv = ['evaluate.py', 'nowhere']; status = evaluate.main(); "
    code += "print(status, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "1 False\n"
    assert done.stderr.startswith("error: nowhere is not a run folder")


def test_baselines_are_fitted_to_the_training_range(alone):
    market, ranges = _market()
    assert (Fitted.seen == market.timestamps[slice(*ranges["train"])]).all()


def test_accounts_are_those_of_a_backtest_over_the_test_range(alone):
    market, ranges = _market()
    folder = alone[0] / "evaluation" / "test"
    start, end = ranges["test"]
    options = {"window": 1, "observation": "index", "action": "weights", "start": start, "end": end}
    own = backtest(make_baseline("momentum", market), PortfolioEnv(market, **options))
    read = pd.read_parquet(folder / "momentum" / "account.parquet")
    assert (read["value"] == own.values).all()
    table = pd.read_csv(folder / "table.csv", index_col="strategy")
    assert table.loc["momentum", "total_return"] == pytest.approx(own.values[-1] / 10_000 - 1)


def test_oracles_are_fitted_to_the_range_that_is_judged(alone):
    market, ranges = _market()
    (start, end), (first, cut) = ranges["test"], ranges["train"]
    oracle = pd.read_parquet(alone[0] / "evaluation" / "test" / "best_asset" / "holdings.parquet")
    best = market.assets[(market.close[end - 1] / market.close[start]).argmax()]
    learned = market.assets[(market.close[cut - 1] / market.close[first]).argmax()]
    assert best != learned  # or fitting to the wrong range would pass
    assert set(oracle.loc[oracle["weight"] > 0.5, "asset"]) == {best}


def test_the_report_and_the_curves_are_written(alone):
    page = (alone[0] / "evaluation" / "test" / "report.html").read_text()
    for title in ("Costs", "In practice", "Risk and return"):
        assert f"<summary>{title}</summary>" in page
    for text in (
        "<h2>What to hold</h2>",
        "<h3>Orders</h3>",
        f"<h1>{escape(MARKET)}, test",
        "3 assets",
    ):
        assert text in page
    assert list((alone[0] / "tb" / "evaluation").glob("events*"))


@pytest.mark.usefixtures("undrawn")
def test_a_quick_evaluation_leaves_networks_out_and_says_so(tmp_path, monkeypatch, capsys):
    more = ("--quick", "--baselines", "cash,deep_portfolio", "--out", tmp_path)
    printed = command(monkeypatch, capsys, "--resamples", 900, *QUICK[2:], *more)
    folder = tmp_path / "evaluation" / "test"
    said = "This is a quick evaluation, with 250 resamples, without deep_portfolio"
    assert said in printed.replace("\n", " ") and said in (folder / "report.html").read_text()
    assert set(pd.read_csv(folder / "table.csv")["strategy"]) == {"cash", "equal_weight"}


@pytest.mark.usefixtures("undrawn")
def test_a_second_use_of_the_test_range_is_counted_and_said(alone, tmp_path, monkeypatch, capsys):
    home = shutil.copytree(alone[0], tmp_path / "home")
    folder = home / "evaluation" / "test"
    assert json.loads((folder / "metrics.json").read_text())["uses_before"] == 0
    again = command(monkeypatch, capsys, *QUICK, *RANGES, "--baselines", "momentum", "--out", home)
    assert "(evaluation 2 on this range)" in again
    assert "This is evaluation 2 on this test range" in again
    facts = json.loads((folder / "metrics.json").read_text())
    trials = {t["fingerprint"] for look in _looks(home) for t in look["trials"]}
    assert facts["uses_before"] == 1
    assert facts["trials"] == len(trials) - 1  # cash has no Sharpe ratio
    assert "This is evaluation 2" in (folder / "report.html").read_text()


def _market():
    from agents.training.config import TrainConfig

    return TrainConfig(market=MARKET, train=0.5, validation=0.1).load_market()


def _looks(home):
    return read_json(home / "looks.json")["looks"]


@pytest.mark.usefixtures("undrawn")
def test_other_ranges_are_no_looks_at_the_test_range(tmp_path, monkeypatch, capsys):
    printed = command(
        monkeypatch, capsys, *QUICK, "--split", "validation", "--baselines", "cash", "--out",
        tmp_path,
    )  # fmt: skip
    assert "validation: " in printed
    assert "flatters" not in printed  # no agent was chosen by it
    printed = command(
        monkeypatch, capsys, *QUICK, "--split", "train", "--baselines", "cash", "--out", tmp_path
    )
    assert "Nothing here is out of sample." in printed
    assert "Nothing here is" in (tmp_path / "evaluation" / "train" / "report.html").read_text()
    assert not (tmp_path / "looks.json").exists()


@pytest.mark.usefixtures("undrawn")
def test_results_are_written_by_one_process_at_a_time(tmp_path, monkeypatch, capsys):
    from filelock import FileLock, Timeout

    from portfolio_env.evaluation import evaluation

    written = []

    def seen(folder, *arguments, **options):
        with pytest.raises(Timeout), FileLock(folder.with_name(".test.lock"), timeout=0):
            pass  # another process would wait here
        written.append(folder)
        return write(folder, *arguments, **options)

    write = evaluation.write_report
    monkeypatch.setattr(evaluation, "write_report", seen)
    command(monkeypatch, capsys, *QUICK, "--baselines", "cash", "--out", tmp_path)
    assert written == [tmp_path / "evaluation" / "test"]
    with FileLock(tmp_path / "evaluation" / ".test.lock", timeout=0):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "is not a run folder"),
        ([*QUICK, "--baselines", "equal_wait"], "did you mean equal_weight"),
        ([*QUICK, "--commissions", "0;10"], "give numbers such as 0,10,25"),
        ([*QUICK, "--events", "events.csv"], "events.csv"),
        ([*QUICK, "--resamples", "0"], "n_resamples=0 must be"),
        ([*QUICK, "--processes", "-1"], "processes=-1 must be an integer of 0 or more"),
        ([*QUICK, "--capital", "-5"], "capital=-5.0 must be a finite number in (0, 1e+100]"),
        ([*QUICK, "--capital", "5", "--lot", "-1"], "lot=-1"),
        ([*QUICK, "--capital", "5", "--costs.fixed-fee", "6"], "fixed fee of 6 eats capital=5"),
        ([*QUICK, "--commissions", "0,-5"], "commission_bps=-5"),
    ],
)
def test_says_what_is_wrong_without_a_traceback(monkeypatch, capsys, arguments, message, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    assert evaluate.main() == 1
    assert re.search(f"^error: .*{re.escape(message)}", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())  # a look that failed is none


# ---- a run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "short"
    arguments = ["--market", "synthetic?assets=3&bars=400", "--timesteps", 256, "--num-envs", 16]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *map(str, arguments), "--out", str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.slow
def test_evaluates_a_run_against_baselines(run, monkeypatch, capsys):
    printed = command(
        monkeypatch, capsys, run, "--baselines", "buy_and_hold,cash", "--device", "cpu",
        "--resamples", 40,
    )  # fmt: skip
    folder = run / "evaluation" / "test"
    table = pd.read_csv(folder / "table.csv", index_col="strategy")
    assert set(table.index) == {"ppo", "ppo_gated", "equal_weight", "buy_and_hold", "cash"}
    growth = table["annual_log_growth"].to_numpy()
    assert (np.diff(growth) <= 0).all()
    for name in table.index:
        account = pd.read_csv(folder / name / "account.csv")
        total = account["value"].iloc[-1] / account["value"].iloc[0] - 1
        assert total == pytest.approx(table.loc[name, "total_return"])
    twin = "ppo" if "gate open: ppo" in printed else "equal_weight"
    assert f"gate {'open' if twin == 'ppo' else 'closed'}: ppo" in printed
    values = [pd.read_csv(folder / n / "account.csv")["value"] for n in ("ppo_gated", twin)]
    assert values[0].to_numpy() == pytest.approx(values[1].to_numpy())
    facts = json.loads((folder / "metrics.json").read_text())
    rows = read_json(run / "market.json")["ranges"]["test"]
    assert facts["steps"] == rows[1] - 1 - rows[0]  # the whole range, and nothing but it
    assert facts["model"] == "ppo (final)"
    (look,) = _looks(run)
    assert look["model"] == "ppo (final)"
    assert read_json(run / "card.json")["looks"]["count"] == 1
    assert [trial["name"] for trial in look["trials"] if trial["agent"]] == ["ppo"]
    assert "bytes" in (folder / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_another_model_of_the_run_is_another_trial(run, monkeypatch, capsys):
    quick = ("--device", "cpu", "--resamples", 40, "--baselines", "equal_weight")
    command(monkeypatch, capsys, run, *quick)
    shutil.copy(run / "final_model.safetensors", run / "best_model.safetensors")
    same = command(monkeypatch, capsys, run, *quick, "--model", "best")
    assert "evaluation 2 on" in same and "different agents" not in same
    assert "flatters it" in same
    agent = load_tensors(run / "best_model.safetensors", kind="agent")
    agent["counters"]["num_timesteps"] += 1
    save_tensors(run / "best_model.safetensors", agent, kind="agent")
    other = command(monkeypatch, capsys, run, *quick, "--model", "best")
    assert "evaluation 3 on" in other and "2 different agents" in other


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_training_range_starts_at_its_first_possible_decision(run, monkeypatch, capsys):
    command(monkeypatch, capsys, run, "--split", "train", "--device", "cpu", "--resamples", 40)
    facts = json.loads((run / "evaluation" / "train" / "metrics.json").read_text())
    from agents import load_run

    loaded = load_run(run, device="cpu")
    first = loaded.market.warmup + loaded.env_options["window"] - 1
    last = loaded.ranges["train"][1] - 1
    for name, row in (("first_decision", first), ("last_bar", last)):
        assert np.datetime64(facts[name]) == loaded.market.timestamps[row]
    assert not (run / "looks.json").exists()
