"""Run folders and archives of strangers: one line says what is wrong, and the rest works on."""

import json
import os
import pickle
import resource
import shutil
from pathlib import Path

import pytest
from helpers.payload import Payload
from helpers.small_runs import made_run
from test_conversion import to_old
from test_run_archives import entries, rewritten
from test_run_store import command

from agents.store.archives import export_run, import_run
from agents.store.conversion import convert
from agents.training.cards import write_card
from agents.training.run_folder import evaluating
from portfolio_env.errors import DataError, PortfolioError
from portfolio_env.files.atomic import read_json, write_json


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = made_run(tmp_path_factory.mktemp("runs") / "ppo")
    write_card(path)
    return path


@pytest.fixture
def run(template, tmp_path):
    return shutil.copytree(template, tmp_path / "runs" / "ppo")


def changed(run, name, change):
    """Write a file of a run anew, with a checksum that fits."""
    content = change if name == "market.json" and not change else read_json(run / name) | change
    write_json(run / name, content)


def test_a_run_that_is_evaluated_is_not_removed_or_converted(run, tmp_path, capsys):
    with evaluating(run), evaluating(run):  # several may at once
        status, _, err = command(capsys, "delete", "ppo", "--runs", run.parent, "--yes")
        assert status == 1 and "is being evaluated" in err
        (run / "command.txt").write_text("left of the first format")
        with pytest.raises(DataError, match="is being evaluated"):
            list(convert(run))
    assert run.exists()
    (run / "card.json").rename(run / "card.txt")
    assert command(capsys, "delete", "ppo", "--runs", run.parent, "--yes")[0] == 0


def test_a_run_that_is_read_only_is_read_without_a_lock(run, tmp_path, monkeypatch, capsys):
    from evaluate import main as evaluate
    from trade import main as trade

    for lock in run.glob(".*lock"):
        lock.unlink()
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    right = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not Path(path).is_relative_to(run) and right(path, mode),
    )
    today = ["trade.py", str(run), "today", "--capital", "1000", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", today)
    assert trade() == 1 and "is read-only: give --out" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["trade.py", "replay", str(run)])
    assert trade() == 1 and "is read-only: give --out" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*today, "--out", str(tmp_path / "orders")])
    assert trade() == 3 and (tmp_path / "orders" / "orders.csv").exists()
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(run)])
    assert evaluate() == 1 and "evaluate the copy" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in run.rglob("*")}


def test_evaluate_holds_the_run_that_it_judges(run, monkeypatch):
    import evaluate

    def opened(path, *_, **__):
        with pytest.raises(DataError, match="is being evaluated"):
            list(convert(path))
        raise InterruptedError  # far enough

    (run / "command.txt").write_text("left of the first format")
    monkeypatch.setattr("agents.training.tasks.open_task", opened)
    with pytest.raises(InterruptedError):
        evaluate.evaluate(evaluate.EvaluateConfig(run=run))


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_card_is_shown_and_not_exported(run, capsys, damage):
    card = run / "card.md"
    content = bytearray(card.read_bytes())
    content[100] ^= 1
    card.write_bytes({"cut": card.read_bytes()[:200], "flipped": content, "emptied": b""}[damage])
    status, out, err = command(capsys, "show", "ppo", "--runs", run.parent)
    assert status == 1 and "DAMAGED" in out and str(card) in err
    with pytest.raises(DataError, match=r"card\.md is damaged"):
        export_run(run, run.parent / "x.zip")


def test_every_bit_of_the_events_of_tensorboard_is_checked(run, capsys):
    from torch.utils.tensorboard import SummaryWriter

    from agents.store.content import check_file

    with SummaryWriter(str(run / "tb")) as writer:
        for step in range(3):
            writer.add_scalar("x", step, step)
    (file,) = (run / "tb").iterdir()
    content = file.read_bytes()
    check_file(file)
    file.write_bytes(content[:-5])  # as a crash leaves it
    check_file(file)
    for at in range(0, len(content), 3):
        file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(DataError, match="damaged"):
            check_file(file)
    status, out, err = command(capsys, "show", "ppo", "--runs", run.parent)
    assert status == 1 and file.name in out and str(file) in err


HOSTILE = [
    ("config.json", {"algo": {"a": 1}}),
    ("config.json", {"algo": 5}),
    ("config.json", {"timesteps": 0}),
    ("config.json", {"seed": "x"}),
    ("run.json", {"started": 5}),
    ("run.json", {"environment": [1]}),
    ("run.json", {"environment": {"packages": [1]}}),
    ("market.json", {}),
    ("market.json", {"assets": 5}),
    ("market.json", {"ranges": {"train": [1]}}),
    ("market.json", {"n_bars": "x"}),
    ("validation.json", {"validations": 5}),
    ("validation.json", {"validations": [{"excess_growth": "a"}]}),
    ("card.json", {"validation": {"models": {"best": {"growth": "x"}}}}),
    ("card.json", {"validation": 5}),
]


@pytest.mark.parametrize(("name", "change"), HOSTILE)
def test_a_hostile_run_is_an_error_of_a_line_and_does_not_arrive(run, tmp_path, capsys, name,
                                                                 change):  # fmt: skip
    shutil.copytree(run, run.parent / "good")
    export_run(run, tmp_path / "good.zip")
    changed(run, name, change)
    members = [(m, (run / m.filename).read_bytes()) for m, _ in entries(tmp_path / "good.zip")
               if m.filename != "manifest.json"]  # fmt: skip
    file = _packed(tmp_path, members, json.loads(entries(tmp_path / "good.zip")[0][1]))
    with pytest.raises(PortfolioError):
        import_run(file, tmp_path / "store")
    assert [p.name for p in (tmp_path / "store").iterdir()] == [".store.lock"]
    for arguments in (
        ["list"],
        ["show", "ppo"],
        ["card", "ppo"],
        ["export", "ppo", str(tmp_path / "x.zip")],
    ):
        done, _, err = command(capsys, *arguments, "--runs", run.parent)
        assert done in (0, 1) and err.count("\n") == done, (arguments, err)
        assert "good" not in err


def _packed(folder, members, manifest):
    """An archive of these members, whose manifest fits."""
    from hashlib import sha256
    from zipfile import ZipFile

    files = {m.filename: {"size": len(c), "sha256": sha256(c).hexdigest()} for m, c in members}
    with ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest | {"files": files}))
        for member, content in members:
            archive.writestr(member.filename, content)
    return folder / "evil.zip"


def test_texts_of_strangers_do_not_reach_the_terminal_as_they_are(run, capsys):
    evil = "[/x]\x1b]0;owned\x07\x1b[31m"
    changed(run, "config.json", {"algo": evil})
    changed(run, "run.json", {"command": evil})
    changed(run, "market.json", {"name": evil})
    for arguments in (["list"], ["show", "ppo"], ["show", evil], ["card", "ppo"]):
        done, out, err = command(capsys, *arguments, "--runs", run.parent)
        assert done in (0, 1)
        assert "\x1b]" not in out + err and "\x07" not in out + err and "\x1b[31m" not in out + err
    assert "[/x]" in command(capsys, "list", "--runs", run.parent)[1]


def test_a_damaged_neighbour_hides_no_run(run, tmp_path, capsys):
    twin = shutil.copytree(run, run.parent / "twin")
    (twin / "run.json").write_text('{"id": [5]}')
    id = read_json(run / "run.json")["id"]
    assert command(capsys, "show", id, "--runs", run.parent)[0] == 0
    status, out, err = command(capsys, "list", "--runs", run.parent)
    assert status == 1 and "finished" in out and str(twin) in err


def test_archives_that_export_never_writes_are_refused(run, tmp_path):
    file = tmp_path / "run.zip"
    export_run(run, file)
    for name in (None, 5, ["x"]):
        made = rewritten(file, tmp_path / "evil.zip", manifest={"name": name})
        with pytest.raises(PortfolioError, match="is not a name for a folder"):
            import_run(made, tmp_path / "store")
    made.write_bytes(b"#!/bin/sh\necho owned\n" + file.read_bytes())
    with pytest.raises(DataError, match="before its first member"):
        import_run(made, tmp_path / "store")
    plan = read_json(run / "run.json") | {"config": {}, "folds": [], "seeds": []}
    write_json(tmp_path / "plan.json", plan)
    member = ("walk_forward.json", (tmp_path / "plan.json").read_bytes())
    made = rewritten(file, tmp_path / "evil.zip", members=[member])
    with pytest.raises(DataError, match="damaged"):
        import_run(made, tmp_path / "store")


def test_a_full_disk_is_not_blamed_on_the_archive(run, tmp_path):
    file, before = tmp_path / "run.zip", resource.getrlimit(resource.RLIMIT_FSIZE)
    export_run(run, file)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(
            DataError, match=r"store/.*cannot be written \(File too large\)"
        ) as told:
            import_run(file, tmp_path / "store")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "run.zip" not in str(told.value)


def test_a_payload_beside_the_settings_of_an_old_zip_is_told_in_a_line(tmp_path):
    from zipfile import ZipFile

    path, proof = to_old(made_run(tmp_path / "run")), tmp_path / "proof"
    for file in path.glob("*_model.zip"):
        with ZipFile(file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with ZipFile(file, "w") as archive:
            for name, content in members.items():
                hostile = (
                    pickle.dumps(Payload(proof), protocol=2) if name == "policy.pth" else content
                )
                archive.writestr(name, hostile)
    with pytest.raises(DataError, match=r"_model\.zip is damaged.*could run code") as told:
        list(convert(path))
    assert "weights_only" not in str(told.value) and "\n" not in str(told.value)
    assert not proof.exists()
