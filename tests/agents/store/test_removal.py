"""What is removed is the program's own: nothing behind a link, nothing that no run consists of."""

import shutil
from pathlib import Path

import pytest
from helpers.small_runs import made_run, small
from test_conversion import to_old
from test_run_store import command

from agents.store.conversion import convert
from agents.sweep.walk_forward import continue_walk_forward
from agents.training.run_folder import one_process, save_checkpoint
from agents.training.train import new_agent
from agents.training.walk_forward_training import make_plan
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.files.removal import refuse_foreign_files, remove_folder


@pytest.fixture
def victim(tmp_path):
    """A folder that no program has made, and what it holds."""
    folder = tmp_path / "victim"
    (folder / "7").mkdir(parents=True)
    for name in ("thesis.docx", "7/data.bin", "000000000001.safetensors", "notes.txt"):
        (folder / name).write_text("precious")
    return folder


def intact(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        "000000000001.safetensors", "data.bin", "notes.txt", "thesis.docx",
    ]  # fmt: skip


@pytest.fixture
def forward(tmp_path):
    """A walk forward that was killed before its first run began."""
    config = small(tmp_path / "forward", timesteps=512, num_envs=8)
    plan = make_plan(config, 2)
    folds = [{"train": f.train, "validation": f.validation, "test": f.test} for f in plan.folds]
    write_json(
        tmp_path / "forward" / "walk_forward.json",
        {"config": plan.config.to_json(), "seeds": [0], "rolling": False, "folds": folds,
         "id": "0" * 12},
    )  # fmt: skip
    return tmp_path / "forward"


@pytest.mark.parametrize("seed", ["0/../../../victim", "0", -1, 0.5, True, None, 2**32, [0]])
def test_a_seed_of_a_plan_is_a_number_and_no_path(forward, victim, seed):
    plan = read_json(forward / "walk_forward.json")
    write_json(forward / "walk_forward.json", plan | {"seeds": [seed]})
    with pytest.raises(ArgumentError, match=r"seeds hold .*give whole numbers from 0"):
        continue_walk_forward(forward)
    assert intact(victim)


@pytest.mark.parametrize("change", [{"folds": 5}, {"folds": [1]}, {"folds": [{"x": [1]}]},
                                    {"seeds": 5}, {"config": {}}, {"config": None}])  # fmt: skip
def test_a_damaged_plan_is_an_error_that_names_it(forward, change):
    plan = read_json(forward / "walk_forward.json")
    write_json(forward / "walk_forward.json", plan | change)
    with pytest.raises(PortfolioError):
        continue_walk_forward(forward)


def test_nothing_is_removed_behind_a_linked_fold_or_in_place_of_a_run(forward, victim):
    (victim / "seed_0").mkdir()
    (victim / "seed_0" / "thesis.docx").write_text("precious")
    (forward / "fold_0").symlink_to(victim)
    with pytest.raises(DataError, match=r"fold_0 is a link"):
        continue_walk_forward(forward)
    (forward / "fold_0").unlink()
    shutil.copytree(victim / "seed_0", forward / "fold_0" / "seed_0")
    with pytest.raises(PortfolioError, match="not empty"):
        continue_walk_forward(forward)
    for folder in (victim, forward / "fold_0"):
        assert (folder / "seed_0" / "thesis.docx").read_text() == "precious"


def test_a_conversion_removes_nothing_behind_a_link(tmp_path, victim):
    path = to_old(made_run(tmp_path / "run", algo="direct"))
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
    (path / "checkpoints").symlink_to(victim)
    with pytest.raises(DataError, match="checkpoints is a link"):
        list(convert(path))
    assert intact(victim)


def test_a_conversion_keeps_folders_that_are_no_checkpoints(tmp_path):
    path = to_old(made_run(tmp_path / "run", algo="direct"))
    mine = path / "checkpoints" / "2024 notes"
    mine.mkdir(parents=True)
    (mine / "mine.txt").write_text("keep")
    list(convert(path))
    assert (mine / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("name", ["checkpoints", "tb", "evaluation", ".looks.lock", "card.md"])
def test_no_process_works_in_a_run_that_holds_a_link(tmp_path, victim, capsys, name):
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / name).symlink_to(victim if "." not in name else victim / "notes.txt")
    with pytest.raises(DataError, match="is a link"), one_process(path):
        pass
    status, _, err = command(capsys, "delete", "run", "--runs", tmp_path, "--yes")
    assert status == 1 and "is a link" in err and intact(victim)


def test_a_lock_that_is_a_link_is_not_opened(tmp_path):
    target = tmp_path / "settings"
    target.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(target)
    with pytest.raises(DataError, match="is a link"), one_process(tmp_path / "run"):
        pass
    assert target.read_text() == "precious"


def test_files_of_others_among_the_checkpoints_are_neither_removed_nor_read(tmp_path):
    path = made_run(tmp_path / "run", finished=False)
    mine = path / "checkpoints" / "2_mine.safetensors"
    mine.write_text("keep")
    config = small(path).resolved()
    agent = new_agent(config, *config.load_market())
    from stable_baselines3.common.logger import Logger

    agent.set_logger(Logger(None, []))
    agent._setup_learn(8192, None)
    for steps in (64, 128, 192):
        agent.num_timesteps = steps
        save_checkpoint(path, agent)
    names = sorted(file.name for file in (path / "checkpoints").iterdir())
    assert names == ["000000000128.safetensors", "000000000192.safetensors", mine.name]


def test_a_project_that_only_looks_like_a_run_is_not_deleted(tmp_path, capsys):
    for name in ("src/main.py", "photo.jpg", "seed_0/x.docx", "checkpoints/9/mine.txt"):
        project = tmp_path / "project"
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("precious")
        (project / "config.json").write_text("{}")
        status, _, err = command(capsys, "delete", "project", "--runs", tmp_path, "--yes")
        assert status == 1 and f"{project / name} is not a file that a run consists of" in err
        assert (project / name).read_text() == "precious"
        shutil.rmtree(project)


def test_what_a_run_consists_of_is_removed_whole(tmp_path):
    names = ("run.json", "card.md", "best_model.safetensors", "checkpoints/000000064.safetensors",
             "checkpoints/000064/model.zip", "checkpoints/000064/replay_buffer.npz", ".lock",
             "checkpoints/direct.pt", "final_model.zip", "encoder.pt", ".looks.lock",
             "tb/stage_1/events.out.tfevents.1.vm.2.0", "evaluation/test/ppo/account.csv",
             "evaluation/.test.lock", "evaluation/test/report.html", ".writing-1-2-3.json",
             "fold_0/seed_1/config.json", "fold_0/seed_1/.lock")  # fmt: skip
    for name in names:
        file: Path = tmp_path / "run" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    refuse_foreign_files(tmp_path / "run")
    remove_folder(tmp_path / "run")
    assert not (tmp_path / "run").exists()
