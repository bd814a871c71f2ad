"""Settings from YAML and JSON: as on a command line, checked, and overridden by it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tyro

import evaluate as evaluate_module
import train as train_module
from agents.settings.files import file_of, read_settings, settings_of
from agents.settings.market import MarketConfig
from agents.settings.plugins import named_plugins
from agents.training.config import TrainConfig
from portfolio_env import Fills, PortfolioConstraints
from portfolio_env.errors import ArgumentError, DataError, PortfolioError

pytest.importorskip("yaml")


def written(folder: Path, text: str, name: str = "run.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_bounds_of_groups_are_the_same_from_a_file_and_a_command_line(tmp_path: Path) -> None:
    text = "constraints: {group_by: sector, group_bounds: {Tech: [0, 0.3], Oil: [0.1, 1]}}"
    file = written(tmp_path, text)
    found = settings_of(TrainConfig, read_settings(file), file)
    words = ["--constraints.group-by", "sector", "--constraints.group-bounds"]
    typed = tyro.cli(TrainConfig, args=[*words, "Tech", "0", "0.3", "Oil", "0.1", "1"])
    assert found == typed
    assert dict(found.constraints.group_bounds or {}) == {"Tech": (0, 0.3), "Oil": (0.1, 1)}
    again = json.loads(json.dumps(found.to_json()))
    assert TrainConfig.from_json(again, "again").constraints == found.constraints
    for name in ("group_by", "group_bounds"):  # which earlier runs lack
        again["constraints"].pop(name)
    assert TrainConfig.from_json(again, "earlier").constraints == PortfolioConstraints()


def test_groups_are_refused_where_net_growth_is_followed() -> None:
    limits = PortfolioConstraints(group_by="sector", group_bounds={"Tech": (0, 0.3)})
    with pytest.raises(ArgumentError, match="group_bounds: algo direct"):
        TrainConfig(algo="direct", constraints=limits)


def test_a_file_says_plainly_what_a_command_line_says_as_text(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        algo: a2c
        assets: [A, B]
        start: 2010-01-04
        curriculum: 3
        train: 0.5
        adjustment: 1
        algo_options: {learning_rate: 3e-4, net_arch: [8, 8]}
        costs: {commission_bps: 5}
        constraints: {max_weight: 0.5}
        stages: {epochs: 3}
        data: {timeframe: 1w, repair: {drop_duplicates: last}}
        """,
    )
    found = settings_of(TrainConfig, read_settings(file), file)
    assert (found.algo, found.assets, found.start, found.curriculum) == (
        "a2c", "A,B", "2010-01-04", "3",
    )  # fmt: skip
    assert found.algo_kwargs == {"learning_rate": 3e-4, "net_arch": [8, 8]}
    assert found.costs.commission_bps == 5 and found.constraints.max_weight == 0.5
    assert found.stages.epochs == 3 and found.stages.iterations == TrainConfig().stages.iterations
    assert found.data.timeframe == "1w" and found.data.repairs == {"drop_duplicates": "last"}
    again = written(tmp_path, json.dumps(found.to_json()), "again.json")
    assert settings_of(TrainConfig, read_settings(again), again) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sed: 3", "no setting 'sed'; did you mean 'seed'"),
        ("costs: {comission_bps: 3}", "costs has no setting 'comission_bps'; did you mean 'comm"),
        ("costs: 3", "costs is 3; it must be an object"),
        ("data: {timefrme: 1d}", "did you mean 'timeframe'"),
        ("seed: many", "seed='many'"),
        ("data: {scaler: log}", "data.scaler='log'"),
        ("data: {repair: {sorted: true}}", "did you mean sort"),
        ("data: {repair: {drop_jumps: x}}", "drop_jumps='x'"),
        ("[1, 2]", "one setting a line"),
        ("seed: [", "is not valid YAML"),
        ("seed: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("cost_options: {a: 1}", "name their cost_model"),
        ("{cost_model: 'a:B', costs: {commission_bps: 3}}", "in place of costs"),
        ("algo_options: 3", "give a JSON object"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(PortfolioError, match=says):
        settings_of(TrainConfig, read_settings(file), file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_settings(tmp_path / "nothing.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_settings(tmp_path / "nothing.json")
    with pytest.raises(DataError, match=r"ending in \.yaml or \.json"):
        read_settings(written(tmp_path, "", "run.txt"))
    assert read_settings(written(tmp_path, "")) == {}


def test_the_command_line_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "{seed: 5, algo: sac, costs: {commission_bps: 3, fixed_fee: 1}}")
    given: list[Any] = []
    monkeypatch.setattr(train_module, "run", given.append)
    monkeypatch.setattr(train_module, "summary", str)
    arguments = ["train.py", "--config", str(file), "--algo", "td3", "--costs.fixed-fee", "2"]
    monkeypatch.setattr("sys.argv", arguments)
    assert train_module.main() == 0
    config = given[0].config
    assert (config.seed, config.algo) == (5, "td3")
    assert (config.costs.commission_bps, config.costs.fixed_fee) == (3, 2)
    assert file_of(arguments) == file and file_of([f"--config={file}"]) == file


@pytest.mark.parametrize("name", ["none.yaml", "none.json", "folder.yaml", "folder.json"])
def test_a_file_that_is_not_there_is_told_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder.json").mkdir()
    wanted = "check its name and folder" if name.startswith("none") else "give a file"
    with pytest.raises(DataError, match=f"{name} cannot be read \\(.*\\); .*{wanted}$"):
        read_settings(tmp_path / name)


def test_an_evaluation_takes_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "{agent: false, baselines: [cash, equal_weight], market: synthetic, data: {scaler: rank}}"
    )
    file = written(tmp_path, text)
    given: list[Any] = []
    nothing_failed = SimpleNamespace(failed={})
    monkeypatch.setattr(
        evaluate_module, "evaluate", lambda config: given.append(config) or nothing_failed
    )
    monkeypatch.setattr("sys.argv", ["evaluate.py", "--config", str(file), "--split", "train"])
    assert evaluate_module.main() == 0
    (config,) = given
    assert (config.agent, config.baselines, config.split) == (False, "cash,equal_weight", "train")
    assert config.task.market == "synthetic" and config.task.data.scaler == "rank"
    with pytest.raises(ArgumentError, match="did you mean 'baselines'"):
        evaluate_module._defaults(written(tmp_path, "baselnes: cash"))


def test_names_that_may_be_of_plug_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = TrainConfig(
        algo="a:Algo", encoder="b:Net", encoder_options='{"part": {"x": "c:Part"}}',
        features="minimal,d:skew_20,1w:d:kurt", reward="e:calmar", market="f:load?x=1",
        cost_model="g:Tiered",
    ).to_json()  # fmt: skip
    named = named_plugins(settings)
    assert named["algorithm"] == ["a:Algo"]
    assert named["encoder"] == ["b:Net", "c:Part"]
    assert {"d:skew_20", "d:kurt"} <= set(named["feature"])
    assert named["market"] == ["f:load"] and named["costs"] == ["g:Tiered"]
    assert named["reward"] == ["e:calmar"]
    (tmp_path / "f:load").touch()
    assert named_plugins({"market": "f:load"})["market"] == []
    for wrong in (None, 3, [1], {"a": 1}, "x" * 10**5, "\0"):
        named_plugins(dict.fromkeys(settings, wrong))


def test_every_text_of_the_settings_is_looked_at_or_names_no_code() -> None:
    """A new setting that can name code belongs into ``named_plugins``."""
    settings = TrainConfig().to_json()
    texts = {name for name, value in settings.items() if isinstance(value, str | dict | None)}
    without_code = {
        *("assets", "start", "end", "data", "train", "validation", "test", "timesteps", "runs"),
        *("num_envs", "device", "policy", "curriculum", "stages", "prediction_weight", "window"),
        *("observation", "universe", "execution", "validation_every", "checkpoint_every", "out"),
        *("track", "start_groups", "positions", "fills", "delay", "compute"),
    }
    found = {name for name in texts - without_code if _finds(name)}
    assert found == texts - without_code


def _finds(name: str) -> bool:
    value: Any = "mod:Name"
    if name.endswith("_options"):
        value = json.dumps({"x": value})
    if name in ("costs", "constraints"):
        value = {"x": value}
    return any("mod:Name" in names for names in named_plugins({name: value}).values())


def test_market_settings_are_those_of_a_training() -> None:
    own = {"market": TrainConfig.market, "delay": 0, "fills": Fills()}  # else those of the run
    given = {**vars(MarketConfig()), **own}
    assert all(getattr(TrainConfig(), name) == value for name, value in given.items())


def test_yaml_neither_repeats_keys_nor_multiplies(tmp_path: Path) -> None:
    shared = "stages: &s {epochs: 3}\ncosts: {<<: *s}\nseeds: [1, 1]\n"
    read = read_settings(written(tmp_path, shared))
    assert read == {"stages": {"epochs": 3}, "costs": {"epochs": 3}, "seeds": [1, 1]}
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(40))
    for text, told in (
        (bomb, "more than 100,000 values"),
        ("a: &a [*a]", "more than 100,000 values"),
        ("a: &a {b: *a}", "more than 100,000 values"),
        ("seed: 1\nseed: 2", "names seed twice"),
        ("grid: {a: [1], a: [2]}", "names a twice"),
        ("1: x\n'1': y", "names 1 twice"),
    ):
        with pytest.raises(DataError, match=told):
            read_settings(written(tmp_path, text))


@pytest.mark.parametrize("odd", ["ON", "no", "0700", "-0_1", "1:30", "1:30.5"])
def test_what_yaml_reads_as_another_value_is_to_be_quoted(tmp_path, odd):
    file = tmp_path / "a.yaml"
    file.write_text(f"assets: [A, {odd}]")
    with pytest.raises(DataError, match=f"it holds {odd}, .*quote it"):
        read_settings(file)
    file.write_text(f"assets: [A, '{odd}', '1e5', 0, 0.5, 1e-3]\nrolling: true")
    numbers = [0, 0.5, 0.001]
    assert read_settings(file) == {"assets": ["A", odd, "1e5", *numbers], "rolling": True}


def test_a_list_of_other_than_texts_and_numbers_is_no_text(tmp_path):
    (tmp_path / "a.yaml").write_text("assets: [A, TRUE]")  # a symbol, too
    with pytest.raises(ArgumentError, match="must be a text"):
        settings_of(TrainConfig, read_settings(tmp_path / "a.yaml"), "a.yaml")
