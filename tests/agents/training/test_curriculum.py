"""A curriculum from forecasts over net growth to RL: each stage hands its encoder on."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import load_run, make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from agents.direct.training import DirectTrainer
from agents.encoding.market_rows import asset_rows, market_encoders
from agents.tensors import load_tensors, save_tensors
from agents.training import curriculum
from agents.training.config import Stages, TrainConfig
from agents.training.train import resume, train
from portfolio_env import PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest

ENCODER = "encoder.safetensors"
CONFIG = TrainConfig(
    market="synthetic?bars=300&assets=4",
    encoder="lstm",
    encoder_options='{"hidden": 4, "channels": 4}',
    window=2,
    timesteps=1024,
    num_envs=32,
    episode_length=40,
    device="cpu",
    curriculum="1,2,3",
    stages=Stages(epochs=3, iterations=17),
    validation_every=1024,
)


def handed_on(model: Any) -> list[dict[str, th.Tensor]]:
    network = getattr(model, "policy", None) or model.network
    return [embeddings.state_dict() for embeddings in market_encoders(network)]


def same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> bool:
    # SAC's target networks average equal weights, which rounds.
    return all(th.allclose(value, second[name], atol=1e-6) for name, value in first.items())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("algo", ["ppo", "a2c", "sac", "td3", "tqc", "dirichlet"])
def test_the_scorer_goes_where_its_scores_become_the_same_weights(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last model, whatever it earns: that of no training has the agent's own encoder.
    monkeypatch.setattr(DirectTrainer, "restore_best", lambda trainer: None)
    config = replace(CONFIG, curriculum="2,3", stages=Stages(iterations=2)).resolved()
    market, ranges = config.load_market()
    weights = curriculum.pretrained(tmp_path, config, market, ranges)
    assert weights is not None
    for name in [name for name in weights if name.startswith("scorer.1.asset")]:
        weights[name] = 300 * weights[name]  # so that scores leave the box
    source = DirectAgent(market.n_features, 2, encoder="lstm", encoder_kwargs=config.encoder_kwargs)
    curriculum.load_pretrained_weights(weights, source.network)
    source.bind(market)
    t = th.arange(30, 60)
    held = th.full((30, 5), 0.2)
    rows = asset_rows(source.network.extractor.embeddings(t), th.ones(30, 4), held)
    actions = source.network(rows)
    assert (actions == -1).any() and ((actions > -1) & (actions < 1)).any()
    action = "weights" if algo == "dirichlet" else "logits"
    venv = make_sb3_vec_env(market, 4, observation="index", window=2, action=action)
    agent: Any = make_agent(
        "ppo" if algo == "dirichlet" else algo,
        venv,
        policy="dirichlet" if algo == "dirichlet" else "per_asset",
        policy_kwargs={"bounded_scores": True} if algo != "dirichlet" else {},
        encoder="lstm",
        encoder_kwargs=config.encoder_kwargs,
        window=2,
        device="cpu",
    )
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    curriculum.load_pretrained_weights(weights, agent.policy)
    after = agent.policy.state_dict()
    changed = {name for name in before if not th.equal(before[name], after[name])}
    encoders = {name for name in changed if ".encoder." in name}
    assert encoders
    if algo in ("ppo", "a2c"):
        latent = agent.policy.mlp_extractor.forward_actor(rows)
        means = agent.policy._get_action_dist_from_latent(latent).mode()
        assert means.abs().max() <= 1
        th.testing.assert_close(th.softmax(5 * means, 1), th.softmax(5 * actions, 1))
    elif algo != "dirichlet":
        actors = [agent.policy.actor, getattr(agent.policy, "actor_target", agent.policy.actor)]
        for actor in actors:
            means = actor.mu(rows) if algo == "td3" else actor.mu(actor.latent_pi(rows)).tanh()
            own, wanted = th.softmax(5 * means, 1), th.softmax(5 * actions, 1)
            inside = (actions > -0.98).all(1)
            th.testing.assert_close(own[inside], wanted[inside], atol=1e-5, rtol=1e-4)
            # Logits of the others end at 0.99 of the box, so up to 0.05 nearer to the middle.
            th.testing.assert_close(own, wanted, atol=0.0, rtol=0.11)
    else:
        assert changed == encoders


@pytest.mark.parametrize("change", ["missing", "shape", "no dict"])
def test_weights_of_another_version_of_the_encoder_are_refused_by_name(change: str) -> None:
    network = DirectAgent(3, 2, encoder="lstm").network
    weights: Any = dict(curriculum.pretrained_weights(network.extractor.embeddings))
    if change == "missing":
        del weights["encoder.gain"]
    elif change == "shape":
        weights["encoder.gain"] = th.zeros(2)
    else:
        weights = list(weights)
    with pytest.raises(DataError, match=r"encoder\.safetensors does not fit this network .*again$"):
        curriculum.load_pretrained_weights(weights, network)


def events_of(path: Path) -> EventAccumulator:
    return EventAccumulator(str(path)).Reload()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("algo", "stages"), [("ppo", "1,2,3"), ("sac", "2,3"), ("direct", "1,3")])
def test_every_stage_starts_from_the_encoder_before(algo: Any, stages: str, tmp_path: Path) -> None:
    config = replace(CONFIG, algo=algo, curriculum=stages, freeze_encoder=1.0)
    path = train(replace(config, out=str(tmp_path / "run")))
    stored = load_tensors(path / ENCODER, kind="weights")
    assert not list(path.glob("stage_*.safetensors"))
    run = load_run(path, device="cpu")
    for own in handed_on(run.model):
        assert same(own, stored)
    start, end = run.ranges["test"]
    env = PortfolioEnv(**{**run.env_options, "market": run.market, "start": start, "end": end})
    assert np.isfinite(backtest(run.model, env).values).all()


@pytest.mark.parametrize("algo", ["ppo", "direct"])
def test_tensorboard_shows_every_stage_by_the_samples_it_saw(algo: Any, tmp_path: Path) -> None:
    timesteps = 1024 if algo == "ppo" else 4 * 32 * 30
    out = str(tmp_path / "run")
    config = replace(CONFIG, algo=algo, timesteps=timesteps, prediction_weight=0.1, out=out)
    path = train(replace(config, validation_every=timesteps))
    names = ("stage_1", "stage_2", "")
    parts = [events_of(path / "tb" / name) for name in names]
    shown = {
        f"{name}/{tag}".strip("/"): [event.step for event in events.Scalars(tag)]
        for name, events in zip(names, parts, strict=True)
        for tag in events.Tags()["scalars"]
    }
    assert not [tag for events in parts[:2] for tag in events.Tags()["scalars"] if "stage" in tag]
    run = load_run(path, device="cpu")
    bars = run.ranges["train"][1] - 1 - run.market.warmup - 1  # with a window and a next bar
    for name in ("train/nll", "validation/nll", "train/learning_rate", "calibration/coverage_95"):
        assert shown[f"stage_1/{name}"] == [bars, 2 * bars, 3 * bars]
    for name in ("train/loss", "train/nll", "train/growth", "train/learning_rate"):
        assert shown[f"stage_2/{name}"] == [1920 * (i + 1) for i in range(17)]
    for name in ("validation/growth", "validation/excess_growth", "calibration/mean_square_z"):
        assert shown[f"stage_2/{name}"] == [1920 * 15, 1920 * 17]
    of_algorithm = {"train/learning_rate", "train/loss", "calibration/coverage_50"}
    judged = {f"validation/{name}" for name in ("growth", "excess_growth", "turnover")}
    assert of_algorithm | judged <= set(shown)
    for events in parts:
        assert {"attention/time", "calibration/reliability"} <= set(events.Tags()["images"])
        (image, *_) = events.Images("attention/time")
        assert image.encoded_image_string.startswith(b"\x89PNG")
    rates = [event.value for event in parts[0].Scalars("train/learning_rate")]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.25e-3])


class Stop(Exception):
    """As if the process had been killed."""


AVERAGED = replace(
    CONFIG,
    algo="a2c",  # which learns in so few steps
    encoder_options='{"hidden": 4, "channels": 4, "dropout": 0.2}',
    stages=replace(CONFIG.stages, ema=0.9, schedule="plateau"),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts."""
    return train(replace(AVERAGED, out=str(tmp_path_factory.mktemp("runs") / "whole")))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("stage", "rounds"), [("SupervisedTrainer", 2), ("DirectTrainer", 16)])
def test_an_interrupted_stage_ends_as_one_that_was_not(
    stage: str, rounds: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = getattr(curriculum, stage)
    advance = trainer.advance

    def until(self: Any) -> dict[str, float]:
        if self.fit.round == rounds:
            raise Stop
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "advance", until)
        with pytest.raises(Stop):
            train(replace(AVERAGED, out=str(tmp_path / "run")))
    path = tmp_path / "run"
    assert not (path / ENCODER).exists()
    assert sorted(file.name for file in path.glob("stage*.safetensors")) == (
        [f"stage_{i}.safetensors" for i in ((1,) if stage == "SupervisedTrainer" else (1, 2))]
    )
    again: dict[str, list[int]] = {"SupervisedTrainer": [], "DirectTrainer": []}
    for name, rounds_of in again.items():
        of = getattr(curriculum, name)

        def counted(self: Any, own: Any = of.advance, to: list[int] = rounds_of) -> Any:
            to.append(self.fit.round)
            return own(self)

        monkeypatch.setattr(of, "advance", counted)
    resume(path)
    if stage == "SupervisedTrainer":  # goes on at once; stage 2 saved itself when it last validated
        assert again == {"SupervisedTrainer": [2], "DirectTrainer": [*range(17)]}
    else:
        assert again == {"SupervisedTrainer": [], "DirectTrainer": [15, 16]}
    first, second = (load_tensors(p / ENCODER, kind="weights") for p in (whole, path))
    assert first.keys() == second.keys()
    assert all(th.equal(value, second[name]) for name, value in first.items())
    for one, other in zip(
        *(load_run(p, device="cpu").model.policy.parameters() for p in (whole, path)), strict=True
    ):
        assert th.equal(one, other)


@pytest.mark.usefixtures("undrawn")
def test_finished_stages_are_not_repeated(tmp_path: Path) -> None:
    config = replace(CONFIG, curriculum="1,3", timesteps=256, algo="a2c", freeze_encoder=1.0)
    path = train(replace(config, out=str(tmp_path / "run")))
    stored = load_tensors(path / ENCODER, kind="weights")
    changed = {name: value + 1 for name, value in stored.items()}
    # as if the stages had ended so, and RL had not begun
    save_tensors(path / ENCODER, changed, kind="weights")
    shutil.rmtree(path / "checkpoints")
    resume(path)
    for own in handed_on(load_run(path, device="cpu").model):
        assert same(own, changed)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("freeze", [0.0, 0.5])
def test_the_encoder_learns_in_rl_from_its_share_of_the_steps_on(
    freeze: float, tmp_path: Path
) -> None:
    config = replace(CONFIG, algo="a2c", curriculum="1,3", freeze_encoder=freeze)
    path = train(replace(config, checkpoint_every=256, out=str(tmp_path / "run")))
    stored = load_tensors(path / ENCODER, kind="weights")
    for own in handed_on(load_run(path, device="cpu").model):
        assert not same(own, stored)
        assert own.keys() == stored.keys()  # RL trains the forecasts on, by default


@pytest.mark.usefixtures("undrawn")
def test_without_a_weight_rl_does_not_forecast(tmp_path: Path) -> None:
    config = replace(CONFIG, algo="a2c", curriculum="1,3", timesteps=256, prediction_weight=0.0)
    path = train(replace(config, freeze_encoder=1.0, out=str(tmp_path / "run")))
    stored = load_tensors(path / ENCODER, kind="weights")
    for own in handed_on(load_run(path, device="cpu").model):
        assert same(own, stored)
        assert not any("head" in name for name in own) and any("head" in name for name in stored)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"curriculum": "1"}, "curriculum='1' must be"),
        ({"curriculum": "3,1"}, "curriculum='3,1' must be"),
        ({"curriculum": "1,3", "encoder": "per_asset"}, "has none to train"),
        ({"curriculum": "1,3", "policy": "flat_mlp", "observation": "flat"}, "has none to train"),
        ({"curriculum": "3", "encoder": "per_asset", "prediction_weight": 0.1}, "has none to"),
        ({"freeze_encoder": 1.5}, "freeze_encoder=1.5 must be"),
        ({"prediction_weight": -1.0}, "prediction_weight=-1.0 must be"),
        ({"prediction_weight": 0.1, "observation": "window"}, 'choose observation "index"'),
        ({"policy": "dirichlet", "algo": "sac"}, "cannot be trained by 'sac'"),
        ({"policy": "dirichlet", "algo": "direct"}, "which trains 'per_asset' only"),
    ],
)
def test_curricula_that_cannot_be_are_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        replace(CONFIG, **change)


def test_defaults_follow_what_there_is_to_train() -> None:
    assert CONFIG.resolved().prediction_weight == 0.05
    for change in ({"curriculum": "3"}, {"observation": "window"}, {"prediction_weight": 0.0}):
        assert replace(CONFIG, **change).resolved().prediction_weight == 0


def test_settings_of_runs_of_before_are_read() -> None:
    settings = CONFIG.to_json() | {"freeze_encoder": True}
    del settings["stages"], settings["prediction_weight"]
    config = TrainConfig.from_json(settings)
    assert config.freeze_encoder == 1 and config.stages == Stages()
    done = CONFIG.resolved()
    assert TrainConfig.from_json(done.to_json()) == done
