"""What a file may name: what it has a record of, found where Python looks, and not within it."""

import importlib
import logging
import sys

import pytest

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files import plugins


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A module where Python finds it, which shows whether it was imported."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "nets_r.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(home)
    plugins._say_once.cache_clear()
    return home / "nets_r.py"


NAMED = {"encoder": ["gat", "nets_r:Mine"], "reward": ["log_return"]}


def test_what_is_recorded_is_admitted(nets, tmp_path, caplog):
    recorded = plugins.record(NAMED)
    assert list(recorded) == ["encoder"] and list(recorded["encoder"]) == ["nets_r:Mine"]
    run = tmp_path / "run"
    run.mkdir()
    plugins.admit(NAMED, recorded, run)
    plugins.admit({"encoder": ["gat"]}, {}, run)
    assert not caplog.messages
    nets.write_text("raise SystemExit('another')")
    with caplog.at_level(logging.WARNING):
        plugins.admit(NAMED, recorded, run)
        plugins.admit(NAMED, recorded, run)
    (line,) = caplog.messages
    assert "the source of the encoder nets_r:Mine has changed" in line
    assert "nets_r" not in sys.modules


@pytest.mark.parametrize(
    ("named", "recorded", "says"),
    [
        (NAMED, {}, "no record"),
        (NAMED, {"reward": {"nets_r:Mine": "0"}}, "no record"),
        (NAMED, {"encoder": {"nets_r:mine": "0"}}, "no record"),
        (NAMED, {"encoder": ["nets_r:Mine"]}, "no record of plug-ins as it was written"),
        (NAMED, ["nets_r:Mine"], "no record of plug-ins as it was written"),
        (NAMED, {"encoder": {"nets_r:Mine": 3}}, "no record of plug-ins as it was written"),
        ({"encoder": ["os:system"]}, {"encoder": {"os:system": "0"}}, "a part of Python itself"),
        ({"encoder": ["os.path:join"]}, {"encoder": {"os.path:join": "0"}}, "part of Python"),
    ],
)
def test_anything_else_is_refused(nets, tmp_path, named, recorded, says):
    with pytest.raises(DataError, match=says):
        plugins.admit(named, recorded, tmp_path / "agent.safetensors")
    assert "nets_r" not in sys.modules


def test_code_in_what_is_loaded_is_refused(nets, tmp_path, monkeypatch):
    recorded = plugins.record(NAMED)
    for loaded in (nets.parent, nets.parent / "agent.safetensors"):
        with pytest.raises(DataError, match="nothing that is loaded can bring code"):
            plugins.admit(NAMED, recorded, loaded)
    nets.write_text("Mine = 1")
    recorded = plugins.record(NAMED)
    monkeypatch.delitem(sys.modules, "nets_r", raising=False)
    importlib.import_module("nets_r")  # as a program does that trusts it
    plugins.admit(NAMED, recorded, nets.parent / "agent.safetensors")
    with pytest.raises(DataError, match="nothing that is loaded can bring code"):
        plugins.admit(NAMED, recorded, nets.parent)
    del sys.modules["nets_r"]


def test_a_missing_source_is_an_error(tmp_path):
    named = {"encoder": ["nets_nowhere:Mine"]}
    with pytest.raises(ArgumentError, match="finds no source"):
        plugins.admit(named, {"encoder": {"nets_nowhere:Mine": "0"}}, tmp_path)
    with pytest.raises(ArgumentError, match="finds no source"):
        plugins.record(named)


def test_names_within():
    tree = {"a": ["x:y", {"b": "os:system", "c": 3}], "d": "1:2", "e": ("p.q:R",), "f": "C:/x"}
    assert list(plugins.plugins_within(tree)) == ["x:y", "os:system", "p.q:R"]
