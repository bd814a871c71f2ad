"""Runs handed on in one file: equal when they arrive, and harmless whoever wrote it."""

import json
import shutil
import stat
import subprocess
import sys
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pytest
from helpers.small_runs import made_run

from agents import load_run
from agents.store.archives import MANIFEST, export_run, import_run
from agents.store.content import run_files
from agents.training.run_records import read_record
from portfolio_env.errors import ArgumentError, DataError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = made_run(tmp_path_factory.mktemp("runs") / "ppo run")
    (path / "evaluation" / "test").mkdir(parents=True)
    (path / "evaluation" / "test" / "report.html").write_text("<script>")
    return path


@pytest.fixture(scope="module")
def archive(run, tmp_path_factory):
    file = tmp_path_factory.mktemp("archives") / "run.zip"
    export_run(run, file)
    return file


def entries(file):
    with ZipFile(file) as opened:
        return [(member, opened.read(member)) for member in opened.infolist()]


def rewritten(file, target, *, members=None, manifest=None, compression=0):
    """The archive with other members: (ZipInfo or name, content); a manifest that fits."""
    members = [each for each in entries(file) if each[0].filename != MANIFEST] + (members or [])
    plain = [(m if isinstance(m, ZipInfo) else ZipInfo(m), content) for m, content in members]
    stated = json.loads(entries(file)[0][1])
    stated["files"] = {
        m.filename: {"size": len(content), "sha256": sha256(content).hexdigest()}
        for m, content in plain
    }
    with ZipFile(target, "w", compression) as opened:
        opened.writestr(MANIFEST, json.dumps(stated | (manifest or {})))
        for member, content in plain:
            opened.writestr(member, content, compression)
    return target


def test_a_run_arrives_as_it_was_sent(run, archive, tmp_path):
    path = import_run(archive, tmp_path / "store")
    assert path.name == "ppo run"
    names = [file.relative_to(run) for file in run_files(run)]
    assert [file.relative_to(path) for file in run_files(path)] == names
    assert all((path / name).read_bytes() == (run / name).read_bytes() for name in names)
    assert read_record(path).id == read_record(run).id
    assert not (path / "evaluation").exists()
    load_run(path, device="cpu")
    with pytest.raises(DataError, match="is in the store already"):
        import_run(archive, tmp_path / "store", name="twin")
    assert {each.name for each in (tmp_path / "store").iterdir()} == {path.name, ".store.lock"}


def test_equal_runs_make_equal_archives(run, archive, tmp_path):
    export_run(
        import_run(archive, tmp_path / "store", name="renamed").rename(tmp_path / run.name),
        tmp_path / "again.zip",
    )
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_a_stopped_run_is_resumed_from_its_archive(tmp_path):
    from agents.training.train import resume

    path = made_run(tmp_path / "stopped", finished=False)
    export_run(path, tmp_path / "run.zip")
    shutil.rmtree(path)
    again = import_run(tmp_path / "run.zip", tmp_path / "store")
    assert read_record(again).state == "stopped 0%"
    resume(again)
    assert read_record(again).state == "finished"


def test_nothing_is_overwritten(archive, tmp_path):
    (tmp_path / "ppo run").mkdir()
    (tmp_path / "ppo run" / "mine.txt").write_text("keep")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in (None, "dangling"):
        with pytest.raises(DataError, match="exists"):
            import_run(archive, tmp_path, name=name)
    assert (tmp_path / "ppo run" / "mine.txt").read_text() == "keep"
    with pytest.raises(ArgumentError, match="not a name for a folder"):
        import_run(archive, tmp_path, name="../out")


def _link(name, kind=stat.S_IFLNK):
    member = ZipInfo(name)
    member.external_attr = (kind | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("/evil.json", b"{}", "not a name within a folder"),
        ("../evil.json", b"{}", "not a name within a folder"),
        ("tb/../../evil.json", b"{}", "not a name within a folder"),
        ("C:\\evil.json", b"{}", "not a name within a folder"),
        ("a\\..\\evil.json", b"{}", "not a name within a folder"),
        (".hidden.json", b"{}", "not a name within a folder"),
        ("tb/", b"", "not a name within a folder"),
        ("line\nbreak.json", b"{}", "not a name within a folder"),
        (_link("card.md"), b"/etc/passwd", "link, a folder or a device"),
        (_link("pipe.json", stat.S_IFIFO), b"{}", "link, a folder or a device"),
        (_link("disk.json", stat.S_IFBLK), b"{}", "link, a folder or a device"),
        ("final_model.zip", b"PK", "of no kind"),
        ("model.pkl", b"cos\nsystem\n", "of no kind"),
        ("sitecustomize.py", b"import os", "of no kind"),
        ("evaluation/report.html", b"<script>", "of no kind"),
        ("CONFIG.JSON", b"{}", "of no kind"),
        ("Config.json", b"{}", "two members of one name"),
        ("config.json", b"{}", "two members of one name"),
        ("notes.txt", b"\xff\xfe", "not text"),
        ("notes.json", b"cos\nsystem\n", "damaged"),
        ("notes.safetensors", b"\x80\x04cos\nsystem\n", "damaged"),
        ("tb/events.out.tfevents.1", b"\x80\x04cos\nsystem\n", "no events"),
    ],
)
def test_what_no_run_consists_of_is_refused(archive, tmp_path, member, content, message):
    twice = pytest.warns(UserWarning, match="Duplicate name")  # of zipfile
    with twice if member == "config.json" else nullcontext():
        file = rewritten(archive, tmp_path / "evil.zip", members=[(member, content)])
    refused(file, tmp_path / "store", message)


def refused(file, store, message):
    """Not imported: one line that names the file, and nothing is left."""
    with pytest.raises(DataError, match=message) as raised:
        import_run(file, store)
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)
    left = list(store.iterdir()) if store.exists() else []
    assert [path.name for path in left if path.name != ".store.lock"] == []


def test_an_archive_cannot_grow_when_it_is_read(archive, tmp_path):
    file = rewritten(archive, tmp_path / "a.zip", compression=ZIP_DEFLATED,
                     members=[("zeros.json", b"0" * 50_000_000)])  # fmt: skip
    assert file.stat().st_size < 10_000_000
    refused(file, tmp_path / "store", "larger than it is|compressed")
    many = [(f"{number}.json", b"{}") for number in range(10_001)]
    refused(rewritten(archive, tmp_path / "b.zip", members=many), tmp_path / "store", "members")


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"files": {}}, "names other files"),
        ({"format": 99}, "format is 99"),
        ({"id": "../../x"}, "id is none"),
        ({"id": "0" * 12}, "not an archive of the run"),
        ({"files": None}, "damaged"),
        ({"files": 7, "id": []}, "damaged"),
        ({"name": ".."}, "not a name for a folder"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(archive, tmp_path, manifest, message):
    file = rewritten(archive, tmp_path / "evil.zip", manifest=manifest)
    with pytest.raises((DataError, ArgumentError), match=message):
        import_run(file, tmp_path / "store")
    assert [p.name for p in (tmp_path / "store").glob("*") if p.name != ".store.lock"] == []


def test_every_damage_is_noticed(archive, tmp_path):
    content, file = archive.read_bytes(), tmp_path / "damaged.zip"
    for at in range(0, len(content), len(content) // 60):
        file.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            path = import_run(file, tmp_path / "store")
        except DataError as error:
            assert str(file) in str(error)
            continue
        # what a zip says of dates and systems decides nothing: the run is whole all the same
        for member, stored in entries(archive)[1:]:
            assert (path / member.filename).read_bytes() == stored
        shutil.rmtree(path)
    for size in (0, 10, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        refused(file, tmp_path / "store", "damaged|not an archive")


def test_a_run_that_holds_links_is_not_exported(run, tmp_path):
    path = shutil.copytree(run, tmp_path / "run")
    (tmp_path / "secret.json").write_text("{}")
    for name, target in (("secret.json", "secret.json"), ("tb", "")):
        (path / name).symlink_to(tmp_path / target)
        with pytest.raises(DataError, match=f"{name} is a link"):
            export_run(path, tmp_path / "run.zip", events=True)
        (path / name).unlink()
    assert not (tmp_path / "run.zip").exists()


def test_a_damaged_run_is_not_exported(run, tmp_path):
    path = shutil.copytree(run, tmp_path / "run")
    model = path / "best_model.safetensors"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(DataError, match="best_model"):
        export_run(path, tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("notes(1).md",), "is not a name within a folder"),
        (("Notes.md", "notes.md"), "two members of one name"),
    ],
)
def test_what_could_not_be_imported_is_not_exported(run, tmp_path, names, reason):
    path = shutil.copytree(run, tmp_path / "run")
    for name in names:
        (path / name).write_text("mine")
    if len(list(path.glob("*otes*"))) < len(names):
        pytest.skip("the file system does not tell cases apart")
    with pytest.raises(DataError, match=f"cannot be exported: .*{reason}"):
        export_run(path, tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()


def test_an_archive_does_not_replace_a_file_of_its_run(run, tmp_path):
    path = shutil.copytree(run, tmp_path / "run")
    before = (path / "best_model.safetensors").read_bytes()
    for name in ("best_model.safetensors", "new.zip"):
        with pytest.raises(ArgumentError, match="lies in the run itself"):
            export_run(path, path / name)
    assert (path / "best_model.safetensors").read_bytes() == before
    assert not (path / "new.zip").exists()


def test_events_of_tensorboard_go_along_when_asked(run, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    path = shutil.copytree(run, tmp_path / "run")
    with SummaryWriter(str(path / "tb")) as writer:
        writer.add_scalar("x", 1.0, 0)
    export_run(path, tmp_path / "run.zip", events=True)
    again = import_run(tmp_path / "run.zip", tmp_path / "store")
    events = [file.relative_to(path) for file in (path / "tb").iterdir()]
    assert len(events) == 1
    assert (again / events[0]).read_bytes() == (path / events[0]).read_bytes()


@pytest.mark.slow
def test_a_kill_leaves_every_run_whole_or_absent(run, tmp_path):
    script = Path(__file__).parents[2] / "store_kills.py"
    done = subprocess.run(
        [sys.executable, str(script), str(run), str(tmp_path / "kills"), "40", "0"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] == 40
