"""What a run records of versions and hardware."""

import json
import sys
from importlib.metadata import version

import torch

import portfolio_env as pe


def test_versions_and_hardware_are_stated():
    info = pe.env_info()
    assert json.loads(json.dumps(info)) == info
    assert info["packages"]["numpy"] == version("numpy")
    assert info["cores"] >= 1 and info["processor"]
    assert info["memory_bytes"] is None or info["memory_bytes"] > 2**26
    assert len(info["gpus"]) == torch.cuda.device_count()


def test_what_is_not_installed_is_stated_as_such(monkeypatch):
    monkeypatch.setattr("portfolio_env.machine.find_spec", lambda name: None)
    monkeypatch.setattr("portfolio_env.machine.PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it would fail
    info = pe.env_info()
    assert info["gpus"] == []
    assert info["packages"] == {"numpy": version("numpy"), "no-such-package": None}
