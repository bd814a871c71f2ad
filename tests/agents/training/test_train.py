"""Training runs: what the folder holds, loading."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.small_runs import MARKET, small
from stable_baselines3.common.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import load_agent, load_run, make_agent, make_sb3_vec_env, policy_for, save_agent
from agents.policies import LOG_STD_INIT, PerAssetDirichletPolicy
from agents.run_market import load_checked_market
from agents.tensors import digest_of, load_tensors
from agents.training import cards
from agents.training.config import Stages, TrainConfig
from agents.training.run_folder import read_config
from agents.training.tasks import run_task
from agents.training.train import resume, train
from evaluate import EvaluateConfig, evaluate
from portfolio_env import (
    Fills,
    PortfolioConstraints,
    PortfolioEnv,
    TransactionCosts,
    env_info,
    load_market,
)
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import read_json
from train import summary

pytestmark = pytest.mark.usefixtures("undrawn")

PERIOD = PortfolioConstraints(max_period_turnover=1.0, turnover_period=5)


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    costs = TransactionCosts(commission_bps=5.0, slippage_bps=1.0)
    limits = PortfolioConstraints(max_weight=0.5)
    out = tmp_path_factory.mktemp("runs") / "ppo"
    return train(small(out, costs=costs, constraints=limits, adjustment=0.5))


def test_the_run_folder_holds_all_that_repeats_it(run_path: Path) -> None:
    names = {file.name for file in run_path.iterdir()}
    assert names == {
        "config.json", "run.json", "market.json", "features.json", "validation.json", "card.json",
        "card.md", "checkpoints", "best_model.safetensors", "final_model.safetensors", "tb",
        ".lock", "prices.safetensors",
    }  # fmt: skip
    config = TrainConfig.from_json(read_json(run_path / "config.json"))
    assert config.costs == TransactionCosts(commission_bps=5.0, slippage_bps=1.0)
    assert config.constraints.max_weight == 0.5
    recorded = read_json(run_path / "market.json")
    assert recorded["ranges"] == {"train": [0, 240], "validation": [240, 320], "test": [320, 400]}
    started = read_json(run_path / "run.json")
    assert started["environment"]["packages"]["torch"] == th.__version__
    assert started["environment"]["gpus"] == env_info()["gpus"]


@pytest.mark.parametrize(("given", "told"), [([], 2000), ([1024, 2048], 2048), ([1024], 2000)])
def test_the_steps_of_a_card_reach_the_end_of_the_last_update(given, told, tmp_path, monkeypatch):
    """An update is made as a whole, beyond the steps that were asked for."""
    monkeypatch.setattr(cards, "validations", lambda path: [{"timesteps": t} for t in given])
    assert cards._steps(tmp_path, {"timesteps": 2000}, None) == told


def test_the_card_of_a_run_has_the_figures_of_its_validations(run_path: Path) -> None:
    card, found = read_json(run_path / "card.json"), read_json(run_path / "validation.json")
    best = max(found["validations"], key=lambda each: each["excess_growth"])
    assert card["selection"]["chosen_at"] == best["timesteps"]
    assert card["selection"]["validations"] == len(found["validations"])
    assert card["training"]["steps"] == found["validations"][-1]["timesteps"]
    for name, step in (("best", best), ("final", found["validations"][-1])):
        figures = {key: value for key, value in step.items() if key != "timesteps"}
        assert card["validation"]["models"][name] == figures
    assert "5 basis points of commission, 1 basis points of slippage" in " ".join(card["limits"])
    assert (run_path / "card.md").read_text().startswith("# ppo on synthetic")


def test_models_are_validated_again_only_if_training_has_not_seen_their_weights(
    run_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(run_path)
    where = (run_path, config, *load_checked_market(run_path, config))
    anew = cards.validate_models(*where)
    assert anew == read_json(run_path / "card.json")["validation"]["models"]  # to the last bit
    weights = load_run(run_path, model="final", device="cpu").model.policy.state_dict()
    figures = {"growth": 7.0}
    assert cards.validate_models(*where, {digest_of(weights): figures})["final"] == figures
    next(iter(weights.values())).add_(1e-6)
    assert cards.validate_models(*where, {digest_of(weights): figures}) == anew
    monkeypatch.setattr(cards, "Validation", lambda *_: None)  # it cannot be run
    train(small(tmp_path / "run"))


def test_a_run_is_loaded_as_it_was_trained(run_path: Path) -> None:
    run = load_run(run_path, device="cpu")
    assert run.market.n_assets == 10
    assert run.model.num_timesteps == 8192
    assert run.env_options["costs"]["commission_bps"] == 5.0
    assert run.env_options["adjustment"] == 0.5
    assert run.config["universe"] is None
    start, end = run.ranges["test"]
    options = {**run.env_options, "market": run.market, "start": start, "end": end}
    result = backtest(run.model, PortfolioEnv(**options))
    assert result.held.shape == (end - 1 - start, 11)
    assert result.held[:, 1:].max() <= 0.5 + 1e-9
    # the same numbers from window observations as from the index ones it was trained on
    window = make_sb3_vec_env(run.market, **(run.env_options | {"observation": "window"}))
    policy = policy_for(run.model, window)
    again = backtest(policy, PortfolioEnv(**(options | {"observation": "window"})))
    assert np.array_equal(again.values, result.values)


def test_scalers_know_the_training_range_alone(run_path: Path) -> None:
    stored = read_json(run_path / "features.json")
    fitted = FeaturePipeline("minimal").fit(load_market(MARKET), 240)
    assert stored == json.loads(json.dumps(fitted.to_dict()))


def test_the_best_and_the_final_model_can_be_asked_for(run_path: Path) -> None:
    best = load_run(run_path, model="best", device="cpu")
    results = read_json(run_path / "validation.json")["validations"]
    assert best.model.num_timesteps == max(results, key=lambda r: r["excess_growth"])["timesteps"]


def test_a_changed_market_is_refused(run_path: Path, tmp_path: Path) -> None:
    config = read_json(run_path / "config.json")
    for name in ("market.json", "final_model.safetensors"):
        (tmp_path / name).write_bytes((run_path / name).read_bytes())
    changed = config | {"market": MARKET + "&seed=9"}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(DataError, match="has changed since the run"):
        load_run(tmp_path)


def test_the_same_seed_trains_the_same_model(tmp_path: Path) -> None:
    """Of two rollouts: the update of the last one has a learning rate of 0."""
    paths = [train(small(tmp_path / name, timesteps=16384)) for name in "ab"]
    paths.append(train(small(tmp_path / "c", timesteps=8192)))
    first, second, untrained = (
        load_run(path, device="cpu").model.policy.parameters_to_vector() for path in paths
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, untrained)


def test_a_model_of_five_assets_runs_on_twenty(tmp_path: Path) -> None:
    options = {"observation": "index", "window": 1}
    few, many = (load_market(f"synthetic?bars=200&assets={n}") for n in (5, 20))
    for algo in ("ppo", "sac"):
        agent = make_agent(algo, make_sb3_vec_env(few, 4, **options), device="cpu")
        save_agent(agent, tmp_path / "model.safetensors")
        loaded = load_agent(tmp_path / "model.safetensors", make_sb3_vec_env(many, **options))
        state = loaded.policy.state_dict()
        for name, value in agent.policy.state_dict().items():
            assert th.equal(state[name], value), name
        result = backtest(loaded, PortfolioEnv(many, **options))
        assert result.held.shape[1] == 21


def test_the_market_is_in_no_checkpoint(tmp_path: Path) -> None:
    sizes = []
    for bars in (200, 20_000):
        market = load_market(f"synthetic?bars={bars}")
        venv = make_sb3_vec_env(market, 4, observation="index", window=1)
        for algo in ("ppo", "sac"):
            save_agent(make_agent(algo, venv, device="cpu"), tmp_path / "model.safetensors")
            sizes.append((tmp_path / "model.safetensors").stat().st_size)
    assert sizes[2] < 1.05 * sizes[0]
    assert sizes[3] < 1.05 * sizes[1]


def test_sac_learns_from_the_index_buffer_as_from_windows() -> None:
    """Index and window observations give the same training, parameter by parameter."""
    market = load_market("synthetic?bars=200&assets=3", fit_end=150)

    def parameters(observation: str) -> Any:
        venv = make_sb3_vec_env(
            market, 4, observation=observation, window=3, random_start=True, episode_length=9
        )
        agent = make_agent(
            "sac", venv, window=2, seed=0, device="cpu", buffer_size=400, batch_size=32
        )
        agent.set_logger(Logger(None, []))
        return agent.learn(400).policy.parameters_to_vector()

    np.testing.assert_allclose(parameters("index"), parameters("window"), rtol=1e-5, atol=1e-6)


def test_a_flat_network_is_warned_about_and_never_reads_an_index() -> None:
    options = {"window": 2, "episode_length": 10}
    for observation in ("flat", "window"):
        venv = make_sb3_vec_env("synthetic?bars=100", 4, observation=observation, **options)
        with pytest.warns(UserWarning, match="memorises"):
            agent = make_agent("ppo", venv, policy="flat_mlp", device="cpu")
        assert agent.predict(venv.reset())[0].shape == (4, 6)
    index = make_sb3_vec_env("synthetic?bars=100", 4, observation="index", **options)
    with pytest.raises(ArgumentError, match="cannot read index"):
        make_agent("ppo", index, policy="flat_mlp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timesteps": 0}, "timesteps=0 must be"),
        ({"policy": "flat_mlp"}, "cannot read index"),
        ({"out": "."}, "not empty"),
        ({"test": 0.0}, "an episode needs"),
        ({"assets": "A01,NOPE"}, "NOPE"),
        ({"encoder": "transfromer"}, "did you mean transformer"),
        ({"encoder_options": "[1]"}, "give a JSON object"),
        ({"encoder": "gat", "encoder_options": '{"threshold": 7}'}, "threshold"),
        ({"encoder": "lstm", "encoder_options": '{"layers": 1}'}, "no option 'layers'"),
        ({"encoder": "mlp", "encoder_options": '{"width": "8"}'}, "width='8' must be"),
        ({"encoder": "mlp", "curriculum": "1,3", "reward": "gain"}, "unknown reward 'gain'"),
        ({"encoder": "mlp", "curriculum": "2,3", "universe": 11}, "universe=11"),
        ({"encoder": "mlp", "policy": "flat_mlp", "observation": "flat"}, "has no encoder"),
        ({"algo": "direct", "reward": "log_return"}, "reward 'log_return' has no effect on direct"),
        ({"algo": "direct", "constraints": PERIOD}, "not differentiable"),
        ({"encoder": "mlp", "curriculum": "2,3", "constraints": PERIOD}, "not differentiable"),
        ({"algo": "direct", "fills": Fills(failure=0.1)}, r"fills are Fills\(failure=0.1\)"),
        ({"algo": "direct", "delay": 1}, "delay is 1: algo direct"),
        ({"freeze_encoder": 0.5}, "has none to train"),
        ({"window": 0}, "window=0 must be"),
        ({"algo_options": '{"n_steps": 1}', "num_envs": 4}, "n_steps=1 must be at least 2: PPO"),
        ({"window": 250, "encoder": "gat"}, "a window of 250 and"),
        ({"window": 250, "algo": "direct"}, "a window of 250 and"),
        ({"delay": 250}, "a delay of 250 is"),
        ({"device": "gpu"}, "device 'gpu' is not available"),
    ],
)
def test_bad_settings_are_refused_before_there_is_a_folder(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=message):
        train(replace(small(tmp_path / "run"), **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("timesteps", "learns"), [(8192, False), (16384, True)])
def test_a_training_too_short_for_an_update_says_so(
    timesteps: int, learns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = train(small(tmp_path / "run", timesteps=timesteps))
    assert ("nothing is learned; give at least 16384" in caplog.text) != learns
    policy = load_run(path, device="cpu").model.policy
    assert (float(policy.log_std.detach()[0]) != LOG_STD_INIT) == learns


@pytest.mark.parametrize(
    ("stages", "message"), [({"iterations": 0}, "iterations=0"), ({"ema": 1.0}, "ema=1.0 must be")]
)
def test_bad_stages_are_refused(stages: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Stages(**stages)


def test_a_folder_without_a_run_or_a_model_is_refused(run_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a run folder"):
        load_run(tmp_path)
    with pytest.raises(DataError, match="not a run folder"):
        resume(tmp_path)
    for name in ("config.json", "market.json"):
        (tmp_path / name).write_bytes((run_path / name).read_bytes())
    with pytest.raises(DataError, match="no model yet"):
        load_run(tmp_path)


def test_ranges_take_dates(tmp_path: Path) -> None:
    market = load_market(MARKET)
    dates = [str(market.timestamps[row])[:10] for row in (200, 260, 330)]
    config = small(tmp_path, train=dates[0], validation=dates[1], test=dates[2])
    assert config.load_market()[1] == {
        "train": (0, 200),
        "validation": (200, 260),
        "test": (260, 330),
    }


def test_the_full_preset_trains_and_is_loaded_with_its_scalers(tmp_path: Path) -> None:
    market = "synthetic?bars=900&assets=5&ragged=true"
    path = train(small(tmp_path / "full", market=market, features="full", timesteps=2048))
    run = load_run(path, device="cpu")
    assert run.market.n_features >= 99
    assert run.market.warmup == 271
    fitted = FeaturePipeline.load(path / "features.json")
    assert fitted.transform(load_market(market)).hash == run.market.hash
    start, end = run.ranges["test"]
    env = PortfolioEnv(**{**run.env_options, "market": run.market, "start": start, "end": end})
    assert np.isfinite(backtest(run.model, env).values).all()


@pytest.mark.parametrize(("algo", "steps"), [("ppo", 2048), ("td3", 768)])
def test_a_graph_encoder_trains_stops_and_is_evaluated(
    algo: str, steps: int, tmp_path: Path
) -> None:
    config = small(
        tmp_path / algo,
        algo=algo,
        encoder="gat",
        encoder_options='{"hidden": 16, "layers": 1, "heads": 2}',
        window=10,
        timesteps=steps,
    )
    path = train(config)
    run = load_run(path, device="cpu")
    start, end = run.ranges["test"]
    env = PortfolioEnv(**{**run.env_options, "market": run.market, "start": start, "end": end})
    assert env.observation_space["weights"].shape == (11,)
    result = backtest(run.model, env)
    assert np.isfinite(result.values).all()
    extended = read_json(path / "config.json") | {"timesteps": 2 * steps}
    (path / "config.json").write_text(json.dumps(extended))
    resume(path)
    assert load_run(path, device="cpu", model="final").model.num_timesteps >= 2 * steps


def test_lanes_of_a_direct_training_are_those_asked_for(tmp_path: Path) -> None:
    path = train(small(tmp_path / "run", algo="direct", timesteps=2 * 8 * 30, num_envs=8))
    state = load_tensors(path / "checkpoints" / "direct.safetensors", kind="fit")
    assert (state["options"]["lanes"], state["round"]) == (8, 2)


@pytest.mark.parametrize("algo", ["ppo", "a2c"])
def test_a_dirichlet_policy_names_its_weights_from_training_to_evaluation(
    algo: Any, tmp_path: Path
) -> None:
    path = train(small(tmp_path / "run", algo=algo, policy="dirichlet", timesteps=1024))
    run = load_run(path, device="cpu")
    assert run.env_options["action"] == "weights"
    assert isinstance(run.model.policy, PerAssetDirichletPolicy)
    assert run.model.num_timesteps >= 1024
    start, end = run.ranges["test"]
    env = PortfolioEnv(**{**run.env_options, "market": run.market, "start": start, "end": end})
    observation, _ = env.reset(seed=0)
    action = run.model.predict(observation, deterministic=True)[0]
    assert action.shape == (11,) and action.sum() == pytest.approx(1, abs=1e-6)
    extended = read_json(path / "config.json") | {"timesteps": 2048}
    (path / "config.json").write_text(json.dumps(extended))
    assert load_run(resume(path), device="cpu").model.num_timesteps >= 2048
    results = evaluate(EvaluateConfig(path, device="cpu")).results
    assert {algo, "equal_weight", "buy_and_hold"} <= set(results)
    assert results[algo].held.shape == (end - 1 - start, 11)
    assert np.isfinite(results[algo].values).all()


def test_a_directly_trained_agent_has_a_run_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(tmp_path / "direct", algo="direct", timesteps=8 * 1920, checkpoint_every=1920)
    path = train(config)
    run = load_run(path, device="cpu")
    start, end = run.ranges["test"]
    env = PortfolioEnv(**{**run.env_options, "market": run.market, "start": start, "end": end})
    final = backtest(run.model, env)
    assert np.isfinite(final.values).all()
    assert backtest(load_run(path, model="best", device="cpu").model, env).values.shape == (
        final.values.shape
    )
    events = EventAccumulator(str(path / "tb")).Reload()
    assert len(events.Scalars("train/growth")) == 8
    shown, card = events.Scalars("validation/growth"), read_json(path / "card.json")
    figures = card["validation"]["models"]["best"]
    best = int(np.argmax([point.value for point in shown]))
    for name in ("growth", "excess_growth", "turnover"):  # the same units as of the card
        point = events.Scalars(f"validation/{name}")[best]
        assert point.value == pytest.approx(figures[name], rel=1e-4)
    # the untrained model is judged too
    selection = {"by": "growth", "validations": len(shown) + 1, "chosen_at": shown[best].step}
    assert card["selection"] == selection
    assert "untrained" not in (path / "card.md").read_text()
    stopped = {"round": 3, "best_steps": 0}
    with monkeypatch.context() as patch:
        patch.setattr(cards, "_direct_fit", lambda path: stopped)
        card = cards.make_card(path)
    every = -(-len(events.Scalars("train/growth")) // len(shown))
    assert card["selection"]["validations"] == 1 - (-3 // every)
    assert card["training"]["steps"] == 3 * 1920 and card["selection"]["chosen_at"] == 0
    assert "The best model is the untrained one" in " ".join(card["limits"])
    state = load_tensors(path / "checkpoints" / "direct.safetensors", kind="fit")
    assert state["round"] == 8
    halfway = train(replace(config, out=str(tmp_path / "half"), timesteps=8 * 1920))
    weights = [load_run(p, device="cpu").model.network.state_dict() for p in (path, halfway)]
    for name, value in weights[0].items():
        assert th.equal(value, weights[1][name])
    with monkeypatch.context() as patch:
        patch.setattr(cards, "_direct_fit", lambda path: stopped)
        told = cards.write_card(path)
    (lost := path / "checkpoints" / "direct.safetensors").rename(tmp_path / "kept")
    for content in (None, b"damaged"):  # the card of before says what it held
        if content is not None:
            lost.write_bytes(content)
        card = cards.make_card(path)
        assert [card[key] for key in ("training", "selection")] == [
            told[key] for key in ("training", "selection")
        ]
    (tmp_path / "kept").replace(lost)
    cards.write_card(path)
    (path / "final_model.safetensors").unlink()
    resume(path)  # nothing is left to do but to write the models
    again = load_run(path, device="cpu").model.network.state_dict()
    assert all(th.equal(value, again[name]) for name, value in weights[0].items())


def test_a_gpu_that_is_not_there_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(th.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match=r"device='cuda' must be .* torch finds no GPU here"):
        train(small(tmp_path / "run", device="cuda"))
    assert not (tmp_path / "run").exists()


def test_the_end_of_a_training_says_where_things_are_and_what_to_type_next(run_path: Path) -> None:
    told = summary(run_path).splitlines()
    card = read_json(run_path / "card.json")["validation"]["models"]
    assert told[0] == f"Folder: {run_path}"
    for name in ("best", "final"):
        assert (
            f"{name} model {round(100 * card[name]['excess_growth'], 1) + 0.0:+.1f} % a year"
            in told[1]
        )
    assert told[2] == f"Best model: {run_path / 'best_model.safetensors'}"
    assert told[3].startswith(f"Next: python evaluate.py {run_path} --baselines ")
    assert told[4].startswith("That judges the final model; --model best")


def test_resuming_a_finished_run_says_so(
    run_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = shutil.copytree(run_path, tmp_path / "run")
    with caplog.at_level(logging.INFO):
        resume(path)
    assert "is trained to its end already" in caplog.text
    assert "steps a second" not in caplog.text


def test_an_unfinished_run_says_which_checkpoint_is_evaluated(
    run_path: Path, tmp_path: Path
) -> None:
    path = shutil.copytree(run_path, tmp_path / "run")
    assert run_task(path, device="cpu").warnings == []
    (path / "final_model.safetensors").unlink()
    (warning,) = run_task(path, device="cpu").warnings
    assert "its checkpoint after 8,192 of 8,192 steps is evaluated" in warning
    assert f"--resume {path}" in warning


@pytest.mark.parametrize("name", ["window", "n_features"])
def test_encoder_options_leave_out_what_other_settings_decide(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"encoder_options has '{name}': leave it out"):
        TrainConfig(encoder="gat", encoder_options=json.dumps({name: 5}))
