"""Plug-ins by name: found, told apart from what is built in, and never part of what is loaded."""

import hashlib
import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from zipfile import ZipFile

import pytest

from portfolio_env import names
from portfolio_env.errors import ArgumentError, DataError

KNOWN = {"gat": dict, "mlp": list}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module where Python finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    written = []

    def write(name, source):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
        written.append(name.partition("/")[0])
        return file

    yield write
    for name in list(sys.modules):
        if name.partition(".")[0] in written:
            del sys.modules[name]


def test_built_in_and_plugin(module):
    module("nets_a", "class Mine:\n    class Small: ...\n")
    assert names.find("encoder", "gat", KNOWN) is dict
    found = names.find("encoder", "nets_a:Mine", KNOWN)
    assert found is sys.modules["nets_a"].Mine
    assert names.find("encoder", "nets_a:Mine.Small", KNOWN) is found.Small
    assert names.plugin_name(found.Small) == "nets_a:Mine.Small"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gta", "unknown encoder 'gta': did you mean gat"),
        ("nothing_of_the_kind:Mine", "needs the module 'nothing_of_the_kind'"),
        ("nets_b:Mien", "did you mean Mine"),
        ("nets_b.deeper:Mine", "nets_b.deeper"),
        ("nets_c:Mine", "raised ZeroDivisionError: division by zero"),
        ("nets_d:Mine", "raised ModuleNotFoundError: No module named 'not_there'"),
        ("nets_k:Mine", "raised SystemExit: 2"),
        ("nets_l:Mine", "raised ZeroDivisionError: Mine"),
        ("nets_b:__naem__", "choose from Mine"),
        ("a:b:c", "unknown encoder"),
        (7, "unknown encoder 7"),
    ],
)
def test_what_is_wrong_is_named(module, name, says):
    module("nets_b", "Mine = 1")
    module("nets_c", "1 / 0")
    module("nets_d", "import not_there")
    module("nets_k", "raise SystemExit(2)")
    module("nets_l", "def __getattr__(name): raise ZeroDivisionError(name)")
    with pytest.raises(ArgumentError, match=says.replace("(", "\\(")):
        names.find("encoder", name, KNOWN)


def test_entry_points(module, monkeypatch):
    module("nets_e", "Mine = 3")
    points = [EntryPoint("encoder.best", "nets_e:Mine", names.ENTRY_POINTS)]
    monkeypatch.setattr(names, "entry_points", lambda group: points)
    names._entry_points.cache_clear()
    try:
        assert names.find("encoder", "best", KNOWN) == 3
        assert names.source_hash("best", "encoder") == names.source_hash("nets_e:Mine")
        with pytest.raises(ArgumentError, match="did you mean best"):
            names.find("encoder", "bset", KNOWN)
        with pytest.raises(ArgumentError, match="unknown reward"):
            names.find("reward", "best", KNOWN)
    finally:
        names._entry_points.cache_clear()


def test_sources_are_read_and_not_run(module, tmp_path):
    file = module("nets_f", "1 / 0")
    recorded = {"nets_f:Mine": names.source_hash("nets_f:Mine")}
    elsewhere = tmp_path / "runs" / "one"
    assert names.changed_sources(recorded, elsewhere) == []
    file.write_text("2 / 0")
    assert names.changed_sources(recorded, elsewhere) == ["nets_f:Mine"]
    with pytest.raises(DataError, match="nothing that is loaded can bring code"):
        names.changed_sources(recorded, tmp_path)
    assert "nets_f" not in sys.modules


def test_a_folder_of_files_is_no_package(module, tmp_path):
    module("runs_g/payload", "Mine = 1")  # a run folder below the working directory
    with pytest.raises(ArgumentError, match="finds no source"):
        names.source_hash("runs_g.payload:Mine")
    (tmp_path / "runs_g" / "__init__.py").touch()
    assert names.source_hash("runs_g.payload:Mine")
    with pytest.raises(DataError, match="lies in that folder"):
        names.changed_sources({"runs_g.payload:Mine": ""}, tmp_path / "runs_g")


def test_no_part_of_a_package_lies_in_what_is_loaded(module, tmp_path, monkeypatch):
    """Its __init__.py runs first, and links lead elsewhere."""
    own = module("mine_h", "Mine = 1")
    run = tmp_path / "run_h"
    (run / "inner").mkdir(parents=True)
    for init in (run / "__init__.py", run / "inner" / "__init__.py"):
        init.write_text("raise SystemExit('imported')")
    for link in (run / "linked.py", run / "inner" / "linked.py"):
        link.symlink_to(own)
    monkeypatch.syspath_prepend(run)
    for name in ("run_h.linked:Mine", "run_h.inner.linked:Mine", "linked:Mine"):
        with pytest.raises(DataError, match="lies in that folder"):
            names.changed_sources({name: ""}, run)
    (tmp_path / "same_h").symlink_to(run)
    for folder, name in ((run, "same_h.linked:Mine"), (tmp_path / "same_h", "run_h.linked:Mine")):
        with pytest.raises(DataError, match="lies in that folder"):
            names.changed_sources({name: ""}, folder)
    assert not any(name.startswith(("run_h", "same_h")) for name in sys.modules)


def test_a_module_in_a_zip(tmp_path, monkeypatch):
    with ZipFile(tmp_path / "nets.zip", "w") as archive:
        archive.writestr("zipped_i.py", "Mine = 1")
    monkeypatch.syspath_prepend(tmp_path / "nets.zip")
    assert names.source_hash("zipped_i:Mine") == hashlib.sha256(b"Mine = 1").hexdigest()
    with pytest.raises(DataError, match="lies in that folder"):
        names.changed_sources({"zipped_i:Mine": ""}, tmp_path)
    assert "zipped_i" not in sys.modules


def test_a_module_of_no_file(monkeypatch):
    monkeypatch.setitem(sys.modules, "ghost_j", ModuleType("ghost_j"))
    with pytest.raises(ArgumentError, match="finds no source"):
        names.source_hash("ghost_j:Mine")


@pytest.mark.parametrize("name", ["sys:exit", "__main__:Mine", "math:sin", "nowhere:Mine"])
def test_what_has_no_source(name):
    with pytest.raises(ArgumentError, match="finds no source"):
        names.source_hash(name)


def test_things_without_a_name():
    def inner(): ...

    for thing in (inner, lambda: 0, 3):
        with pytest.raises(ArgumentError, match="cannot be found again"):
            names.plugin_name(thing)
