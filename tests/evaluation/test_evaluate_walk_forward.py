"""A walk forward is judged fold by fold: agents, baselines fitted anew, the gate, seeds, looks."""

import json
import re
import shutil
import sys
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import evaluate
from agents.training.config import TrainConfig
from agents.training.evaluation import run_task
from agents.training.walk_forward import out_of_sample, walk_forward
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


def judge(path, monkeypatch, capsys, *more):
    quick = ("--device", "cpu", "--resamples", "40", "--baselines", NAMES)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(path), *quick, *more])
    evaluate.main()
    return capsys.readouterr().out


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


def test_every_fold_is_judged_on_its_own(path, monkeypatch, capsys):
    """Accounts are the products of folds computed apart, on the whole market, bar by bar."""
    monkeypatch.setitem(BASELINES, "fitted", Fitted)
    Fitted.seen.clear()
    gates = iter([True, False, False, True])  # fold by fold, seed by seed
    monkeypatch.setattr(
        gate, "gate_decision", lambda *_: GateDecision(next(gates), 0.1, 0.05, 0.01)
    )
    printed = judge(path, monkeypatch, capsys, "--commissions", "0,10", "--capital", "5000")

    whole = load_market(MARKET)
    plan = read_json(path / "walk_forward.json")["folds"]
    trained = [whole.timestamps[slice(*fold["train"])] for fold in plan]
    assert [list(own) for own in Fitted.seen] == [list(own) for own in trained]

    for name in ("equal_weight", "momentum", "best_asset"):
        own = values(path, name)
        assert own[-1] / own[0] == pytest.approx(growth(path, name), rel=1e-9)
        assert len(own) == 240 - plan[0]["test"][0]
    table = pd.read_csv(path / "evaluation" / "test" / "table.csv", index_col="strategy")
    assert table.loc["best_asset", "remark"] == "oracle"
    free = growth(path, "momentum", costs={"commission_bps": 0})
    year = 252 / (len(values(path, "momentum")) - 1)
    page = (path / "evaluation" / "test" / "report.html").read_text()
    assert f"{100 * np.log(free) * year:+.1f} [" in page  # the table of commissions

    agents = out_of_sample(path, device="cpu")
    weights = values(path, "equal_weight")
    cut = plan[1]["test"][0] - plan[0]["test"][0]
    for seed, passed in zip(SEEDS, ([True, False], [False, True]), strict=True):
        own = agents[seed].values
        np.testing.assert_allclose(values(path, f"ppo_seed_{seed}"), own)
        gated = values(path, f"ppo_seed_{seed}_gated")
        for part, agent in zip((slice(0, cut + 1), slice(cut, None)), passed, strict=True):
            chosen = (own if agent else weights)[part]
            np.testing.assert_allclose(gated[part] / gated[part][0], chosen / chosen[0])
    assert printed.count("Gate open") == printed.count("Gate closed") == 2
    assert "fold 1: Gate open: ppo_seed_0" in printed

    differences = table.loc[[f"ppo_seed_{s}" for s in SEEDS], "growth_difference"]
    mean = f"ppo: interquartile mean over 2 seeds {100 * differences.mean():+.1f} ["
    assert mean in printed
    for title in ("Seeds", "Folds", "Choosing the best", "Reality check", "Allocation"):
        assert f"<h2>{title}</h2>" in page
    assert (path / "evaluation" / "test" / "blocks.png").exists()
    facts = json.loads((path / "evaluation" / "test" / "metrics.json").read_text())
    assert list(facts["folds"]) == ["fold 1", "fold 2"]
    (look,) = read_json(path / "looks.json")["looks"]
    assert [t["name"] for t in look["trials"] if t["agent"]] == ["ppo_seed_0", "ppo_seed_3"]
    assert {t["name"] for t in look["trials"] if not t["agent"]} == {
        "equal_weight", "momentum", "fitted",
    }  # fmt: skip
    assert np.datetime64(look["first"]) == whole.timestamps[plan[0]["test"][0]]
    assert np.datetime64(look["last"]) == whole.timestamps[-1]


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


def test_baselines_alone_take_the_folds_too(path, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(path, tmp_path / "copy")
    monkeypatch.setitem(BASELINES, "fitted", Fitted)
    printed = judge(copy, monkeypatch, capsys, "--no-agent")
    assert "in 2 folds" in printed and "ppo" not in printed
    own = values(copy, "momentum")
    assert own[-1] / own[0] == pytest.approx(growth(path, "momentum"), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "validation"], "leave --split out"),
        (["--market", "synthetic"], "are those of the run"),
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
