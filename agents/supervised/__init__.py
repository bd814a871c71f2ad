"""Supervised learning: forecasts of returns and directions by any encoder, and their judgement.

Names are imported when they are asked for: the trainer is used without the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agents.supervised.attribution import Attribution, attribute
    from agents.supervised.data import Table, WindowDataset
    from agents.supervised.model import SupervisedModel
    from agents.supervised.scores import Forecasts, verdict
    from agents.supervised.training import SupervisedOptions, SupervisedTrainer

__all__ = [
    "Attribution",
    "Forecasts",
    "SupervisedModel",
    "SupervisedOptions",
    "SupervisedTrainer",
    "Table",
    "WindowDataset",
    "attribute",
    "verdict",
]

_MODULES = {
    "attribution": ("Attribution", "attribute"),
    "data": ("Table", "WindowDataset"),
    "model": ("SupervisedModel",),
    "scores": ("Forecasts", "verdict"),
    "training": ("SupervisedOptions", "SupervisedTrainer"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
