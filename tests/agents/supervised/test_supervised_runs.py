"""A supervised run resumes to the same model, judges it, and trades what it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from agents.supervised import SupervisedModel
from agents.supervised import run as runs
from agents.supervised.__main__ import Command
from agents.supervised.config import Fitting, SupervisedConfig
from baselines.forecasts.supervised import ForecastedMeanVariance, ForecastRule
from portfolio_env import load_market
from portfolio_env.command_line import read_arguments
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json

SMALL = SupervisedConfig(
    market="synthetic?bars=700&assets=3&seed=1",
    task="hybrid",
    encoder="mlp",
    encoder_options='{"architecture": [8]}',
    fit=Fitting(epochs=3, patience=None, warmup=5, accumulation=2),
)


def test_rules_hold_what_the_forecast_says() -> None:
    th.set_num_threads(1)
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


def test_settings_are_read_and_checked() -> None:
    command = read_arguments(Command, args=["--task", "return", "--fit.epochs", "2"])
    assert command.config == SupervisedConfig(task="return", fit=Fitting(epochs=2))
    for options, message in (
        ({"horizon": 0}, "horizon=0"),
        ({"encoder": "per_asset"}, "no weights"),
        ({"encoder": "my_nets:Own"}, "encoder='my_nets:Own'"),
        ({"task_options": '{"up": 1}'}, "up"),
        ({"fit": Fitting(batch=0)}, "batch=0"),
    ):
        given: dict[str, Any] = options
        with pytest.raises(ArgumentError, match=message):
            SupervisedConfig(**given)
    with pytest.raises(DataError, match="not a supervised run"):
        runs.resume(Path("nowhere"))


@pytest.mark.slow
def test_a_stopped_run_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

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
    assert cards[0]["scores"] == cards[1]["scores"] and cards[0]["epochs"] == 3
    page = (whole / "card.md").read_text()
    assert "base rate" in page and "equal_weight" in page
    figures = sorted(file.stem for file in (whole / "figures").iterdir())
    assert figures == [
        "accounts", "calibration", "learning_curves", "probabilities", "skill_in_time",
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="not an empty folder"):
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
