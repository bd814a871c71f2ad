"""Baselines in files: name, options and fitted state, as tensors and JSON.

Nothing in such a file can run code. What a model computes from the market alone, and what it fits
again on schedule, is not stored: it is computed again, with the same result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.base import BASELINES, Baseline
from baselines.ensemble import Ensemble
from baselines.plugins import KIND as PLUGIN
from baselines.plugins import make_baseline
from baselines.portfolio_model import PortfolioModel
from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.plugins import admit, plugins_within, record
from portfolio_env.market import Market
from portfolio_env.names import plugin_name
from portfolio_env.simulation.constraints import PortfolioConstraints

if TYPE_CHECKING:
    from agents.direct.agent import DirectAgent

KIND = "baseline"  # kind of the file's tensors


def save_baseline(model: Baseline, path: str | Path) -> None:
    """Write a baseline to one file, which is complete or absent.

    Args:
        model: Any of ``baselines.BASELINES``, or of a module of your own, fitted or not; an
            ensemble of them and of ``DirectAgent`` objects too.
        path: The file, e.g. ``lstm.safetensors``.

    Raises:
        ArgumentError: If it is none of these, stands in no module, or an option is nothing that can
            be stored.
    """
    from agents.tensors import save_tensors

    save_tensors(path, _described(model), kind=KIND)


def load_baseline(path: str | Path, market: Market) -> Baseline:
    """Load a baseline whose targets equal those of the saved one bit for bit.

    Args:
        path: File of ``save_baseline``.
        market: The market its environments trade: the one it was fitted on, or one that goes on
            where that ended. One that has learned nothing takes any market.

    Raises:
        DataError: If the file is damaged, or what was learned is of other assets, features or bars.
    """
    from agents.tensors import load_tensors

    content = load_tensors(path, kind=KIND)
    try:
        return _built(content, market, str(path))
    except (LookupError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{path} holds no baseline of this version ({reason}); fit it again and save it again"
        ) from error


def _described(model: Any, name: str = "the model") -> dict[str, Any]:
    """Return the tree of a model, with those of its members."""
    from agents.direct.agent import DirectAgent

    if isinstance(model, DirectAgent):
        tree = model.tree()
        weights = tree.pop("weights")
        return {"direct": tree.pop("config"), **tree, "learned": {"weights": dict(weights)}}
    _check_kept(model)
    options = {key: _plain(value) for key, value in model.options().items()}
    called = _name_of(model, name)
    plugins = record(_plugins(called, options))
    tree = {
        "baseline": called,
        "options": options,
        **({"plugins": plugins} if plugins else {}),
        "fit_period": model.fit_period,
        "fitted_on": model._fitted_on,
        "learned": model.state(),
    }
    if tree["learned"]:
        tree["market"] = _fingerprint(model.market, model)
    if isinstance(model, Ensemble):
        tree["members"] = {
            key: _described(member, f"member {key!r}") for key, member in model.members.items()
        }
    return tree


def _check_kept(model: Any) -> None:
    """Reject a model of a user's own whose file would lack what it learned, or could not be read.

    Raises:
        ArgumentError: If ``state`` or ``restore`` is missing.
    """
    if not isinstance(model, PortfolioModel) or model._built_in:
        return
    kind, learned = type(model), model.state()
    if learned and kind.restore is Baseline.restore:
        raise ArgumentError(
            f"{kind.__name__} gives {shortened(sorted(learned))} as its state and has no restore "
            "to take it back: write restore(self, state)."
        )
    fits = kind._fit is not PortfolioModel._fit
    if fits and not learned and model.fit_period is not None:
        raise ArgumentError(
            f"{kind.__name__} was fitted, and its state is empty: return what _fit learned from "
            "state(self), arrays or JSON by name, and take it back in restore(self, state)."
        )


def _name_of(model: Any, name: str) -> str:
    """Return the name by which a model is found again."""
    known = [key for key, kind in BASELINES.items() if kind is type(model)]
    if known:
        return known[0]
    try:
        if isinstance(model, Baseline):
            return plugin_name(model.definition)
    except ArgumentError as error:
        raise ArgumentError(
            f"{name} is of type {type(model).__name__}, which no file can name: {error}"
        ) from error
    raise ArgumentError(
        f"{name} is of type {type(model).__name__}, which is not a baseline and cannot be saved "
        "with them; keep a trained agent in its run folder, and rebuild its ensemble"
    )


def _built(tree: Mapping[str, Any], market: Market, path: str) -> Any:
    """Return the model of a tree."""
    if "direct" in tree:
        return _direct_agent(tree, market, path)
    name, options = str(tree["baseline"]), dict(tree["options"])
    admit(_plugins(name, options), tree.get("plugins", {}), Path(path))
    if options.get("constraints") is not None:
        options["constraints"] = PortfolioConstraints(**options["constraints"])
    options.pop("members", None)  # a name alone would be imported unchecked
    if "members" in tree:
        members = tree["members"].items()
        options["members"] = {name: _built(member, market, path) for name, member in members}
    model = make_baseline(name, market, **options)
    model.fit_period, model._fitted_on = tree["fit_period"], tree["fitted_on"]
    if tree["learned"]:
        _check_market(tree["market"], _fingerprint(market, model), path)
        model.restore(tree["learned"])
    return model


def _plugins(name: str, options: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the names of a model and of its encoders; other plug-ins' names count as encoders.

    Args:
        name: Name of the model.
        options: Options of the model.
    """
    encoders = (options.get("encoder"), options.get("forecaster"))
    own = [] if name in BASELINES else [name]
    return {PLUGIN: own, "encoder": [*encoders, *plugins_within(dict(options))]}


def _direct_agent(tree: Mapping[str, Any], market: Market, path: str) -> DirectAgent:
    """Return a member that was trained by the gradient of net growth."""
    from agents.direct.agent import DirectAgent

    own = {"config": tree["direct"], "plugins": tree.get("plugins", {})}
    agent = DirectAgent.of_tree(own | {"weights": tree["learned"]["weights"]}, path)
    agent.bind(market)
    return agent


def _plain(value: Any) -> Any:
    """Return settings as JSON; tensors and arrays stay as they are."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _fingerprint(market: Market, model: Baseline) -> dict[str, Any]:
    """Return assets, features and data of the bars on which a model was fitted."""
    digest = hashlib.sha256()
    if model._fitted_on is not None:
        first, last = (np.datetime64(when) for when in model._fitted_on)
        own = (market.timestamps >= first) & (market.timestamps <= last)
        for array in (market.timestamps, market.close, *[market.features] * model.reads_features):
            digest.update(np.ascontiguousarray(array[own]).tobytes())
    names = list(market.feature_names) if model.reads_features else []
    return {"assets": list(market.assets), "features": names, "hash": digest.hexdigest()}


def _check_market(fitted: Mapping[str, Any], given: Mapping[str, Any], path: str) -> None:
    """Reject a market of other assets, features or data."""
    for what in ("assets", "features"):
        if fitted[what] != given[what]:
            raise DataError(
                f"{path} was fitted to the {what} {', '.join(fitted[what])}, the market has "
                f"{', '.join(given[what])}; load the market with the same, in the same order"
            )
    if fitted["hash"] != given["hash"]:
        raise DataError(
            f"{path} was fitted to other prices or features than the market has at those bars; "
            "load the market it was fitted on, with the same fit_end, or fit it again"
        )
