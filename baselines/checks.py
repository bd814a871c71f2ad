"""Checks of user-defined baselines: their answers, and their independence of later bars.

The latter is tried out by cutting them off, and no proof: what a model computed of its market by
itself, when it was made, is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError, user_code
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
    called: str,
    assets: Sequence[str] = (),
) -> NDArray[np.float64]:
    """Return the answer of a baseline, checked.

    Args:
        answer: Gives it.
        shape: It must have.
        called: Its name, with which messages begin.
        assets: Names of the assets, of an answer that may be weights by name (see ``in_slots``).

    Raises:
        ArgumentError: If it fails, has another shape or anything but real numbers, or names what
            is no asset.
    """
    with user_code(called):
        found = answer()
        by_name = bool(assets) and is_labelled(found)
        weights = None if by_name else np.asarray(found)
    if weights is None:
        return _named(found, assets, called)
    if weights.shape != shape:
        lanes = "for each lane " * (len(shape) - 1)
        raise ArgumentError(
            f"{called} answered with a {type(found).__name__} of the shape {weights.shape}: it "
            f"must be {shape}, {lanes}a weight for cash and one per asset"
            + ", or a Series or dict of weights by name"
            * bool(assets)
        )
    if weights.dtype.kind not in "fiub":  # an array of objects may hold numbers all the same
        strange = [each for each in weights.flat if not isinstance(each, Real)]
        if strange:
            raise ArgumentError(
                f"{called} answered with {shortened(strange[0])} of type "
                f"{type(strange[0]).__name__} as a weight: give real numbers"
            )
    return weights.astype(np.float64)


def _named(found: Any, assets: Sequence[str], called: str) -> NDArray[np.float64]:
    """Return weights that a baseline gave by name, in the order of the slots."""
    try:
        return in_slots(found, assets)
    except ArgumentError as error:
        raise ArgumentError(f"{called}: {error}") from error


def check_sum(weights: NDArray[np.float64], called: str) -> None:
    """Reject weights that are not finite or do not sum to 1."""
    if not np.isfinite(weights).all() or abs(weights.sum() - 1) > _SUM:
        raise ArgumentError(
            f"{called} answered with weights of sum {weights.sum():g}: they must be finite and "
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
    short = market.past(row, copy=True)
    pairs: list[tuple[Any, Any]] = [(market, short), (market.panel, short.panel)]
    pairs += [(market.features, short.features)]
    pairs += [(getattr(market.panel, name), getattr(short.panel, name)) for name in BAR_FIELDS]
    try:
        return deepcopy(model, {id(whole): past for whole, past in pairs if whole is not None})
    except Exception:  # one that holds a file or a lock
        return None


def _shown(weights: NDArray[np.float64]) -> str:
    return f"{np.round(weights, 4).tolist()!r:.80}"
