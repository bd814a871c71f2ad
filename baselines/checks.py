"""Checks of user-defined baselines: their answers, and their independence of later bars.

The latter is tried out by cutting them off, and no proof: what a model computed of its market by
itself, when it was made, is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, PortfolioError, raised
from portfolio_env.market import Market
from portfolio_env.market.panel import BAR_FIELDS
from portfolio_env.market.slots import in_slots, is_labelled

Model = TypeVar("Model")
DECISIONS = 5
"""So many decisions of a model are tried out, the first."""
_SUM = 1e-6  # to which weights sum to 1


def checked_answer(
    answer: Callable[[], Any],
    shape: tuple[int, ...],
    called: Callable[[], str],
    assets: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Return the answer of a baseline, checked.

    Args:
        answer: Gives it.
        shape: It must have.
        called: Its name in messages.
        assets: Names of the assets, of an answer that may be weights by name (see ``in_slots``).

    Raises:
        ArgumentError: If it fails, or has another shape, or names what is no asset.
    """
    try:
        found = answer()
        if assets and is_labelled(found):
            return _named(found, assets, called)
        weights = np.array(found, np.float64)
    except PortfolioError:
        raise
    except Exception as error:
        raise ArgumentError(f"{called()} raised {raised(error)}") from error
    if weights.shape != shape:
        lanes = "for each lane " * (len(shape) - 1)
        raise ArgumentError(
            f"{called()} answered with the shape {weights.shape}: it must be {shape}, {lanes}a "
            "weight for cash and one per asset"
            + ", or a Series or dict of weights by name"
            * bool(assets)
        )
    return weights


def _named(found: Any, assets: Sequence[str], called: Callable[[], str]) -> NDArray[np.float64]:
    """Return weights that a baseline gave by name, in the order of the slots."""
    try:
        return in_slots(found, assets)
    except ArgumentError as error:
        raise ArgumentError(f"{called()}: {error}") from error


def check_sum(weights: NDArray[np.float64], called: Callable[[], str]) -> None:
    """Reject weights that are not finite or do not sum to 1."""
    if not np.isfinite(weights).all() or abs(weights.sum() - 1) > _SUM:
        raise ArgumentError(
            f"{called()} answered with weights of sum {weights.sum():g}: they must be finite and "
            "sum to 1, cash included"
        )


def checked_decision(
    model: Model,
    market: Market,
    row: int,
    decide: Callable[[Model], NDArray[np.float64]],
    called: str,
) -> NDArray[np.float64]:
    """Return the decision of a model, which must be the same where its market ends with that bar.

    Args:
        model: The model.
        market: Its market.
        row: The bar of the decision.
        decide: Gives the weights that a model answers there.
        called: The decision in messages.

    Raises:
        ArgumentError: If it is not.
    """
    blind = _blind(model, market, row)
    target = decide(model)
    if blind is None:
        return target
    try:
        answer = decide(blind)
    except ArgumentError as error:
        raise ArgumentError(
            f"{called} knows the future: where the market ends there, {error}. Read past, not "
            "self.market"
        ) from error
    if not np.allclose(target, answer, rtol=1e-6, atol=1e-9):
        raise ArgumentError(
            f"{called} knows the future: it answered {_shown(target)}, and {_shown(answer)} where "
            "the market ends there. Read past, not self.market; random numbers are to be seeded "
            "by the bar"
        )
    return target


def _blind(model: Model, market: Market, row: int) -> Model | None:
    """Return a copy whose market ends with a bar; None of a model that cannot be copied."""
    short = market.past(row)
    pairs: list[tuple[Any, Any]] = [(market, short), (market.panel, short.panel)]
    pairs += [(market.features, short.features)]
    pairs += [(getattr(market.panel, name), getattr(short.panel, name)) for name in BAR_FIELDS]
    try:
        return deepcopy(model, {id(whole): past for whole, past in pairs if whole is not None})
    except Exception:  # one that holds a file or a lock
        return None


def _shown(weights: NDArray[np.float64]) -> str:
    return f"{np.round(weights, 4).tolist()!r:.80}"
