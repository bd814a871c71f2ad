"""Rows of a network's input from any observation: one row per asset, in plain torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self
from weakref import WeakValueDictionary

import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.networks import make_encoder
from agents.networks.base import NO_FEATURES, is_traced
from agents.networks.plugins import Maker
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.fingerprints import find_market, fingerprints_in, followed

FIX = (
    "agents.bind_market(agent, market) binds another (of a DirectAgent: agent.bind(market)), "
    "agents.policy_for(agent, venv) gives a copy of the policy that acts in another environment"
)
_SCALED = (
    "the observation's {0!r} should hold {1} alone: it was scaled on its way. Pass on observations "
    'as they are: VecNormalize(venv, norm_obs=False), or of a Dict norm_obs_keys=["weights"]'
)
ON_CPU = ("t", "market")
"""Parts of an index observation that are read on the CPU, and best left there."""
Observation = Tensor | NDArray[Any] | Mapping[str, Tensor] | Mapping[str, NDArray[Any]]


class MarketRows(nn.Module):
    """One row per asset: encoder channels, ``n_assets * weight - 1``, tradable flag.

    The three observation modes give the same rows. With ``"index"`` observations the market stays
    on the device and each of its bars is encoded once (see ``MarketEncoder``); ``t`` is never a
    feature, or the network could memorise dates. Where the universe is sampled, the encoder
    sees the whole market and each lane takes its own assets.

    The market is the one that was bound, or else the one whose fingerprint an observation carries,
    among those that environments of this process are in; another's observations are rejected, or
    make it take that market. Of a market that continues its own (see ``Market.extended``) it takes
    the last rows, as far as it looks back. Market and features are part of no state dict.

    Args:
        observation_space: One lane's, of mode ``"window"``, ``"flat"`` or ``"index"``.
        n_assets: Risky assets of an observation; by default as the space declares.
        n_features: Features per asset; by default as the space declares.
        window: Bars the encoder sees, at most the environment's window, which is the default.
        encoder: Name or class of the encoder, see ``agents.networks.make_encoder``.
        encoder_kwargs: Further, JSON-able options of the encoder.
        embedding_kwargs: Options of the encoder's evaluation: ``frozen``, ``checkpointed`` and
            ``forecasts``, see ``MarketEncoder``.

    Attributes:
        width: Numbers in a row, C + 2.

    Raises:
        ArgumentError: If the space is none of the environment's, or does not state what is not
            given.
    """

    _home: Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        n_assets: int | None = None,
        n_features: int | None = None,
        window: int | None = None,
        encoder: str | Maker = "per_asset",
        encoder_kwargs: dict[str, Any] | None = None,
        embedding_kwargs: dict[str, Any] | None = None,
    ) -> None:
        # Not super(): of SB3's extractor, which comes next there, the constructor wants the width.
        nn.Module.__init__(self)
        layout = layout_of(observation_space)
        self.reads_index = layout.reads_index
        self.n_assets = _settled("n_assets", n_assets, layout.n_assets)
        self.n_features = _settled("n_features", n_features, layout.n_features)
        if self.n_features == 0:
            raise ArgumentError(NO_FEATURES)
        if not layout.reads_index:
            layout = layout._replace(window=self._bars_of(observation_space))
        if window is None:
            window = _settled("window", None, layout.window)
        network = make_encoder(encoder, self.n_features, window, **(encoder_kwargs or {}))
        self.embeddings = MarketEncoder(network, **(embedding_kwargs or {}))
        self.width = network.channels + 2
        self.bars = network.bars
        self.market: Market | None = None
        self._found: _Tensors | None = None  # a market found in observations, not bound by hand
        if not layout.reads_index and layout.window is not None and layout.window < self.bars:
            raise ArgumentError(
                f"observations hold {layout.window} bars, the encoder sees {self.bars}; pass a "
                f"window <= {layout.window}, or give the environment window={self.bars}"
            )
        if network.block and not layout.reads_index:
            raise ArgumentError(
                "history='stream' must be 'window' where observations hold windows: a block reads "
                'the market itself; build the environment with observation="index"'
            )
        self.register_buffer("_home", th.empty(0), persistent=False)  # device of the module

    @classmethod
    def of(cls, env: Any, **options: Any) -> Self:
        """Return rows for an environment, bound to its market.

        Args:
            env: A ``PortfolioEnv``, a ``PortfolioVectorEnv``, or either behind wrappers, vector
                environments of Gymnasium or SB3.
            options: See ``MarketRows``, e.g. ``encoder="gat"``; what is left out is read from the
                environment.
        """
        space = getattr(env, "single_observation_space", env.observation_space)
        market = market_of(env)
        rows = cls(space, **{"n_features": market.n_features} | options)
        rows.bind(market)
        return rows

    def _bars_of(self, space: spaces.Space[Any]) -> int:
        """Return the bars of an observation that holds them, after a check of its size."""
        if isinstance(space, spaces.Dict):
            return int((space["market"].shape or ())[0])
        n, numbers = self.n_assets, spaces.flatdim(space)
        bars, rest = divmod(numbers - 2 * n - 1, n * self.n_features)
        if rest or bars < 1:
            raise ArgumentError(
                f"a flat observation of {numbers} numbers does not hold {n} assets of "
                f"{self.n_features} features; pass the right n_assets and n_features"
            )
        return bars

    @property
    def encoder(self) -> nn.Module:
        """Return the encoder without its cache."""
        return self.embeddings.encoder

    @property
    def needs_market(self) -> bool:
        """Return whether a market must be bound before use."""
        return self.reads_index or self.embeddings.encoder.uses_codes

    def bind(
        self,
        features: Tensor | Market,
        tradable: Tensor | None = None,
        codes: Tensor | None = None,
        times: Tensor | None = None,
        market: Market | None = None,
    ) -> None:
        """Attach the market: itself, or tensors of it that are shared and not copied.

        Args:
            features: A market, or (T, all assets, F).
            tradable: (T, all assets), 1 or 0; None if all are, always.
            codes: (all assets, K) static categories.
            times: (T,) int64, increasing, which divide it into blocks; see ``MarketEncoder``.
            market: Whose tensors these are: index observations of another are then rejected.
        """
        if isinstance(features, Market):
            market = features
            features, tradable, codes, times = market_tensors(market, self._home.device)
        self.embeddings.bind(features, tradable, codes, times)
        self.market = market
        self._found = None

    def forward(self, observation: Observation) -> Tensor:
        """Return rows (batch, assets, channels + 2) of a batch of observations."""
        return asset_rows(*self.parts(observation))

    def parts(self, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Return channels (batch, assets, C), tradable (batch, assets), weights with cash first."""
        if not isinstance(observation, Mapping):
            return self._flat_parts(self._tensor(observation).float())
        given = {name: self._tensor(part, name) for name, part in observation.items()}
        self._check(given)
        tradable, weights = given["tradable"].float(), given["weights"].float()
        if not self.reads_index:
            return self._encode(given["market"].float(), tradable), tradable, weights
        assets = given.get("assets")
        channels = self.embeddings(
            given["t"].long().flatten(), None if assets is None else assets.long()
        )
        return channels, tradable, weights

    def _flat_parts(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n = self.n_assets
        windows = numbers[:, : -2 * n - 1].reshape(len(numbers), -1, n, self.n_features)
        tradable, weights = numbers[:, -2 * n - 1 : -n - 1], numbers[:, -n - 1 :]
        if not (is_traced(numbers) or _is_learnt_from(numbers)):
            check_flags(tradable)
        return self._encode(windows, tradable), tradable, weights

    def _tensor(self, part: Tensor | NDArray[Any], name: str = "") -> Tensor:
        if isinstance(part, Tensor):
            return part
        device = "cpu" if name in ON_CPU and self.reads_index else self._home.device
        return th.as_tensor(part, device=device)

    def _check(self, observation: dict[str, Tensor]) -> None:
        """Reject observations that lack a part, were scaled, or belong to another market.

        On a GPU the answer would be waited for. Where gradients are kept, what is learnt from was
        acted on before; so only a market that was found is compared there, as it may have changed
        since. Where code is traced (``torch.vmap``, ``torch.compile``) nobody knows the numbers:
        the market is the one that is bound, or that was found before.
        """
        traced = any(map(is_traced, observation.values()))
        if not self.reads_index:
            check_parts(observation, "market", fingerprint=False)
        else:
            if not traced and (self._found is not None or self.embeddings.features is None):
                self._find(observation)
            check_parts(observation, "t", fingerprint=self.market is not None)
        if traced:
            return
        learning = _is_learnt_from(observation["weights"])
        if self.reads_index and self.market is not None and not (learning and self._found is None):
            market = followed(self.market, observation["market"], FIX)
            if market is not self.market:
                self.follow(market, int(observation["t"].min()))
        if not learning:
            check_numbers(observation)

    def _find(self, observation: dict[str, Tensor]) -> None:
        """Find and attach the market of an observation, if none was bound by hand."""
        numbers = observation.get("market")
        if numbers is None or not len(numbers):
            return
        if self.market is None or float(numbers.flatten()[0]) != self.market.fingerprint:
            market = find_market(numbers)
            if self.market is not None and market.continues == self.market.fingerprint:
                return
            shared = _shared_tensors(market, self._home.device)
            self.bind(*shared.tensors, market)
            self._found = shared

    def follow(self, market: Market, row: int) -> None:
        """Attach what a row of a market and all after it look back to, unless it is attached."""
        if market is not self.market or not self.embeddings.reaches(row):
            first = self.embeddings.first_row(market, row)
            tensors = market_tensors(market, self._home.device, first)
            self.embeddings.bind(*tensors, first)
            self.market = market

    def _encode(self, windows: Tensor, tradable: Tensor) -> Tensor:
        codes = self.embeddings.codes if self.embeddings.encoder.uses_codes else None
        if codes is not None:
            if len(codes) != tradable.shape[1]:
                raise ArgumentError(
                    f"the market has categories of {len(codes)} assets, the observation holds "
                    f'{tradable.shape[1]}; use observation="index" where the universe is sampled'
                )
            codes = codes.expand(len(tradable), *codes.shape)
        return self.embeddings.encode(windows[:, -self.bars :], tradable, codes)


class Layout(NamedTuple):
    """Layout of observations as a space declares it; None where it does not."""

    reads_index: bool
    n_assets: int | None
    n_features: int | None
    window: int | None


def layout_of(space: spaces.Space[Any]) -> Layout:
    """Return the layout that the space of one lane's observations declares.

    Raises:
        ArgumentError: If it is not a space of the environment, one of stacked observations, or one
            without features.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        flat = (getattr(space, name, None) for name in ("n_assets", "n_features", "window"))
        return Layout(False, *flat)
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    shapes = {name: part.shape or () for name, part in parts.items()}
    index = "t" in parts
    if set(parts) == {"tradable", "weights"}:
        raise ArgumentError(NO_FEATURES)
    if not index and len(shapes.get("market", ())) != 3:
        raise ArgumentError(
            f"{space} is not a space of the environment's observations; give observation_space of "
            "an environment, single_observation_space of a vector environment, and stack no frames"
        )
    if index:
        n = shapes["weights"][0] - 1 if "weights" in shapes else None
        market = parts.get("market")
        of_market = (getattr(market, name, None) for name in ("n_features", "window"))
        found = Layout(True, n, *of_market)
    else:
        window, n, n_features = shapes["market"]
        found = Layout(False, n, n_features, window)
    expected = {"weights": (n + 1,), "tradable": (n,)} if n is not None else {}
    expected |= {"t": (1,), "market": (1,)} if index else {}
    for name, shape in expected.items():
        if shapes.get(name, shape) != shape:
            raise ArgumentError(
                f"observations hold {name!r} of shape {shapes[name]}, expected {shape}; stack no "
                "frames (VecFrameStack): the environment's window=... gives more bars"
            )
    return found


def _settled(name: str, given: int | None, layout: int | None) -> int:
    """Return the given value or that of the space, which must not differ."""
    if given is not None and layout is not None and given != layout:
        raise ArgumentError(f"{name}={given}, but observations are of {layout}; leave {name} out")
    value = layout if given is None else given
    if value is None:
        raise ArgumentError(
            f"the space of the observations does not state {name}, as that of the environment does "
            f"where no wrapper makes another; pass {name}=..."
        )
    return value


def market_of(env: Any) -> Market:
    """Return the market of an environment, also behind wrappers and in vector environments."""
    base = env.unwrapped
    simulator = base.simulator if hasattr(base, "simulator") else env.get_attr("simulator")[0]
    market: Market = simulator.market
    return market


def _is_learnt_from(part: Tensor) -> bool:
    """Return whether a GPU is to learn from an observation, which it has acted on before."""
    return part.device.type == "cuda" and th.is_grad_enabled()


def check_parts(observation: Mapping[str, Any], *parts: str, fingerprint: bool) -> None:
    """Reject an observation that lacks one of these parts, or a part that every one has.

    Args:
        observation: A Dict of the environment.
        parts: Names beside ``tradable`` and ``weights``.
        fingerprint: It must say which market it is of.

    Raises:
        ArgumentError: If it lacks something.
    """
    if fingerprint:
        fingerprints_in(observation)
    lacking = [name for name in (*parts, "tradable", "weights") if name not in observation]
    if lacking:
        raise ArgumentError(
            f"the observation lacks {', '.join(map(repr, lacking))}, it holds "
            f"{', '.join(sorted(observation))}; pass on all that the environment gives"
        )


def check_numbers(observation: Mapping[str, Tensor]) -> None:
    """Reject a Dict observation that was scaled, or cast with loss of precision.

    Raises:
        ArgumentError: If a flag is neither 0 nor 1, or a row or an asset no whole number.
    """
    check_flags(observation["tradable"])
    for name in ("t", "assets"):
        part = observation.get(name)
        if part is not None and bool(((part != part.round()) | (part < 0)).any()):
            raise ArgumentError(_SCALED.format(name, "whole numbers"))


def check_flags(tradable: Tensor) -> None:
    """Reject flags other than 0 and 1.

    Raises:
        ArgumentError: If there are any.
    """
    if bool(((tradable != 0) & (tradable != 1)).any()):
        raise ArgumentError(_SCALED.format("tradable", "0 and 1"))


class _Tensors:
    """Tensors of a market on a device, shared by all networks that use it there."""

    def __init__(self, market: Market, device: th.device) -> None:
        self.market = market
        self.tensors = market_tensors(market, device)


_shared: WeakValueDictionary[tuple[int, str], _Tensors] = WeakValueDictionary()


def _shared_tensors(market: Market, device: th.device) -> _Tensors:
    # An entry holds its market, so that its id is no other's while it lasts.
    key = (id(market), str(device))
    shared = _shared.get(key)
    if shared is None:
        shared = _shared[key] = _Tensors(market, device)
    return shared


def market_encoders(network: nn.Module) -> list[MarketEncoder]:
    """Return the encoders of all extractors of a policy or network, target networks included."""
    return [part.embeddings for part in network.modules() if isinstance(part, MarketRows)]


def asset_rows(channels: Tensor, tradable: Tensor, weights: Tensor) -> Tensor:
    """Return the rows of a ``MarketRows`` (batch, assets, C + 2).

    Args:
        channels: (batch, assets, C).
        tradable: (batch, assets), 1 or 0.
        weights: (batch, 1 + assets), cash first.
    """
    own = weights[:, 1:] * tradable.shape[1] - 1.0
    return th.cat([channels, own.unsqueeze(-1), tradable.unsqueeze(-1)], dim=-1)
