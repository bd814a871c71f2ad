"""A supervised run resumes to the same model, judges it, and trades what it says."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.compute import estimate
from agents.settings.market import refuse_no_run
from agents.store.__main__ import main as store_command
from agents.supervised import SupervisedModel
from agents.supervised import run as runs
from agents.supervised.__main__ import Command, main
from agents.supervised.cards import summary
from agents.supervised.config import Fitting, SupervisedConfig
from agents.training.run_folder import read_config
from agents.training.run_records import read_record
from baselines.forecasts.supervised import ForecastedMeanVariance, ForecastRule
from portfolio_env import Fills, load_market
from portfolio_env.command_line import read_arguments
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.usage_log import LOG
from portfolio_env.files.atomic import read_json, write_json

SMALL = SupervisedConfig(
    market="synthetic?bars=700&assets=3&seed=1",
    task="hybrid",
    encoder="mlp",
    encoder_options='{"architecture": [8]}',
    fit=Fitting(epochs=3, patience=None, warmup=5, accumulation=2),
)

ENCODER = """
import torch


class Mine(torch.nn.Module):
    def __init__(self, n_features, window):
        super().__init__()
        self.layer = torch.nn.Linear(n_features * window, 4)

    def forward(self, windows, tradable):
        return self.layer(windows.transpose(1, 2).flatten(2)).tanh()
"""


def test_rules_hold_what_the_forecast_says() -> None:
    market = PlantedMarket.draw(seed=3, bars=500, kappa=0.01, phi=0.9).market
    small = {"architecture": [8]}
    model = SupervisedModel(market.feature_names, encoder="mlp", window=1, encoder_options=small)
    model.fit(market, (0, 300), (300, 400), epochs=1)
    sign, rank = (ForecastRule(market, model, rule=rule) for rule in ("sign", "rank"))  # type: ignore[arg-type]
    for row in (420, 450):
        mean, _, up = model.forecast(market, row)
        past = market.panel.past(row)
        np.testing.assert_allclose(sign.target(past)[1:], (up > 0.5) / market.n_assets)
        held = np.argsort(-mean)[:2]  # a third of five, rounded up
        assert set(np.flatnonzero(rank.target(past)[1:])) == set(held)
    optimiser = ForecastedMeanVariance(market, model, lookback=60)
    problem = optimiser.problem(market.panel.past(450))
    expected = model.forecast(market, 450)[0][problem.assets]
    np.testing.assert_array_equal(optimiser.expected_returns(problem), expected)


def test_what_cannot_fit_the_memory_is_refused_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(SMALL, out=str(tmp_path / "run"))
    monkeypatch.setattr(estimate, "_LIBRARIES", 100 * estimate.GIB)
    told = r"needs an estimated 10\d\.\d GiB .*, the memory of this machine is .*: give a smaller"
    with monkeypatch.context() as small, pytest.raises(ArgumentError, match=told):
        small.setattr(estimate, "memory_of", lambda device: 50 * estimate.GIB)
        runs.train(config)
    assert not (tmp_path / "run").exists()
    market, ranges = config.resolved().load_market()
    where = (market, ranges["train"], ranges["validation"])
    monkeypatch.setattr(estimate, "memory_of", lambda device: 200 * estimate.GIB)
    model, kept = config.resolved().model(market), "the encoder's activations"
    few, many = (
        estimate.estimate_forecasts(model.trainer(*where, batch=batch), market)[kept]
        for batch in (16, 64)
    )
    assert many == 4 * few > 0
    estimate.check_forecasts(model.trainer(*where), market)
    assert "it may be killed" in caplog.text


def test_settings_are_read_and_checked() -> None:
    command = read_arguments(Command, args=["--task", "return", "--fit.epochs", "2"])
    assert command.config == SupervisedConfig(task="return", fit=Fitting(epochs=2))
    for options, message in (
        ({"horizon": 0}, "horizon=0"),
        ({"encoder": "per_asset"}, "no weights"),
        ({"encoder": "lstn"}, "did you mean lstm"),
        ({"embargo": -1}, "embargo=-1"),
        ({"task_options": '{"up": 1}'}, "up"),
        ({"fit": Fitting(batch=0)}, "batch=0"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(ArgumentError, match=message):
            SupervisedConfig(**given)
    with pytest.raises(DataError, match="not a supervised run"):
        runs.resume(Path("nowhere"))


@pytest.mark.parametrize("option", ["--seed=3", "--encoder=per_asset", "--seed=x"])
def test_an_option_beside_resume_is_refused_before_it_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["supervised", "--resume", "nowhere", option])
    assert main() == 1
    said = "error: --resume goes on with its own settings: leave the others out\n"
    assert capsys.readouterr().err == said


def test_a_training_names_what_takes_up_a_supervised_run(tmp_path: Path) -> None:
    write_json(tmp_path / "supervised.json", {})
    with pytest.raises(DataError, match=r"supervised run, of python -m agents\.supervised"):
        read_config(tmp_path)


def test_rules_of_trading_are_checked_before_the_training(tmp_path: Path) -> None:
    config = SupervisedConfig(
        market="synthetic?bars=200", initial_value=-1.0, out=str(tmp_path / "run")
    )
    with pytest.raises(ArgumentError, match=r"initial_value=-1.0 must be"):
        runs.train(config)
    assert not (tmp_path / "run").exists()


def test_what_forecasts_earn_keeps_to_all_rules_of_trading() -> None:
    config = SupervisedConfig(market="synthetic", fills=Fills(failure=0.2), delay=3)
    rules = config.env_options()
    assert rules.keys() >= {"costs", "constraints", "execution", "initial_value"}
    assert rules["delay"] == 3 and rules["fills"]["failure"] == 0.2


def test_the_embargo_separates_ranges() -> None:
    (_, plain), (_, apart) = (replace(SMALL, embargo=bars).load_market() for bars in (0, 7))
    for name, gap in (("train", 0), ("validation", 7), ("test", 7)):
        assert apart[name] == (plain[name][0] + gap, plain[name][1])


def test_help_needs_no_torch() -> None:
    loaded = (
        "import sys; from agents.supervised.__main__ import main; sys.argv = ['x', '--help']\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'matplotlib'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout
    assert "--embargo" in said and said.endswith("set()\n")


def test_a_run_is_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with an encoder of one's own is listed, shown, handed on and removed like any other."""
    (tmp_path / "nets_of_mine.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(tmp_path)
    numbers = ("annual_log_growth", "sharpe", "annual_turnover", "cost_drag")
    differences = [f"equal_risk_difference{part}" for part in ("", "_low", "_high")]
    accounts = pd.DataFrame(0.01, ["equal_weight", "sign"], [*numbers, *differences])
    value = SimpleNamespace(comparison=SimpleNamespace(table=accounts), plot=lambda: None)
    monkeypatch.setattr(runs, "economic_value", lambda *_, **__: value)
    monkeypatch.setattr(runs, "save_figure", lambda _, file: write_json(file, {}))
    store = tmp_path / "runs"
    small = replace(SMALL, market="synthetic?bars=300&assets=3&seed=1", runs=str(store))
    own = replace(small, encoder="nets_of_mine:Mine", encoder_options="{}", window=3)
    path = runs.train(replace(own, task="direction"))
    record = read_record(path)
    assert (record.algo, record.market, record.state) == ("direction", "synthetic", "finished")
    assert (path / "card.md").read_text().startswith("# direction by nets_of_mine:Mine")
    assert store_command(["show", path.name, "--runs", str(store), "--verify"]) == 0
    assert store_command(["card", path.name, "--runs", str(store)]) == 0
    archive = str(tmp_path / "run.zip")
    assert store_command(["export", path.name, archive, "--runs", str(store)]) == 0
    assert store_command(["delete", path.name, "--runs", str(store), "--yes"]) == 0
    assert not path.exists()
    assert store_command(["import", archive, "--runs", str(store)]) == 0
    card = read_json(path / "card.json")
    assert card["judged"]["scores"] and card["state"] == "finished"
    with pytest.raises(DataError, match="holds forecasts and no agent"):
        refuse_no_run(path)
    model = SupervisedModel.load(path / runs.MODEL)
    market, ranges = own.resolved().load_market()
    assert np.isfinite(model.forecasts(market, ranges["test"]).up).all()
    with pytest.raises(DataError, match="nets_of_mine"):  # code that came with what is loaded
        SupervisedModel.load(path / runs.MODEL, within=tmp_path)


@pytest.mark.slow
def test_a_stopped_run_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runs.train(replace(SMALL, out=str(tmp_path / "whole")))
    written = runs.write_points

    def stop(logger: Any, numbers: Any, samples: int) -> None:
        written(logger, numbers, samples)
        if samples >= 2 * first:
            raise KeyboardInterrupt

    first = len(read_json(whole / "history.json")["epochs"]) and _bars(SMALL)
    monkeypatch.setattr(runs, "write_points", stop)
    stopped = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        runs.train(replace(SMALL, out=str(stopped)))
    monkeypatch.setattr(runs, "write_points", written)
    assert runs.resume(stopped) == stopped
    files = [(path / "best_model.safetensors").read_bytes() for path in (whole, stopped)]
    assert files[0] == files[1]
    cards = [read_json(path / "card.json") for path in (whole, stopped)]
    judged = [card["judged"] for card in cards]
    assert judged[0]["scores"] == judged[1]["scores"] and judged[0]["epochs"] == 3
    assert judged[0]["earnings"] == judged[1]["earnings"]
    (log,) = (tmp_path / LOG).glob("*.json")
    assert [len(use["trials"]) for use in read_json(log)["looks"]] == [4, 4]
    page = (whole / "card.md").read_text()
    assert "base rate" in page and "equal_weight" in page
    assert not re.search(r"\de[+-]\d", page) and "T00:00 " not in page and "{}" not in page
    told = summary(read_json(whole / "card.json"), whole).splitlines()
    assert told[0] in page and "equal_weight" in told[1] and told[-1] == f"Folder: {whole}"
    figures = sorted(file.stem for file in (whole / "figures").iterdir())
    assert figures == [
        "accounts", "attribution_mean", "attribution_sigma", "calibration", "learning_curves",
        "probabilities", "skill_in_time",
    ]  # fmt: skip
    assert runs.resume(stopped) == stopped  # nothing is left, and the range is not used again
    assert len(read_json(stopped / "looks.json")["looks"]) == 1
    with pytest.raises(ArgumentError, match="is not empty"):
        runs.train(replace(SMALL, out=str(stopped)))


def _bars(config: SupervisedConfig) -> int:
    market, ranges = config.resolved().load_market()
    where = ranges["train"], ranges["validation"]
    return len(config.resolved().model(market).trainer(market, *where).train)


def test_a_model_trained_on_some_assets_reads_others() -> None:
    market = load_market("synthetic?bars=300&assets=6&seed=1")
    some, others = market.select(market.assets[:3]), market.select(market.assets[3:])
    small = {"architecture": [8]}
    model = SupervisedModel(some.feature_names, encoder="mlp", window=1, encoder_options=small)
    model.fit(some, (0, 150), (150, 200), epochs=1)
    found = model.forecasts(others, (200, 300))
    assert found.mean.shape == (99, 3) and np.isfinite(found.mean).all()
