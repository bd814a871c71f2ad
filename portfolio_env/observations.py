"""Observations of an agent: three modes over the same state, gathered for all lanes at once.

An observation at bar t holds features of bars up to and including t, the drifted weights at close
t, and which assets traded in bar t. With a ``delay`` of k bars all of the market is of bar t - k,
and the weights are of close t: an account knows what it holds. Its arrays are fresh memory, never
views of the market.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from portfolio_env.checks import check_choice
from portfolio_env.market.fingerprints import FingerprintSpace, remember
from portfolio_env.market.market import Market
from portfolio_env.simulation.simulator import Simulator

MODES = ("window", "flat", "index")
# Weights drift out of their bounds where there is leverage; observations are clipped to a multiple
# of it.
DRIFT_ROOM = 10.0


class FlatSpace(spaces.Box):
    """Space of flat observations: a Box that describes its numbers.

    Args:
        space: Space of the same observations in mode ``"window"``, of features or of none.

    Attributes:
        window: Bars W; 0 without features.
        n_assets: Risky assets N.
        n_features: Features per asset F.
    """

    def __init__(self, space: spaces.Dict) -> None:
        """Lay out the numbers as Gymnasium flattens the Dict."""
        flat: Any = spaces.flatten_space(space)
        super().__init__(flat.low, flat.high, dtype=flat.dtype)
        self.n_assets = spaces.flatdim(space["tradable"])
        market = space.spaces.get("market")
        shape = (0, 0, 0) if market is None else market.shape or ()
        self.window, _, self.n_features = shape


class Observer:
    """Builder of the observations of a simulator's lanes.

    Args:
        simulator: The simulator.
        mode: ``"window"``: Dict of ``market`` (W, N, F) float32, ``tradable`` (N,) int8 and
            ``weights`` (N + 1,) float32; ``"flat"``: the same, concatenated in this order to one
            float32 vector (a market without features has no ``market`` in either);
            ``"index"``: Dict of ``t`` (1,) int64 row of the observed bar, ``market`` (1,) int64
            fingerprint of the market that the row is of (see ``market.fingerprints``),
            ``tradable``, ``weights``, and with universe sampling ``assets`` (N,) int64 columns of
            the market. It is for learners that hold the market
            themselves; flattened to a vector it would be a row number and nothing of the market, so
            that is rejected wherever Gymnasium's space of ``market`` is still there. It is not
            behind SB3's ``VecFrameStack``, which builds spaces of its own, nor where a wrapper left
            ``market`` out: do not flatten those.

    Raises:
        ArgumentError: On another mode.
    """

    def __init__(self, simulator: Simulator, mode: str) -> None:
        """Declare the space and prepare the gather."""
        check_choice("observation", mode, MODES)
        self.simulator, self.mode = simulator, mode
        self.space = self._space()
        self._market: Market | None = None

    def _space(self) -> spaces.Space[Any]:
        simulator, market = self.simulator, self.simulator.market
        n, bound = simulator.n_assets, np.float32(market.feature_bound)
        room = DRIFT_ROOM * max(1.0, float(simulator.bounds["max_leverage"][0]))
        low, high = self._bounds = (-room, room) if simulator.levered else (0.0, 1.0)
        weights = spaces.Box(np.float32(low), np.float32(high), (n + 1,))
        parts: dict[str, spaces.Space[Any]] = {
            "tradable": spaces.Box(0, 1, (n,), np.int8),
            "weights": weights,
        }
        if self.mode == "index":
            parts["market"] = FingerprintSpace(
                n_features=market.n_features, window=simulator.window
            )
            parts["t"] = spaces.Box(0, market.n_bars - 1, (1,), np.int64)
            if simulator.episodes.universe is not None:
                parts["assets"] = spaces.Box(0, market.n_assets - 1, (n,), np.int64)
            return spaces.Dict(parts)
        if market.n_features > 0:
            parts["market"] = spaces.Box(-bound, bound, (simulator.window, n, market.n_features))
        space = spaces.Dict(parts)
        return space if self.mode == "window" else FlatSpace(space)

    def _follow(self, market: Market) -> None:
        """Prepare what all observations of a market share; a market that grows is another one."""
        self._market = market
        self._tradable = market.tradable.view(np.int8)
        if self.mode == "index":
            remember(market)
            self._fingerprints = np.full((self.simulator.num_lanes, 1), market.fingerprint)
        elif market.n_features:
            # overlapping windows as rows of a view: picking one is a single contiguous copy
            features, window = market.features, self.simulator.window
            shape = (len(features) - window + 1, window, *features.shape[1:])
            strides = (features.strides[0], *features.strides)
            self._overlapping = as_strided(features, shape, strides, writeable=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views, which a copy would fill with numbers of its own."""
        views = ("_tradable", "_fingerprints", "_overlapping")
        state = {name: value for name, value in self.__dict__.items() if name not in views}
        return state | {"_market": None}

    def __call__(self) -> dict[str, NDArray[Any]] | NDArray[np.float32]:
        """Return observations of all lanes: arrays with the lanes in front, in fresh memory."""
        simulator = self.simulator
        if (market := simulator.market) is not self._market:
            self._follow(market)
        rows, sampled = simulator.observed, simulator.episodes.universe is not None
        weights = simulator.weights.astype(np.float32)
        if simulator.levered:
            np.clip(weights, *self._bounds, out=weights)
        tradable = self._tradable.take(rows, axis=0)
        if sampled:
            tradable = np.take_along_axis(tradable, simulator.assets, axis=1)
        if self.mode == "index":
            now = {"market": self._fingerprints.copy(), "t": rows[:, None].copy()}
            own = {"assets": simulator.assets.copy()} if sampled else {}
            return {**own, **now, "tradable": tradable, "weights": weights}
        seen: dict[str, NDArray[Any]] = {}
        if market.n_features:
            seen["market"] = self._windows(rows)
        if self.mode == "window":
            return {**seen, "tradable": tradable, "weights": weights}
        parts = [*(each.reshape(len(rows), -1) for each in seen.values()), tradable, weights]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _windows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (B, W, N, F) features of the last W bars up to each lane's row."""
        simulator = self.simulator
        if simulator.episodes.universe is None:
            return self._overlapping[rows - (simulator.window - 1)]
        bars = rows[:, None] + np.arange(1 - simulator.window, 1)
        return simulator.market.features[bars[:, :, None], simulator.assets[:, None, :]]
