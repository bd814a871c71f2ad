"""The package once more, run as plain Python: what its compiled code is compared with."""

import sys
import warnings
from functools import cache
from importlib import import_module
from types import ModuleType

from numba import config


@cache
def _package() -> dict[str, ModuleType]:
    """All modules of ``portfolio_env``, imported anew while numba compiles nothing."""
    compiled = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_ours(name)}
    before, config.DISABLE_JIT = config.DISABLE_JIT, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the environment is registered again
            for name in ("simulation.simulator", "features.windows", "data.generators.log_optimal"):
                import_module(f"portfolio_env.{name}")
        return {name: module for name, module in sys.modules.items() if _is_ours(name)}
    finally:
        config.DISABLE_JIT = before
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(compiled)


def _is_ours(name: str) -> bool:
    return name == "portfolio_env" or name.startswith("portfolio_env.")


def plain(name: str) -> ModuleType:
    """A module of the package that is not compiled, apart from the one that tests import."""
    return _package()[f"portfolio_env.{name}"]
