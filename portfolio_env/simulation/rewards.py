"""Reward functions over lanes, and their names.

A reward is called once per step with a ``Transition`` and returns one number per lane. Any callable
will do; one that remembers something between steps derives from ``Reward`` and forgets it in
``reset``. By name, as ``"module:Name"``, go functions of the step alone and subclasses of
``Reward``; options reach those subclasses and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.checks import check_number
from portfolio_env.errors import ArgumentError, PortfolioError, user_code
from portfolio_env.metrics.arrays import ROUNDING
from portfolio_env.names import check_keywords, find
from portfolio_env.simulation import dynamics

Float = NDArray[np.float64]
LARGEST = 1e6  # scale or penalty, whose squares float32 still holds: networks learn in it


class Transition:
    """Record of one step, lane by lane: the argument of a reward, read-only.

    Attributes:
        held: (B, N + 1) weights right after trading, cash first.
        weights: (B, N + 1) drifted weights at the end of the step.
        terminated: (B,) the account is ruined.
    """

    __slots__ = ("held", "ledger", "terminated", "weights")

    def __init__(self, lanes: dynamics.Lanes) -> None:
        """Read the step from the lanes' state."""
        self.ledger = lanes.ledger
        self.held = lanes.held
        self.weights = lanes.weights
        self.terminated = lanes.ended[0]

    def protect(self) -> None:
        """Make its arrays read-only: they are the accounts themselves."""
        for name in self.__slots__:
            view = getattr(self, name).view()
            view.setflags(write=False)
            setattr(self, name, view)

    @property
    def log_return(self) -> Float:
        """(B,) log of value after over value before, costs and carry included."""
        return self.ledger[dynamics.LOG_RETURN]

    @property
    def simple_return(self) -> Float:
        """(B,) value after over value before, minus 1."""
        return np.expm1(self.log_return)

    @property
    def benchmark_log_return(self) -> Float:
        """(B,) log return of equal weight in the tradable assets, without costs."""
        return self.ledger[dynamics.BENCHMARK]

    @property
    def turnover(self) -> Float:
        """(B,) traded notional of the assets over wealth; a full switch is 2."""
        return self.ledger[dynamics.TURNOVER]

    @property
    def cost(self) -> Float:
        """(B,) transaction cost in money."""
        return self.ledger[dynamics.COST]

    @property
    def value(self) -> Float:
        """(B,) value at the end of the step, in money."""
        return self.ledger[dynamics.VALUE]

    @property
    def drawdown(self) -> Float:
        """(B,) fraction lost since the highest value of the episode, >= 0."""
        return self.ledger[dynamics.DRAWDOWN]


class Reward:
    """Base of rewards that keep state per lane."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse an attribute in the place of a method, which a checkpoint would call."""
        if name in ("reset", "state", "restore") and not callable(value):
            raise ArgumentError(
                f"{type(self).__name__} sets {name!r}, which is a method of rewards; give the "
                "attribute another name."
            )
        super().__setattr__(name, value)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        """Clear the state of the lanes marked in the (B,) mask; called before every episode."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return a copy of the state of the episodes so far: every attribute that is an array."""
        arrays = vars(self).items()
        return {name: value.copy() for name, value in arrays if isinstance(value, np.ndarray)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore a ``state``."""
        for name, value in state.items():
            if not isinstance(vars(self).get(name), np.ndarray):
                raise ArgumentError(f"{type(self).__name__} has no array {name!r} to restore.")
            setattr(self, name, value.copy())

    def __call__(self, step: Transition) -> Float:
        """Return the (B,) rewards of a step."""
        raise ArgumentError(f"{type(self).__name__} must define __call__(step) -> (B,) rewards.")


def log_return(step: Transition) -> Float:
    """Return ``log V' - log V``: its sum over an episode is log(final / initial value)."""
    return step.log_return


def simple_return(step: Transition) -> Float:
    """Return ``V' / V - 1``."""
    return step.simple_return


class ExcessLogReturn(Reward):
    """``scale * (log return - log return of equal weight)``.

    The subtracted part does not depend on the action: the same optimal policy, less noise. Use it
    to learn, never to evaluate.
    """

    def __init__(self, scale: float = 1.0) -> None:
        """Keep the scale, in (0, 1e6]."""
        self.scale = float(check_number("scale", scale, above=0, high=LARGEST))

    def __call__(self, step: Transition) -> Float:
        """Return the scaled excess."""
        return self.scale * (step.log_return - step.benchmark_log_return)


class RiskAdjusted(Reward):
    """``r - risk_aversion * r^2 - turnover_penalty * turnover`` with the simple return ``r``."""

    def __init__(self, risk_aversion: float = 0.5, turnover_penalty: float = 0.01) -> None:
        """Keep the two penalties, in [0, 1e6]."""
        self.risk_aversion = float(check_number("risk_aversion", risk_aversion, 0, LARGEST))
        self.turnover_penalty = float(
            check_number("turnover_penalty", turnover_penalty, 0, LARGEST)
        )

    def __call__(self, step: Transition) -> Float:
        """Return the penalised simple return."""
        r = step.simple_return
        return r - self.risk_aversion * r * r - self.turnover_penalty * step.turnover


class DrawdownPenalised(Reward):
    """``log return - penalty * drawdown``, the drawdown being that after the step."""

    def __init__(self, penalty: float = 0.1) -> None:
        """Keep the penalty per unit of drawdown and step, in [0, 1e6]."""
        self.penalty = float(check_number("penalty", penalty, 0, LARGEST))

    def __call__(self, step: Transition) -> Float:
        """Return the penalised log return."""
        return step.log_return - self.penalty * step.drawdown


class _Differential(Reward):
    """Two exponential moving averages of the return, starting from 0 in every episode."""

    def __init__(self, eta: float = 0.01) -> None:
        self.eta = float(check_number("eta", eta, above=0, below=1))
        self._first: Float = np.zeros(0)
        self._second: Float = np.zeros(0)

    def reset(self, lanes: NDArray[np.bool_]) -> None:
        if len(self._first) != len(lanes):
            self._first, self._second = np.zeros(len(lanes)), np.zeros(len(lanes))
        self._first[lanes] = 0.0
        self._second[lanes] = 0.0

    def _update(self, first: Float, second: Float) -> None:
        self._first += self.eta * (first - self._first)
        self._second += self.eta * (second - self._second)


class DifferentialSharpe(_Differential):
    r"""Differential Sharpe ratio of Moody & Saffell (2001), eq. 14.

    .. math:: D = \frac{B \, (R - A) - \frac12 A \, (R^2 - B)}{(B - A^2)^{3/2}}

    with the moving averages ``A`` of ``R`` and ``B`` of ``R^2`` before the step. 0 while the
    variance is 0, or no more than rounding of ``B``.
    """

    def __call__(self, step: Transition) -> Float:
        """Return D and update the averages."""
        r, a, b = step.simple_return, self._first, self._second
        variance = b - a * a
        top = b * (r - a) - 0.5 * a * (r * r - b)
        out = _ratio(top, np.where(variance > ROUNDING * b, variance, 0.0), 1.5)
        self._update(r, r * r)
        return out


class DifferentialDownside(_Differential):
    r"""Differential downside deviation ratio of Moody & Saffell (2001), eq. 23-24.

    .. math:: D = \frac{R - A / 2}{DD} \ (R > 0), \qquad
              D = \frac{DD^2 (R - A / 2) - A R^2 / 2}{DD^3} \ (R \le 0)

    with the moving averages ``A`` of ``R`` and ``DD^2`` of ``min(R, 0)^2`` before the step. 0 while
    DD is 0.
    """

    def __call__(self, step: Transition) -> Float:
        """Return D and update the averages."""
        r, a, square = step.simple_return, self._first, self._second
        gain = _ratio(r - 0.5 * a, square, 0.5)
        loss = _ratio(square * (r - 0.5 * a) - 0.5 * a * r * r, square, 1.5)
        self._update(r, np.minimum(r, 0.0) ** 2)
        return np.where(r > 0, gain, loss)


REWARDS: dict[str, Callable[..., Any]] = {
    "log_return": lambda: log_return,
    "simple_return": lambda: simple_return,
    "risk_adjusted": RiskAdjusted,
    "differential_sharpe": DifferentialSharpe,
    "differential_downside": DifferentialDownside,
    "drawdown_penalised": DrawdownPenalised,
    "excess_log_return": ExcessLogReturn,
}

RewardSpec = str | Mapping[str, Any] | Callable[..., Any]


def make_reward(spec: RewardSpec) -> Callable[[Transition], Float]:
    """Return a reward from its name, ``{"name": ..., **parameters}``, or a callable unchanged.

    A subclass of ``Reward``, given itself or as ``"module:Name"``, becomes an instance of its own
    for every environment.

    Raises:
        ArgumentError: On an unknown name, or parameters the reward does not have.

    >>> make_reward({"name": "excess_log_return", "scale": 100}).scale
    100.0
    """
    if callable(spec) and not _is_reward_class(spec):
        return spec
    options: dict[str, Any] = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    if "name" not in options:
        raise ArgumentError(f"reward={spec!r} has no 'name'; it is one of {', '.join(REWARDS)}.")
    name = options.pop("name")
    make = name if _is_reward_class(name) else find("reward", name, REWARDS)
    if name not in REWARDS and not _is_reward_class(make):
        return _plain(name, make, options)
    known = inspect.signature(make).parameters
    if name in REWARDS:
        check_keywords(f"reward {name!r}", "parameter", options, known)
    try:
        with user_code(f"reward {name!r}", leave=(PortfolioError, TypeError)):
            reward: Callable[[Transition], Float] = make(**options)
    except TypeError as error:
        given = ", ".join(options)
        raise ArgumentError(f"reward {name!r} does not take ({given}): {error}.") from None
    return reward


def _is_reward_class(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Reward)


def _plain(name: str, reward: Any, options: Mapping[str, Any]) -> Callable[[Transition], Float]:
    """Return a function of a step found by its name, which has no parameters."""
    if not isinstance(reward, FunctionType) or len(inspect.signature(reward).parameters) != 1:
        raise ArgumentError(
            f"reward {name!r} must be a subclass of portfolio_env.simulation.rewards.Reward, or a "
            "function of the step alone."
        )
    if options:
        raise ArgumentError(
            f"reward {name!r} does not take {sorted(options)}: it is a function; write a subclass "
            "of portfolio_env.simulation.rewards.Reward, which takes them in __init__."
        )
    return reward


def rewards_of(reward: Callable[[Transition], Any], step: Transition) -> Float:
    """Return the (B,) rewards of a step in fresh memory; those of a user's own are checked.

    Raises:
        ArgumentError: If it fails, or returns anything but one real number per lane.
    """
    if getattr(reward, "__module__", None) == __name__:
        return np.array(reward(step), dtype=np.float64)
    step.protect()
    with user_code(f"reward {_name_of(reward)!r}"):
        found = np.asarray(reward(step))
    lanes = step.terminated.shape
    if found.shape != lanes or found.dtype.kind not in "fiub":
        raise ArgumentError(
            f"reward {_name_of(reward)!r} returned shape {found.shape} of {found.dtype}, expected "
            f"{lanes} of numbers: one per lane."
        )
    return np.array(found, dtype=np.float64)


def forget(reward: Callable[[Transition], Any], lanes: NDArray[np.bool_]) -> None:
    """Clear some lanes of a reward that keeps state.

    Raises:
        ArgumentError: If it fails.
    """
    if isinstance(reward, Reward):
        with user_code(f"reset of reward {_name_of(reward)!r}"):
            reward.reset(lanes)


def check_finite(reward: Callable[[Transition], Any], rewards: Float) -> None:
    """Reject rewards of a user's own that are not finite.

    Raises:
        ArgumentError: With the first such lane.
    """
    if getattr(reward, "__module__", None) != __name__ and not np.isfinite(rewards).all():
        lane = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ArgumentError(
            f"reward {_name_of(reward)!r} is {rewards[lane]} in lane {lane}; it must be finite."
        )


def _name_of(reward: Any) -> str:
    thing = reward if hasattr(reward, "__qualname__") else type(reward)
    return f"{thing.__module__}:{thing.__qualname__}"


def _ratio(top: Float, square: Float, power: float) -> Float:
    known = square > 1e-16
    return np.where(known, top / np.where(known, square, 1.0) ** power, 0.0)
