"""Settings and recipes that were edited: an error of one line that names field and file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch as th
from helpers.small_runs import made_run

import evaluate as evaluate_module
import train as train_module
from agents.tensors import SUFFIX, load_tensors, save_tensors
from agents.training.config import TrainConfig
from agents.training.run_folder import load_run, read_config
from portfolio_env.command_line import exit_status
from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.files.atomic import read_json

SETTINGS = TrainConfig().resolved().to_json()


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("name", sorted(SETTINGS))
@pytest.mark.parametrize("value", [[3], {"a": 1}, True, float("nan"), "x" * 10**5])
def test_no_field_takes_what_it_is_not_annotated_with(name: str, value: Any) -> None:
    texts = ("market", "assets", "start", "end", "features", "encoder", "reward", "runs", "out")
    texts = (*texts, "cost_model")
    if (isinstance(value, str) and name in (*texts, "train", "validation", "test")) or (
        value is True and name == "freeze_encoder"
    ):
        return
    with pytest.raises(DataError, match=name) as caught:
        TrainConfig.from_json(SETTINGS | {name: value})
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algo": "foo"}, "algo='foo' must be one of 'ppo'"),
        ({"timesteps": "16384"}, "timesteps='16384' must be a whole number or None"),
        ({"num_envs": 10**30}, "num_envs=1000.* must be a finite number in"),
        ({"seed": -1}, "seed=-1 must be a finite number in"),
        ({"seed": 10**30}, "seed=1000"),
        ({"foo": 3}, "no field 'foo'"),
        ({"costs": {"foo": 1}}, "costs has no field 'foo'"),
        ({"costs": SETTINGS["costs"] | {"commission_bps": None}}, "commission_bps=None"),
        ({"constraints": SETTINGS["constraints"] | {"max_weight": "x"}}, "max_weight='x'"),
        ({"stages": {"lambda": 3}}, "stages has no field 'lambda'"),
        ({"stages": {"epochs": "3"}}, "stages.epochs='3'"),
        ({"device": "meta"}, "device 'meta'"),
        ({"market": None}, "market=None must be a text"),
        ({"market": "a\0b.csv"}, "market='a.*b.csv' must be a text without null"),
        ({"encoder_options": '{"a": "\0"}'}, "encoder_options"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        TrainConfig.from_json(SETTINGS | change)


@pytest.mark.parametrize("name", ["algo", "market", "costs", "constraints", "seed"])
def test_a_setting_that_is_missing_is_not_guessed(name: str) -> None:
    with pytest.raises(DataError, match=f"lacks the field '{name}'"):
        TrainConfig.from_json({key: value for key, value in SETTINGS.items() if key != name})


def test_the_numbers_of_a_run_are_never_filled_in(run_path: Path, tmp_path: Path) -> None:
    settings = read_json(run_path / "config.json") | {"timesteps": None}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"config\.json: timesteps is None"):
        read_config(tmp_path)


def _edited(tree: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return tree | {"recipe": tree["recipe"] | changes}


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 1},
        {"n_steps": -3},
        {"n_steps": 2**31 - 1, "batch_size": 2**31 - 1, "_init_setup_model": False},
        {"learning_rate": "os.system"},
        {"learning_rate": {"$linear": [1]}},
        {"gamma": "x"},
        {"gamma": 3.0},
        {"window": -4},
        {"foo": 1},
        {"algo": "os:system"},
        {"encoder": "os:system"},
        {"policy_kwargs": [1]},
        {"policy_kwargs": {"features_extractor_class": "os.system"}},
        {"verbose": "x"},
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_an_error_of_one_line_that_names_the_file(
    change: dict[str, Any], run_path: Path
) -> None:
    file = run_path / f"final_model{SUFFIX}"
    tree = load_tensors(file, kind=None)
    try:
        save_tensors(file, _edited(tree, **change), kind="agent")
        with pytest.raises(PortfolioError, match=file.name) as caught:
            load_run(run_path, device="cpu")
        assert "\n" not in str(caught.value)
    finally:
        save_tensors(file, tree, kind="agent")


@pytest.mark.parametrize("part", ["weights", "counters", "path"])
def test_weights_and_counters_that_are_no_numbers_are_refused(part: str, run_path: Path) -> None:
    file = run_path / f"final_model{SUFFIX}"
    tree = load_tensors(file, kind=None)
    policy = {name: weight * float("nan") for name, weight in tree["parameters"]["policy"].items()}
    changes: dict[str, Any] = {
        "weights": {"parameters": tree["parameters"] | {"policy": policy}},
        "path": {"parameters": "other.zip"},
        "counters": {"counters": dict.fromkeys(tree["counters"], "x")},
    }
    try:
        save_tensors(file, tree | changes[part], kind="agent")
        with pytest.raises(DataError, match=file.name):
            load_run(run_path, device="cpu")
    finally:
        save_tensors(file, tree, kind="agent")


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 7 TiB"), RuntimeError("can't allocate memory\nframe #0")],
    ids=str,
)
@pytest.mark.parametrize(("module", "work"), [(train_module, "run"), (evaluate_module, "evaluate")])
def test_a_lack_of_memory_ends_in_one_line(
    error: Exception,
    module: Any,
    work: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(module, work, fail)
    monkeypatch.setattr("sys.argv", ["program"])
    assert module.main() == 1
    assert re.fullmatch(r"error: there is not enough memory \([^\n]*\n", capsys.readouterr().err)


def test_an_error_shows_no_control_characters_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    def work(error: BaseException) -> int:
        def fail() -> int:
            raise error

        return exit_status(fail, stopped="stopped; go on")

    assert work(DataError("\x1b[31m" + "x" * 10**6)) == 1
    told = capsys.readouterr().err
    assert "\x1b" not in told and len(told) < 3000
    assert work(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "stopped; go on\n"
    with pytest.raises(RuntimeError, match="a fault"):
        work(RuntimeError("a fault of the program"))


def test_weights_of_a_direct_agent_are_numbers_too(tmp_path: Path) -> None:
    path = made_run(tmp_path / "direct", algo="direct")
    file = path / f"final_model{SUFFIX}"
    tree = load_tensors(file, kind=None)
    nan = {name: th.full_like(weight, float("nan")) for name, weight in tree["weights"].items()}
    save_tensors(file, tree | {"weights": nan}, kind="direct agent")
    with pytest.raises(DataError, match=file.name):
        load_run(path, device="cpu")
