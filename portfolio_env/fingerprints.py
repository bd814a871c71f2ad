"""Which market an index observation belongs to.

Such an observation holds the row of a bar and nothing of the market. Read with another market, the
row stands for another bar, and nothing would tell: so it carries a number made from its market's
hash, and whatever holds a market compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from gymnasium import spaces

from portfolio_env.errors import ArgumentError

if TYPE_CHECKING:
    from portfolio_env.market import Market

LIMIT = 2**24  # numbers below it are exact in float32, to which learners cast observations
_KEPT = 1000
_descriptions: dict[int, str] = {}  # of the markets of this process, for messages


def fingerprint_of(market: Market) -> int:
    """A number in [0, ``LIMIT``) made from the market's hash; any two share one at odds of 6e-8."""
    number = int(market.hash[:6], 16)
    if len(_descriptions) >= _KEPT:
        _descriptions.clear()
    _descriptions[number] = _described(market, number)
    return number


def check_market(numbers: Any, market: Market, mend: str) -> None:
    """Refuse observations of another market.

    Args:
        numbers: The entry ``market`` of index observations: an array or a tensor of any shape.
        market: The market that is held.
        mend: What to do instead, for the message.

    Raises:
        ArgumentError: If one differs; it says which markets these are.
    """
    other = numbers != market.fingerprint
    if bool(other.any()):
        number = int(numbers[other][0])
        raise ArgumentError(
            f"the observation belongs to {_descriptions.get(number, f'market {number}')}, but "
            f"{_described(market, market.fingerprint)} is bound: {mend}"
        )


def _described(market: Market, number: int) -> str:
    names = ", ".join(market.assets[:3]) + (", ..." if market.n_assets > 3 else "")
    first, last = (str(market.timestamps[row])[:10] for row in (0, -1))
    return (
        f"market {number} ({market.n_assets} assets {names}; {market.n_bars} bars from {first} to "
        f"{last}; {market.n_features} features)"
    )


class FingerprintSpace(spaces.Box):
    """The space of fingerprints; an observation with one cannot be flattened to a vector.

    A network that reads the vector would be fed the number of a row and nothing of the market.
    Gymnasium's ``FlattenObservation`` and SB3's ``CombinedExtractor`` (of ``"MultiInputPolicy"``)
    ask here first.
    """

    def __init__(self) -> None:
        """Integers (1,) in [0, ``LIMIT``)."""
        super().__init__(0, LIMIT - 1, (1,), np.int64)

    def __reduce__(self) -> Any:
        return FingerprintSpace, (), self.__dict__


def _refuse(space: FingerprintSpace, *others: Any) -> NoReturn:
    raise ArgumentError(
        "an index observation cannot be flattened: a network would read the number of a row, learn "
        "dates by heart and see nothing of the market; build the environment with "
        'observation="flat" or "window", or use a policy that holds the market (agents.make_agent)'
    )


for _function in (spaces.utils.flatdim, spaces.utils.flatten, spaces.utils.flatten_space):
    _function.register(FingerprintSpace, _refuse)
