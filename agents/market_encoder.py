"""Encoder with its market attached: each bar's window is encoded once, not once per sample.

All lanes that stand at bar t share one window of the market. So the encoder runs once per distinct
t in a batch; while its weights stay as they are (in a rollout, in evaluation, or because they are
frozen), once per t at all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Literal

import numpy as np
import torch as th
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agents.memory import max_batch_size, memory_of
from agents.networks import Encoder
from agents.networks.heads import PredictionHead
from agents.networks.plugins import told_as_theirs
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market

_CHUNK = 64  # windows encoded at once where no gradient is kept: more leave a processor's cache


def market_tensors(market: Market, device: th.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Return arguments of ``MarketEncoder.bind``: features, tradable flags, codes of a market."""
    arrays = (market.features, market.tradable.astype(np.float32), market.category_codes)
    features, tradable, codes = (th.tensor(array, device=device) for array in arrays)
    return features, tradable, codes


def is_traced(tensor: Tensor) -> bool:
    """Return whether a tensor's values are unavailable: in ``torch.vmap``, ``torch.compile``."""
    return th.compiler.is_compiling() or th._C._functorch.is_functorch_wrapped_tensor(tensor)


class MarketEncoder(nn.Module):
    """Encoder that returns one vector per asset at bar t, from the market's features up to t.

    Args:
        encoder: Makes the vectors.
        frozen: The encoder does not learn; it stays in evaluation mode.
        checkpointed: Windows whose activations are kept at a time; where there are more, they are
            computed again in the backward pass. None keeps all, "auto" what a quarter of the memory
            of the device holds, see ``agents.memory``.
        forecasts: It has a head that forecasts each asset's next return, see ``forecast``.

    Attributes:
        cached: Whether vectors are kept while weights stay as they are, which is checked by
            comparison. Switched off for target networks, whose weights change with every update;
            those of a frozen encoder are then kept while its weights are unchanged but for
            rounding.
    """

    features: Tensor | None
    tradable: Tensor | None
    codes: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        *,
        frozen: bool = False,
        checkpointed: int | Literal["auto"] | None = "auto",
        forecasts: bool = False,
    ) -> None:
        super().__init__()
        if checkpointed not in (None, "auto") and not (
            isinstance(checkpointed, int) and checkpointed >= 1
        ):
            raise ArgumentError(f"checkpointed is {checkpointed}: give at least 1, 'auto' or None")
        self.encoder = encoder
        self.head = PredictionHead(encoder.channels) if forecasts else None
        self.checkpointed = checkpointed
        for name in ("features", "tradable", "codes"):
            self.register_buffer(name, None, persistent=False)
        self._cache = _Cache()
        self._fitting: int | None = None
        self.cached = True
        self.frozen = False
        self.freeze(frozen)

    def freeze(self, frozen: bool = True) -> None:
        """Freeze or unfreeze the encoder's weights.

        Frozen weights still require gradients and get none: TRPO takes those of every weight.
        """
        self.frozen = frozen
        self.train(self.training)

    def train(self, mode: bool = True) -> MarketEncoder:
        """Set the mode; a frozen encoder stays in evaluation mode."""
        if self.encoder.training and not mode:
            self.forget()  # some algorithms change weights without a new version (TRPO)
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def bind(
        self, features: Tensor, tradable: Tensor | None = None, codes: Tensor | None = None
    ) -> None:
        """Attach the market, see ``MarketRows.bind``."""
        if features.ndim != 3 or features.shape[2] != self.encoder.n_features:
            raise ArgumentError(
                f"the market's features have shape {tuple(features.shape)}, the network reads "
                f"(T, assets, {self.encoder.n_features}); load the features it was trained on"
            )
        self.tradable = features.new_ones(features.shape[:2]) if tradable is None else tradable
        self.features, self.codes = features, codes
        self._cache = _Cache()
        self._fitting = None

    def forget(self) -> None:
        """Drop the cached vectors of bars; they are computed again when they are needed."""
        self._cache = _Cache()

    def forward(self, t: Tensor, assets: Tensor | None = None) -> Tensor:
        """Return the vectors of bars.

        Args:
            t: (batch,) rows of the market, each at least ``encoder.bars - 1``.
            assets: (batch, k) the assets wanted of each; None wants all N.

        Returns:
            (batch, k or N, channels)
        """
        features, tradable = self._market()
        if not any(True for _ in self.encoder.parameters()) or is_traced(t):
            return self._each(t, assets, features, tradable)
        learning = th.is_grad_enabled() or self.encoder.training
        if self.frozen or (self.cached and not learning):
            rows = self._cache.rows(t, len(features), self._state(), self._encode_all)
        else:
            distinct, place = th.unique(t, return_inverse=True)
            rows = self._encode_checkpointed(distinct)[place]
        return rows if assets is None else rows[_lanes(t), assets]

    def forecast(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation (batch, N) of all assets' next returns, see ``forecast_of``."""
        return self.forecast_of(self(t))

    def forecast_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forecast of rows (..., N, channels) that are encoded already.

        The unit is that of the returns it was trained on, see ``agents.forecasts.NextReturns``.
        """
        if self.head is None:
            raise ArgumentError("there is no head for forecasts; build it with forecasts=True")
        forecast: tuple[Tensor, Tensor] = self.head(rows)
        return forecast

    def encode(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode windows (batch, bars, assets, F) as (batch, assets, channels)."""
        called = self.encoder.brought_as
        with (
            th.set_grad_enabled(th.is_grad_enabled() and not self.frozen),
            told_as_theirs(f"encoder {called}") if called else nullcontext(),
        ):
            out: Tensor = self.encoder(windows, tradable, codes)
        return out

    def _market(self) -> tuple[Tensor, Tensor]:
        if self.features is None or self.tradable is None:
            raise ArgumentError(
                "index observations need their market; call agents.bind_market(model, market)"
            )
        return self.features, self.tradable

    def _each(self, t: Tensor, assets: Tensor | None, features: Tensor, tradable: Tensor) -> Tensor:
        """Encode every window separately, without sharing equal ones.

        An encoder without weights only rearranges its input, and reads fewer bars this way.
        """
        bars, codes = self._bars(t), self.codes
        if assets is not None and not self.encoder.mixes_assets:
            windows = features[bars[:, :, None], assets[:, None, :]]
            own = tradable[t[:, None], assets]
            return self.encode(windows, own, None if codes is None else codes[assets])
        codes = None if codes is None else codes.expand(len(t), *codes.shape)
        rows = self.encode(features[bars], tradable[t], codes)
        return rows if assets is None else rows[_lanes(t), assets]

    def _bars(self, t: Tensor) -> Tensor:
        """Return the rows (batch, bars) of the windows that end at t."""
        return t[:, None] + th.arange(1 - self.encoder.bars, 1, device=t.device)

    def _encode_bars(self, t: Tensor) -> Tensor:
        """Return vectors (batch, N, channels) of distinct, increasing t."""
        features, tradable = self._market()
        if len(t) and int(t[0]) < self.encoder.bars - 1:
            raise ArgumentError(
                f"the encoder looks back {self.encoder.bars} bars, which row {int(t[0])} does not "
                f"have; give the environment window={self.encoder.bars}"
            )
        first = int(t[0]) - self.encoder.bars + 1 if len(t) else 0
        span = slice(first, int(t[-1]) + 1 if len(t) else 0)
        if not self.encoder.padded and span.stop - first < len(t) * self.encoder.bars:
            return self.encoder.encode_range(features[span], tradable[span], t - first)
        codes = None if self.codes is None else self.codes.expand(len(t), *self.codes.shape)
        return self.encode(features[self._bars(t)], tradable[t], codes)

    def _encode_all(self, t: Tensor) -> Tensor:
        """Return vectors (batch, N, channels) without gradients, encoded in chunks."""
        with th.no_grad():
            return th.cat([self._encode_bars(part) for part in th.split(t, _CHUNK)])

    def _encode_checkpointed(self, t: Tensor) -> Tensor:
        size = self._at_a_time()
        if size is None or len(t) <= size:
            return self._encode_bars(t)
        parts = [
            checkpoint(self._encode_bars, part, use_reentrant=False) for part in th.split(t, size)
        ]
        return th.cat(parts)

    def _at_a_time(self) -> int | None:
        if self.checkpointed != "auto":
            return self.checkpointed
        if self._fitting is None:
            features = self._market()[0]
            budget = memory_of(features.device) // 4  # actor and critic may have one each
            at = (features.shape[1], budget, features.device, self.codes)
            self._fitting = max_batch_size(self.encoder, *at)
        return self._fitting

    def _state(self) -> object:
        """Return a value that changes whenever a weight changes."""
        weights = [*self.encoder.parameters(), *self.encoder.buffers()]
        return _Numbers(weights, averaged=not self.cached)


class _Numbers:
    """Weights compared by value: changes through ``.data`` leave no other trace.

    Args:
        weights: Any tensors.
        averaged: They may be an average of equal weights, which equals them but for rounding.
    """

    def __init__(self, weights: list[Tensor], *, averaged: bool = False) -> None:
        self.averaged = averaged
        with th.no_grad():
            self.numbers = th.cat([weight.flatten().float() for weight in weights])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Numbers) or self.numbers.device != other.numbers.device:
            return False
        if self.averaged:
            return th.allclose(self.numbers, other.numbers, rtol=1e-6, atol=1e-9)
        return th.equal(self.numbers, other.numbers)


class _Cache:
    """Cache of the vectors of bars requested so far, for one state of the weights.

    Lanes walk from bar to bar, and a few windows at a time cost several times what many do. So
    wherever bars are missing again at the same weights, the bars that follow them are encoded too,
    as files are read ahead: 1, 3, 7, ... each, as long as one chunk holds them.
    """

    def __init__(self) -> None:
        self._state: object = None

    def rows(
        self, t: Tensor, bars: int, state: object, encode: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return vectors (batch, N, channels); only those not stored yet are encoded."""
        if state != self._state:
            self._state, self._used, self._ahead = state, 0, 0
            self._slot = th.full((bars,), -1, device=t.device)
            self._stored = th.empty(0, device=t.device)
        missing = th.unique(t[self._slot[t] < 0])
        if len(missing):
            ahead = min(self._ahead, _CHUNK // len(missing) - 1)
            self._ahead = 2 * self._ahead + 1
            if ahead > 0:
                further = missing[:, None] + th.arange(ahead + 1, device=t.device)
                near = th.unique(further.clamp(max=bars - 1))
                missing = near[self._slot[near] < 0]
            self._store(missing, encode)
        return self._stored[self._slot[t]]

    def _store(self, t: Tensor, encode: Callable[[Tensor], Tensor]) -> None:
        fresh = encode(t)
        end = self._used + len(t)
        if end > len(self._stored):
            grown = fresh.new_empty(2 * end, *fresh.shape[1:])
            if self._used:
                grown[: self._used] = self._stored[: self._used]
            self._stored = grown
        self._stored[self._used : end] = fresh
        self._slot[t] = th.arange(self._used, end, device=t.device)
        self._used = end


def _lanes(t: Tensor) -> Tensor:
    return th.arange(len(t), device=t.device)[:, None]
