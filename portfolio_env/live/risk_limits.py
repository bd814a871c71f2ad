"""RiskLimits: what a portfolio may hold, trade, risk and lose; the measures of risk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from portfolio_env.checks import (
    check_fields,
    check_integer,
    check_number,
    known_fields,
    short_repr,
)
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import parse_json, regular, remedy
from portfolio_env.simulation.constraints import PortfolioConstraints

Float = NDArray[np.float64]


@known_fields
@dataclass(frozen=True, repr=False)
class RiskLimits:
    """Limits on the portfolio that is held after trading; frozen, validated, JSON-able.

    The first seven fields mean what they mean in ``PortfolioConstraints``.

    Attributes:
        long_only: No short positions.
        max_weight: Largest size ``|w_i|`` of a position.
        group_by: Category of the market whose labels are the groups of ``group_bounds``.
        group_bounds: Least and largest sum of the weights of a group by its label.
        max_leverage: Largest gross exposure ``sum |w_i|``.
        min_cash: Least weight of cash; None means ``1 - max_leverage``.
        max_turnover: Largest traded notional of one bar over wealth; None is no limit.
        max_var: Largest value at risk of one bar, over wealth; None is no limit.
        max_expected_shortfall: Largest mean loss of one bar in its tail, over wealth; None is no
            limit.
        confidence: Confidence of both, in (0, 1): the tail has the probability ``1 - confidence``.
        lookback: Bars whose returns estimate both.
        half_life: Bars after which a return counts half (EWMA), long enough for a bar in the tail;
            None weighs all alike.
        max_drawdown: Fraction in (0, 1): once the value falls by more below its peak, cash is held;
            None never stops.
        reentry_after: Bars in cash after which the policy is followed again; None is never.

    Raises:
        ArgumentError: On a value outside its range, or too short a ``lookback`` for ``confidence``.
    """

    long_only: bool = True
    max_weight: float = 1.0
    group_by: str | None = None
    group_bounds: Mapping[str, tuple[float, float]] | None = None
    max_leverage: float = 1.0
    min_cash: float | None = None
    max_turnover: float | None = None
    max_var: float | None = None
    max_expected_shortfall: float | None = None
    confidence: float = 0.95
    lookback: int = 250
    half_life: float | None = None
    max_drawdown: float | None = None
    reentry_after: int | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        """Check each field by itself and against the others."""
        object.__setattr__(self, "group_bounds", self.constraints.group_bounds)
        check_fields(self)
        for name in ("max_var", "max_expected_shortfall", "half_life"):
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, above=0)
        check_number("confidence", self.confidence, above=0, below=1)
        check_integer("lookback", self.lookback, self.least_bars)
        if self.half_life is not None and 1 / (1 - 0.5 ** (1 / self.half_life)) < self.least_bars:
            raise ArgumentError(
                f"half_life={self.half_life:g} leaves the weight of fewer bars than the "
                f"{self.least_bars} that confidence={self.confidence:g} needs; give at least "
                f"{math.log(0.5) / math.log(1 - 1 / self.least_bars):.3g}, or lower the confidence."
            )
        if self.max_drawdown is not None:
            check_number("max_drawdown", self.max_drawdown, above=0, below=1)
        if self.reentry_after is not None:
            check_integer("reentry_after", self.reentry_after)
            if self.max_drawdown is None:
                raise ArgumentError(
                    f"reentry_after={self.reentry_after!r} needs max_drawdown; give both, or "
                    "leave it out."
                )

    @property
    def constraints(self) -> PortfolioConstraints:
        """Linear limits as constraints, without the turnover limit."""
        return PortfolioConstraints(
            long_only=self.long_only,
            max_weight=self.max_weight,
            group_by=self.group_by,
            group_bounds=self.group_bounds,
            max_leverage=self.max_leverage,
            min_cash=self.min_cash,
        )

    @property
    def measures_returns(self) -> bool:
        """Return whether returns of the past are needed."""
        return self.max_var is not None or self.max_expected_shortfall is not None

    @property
    def least_bars(self) -> int:
        """Fewest returns of which one lies in the tail."""
        return math.ceil(1 / (1 - self.confidence) - 1e-9)


@dataclass(frozen=True)
class DrawdownStop:
    """State of a drawdown stop.

    Attributes:
        peak: Largest value since the start or the last re-entry.
        bars: Bars since the stop; None where the policy is followed.
    """

    peak: float = 0.0
    bars: int | None = None

    def at(self, value: float, limits: RiskLimits) -> DrawdownStop:
        """Return the state at the next bar, at which the account has a value.

        After a re-entry the drawdown is measured from the value there: from the old peak it would
        stop again at once.
        """
        if self.bars is None:
            peak = max(self.peak, value)
            allowed = 1.0 if limits.max_drawdown is None else limits.max_drawdown
            return DrawdownStop(peak, 0 if value < peak * (1 - allowed) else None)
        if limits.reentry_after is not None and self.bars + 1 >= limits.reentry_after:
            return DrawdownStop(value)
        return DrawdownStop(self.peak, self.bars + 1)

    def after(self, bars: int, value: float, limits: RiskLimits) -> DrawdownStop:
        """Return the state some bars later, at none of which but the last the value is known.

        At the same bar (0) an account that has fallen since is stopped, and nothing else changes.
        """
        if self.bars is None:
            return self.at(value, limits)
        return replace(self, bars=self.bars + bars - 1).at(value, limits) if bars else self


def past_returns(close: ArrayLike, t: int, lookback: int) -> Float:
    """Return (K, N) simple returns of the last bars up to a close, NaN where a price is missing.

    Args:
        close: (T, N) closing prices.
        t: Row of the last close.
        lookback: Largest number K of returns.
    """
    last = np.asarray(close, np.float64)[max(0, t - lookback) : t + 1]
    return last[1:] / last[:-1] - 1.0


def read_limits(path: str | Path) -> RiskLimits:
    """Return the limits of a JSON file, an object of the fields of ``RiskLimits``.

    Raises:
        DataError: If there is no such file, or it is no JSON object.
        ArgumentError: On an unknown field, or a value outside its range.
    """
    try:
        values = parse_json(regular(path).read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it must be an object of limits by name")
        return RiskLimits(**values)
    except FileNotFoundError:
        raise DataError(f"there is no file {path} of risk limits") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy(error)}") from error
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from error
    except ValueError as error:
        raise DataError(
            f'{path} holds no risk limits in JSON ({error}); write e.g. {{"max_weight": 0.3}}'
        ) from error


def tail_risk(
    returns: ArrayLike, weights: ArrayLike, confidence: float, half_life: float | None = None
) -> tuple[Float, Float]:
    """Return value at risk and expected shortfall of weights by historical simulation.

    With probabilities of the past bars that are alike, or fall by half every ``half_life`` bars,
    value at risk is the least loss x of ``P(loss <= x) >= confidence``, and expected shortfall the
    mean loss in the worst ``1 - confidence`` of the probability.

    Args:
        returns: (K, N) simple returns, the latest last.
        weights: (..., N) weights of the assets, without cash.
        confidence: Confidence in (0, 1).
        half_life: Bars after which a return counts half; None weighs all alike.

    Returns:
        (...) value at risk and (...) expected shortfall; negative where the tail gains.

    >>> var, shortfall = tail_risk([[-0.04], [0.01], [0.02], [-0.02]], [1.0], confidence=0.5)
    >>> float(var), round(float(shortfall), 12)
    (-0.01, 0.03)
    """
    past, held = np.asarray(returns, np.float64), np.asarray(weights, np.float64)
    bars, tail = len(past), 1.0 - confidence
    gains = held.reshape(-1, held.shape[-1]) @ past.T  # (M, K)
    if half_life is None:
        worst, shares = np.sort(gains, axis=1), np.full(bars, 1.0 / bars)
    else:
        order = np.argsort(gains, axis=1)
        worst, each = np.take_along_axis(gains, order, axis=1), 0.5 ** (np.arange(bars) / half_life)
        shares = (each[::-1] / each.sum())[order]
    before = np.cumsum(shares, axis=-1) - shares  # probability of worse returns
    place = (before <= tail + 1e-12).sum(axis=-1) - 1
    var = -worst[np.arange(len(worst)), place]
    shortfall = -(np.clip(tail - before, 0.0, shares) * worst).sum(axis=1) / tail
    return var.reshape(held.shape[:-1]), shortfall.reshape(held.shape[:-1])
