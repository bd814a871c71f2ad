"""Environment of a computation: versions, processor, memory, graphics cards."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGES = (
    "portfolio-env",
    "gymnasium",
    "numpy",
    "numba",
    "pandas",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "safetensors",
    "scikit-learn",
    "skfolio",
)


def env_info() -> dict[str, Any]:
    """Return versions and hardware of this process, JSON-able.

    Returns:
        ``python``, ``platform``, ``packages`` (versions by name, None where not installed),
        ``processor``, ``cores`` (that this process may use), ``memory_bytes`` (None where the
        system does not say) and ``gpus`` (name and ``memory_bytes`` of each that torch sees).
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": _processor(),
        "cores": cores(),
        "memory_bytes": _memory(),
        "gpus": _gpus(),
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout may be on the path without being installed
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gpus() -> list[dict[str, Any]]:
    if find_spec("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    cards = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [{"name": card.name, "memory_bytes": card.total_memory} for card in cards]
