"""User-defined baselines: subclasses of ``Baseline``, functions of past prices, weights by date.

By name, options reach subclasses of ``Baseline`` and nothing else; a function is given the past.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable
from functools import partial
from types import FunctionType
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd

from baselines.base import BASELINES, Baseline, Weights
from baselines.portfolio_model import PortfolioModel
from baselines.rows import Every
from portfolio_env.checks import shortened
from portfolio_env.errors import MALFORMED, ArgumentError, PortfolioError, user_code
from portfolio_env.market import Market
from portfolio_env.market.growing import GrowableArray
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.slots import CASH
from portfolio_env.market.timeline import Timestamps, time_text
from portfolio_env.names import check_keywords, find, indices_of
from portfolio_env.simulation.constraints import PortfolioConstraints

KIND = "baseline"
BaselineName: TypeAlias = str | type[Baseline] | Callable[[PricePanel], Any] | pd.DataFrame
"""A name, a class, a function ``(past) -> weights``, or a table of weights by date."""


class FunctionRule(PortfolioModel):
    """Baseline of a function ``(past: PricePanel) -> weights``, whose weights are held.

    Args:
        market: The market its environments trade.
        function: Gives (N + 1,) weights, cash first, from the bars up to the decision; or a Series
            or dict of weights by name, where an asset that is left out gets 0, and cash the rest.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
    """

    def __init__(
        self,
        market: Market,
        function: Callable[[PricePanel], Any],
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        self.function = function

    def target(self, past: PricePanel) -> Weights:
        """Return the function's weights."""
        answer: Weights = self.function(past)
        return answer

    @property
    def definition(self) -> Any:
        """Return the function."""
        return self.function

    def model_info(self) -> dict[str, Any]:
        """Return a description, see ``PortfolioModel``; the name is the function's."""
        return super().model_info() | {"name": short_name(self)}


class DatedWeights(PortfolioModel):
    """Target weights from a table: each row is traded at the first bar at or after its date.

    Between the dates the holdings drift. Before the first date the account is in cash. A row must
    hold what was known at the close of its bar; a table cannot be tested for look-ahead.

    Args:
        market: The market its environments trade.
        weights: A row per date, a column per asset and, optionally, "cash". Without that column the
            rest to 1 is cash. Assets without a column are not held.
        constraints: See ``PortfolioModel``.

    Raises:
        ArgumentError: If the index holds no dates, a date comes twice, a column is no asset or none
            is one, a weight is not a finite number, or all dates are after the last bar.
    """

    def __init__(
        self,
        market: Market,
        weights: pd.DataFrame,
        *,
        constraints: PortfolioConstraints | None = None,
    ) -> None:
        super().__init__(market, constraints=constraints)
        self.table, self._dates = _checked_table(weights, market)
        self._date(market)

    def _date(self, market: Market) -> None:
        # the last row dated at or before each bar; -1 before the first
        self._row = np.searchsorted(self._dates, market.timestamps, side="right") - 1
        self._due = GrowableArray(np.diff(self._row, prepend=-1) != 0)

    def follow(self, market: Market) -> None:
        """Go on with a market that continues the one it has, see ``PortfolioModel``."""
        super().follow(market)
        self._date(market)

    def target(self, past: PricePanel) -> Weights:
        """Return the row in force at the last bar, restricted to what can be traded now."""
        row = self._row[len(past.timestamps) - 1]
        if row < 0:
            return np.eye(1, self.table.shape[1])[0]
        out: Weights = self.table[row].copy()
        lost = ~past.tradable[-1]
        out[0] += out[1:][lost].sum()
        out[1:][lost] = 0.0
        return out

    def source_sha256(self) -> str | None:
        """Return the SHA-256 of the table, by which the test-set usage log tells tables apart."""
        return hashlib.sha256(self.table.tobytes() + self._row.tobytes()).hexdigest()


def found_baseline(
    name: BaselineName,
) -> type[Baseline] | partial[FunctionRule] | partial[DatedWeights]:
    """Return the constructor of a baseline, ``(market, **options)``.

    Raises:
        ArgumentError: If there is no baseline of that name.
    """
    if isinstance(name, pd.DataFrame):
        return partial(DatedWeights, weights=name)
    thing: Any = find(KIND, name, BASELINES) if isinstance(name, str) else name
    if isinstance(thing, type) and issubclass(thing, Baseline):
        return thing
    is_rule = callable(thing) and not isinstance(thing, type | Baseline)
    if isinstance(name, str):
        is_rule = isinstance(thing, FunctionType) and len(inspect.signature(thing).parameters) == 1
    if not is_rule:
        raise ArgumentError(
            f"baseline {shortened(name)} must be a subclass of baselines.Baseline, a function "
            "(past) -> weights or a table of weights by date, and is none of them."
        )
    return partial(FunctionRule, function=thing)


def make_baseline(name: BaselineName, market: Market, **options: Any) -> Baseline:
    """Build a baseline by name.

    Args:
        name: One of ``BASELINES``; ``"module:Name"`` or an entry point ``baseline.NAME`` of a
            subclass of ``Baseline``, or of a function from past prices, a ``PricePanel``, to
            (N + 1,) weights or weights by name; the class or function itself; or a table of target
            weights, a row per date and a column per asset (see ``DatedWeights``).
        market: The market its environments trade.
        **options: Options of that baseline; a function has ``constraints`` and ``every``.

    Returns:
        The baseline; its ``predict`` answers like that of a trained SB3 model.

    Raises:
        ArgumentError: If there is no baseline of that name, or it takes no such option.
    """
    build = found_baseline(name)
    check_options(f"make_baseline({short_name(name)!r}, ...)", build, options)
    try:
        inspect.signature(build).bind(market, **options)
    except TypeError as error:
        given = ", ".join(["market", *options])
        raise ArgumentError(
            f"baseline {short_name(name)} does not take ({given}): {error}"
        ) from error
    if build not in BASELINES.values():
        with user_code(f"baseline {short_name(name)}"):
            model = build(market, **options)
            _check_made(model)
            return model
    try:
        return build(market, **options)
    except PortfolioError:
        raise
    except MALFORMED as error:
        listed = ", ".join(f"{option}={shortened(value)}" for option, value in options.items())
        raise ArgumentError(
            f"baseline {short_name(name)} cannot take {listed} ({error}); give values of the kinds "
            "that its documentation names."
        ) from error


def _check_made(model: Baseline) -> None:
    """Reject a user's baseline that lacks what its parents or its options should have set."""
    kinds = type(model).__mro__
    parent = next(kind for kind in kinds if kind.__module__.partition(".")[0] == "baselines")
    assert issubclass(parent, Baseline)
    for name in ("market", *model._options(), *parent._options()):
        method = name not in vars(model) and callable(getattr(type(model), name, None))
        if name not in model.preset and (method or not hasattr(model, name)):
            raise ArgumentError(
                f"baseline {short_name(model)} has no attribute {name!r} after its __init__: call "
                "super().__init__(market, **options), and keep every option under its own name"
            )
    for name, value in vars(model).items():
        unasked = name == "weights" and isinstance(model, PortfolioModel)
        if callable(getattr(type(model), name, None)) and not callable(value) and not unasked:
            raise ArgumentError(
                f"baseline {short_name(model)} keeps {shortened(value)} as {name!r}, which is the "
                "name of a method: give the option or the attribute another name"
            )
    if isinstance(model, PortfolioModel):
        model.model_info()


def check_options(owner: str, build: type[Baseline] | partial[Any], options: Iterable[str]) -> None:
    """Reject names of options that a baseline does not have.

    Args:
        owner: Owner of the options in a message.
        build: Its constructor, see ``found_baseline``.
        options: The names.

    Raises:
        ArgumentError: For the first that is unknown, with the nearest one, or else all.
    """
    known = _options_of(build) if isinstance(build, partial) else _keywords(build)
    check_keywords(owner, "option", options, known)


def _options_of(build: partial[Any]) -> list[str]:
    """Return the options of a function's or a table's baseline."""
    return cast(type[Baseline], build.func)._options()


def _keywords(cls: type[Baseline]) -> list[str]:
    """Return the options of a baseline's constructor, those of its parents included."""
    own = inspect.signature(cls).parameters.values()
    named = [each.name for each in own if each.kind is each.POSITIONAL_OR_KEYWORD][1:]
    return [*named, *(name for name in cls._options() if name not in cls.preset)]


def short_name(thing: Any) -> str:
    """Return the last part of the name of a baseline, its class or function.

    >>> short_name("my_rules:TrendRule")
    'TrendRule'
    """
    return full_name(thing).rpartition(":")[2].rpartition(".")[2]


def full_name(thing: Any) -> str:
    """Return ``"module:Name"`` of a baseline, its class or function; a name stays as it is."""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, pd.DataFrame):
        return "baselines.plugins:DatedWeights"
    known = thing.definition if isinstance(thing, Baseline) else thing
    return f"{known.__module__}:{getattr(known, '__qualname__', type(known).__name__)}"


def _checked_table(weights: pd.DataFrame, market: Market) -> tuple[Weights, Timestamps]:
    """Return (rows, N + 1) weights in the order of the slots, by date, and the dates."""
    index = weights.index
    if not isinstance(index, pd.DatetimeIndex) or index.tz is not None or index.hasnans:
        raise ArgumentError(
            "a table of weights needs a DatetimeIndex without a time zone: "
            "weights.index = pd.to_datetime(weights.index), or weights.tz_localize(None)."
        )
    if index.has_duplicates:
        again = str(index[index.duplicated()][0])
        raise ArgumentError(f"the table of weights has two rows for {again}; keep one.")
    if weights.columns.has_duplicates:
        again = str(weights.columns[weights.columns.duplicated()][0])
        raise ArgumentError(f"the table of weights has two columns {again!r}; keep one.")
    if not len(weights):
        raise ArgumentError("the table of weights has no rows; give at least one.")
    first, last = weights.index.min(), market.timestamps[-1]
    if first > last:
        raise ArgumentError(
            f"the table of weights begins at {first:%Y-%m-%d %H:%M}, after the market's last bar, "
            f"{time_text(last)}: nothing would be traded; give earlier dates, or later prices."
        )
    names = [str(name) for name in weights.columns]
    if not {*names} - {CASH}:
        raise ArgumentError(
            "the table of weights has no column of an asset, so that nothing would be traded; "
            f"give one of {', '.join(market.assets[:5])}."
        )
    ordered = weights.sort_index()
    values = ordered.to_numpy(np.float64, na_value=np.nan)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ArgumentError(
            f"the weight of {names[column]} on {ordered.index[row]:%Y-%m-%d} is "
            f"{values[row, column]}; give 0 for what is not held, e.g. weights.fillna(0)."
        )
    slots = np.zeros((len(values), market.n_assets + 1))
    slots[:, indices_of("column of the table of weights", names, [CASH, *market.assets])] = values
    if CASH not in names:
        slots[:, 0] = 1 - slots.sum(axis=1)
    return slots, ordered.index.to_numpy("datetime64[ns]")
