"""A walk forward is judged fold by fold: agents, baselines fitted anew, the gate, seeds, looks."""

import io
import json
import re
import shutil
import sys
from contextlib import redirect_stdout
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import evaluate
from agents.sweep.walk_forward import walk_forward
from agents.training.config import TrainConfig
from agents.training.tasks import run_task
from agents.training.walk_forward_training import out_of_sample
from baselines import BASELINES, PortfolioModel, make_baseline
from portfolio_env import PortfolioEnv, load_market
from portfolio_env.evaluation import GateDecision, backtest, gate
from portfolio_env.evaluation.diagnostics.subperiods import growth_in
from portfolio_env.files.atomic import read_json

MARKET = "synthetic?bars=240&assets=3"
SEEDS = (0, 3)
NAMES = "equal_weight,momentum,best_asset,fitted"


class Fitted(PortfolioModel):
    """A baseline that remembers what it was fitted on."""

    seen: ClassVar[list[np.ndarray]] = []

    def target(self, past):
        return np.array([0.1, 0.2, 0.3, 0.4])

    def _fit(self, bars):
        type(self).seen.append(bars.timestamps)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    config = TrainConfig(
        market=MARKET, timesteps=256, num_envs=16, episode_length=20, device="cpu",
        adjustment=0.5, out=str(tmp_path_factory.mktemp("runs") / "forward"),
    )  # fmt: skip
    return walk_forward(config, 2, seeds=SEEDS, rolling=True)


def judge(path, *more):
    """Evaluates a walk forward as the command line does."""
    quick = ("--device", "cpu", "--resamples", "40", "--baselines", NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evaluate.py", str(path), *quick, *more])
        patch.setitem(BASELINES, "fitted", Fitted)
        assert evaluate.main() == 0


def values(path, name):
    return pd.read_csv(path / "evaluation" / "test" / name / "account.csv")["value"].to_numpy()


def growth(path, name, **costs):
    """What a baseline makes of the tests of all folds, each computed by itself."""
    whole, product = load_market(MARKET), 1.0
    options = {"window": 1, "observation": "index", "action": "weights"}
    for fold in read_json(path / "walk_forward.json")["folds"]:
        start, end = fold["test"][0], min(fold["test"][1] + 1, 240)
        policy = make_baseline(name, whole)
        if name == "best_asset":
            policy.fit(whole.panel, (start, end))
        env = PortfolioEnv(whole, start=start, end=end, **options, **costs)
        own = backtest(policy, env).values
        product *= own[-1] / own[0]
    return product


GATES = (True, False, False, True)  # what is decided, seed by seed and fold by fold


@pytest.fixture(scope="module")
def judged(path):
    """The folder of a walk forward that was evaluated, and what was printed."""
    Fitted.seen.clear()
    gates, out = iter(GATES), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(gate, "gate_decision", lambda *_: GateDecision(next(gates), 0.1, 0.05, 0.01))
        judge(path, "--commissions", "0,10", "--capital", "5000")
    return path, out.getvalue()


def table_of(path):
    return pd.read_csv(path / "evaluation" / "test" / "table.csv", index_col="strategy")


def page_of(path):
    return (path / "evaluation" / "test" / "report.html").read_text()


def plan_of(path):
    return read_json(path / "walk_forward.json")["folds"]


def test_baselines_are_fitted_anew_in_every_fold(judged):
    times = load_market(MARKET).timestamps
    trained = [times[slice(*fold["train"])] for fold in plan_of(judged[0])]
    assert [list(own) for own in Fitted.seen[:2]] == [list(own) for own in trained]


@pytest.mark.parametrize("name", ["equal_weight", "momentum", "best_asset"])
def test_accounts_are_the_products_of_folds_computed_apart(judged, name):
    """Bar by bar, each fold on the whole market."""
    path, _ = judged
    own = values(path, name)
    assert own[-1] / own[0] == pytest.approx(growth(path, name), rel=1e-9)
    assert len(own) == 240 - plan_of(path)[0]["test"][0]


def test_oracles_are_fitted_to_the_test_of_their_fold_and_marked(judged):
    assert table_of(judged[0]).loc["best_asset", "remark"] == "oracle"


def test_other_commissions_are_in_the_page(judged):
    path, _ = judged
    free = growth(path, "momentum", costs={"commission_bps": 0})
    times = load_market(MARKET).timestamps[plan_of(path)[0]["test"][0] :]
    years = (times[-1] - times[0]) / np.timedelta64(36_525 * 864, "s")
    assert f"{100 * np.log(free) / years:+.1f}<wbr> [" in page_of(path)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_seed_trades_its_own_agents(judged, seed):
    path, _ = judged
    own = out_of_sample(path, device="cpu")[seed].values
    np.testing.assert_allclose(values(path, f"ppo_seed_{seed}"), own)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gate_decides_in_every_fold(judged, seed):
    path, _ = judged
    own, weights = values(path, f"ppo_seed_{seed}"), values(path, "equal_weight")
    gated, first = values(path, f"ppo_seed_{seed}_gated"), SEEDS.index(seed) * 2
    cut = plan_of(path)[1]["test"][0] - plan_of(path)[0]["test"][0]
    parts = (slice(0, cut + 1), slice(cut, None))
    for part, passed in zip(parts, GATES[first : first + 2], strict=True):
        chosen = (own if passed else weights)[part]
        np.testing.assert_allclose(gated[part] / gated[part][0], chosen / chosen[0])


def test_decisions_of_the_gate_are_printed_by_fold(judged):
    _, printed = judged
    assert printed.count("gate open") == printed.count("gate closed") == 2
    assert "fold 1: Validation gate open: ppo_seed_0" in printed


def test_seeds_are_summarised(judged):
    path, printed = judged
    differences = table_of(path).loc[[f"ppo_seed_{s}" for s in SEEDS], "growth_difference"]
    assert f"ppo: interquartile mean over 2 seeds {100 * differences.mean():+.1f} [" in printed


@pytest.mark.parametrize(
    "title", ["Seeds", "Folds", "Choosing the best", "Plausibility", "Details"]
)
def test_the_page_has_the_sections_of_a_walk_forward(judged, title):
    assert f"<summary>{title}</summary>" in page_of(judged[0])


def test_figures_and_facts_know_the_folds(judged):
    folder = judged[0] / "evaluation" / "test"
    assert (folder / "blocks.png").exists()
    assert list(json.loads((folder / "metrics.json").read_text())["folds"]) == ["fold 1", "fold 2"]


def test_a_walk_forward_is_one_use_of_its_test_range(judged):
    path, _ = judged
    (look,) = read_json(path / "looks.json")["looks"]
    assert [t["name"] for t in look["trials"] if t["agent"]] == ["ppo_seed_0", "ppo_seed_3"]
    assert {t["name"] for t in look["trials"] if not t["agent"]} == {
        "equal_weight", "momentum", "fitted",
    }  # fmt: skip
    times = load_market(MARKET).timestamps
    assert np.datetime64(look["first"]) == times[plan_of(path)[0]["test"][0]]
    assert np.datetime64(look["last"]) == times[-1]


def test_folds_cover_the_account_once(path):
    task = run_task(path, device="cpu")
    for result in out_of_sample(path, device="cpu").values():
        growth = growth_in({"own": result}, task.windows).loc["own"]
        assert growth.sum() == pytest.approx(result.log_returns.sum(), abs=1e-12)
    assert [list(fold.agents) for fold in task.folds] == [["ppo_seed_0", "ppo_seed_3"]] * 2
    first, second = (fold.market for fold in task.folds)
    assert first.timestamps[0] < second.timestamps[0]  # rolling
    fold = run_task(path / "fold_0" / "seed_0", device="cpu")
    assert not fold.windows and not fold.seeds and fold.agents == ["ppo"]


@pytest.mark.usefixtures("undrawn")
def test_baselines_alone_take_the_folds_too(path, tmp_path, capsys):
    copy = shutil.copytree(path, tmp_path / "copy")
    judge(copy, "--no-agent")
    printed = capsys.readouterr().out
    assert "in 2 folds" in printed and "ppo" not in printed
    own = values(copy, "momentum")
    assert own[-1] / own[0] == pytest.approx(growth(path, "momentum"), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "validation"], "leave --split out"),
        (["--market", "synthetic"], "is a walk forward, whose folds are tested"),
        ([], r"1 runs of the walk forward .* not trained to their end, .*fold_1/seed_3"),
    ],
)
def test_what_makes_no_sense_is_refused(path, tmp_path, monkeypatch, capsys, arguments, message):
    copy = shutil.copytree(path, tmp_path / "copy", ignore=shutil.ignore_patterns("evaluation"))
    (copy / "looks.json").unlink(missing_ok=True)
    (copy / "fold_1/seed_3/final_model.safetensors").unlink()
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(copy), *arguments])
    assert evaluate.main() == 1
    assert re.search(f"^error: .*{message}", capsys.readouterr().err)
    assert not (copy / "looks.json").exists()
