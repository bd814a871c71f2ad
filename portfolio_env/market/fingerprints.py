"""Fingerprints, by which an index observation identifies its market.

Such an observation holds the row of a bar and nothing of the market. Read with another market, the
row stands for another bar, and nothing would tell: so it carries a number made from its market's
hash, and whatever holds a market compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_differing_spaces, batch_space

from portfolio_env.errors import ArgumentError

if TYPE_CHECKING:
    from portfolio_env.market.market import Market

LIMIT = 2**24  # numbers below it are exact in float32, to which learners cast observations
_CHANGED = "the observation was scaled or cast on its way"
_KEEP = (
    "Pass an index observation on as it is: VecNormalize(venv, norm_obs=False), or "
    'norm_obs_keys=["weights"]'
)
_KEPT = 1000
_descriptions: dict[int, str] = {}  # descriptions of the markets of this process, for messages
_observed: WeakSet[Market] = WeakSet()  # markets observed in this process


def fingerprint_of(digest: str, description: str) -> int:
    """Return a number in [0, ``LIMIT``) from a market's hash; any two share one at odds of 6e-8.

    Args:
        digest: The market's SHA-256, hexadecimal.
        description: The market in a few words, for messages about its number.
    """
    number = int(digest[:6], 16)
    if len(_descriptions) >= _KEPT:
        _descriptions.clear()
    _descriptions[number] = f"market {number} ({description})"
    return number


def check_market(observation: Mapping[str, Any], held: int, fix: str) -> None:
    """Reject index observations of another market.

    Args:
        observation: Observation of one lane or of several, arrays.
        held: Fingerprint of the market that is held.
        fix: Fix that the message suggests.

    Raises:
        ArgumentError: If one differs, or does not say; it says which markets these are.
    """
    check_fingerprints(np.asarray(fingerprints_in(observation)), held, fix)


def remember(market: Market) -> None:
    """Register a market for ``find_market``, as long as something else holds it."""
    _observed.add(market)


def find_market(numbers: Any) -> Market:
    """Return the market of index observations, among those of this process's environments.

    Args:
        numbers: Fingerprints that were observed, an array or a tensor; the first counts.

    Raises:
        ArgumentError: If it is none of them, or of two that share its fingerprint.
    """
    _check_type(numbers)
    number = _first(numbers)
    found = {market.digest: market for market in _observed if market.fingerprint == number}
    if len(found) == 1:
        return found.popitem()[1]
    if not found and not _plausible(number):
        raise ArgumentError(
            f"{_CHANGED}: its 'market' is {number:g}, no whole number in [0, {LIMIT}). {_KEEP}"
        )
    why = "two markets share it" if found else "no environment of this process is in it"
    raise ArgumentError(
        f"the observation belongs to {_named(number)}: {why} (those of SubprocVecEnv are of other "
        "processes); call agents.bind_market(model, market)"
    )


def fingerprints_in(observation: Mapping[str, Any]) -> Any:
    """Return the entry ``market`` of an index observation.

    Raises:
        ArgumentError: If there is none.
    """
    if "market" not in observation:
        raise ArgumentError(
            "the observation lacks 'market', the fingerprint of the market that it belongs to: "
            "without it the row 't' could be of any market. It holds "
            f"{', '.join(sorted(observation))}; pass on all that the environment gives"
        )
    return observation["market"]


def check_fingerprints(numbers: Any, held: int, fix: str) -> None:
    """Check the numbers alone as ``check_market`` does.

    Args:
        numbers: Fingerprints that were observed, an array or a tensor of any shape.
        held: Fingerprint of the market that is held.
        fix: See ``check_market``.

    Raises:
        ArgumentError: If one differs.
    """
    _check_type(numbers)
    other = numbers != held
    if not bool(other.any()):
        return
    number = _first(numbers[other])
    if number not in _descriptions and not _plausible(number):
        raise ArgumentError(
            f"{_CHANGED}: its 'market' is {number:g}, not {held} or another whole number in "
            f"[0, {LIMIT}). {_KEEP}"
        )
    raise ArgumentError(
        f"the observation belongs to {_named(number)}, but {_named(held)} is bound: {fix}"
    )


def followed(held: Market, numbers: Any, fix: str) -> Market:
    """Return the market of index observations: the one that is held, or one that continues it.

    A market that grows is another one with every bar (see ``Market.extended``). Whatever holds it
    goes on with it when it is first asked about it.

    Args:
        held: The market that is held.
        numbers: Fingerprints that were observed, an array or a tensor.
        fix: See ``check_market``.

    Raises:
        ArgumentError: If it is neither.
    """
    _check_type(numbers)
    if bool((numbers != held.fingerprint).any()):
        number = _first(numbers)
        for market in _observed:
            if market.fingerprint == number and market.continues == held.fingerprint:
                check_fingerprints(numbers, market.fingerprint, fix)
                return market
        check_fingerprints(numbers, held.fingerprint, fix)
    return held


def _check_type(numbers: Any) -> None:
    if numbers.dtype.itemsize < 4:
        raise ArgumentError(f"{_CHANGED}: as {numbers.dtype} it cannot hold a fingerprint. {_KEEP}")


def _first(numbers: Any) -> float:
    return float(numbers.reshape(-1)[0])


def _plausible(number: float) -> bool:
    """Return whether a number can be a fingerprint; scaled and clipped ones are small or broken."""
    return number.is_integer() and 256 <= number < LIMIT


def _named(number: float) -> str:
    return _descriptions.get(int(number), f"market {number:.0f}")


class FingerprintSpace(spaces.Box):
    """Space of fingerprints; an observation with one cannot be flattened to a vector.

    A network that reads the vector would be fed the number of a row and nothing of the market.
    Gymnasium's ``FlattenObservation`` and SB3's ``CombinedExtractor`` (of ``"MultiInputPolicy"``)
    ask here first, behind Gymnasium's frame stacks and vector environments too.

    Args:
        shape: ``(1,)``, and of batches ``(B, 1)``.
        seed: As in Gymnasium.
        n_features: Features of the market, for networks that are built by the space alone.
        window: Bars that the environment asks for before the first of an episode.
    """

    n_features: int | None = None  # None in spaces pickled by earlier versions
    window: int | None = None

    def __init__(
        self,
        shape: tuple[int, ...] = (1,),
        seed: Any = None,
        *,
        n_features: int | None = None,
        window: int | None = None,
    ) -> None:
        """Hold the integers in [0, ``LIMIT``)."""
        super().__init__(0, LIMIT - 1, shape, np.int64, seed)
        self.n_features, self.window = n_features, window

    def __reduce__(self) -> Any:
        return FingerprintSpace, (self.shape,), self.__dict__


def _refuse(space: FingerprintSpace, *others: Any) -> NoReturn:
    raise ArgumentError(
        "an index observation cannot be flattened: a network would read row numbers, memorise "
        "dates and see nothing of the market; build the environment with "
        'observation="flat" or "window", or use a policy that holds the market (agents.make_agent)'
    )


for _function in (spaces.utils.flatdim, spaces.utils.flatten, spaces.utils.flatten_space):
    _function.register(FingerprintSpace, _refuse)


def _batch(space: FingerprintSpace, n: int = 1) -> FingerprintSpace:
    shape = {"n_features": space.n_features, "window": space.window}
    return FingerprintSpace((n, *space.shape), deepcopy(space.np_random), **shape)


def _batch_of(given: Sequence[FingerprintSpace]) -> FingerprintSpace:
    return _batch(given[0], len(given))


batch_space.register(FingerprintSpace, _batch)
batch_differing_spaces.register(FingerprintSpace, _batch_of)
