"""The store of runs: what it lists, shows and deletes, and what it refuses."""

import re
import shutil
import subprocess
import sys

import pytest
from helpers.small_runs import ROOT, made_run

from agents.store.__main__ import main
from agents.training.cards import write_card
from agents.training.run_folder import WALK_FORWARD, one_process, started
from agents.training.run_records import find, read_record, read_records
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation.usage_log import UsageEntry, log_usage
from portfolio_env.files.atomic import read_json, write_json

LOOK = UsageEntry("2030-01-02T03:04:05", "x", None, "2030-01-01", "2030-01-02", "hash", ())


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store of a finished run, one that was stopped, and a walk forward of one run."""
    store = tmp_path_factory.mktemp("runs")
    made_run(store / "finished")
    made_run(store / "stopped", seed=7, finished=False)
    made_run(store / "walk" / "fold_0" / "seed_0", algo="direct")
    config = read_json(store / "walk" / "fold_0" / "seed_0" / "config.json")
    fold = {"train": [0, 200], "validation": [200, 300], "test": [300, 400]}
    plan = {"config": config, "seeds": [0], "rolling": False, "folds": [fold]}
    write_json(store / "walk" / WALK_FORWARD, plan | started("train.py"))
    return store


@pytest.fixture
def store(template, tmp_path):
    return shutil.copytree(template, tmp_path / "runs")


def command(capsys, *arguments):
    """What a command prints and returns."""
    status = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_runs_are_known_by_what_they_hold(store, capsys, monkeypatch):
    log_usage(store / "finished", LOOK)
    known = read_record(store / "finished")
    (store / "finished").rename(store / "stopped__sac__9__19990101")
    (store / "no run").mkdir()
    (store / "a file").write_text("")
    again = read_record(store / "stopped__sac__9__19990101")
    assert (again.id, again.algo, again.seeds, again.state) == (known.id, "ppo", (0,), "finished")
    assert (again.excess, again.uses) == (0.03, 1)
    records, problems = read_records(store)
    assert problems == []
    assert [record.started for record in records] == sorted(record.started for record in records)
    assert {record.state for record in records} == {"finished", "stopped 0%"}
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = command(capsys, "list", "--runs", store)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    rows = out.splitlines()[1:4]
    assert re.match(rf"{known.id[:8]} +ppo +synthetic +0 +\S+ \S+ +finished +\+3\.00 +1", rows[0])
    assert "stopped 0%" in rows[1] and "direct" in rows[2]
    assert len(command(capsys, "list", "--runs", store, "--algo", "direct")[1].splitlines()) == 3
    assert "no runs" in command(capsys, "list", "--runs", store, "--market", "btc")[1]


def test_a_run_is_found_by_path_name_and_beginning_of_its_id(store):
    path = store / "finished"
    id = read_record(path).id
    for name in (str(path), "finished", id, id[:6]):
        assert find(name, store) == path
    with pytest.raises(ArgumentError, match="is not a run"):
        find("other", store)
    twin = shutil.copytree(path, store / "twin")
    with pytest.raises(ArgumentError, match="2 runs"):
        find(id[:6], store)
    assert find("twin", store) == twin


@pytest.mark.parametrize("action", [["list"], ["show", "abc"], ["delete", "abc"]])
def test_a_file_in_place_of_the_folder_of_runs_is_told(tmp_path, capsys, action):
    (tmp_path / "file").write_text("")
    status, _, told = command(capsys, *action, "--runs", tmp_path / "file")
    assert (status, told) == (1, f"error: runs is {tmp_path / 'file'}, a file; give a folder\n")


def test_a_run_in_which_a_process_is_at_work_is_running(store):
    hold = [sys.executable, "-c", HOLD, str(store / "stopped")]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        try:
            assert read_record(store / "stopped").state == "running"
            for arguments in (
                ("delete", "stopped", "--yes"),
                ("export", "stopped", store / "x.zip"),
            ):
                assert main([*map(str, arguments), "--runs", str(store)]) == 1
        finally:
            holder.kill()
    assert (store / "stopped").exists() and not (store / "x.zip").exists()
    assert read_record(store / "stopped").state == "stopped 0%"


HOLD = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from agents.training.run_folder import WALK_FORWARD, one_process, started
with one_process(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def test_show_tells_all_and_verifies_checksums(store, capsys):
    status, out, err = command(capsys, "show", "finished", "--runs", store)
    assert (status, err) == (0, "")
    assert read_record(store / "finished").id in out
    assert "best_model.safetensors" in out and "DAMAGED" not in out
    status, out, _ = command(capsys, "show", "finished", "--runs", store, "--verify")
    assert status == 0 and "its models load" in out
    file = store / "finished" / "final_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    status, out, err = command(capsys, "show", "finished", "--runs", store)
    assert status == 1 and str(file) in err and "DAMAGED" in out


def test_a_damaged_run_is_listed_as_a_problem(store, capsys):
    (store / "finished" / "config.json").write_text('{"algo": "ppo"}')
    status, out, err = command(capsys, "list", "--runs", store)
    assert status == 1
    assert len(out.splitlines()) == 4  # head, two runs, the meaning of columns
    assert str(store / "finished") in err


def test_a_run_is_deleted_as_a_whole(store, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert command(capsys, "delete", "finished", "--runs", store)[0] == 1
    assert (store / "finished").exists()
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert command(capsys, "delete", "finished", "--runs", store)[0] == 0
    assert command(capsys, "delete", "walk", "--runs", store, "--yes")[0] == 0
    assert {path.name for path in store.iterdir()} == {"stopped", ".store.lock"}


def test_nothing_outside_the_store_is_deleted(store, tmp_path, capsys):
    outside = shutil.copytree(store / "finished", tmp_path / "outside")
    (store / "link").symlink_to(outside)
    (store / "folder").mkdir()
    (store / "folder" / "notes.txt").write_text("mine")
    within = store / "walk" / "fold_0" / "seed_0"
    for name in (outside, store / ".." / "outside", "link", "folder", "..", ".", store, within):
        status, _, err = command(capsys, "delete", name, "--runs", store, "--yes")
        assert status == 1 and err.startswith("error: ") and err.count("\n") == 1, name
    assert (outside / "config.json").exists()
    assert {"finished", "stopped", "walk", "link", "folder"} <= {p.name for p in store.iterdir()}


def test_a_run_that_holds_a_link_is_not_deleted(store, tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.txt").write_text("keep")
    (store / "finished" / "tb").symlink_to(precious)
    assert command(capsys, "delete", "finished", "--runs", store, "--yes")[0] == 1
    assert (store / "finished" / "config.json").exists()
    assert (precious / "data.txt").read_text() == "keep"


def test_a_card_states_facts(store, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = command(capsys, "card", "finished", "--runs", store)
    assert (status, out.strip()) == (0, str(store / "finished" / "card.md"))
    card, text = read_json(store / "finished" / "card.json"), (store / "finished" / "card.md")
    market = read_json(store / "finished" / "market.json")
    assert card["market"]["hash"] == market["hash"] in text.read_text()
    assert card["seeds"] == [0]
    assert card["ranges"]["test"]["last"] == market["dates"]["test"][1]
    assert card["features"]["names"] == market["feature_names"]
    figures = card["validation"]["models"]["best"]
    assert set(figures) == {"growth", "excess_growth", "turnover"}
    assert card["selection"] == {"by": "growth", "validations": 2, "chosen_at": 64}
    assert card["environment"]["packages"]["torch"]
    limits = " ".join(card["limits"])
    assert "one seed (0)" in limits and "10 basis points" in limits and "simulated" in limits
    assert "Its test range has not been used." in limits
    log_usage(store / "finished", LOOK)
    assert "used 1 time:" in " ".join(write_card(store / "finished")["limits"])
    assert read_json(store / "finished" / "card.json")["validation"]["models"]["best"] == figures
    _, shown, _ = command(capsys, "show", "finished", "--runs", store)
    assert max(map(len, shown.splitlines())) <= 80


def test_a_walk_forward_has_a_card_of_its_runs(store, capsys):
    assert command(capsys, "card", "walk", "--runs", store)[0] == 0
    card = read_json(store / "walk" / "card.json")
    member = read_json(store / "walk" / "fold_0" / "seed_0" / "card.json")
    assert card["kind"] == "walk forward"
    assert card["validation"]["runs"] == {"fold_0/seed_0": member["validation"]["models"]}
    assert command(capsys, "show", "walk", "--runs", store, "--verify")[0] == 0


def test_a_run_of_the_old_format_is_refused_with_the_command(store, capsys):
    (store / "finished" / "run.json").unlink()
    assert command(capsys, "export", "finished", store / "x.zip", "--runs", store)[0] == 1
    (store / "finished" / "versions.json").write_text("{}")
    for name in ("show", "card", "export"):
        more = [store / "x.zip"] if name == "export" else []
        status, _, err = command(capsys, name, "finished", *more, "--runs", store)
        assert status == 1
        assert f"python -m agents.store convert {store / 'finished'}" in err
    assert "old format" in command(capsys, "list", "--runs", store)[1]
    with one_process(store / "finished"), pytest.raises(DataError, match="store convert"):
        from agents import load_run

        load_run(store / "finished")


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("list", "show", "card", "export", "import", "delete"))
