"""Base classes of baselines: the ``predict`` of a trained SB3 model, over any number of lanes."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from baselines.checks import checked_answer
from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.html import card
from portfolio_env.market import Market
from portfolio_env.market.fingerprints import fingerprints_in, followed
from portfolio_env.names import plugin_name, source_hash
from portfolio_env.simulation.constraints import PortfolioConstraints

Weights: TypeAlias = NDArray[np.float64]
FIX = "build the model on the market of its environment, env.unwrapped.simulator.market"


class Baseline(ABC):
    """A portfolio policy that needs no training by interaction.

    It reads ``"index"`` or ``"window"`` observations and answers with target weights, so its
    environment takes ``action="weights"``.

    Args:
        market: The market its environments trade.
    """

    action: ClassVar[str] = "weights"  # kind of its actions
    carries_on: ClassVar[bool] = True  # to a target that was not reached, see ``backtest``
    preset: ClassVar[tuple[str, ...]] = ()  # options of its parents that it chooses itself
    reads_features: ClassVar[bool] = False  # of the market, beside its prices

    _decides_by: ClassVar[str] = "weights"  # the method that a class of one's own overrides

    fit_period: tuple[int, int] | None = None
    _fitted_on: list[str] | None = None  # first and last bar

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse methods that nothing would ask for, or not in their way.

        Raises:
            ArgumentError: If a class overrides ``weights`` or ``target`` below one that decides by
                another method, or ``predict`` with other arguments.
        """
        super().__init_subclass__(**options)

        def place(method: str) -> int:
            own = (callable(vars(kind).get(method)) for kind in cls.__mro__)
            return next((number for number, found in enumerate(own) if found), len(cls.__mro__))

        decider = cls._decides_by
        asked = min(place(decider), place("_answer"))
        abstract = getattr(getattr(cls, decider), "__isabstractmethod__", False)
        for name in ("weights", "target"):
            if name != decider and place(name) < asked and not abstract:
                raise ArgumentError(
                    f"{cls.__name__} overrides {name}, which nothing asks "
                    f"{cls.__mro__[place(name) + 1].__name__} for: override {decider}, or derive "
                    f"the class from {'Baseline' if name == 'weights' else 'PortfolioModel'}."
                )
        try:
            inspect.signature(cls.predict).bind(None, {}, None, None, deterministic=True)
        except TypeError as error:
            raise ArgumentError(
                f"{cls.__name__} overrides predict, which answers an observation as SB3's does, "
                f"with other arguments ({error}): take (observation, state=None, "
                "episode_start=None, deterministic=True), or give the method another name."
            ) from error

    def __init__(self, market: Market) -> None:
        if self.reads_features and market.n_features == 0:
            raise ArgumentError(
                f"{type(self).__name__} reads features, and the market has none: load the market "
                "with features, e.g. features='minimal'"
            )
        self.market = market

    @classmethod
    def _options(cls) -> list[str]:
        """Return the names of the constructor's options, those passed on to parents included."""
        names: dict[str, None] = {}
        for kind in (kind for kind in cls.__mro__ if "__init__" in vars(kind)):
            own = inspect.signature(kind).parameters.values()
            names |= {p.name: None for p in own if p.kind is p.KEYWORD_ONLY}
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
        return list(names)

    @property
    def _built_in(self) -> bool:
        return type(self) in BASELINES.values()

    @property
    def _name(self) -> str:
        return str(getattr(self.definition, "__name__", type(self).__name__))

    def options(self) -> dict[str, Any]:
        """Return the keywords with which the class builds an unfitted copy."""
        names = (name for name in self._options() if name not in self.preset)
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        facts = self._facts()
        fitted = f"; fitted on {facts['fitted on']}" if "fitted on" in facts else ""
        name, assets = facts["baseline"], self.market.n_assets
        return f"{name}({facts['options']}; {assets} asset{'s' * (assets != 1)}{fitted})"

    def _repr_html_(self) -> str | None:
        return card(type(self).__name__, self._facts())

    def _facts(self) -> dict[str, str]:
        """Return the main facts of the baseline by name."""
        names = (name for name in self._options() if name not in self.preset)
        options = {name: getattr(self, name) for name in names if hasattr(self, name)}
        if options.get("constraints") == PortfolioConstraints():
            del options["constraints"]
        shown = [f"{name}={shortened(value)}" for name, value in options.items()]
        facts = {
            "baseline": self._name,
            "options": ", ".join(shown) or "no options",
            "market": repr(self.market),
        }
        if self._fitted_on is not None:
            days = (day.partition("T00:00")[0] for day in self._fitted_on)
            facts["fitted on"] = " to ".join(days)
        return facts

    def state(self) -> dict[str, Any]:
        """Return what was learned: a tree of tensors and JSON (see ``agents.tensors``), or {}.

        ``baselines.saving`` keeps it in a file.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what ``state`` of a model of the same options returned, unless empty.

        The model is a new one: decisions that it has made are kept as they are.

        Raises:
            DataError: If a model of this kind learns nothing.
        """
        raise DataError(f"{type(self).__name__} learns nothing; its file holds {sorted(state)}")

    @property
    def definition(self) -> Any:
        """Return the class or function that identifies the baseline."""
        return type(self)

    def source_sha256(self) -> str | None:
        """Return SHA-256 of the source of a user-defined baseline; None if it is built in.

        Code of a notebook is identified by its compiled form.
        """
        thing = self.definition
        if str(getattr(thing, "__module__", "")).partition(".")[0] in ("baselines", "agents"):
            return None
        try:
            return source_hash(plugin_name(thing))
        except ArgumentError:
            code = [getattr(each, "__code__", None) for each in (thing, *vars(thing).values())]
            return repr([(each.co_code.hex(), repr(each.co_consts)) for each in code if each])

    @abstractmethod
    def weights(self, observation: Mapping[str, NDArray[Any]]) -> Weights:
        """Return target weights for a batch of lanes.

        Args:
            observation: The entries of the observation, each with the lanes first: ``tradable``
                (B, N), ``weights`` (B, N + 1) and, of ``"index"``, ``t`` (B, 1).

        Returns:
            (B, N + 1) float64 on the simplex, cash first.
        """

    def follow(self, market: Market) -> None:
        """Go on with a market that continues the one it has, see ``Market.extended``.

        Whatever was made for every bar of the market is to be continued here too.
        """
        self.market = market

    def _rows(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Return the (B,) bars of observations of all assets of its market.

        It follows its market to a longer one.

        Raises:
            ArgumentError: If the observation does not say which bar it is, or is of another market,
                or lanes trade assets of their own.
        """
        if "t" not in observation:
            raise ArgumentError(
                f"{type(self).__name__} needs to know which bar it is; build its environment with "
                'observation="index".'
            )
        if "assets" in observation:
            raise ArgumentError(
                f"{type(self).__name__} decides over all {self.market.n_assets} assets of its "
                "market; build its environment without universe=, on market.select(...)."
            )
        market = followed(self.market, np.asarray(fingerprints_in(observation)), FIX)
        if market is not self.market:
            self.follow(market)
        return np.asarray(observation["t"])[:, 0]

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Weights, Any]:
        """Return target weights, as SB3's ``predict`` returns actions.

        Args:
            observation: One observation or a batch of them.
            state: The state of the last call; None at the start. Most baselines remember nothing,
                and return it as it came.
            episode_start: (B,) lanes that start again.
            deterministic: Passed on to the members of an ensemble; a baseline is deterministic.

        Returns:
            ``(weights, state)``: weights (N + 1,) for one observation, (B, N + 1) for a batch.

        Raises:
            ArgumentError: If the observation is not of the ``"index"`` or ``"window"`` kind, or a
                baseline of your own fails or answers with another shape.
        """
        if not isinstance(observation, Mapping) or not {"tradable", "weights"} <= set(observation):
            raise ArgumentError(
                f"a baseline cannot read an observation of type {type(observation).__name__}; "
                'build its environment with observation="index" or "window".'
            )
        if np.ndim(observation["weights"]) == 1:
            batch = {name: np.asarray(entry)[None] for name, entry in observation.items()}
            weights, state = self._answer(batch, state, episode_start, deterministic)
            return weights[0], state
        return self._answer(observation, state, episode_start, deterministic)

    def _answer(
        self,
        observation: Mapping[str, NDArray[Any]],
        state: Any = None,
        starts: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Weights, Any]:
        """Return weights of a batch and the state; those of a user-defined baseline are checked."""
        if self._built_in:
            return self.weights(observation), state
        weights = checked_answer(
            lambda: self.weights(observation),
            np.shape(observation["weights"]),
            type(self).__name__,
        )
        return weights, state


BASELINES: dict[str, type[Baseline]] = {}
"""Baselines by name; ``baselines/__init__.py`` lists them."""
