"""`FeaturePipeline`: panel in, market out; scalers fitted on past rows only."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.features.base import Feature
from portfolio_env.features.technical import TECHNICAL
from portfolio_env.files import replacing
from portfolio_env.market import FEATURE_BOUND, Market
from portfolio_env.names import unknown
from portfolio_env.panel import FloatArray, PricePanel

_LOGGER = logging.getLogger(__name__)

FEATURES = {feature.name: feature for feature in TECHNICAL}
PRESETS = {"minimal": ("return_1", "volatility_10", "momentum_5", "volume_change", "sma_ratio_20")}


@dataclass(frozen=True, eq=False)
class Scaler:
    """x -> (x - center) / scale, per feature, or per asset and feature.

    Attributes:
        names: the F features.
        center: (1, F) or (N, F) medians.
        scale: (1, F) or (N, F) interquartile ranges; 1 where that is 0.
        assets: the N assets of the rows, or () for one pooled row.
    """

    names: tuple[str, ...]
    center: FloatArray
    scale: FloatArray
    assets: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls, values: FloatArray, names: tuple[str, ...], assets: tuple[str, ...] = ()
    ) -> Scaler:
        """Fit on values (T, N, F), ignoring NaN; an asset without any takes the pooled numbers."""
        pooled = _quartiles(values.reshape(1, -1, len(names)))
        if assets:
            own = _quartiles(values.transpose(1, 0, 2))
            pooled = np.where(np.isnan(own), pooled, own)
        low, median, high = pooled
        if np.isnan(median).any():
            unseen = [n for n, bad in zip(names, np.isnan(median).any(0), strict=True) if bad]
            raise DataError(f"no value of {unseen} before fit_end: fit on more rows")
        return cls(names, median, np.where(high > low, high - low, 1.0), assets)

    def __call__(self, values: FloatArray) -> FloatArray:
        """Scale values (T, N, F)."""
        return (values - self.center) / self.scale


@cache
def _say_once(message: str) -> None:
    """Log what a user must know, not what a program does each time it loads a market."""
    _LOGGER.warning(message)


def _quartiles(values: FloatArray) -> FloatArray:
    """(G, K, F) -> (3, G, F) quartiles over K, ignoring NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # groups without any value stay NaN
        return np.asarray(np.nanquantile(values, (0.25, 0.5, 0.75), axis=1))


class FeaturePipeline:
    """Computes, scales and clips features; fitted on the rows before a given one only.

    Unfitted, it leaves the features unscaled. Either way they are clipped to +-bound, and are 0
    where an asset cannot be traded or a feature is not known yet.

    Args:
        features: a preset or a sequence of feature names. The preset "minimal" is what a first
            experiment needs: the exogenous channels of the panel where it has any, else the return,
            the volatility over 10 bars, the momentum over 5, the log change of volume, and close
            over its 20-bar mean. Features that need bar fields the panel lacks are left out; the
            log and the provenance of the market say so.
        scaling: "pooled" (one median and interquartile range per feature) or "asset" (one per asset
            and feature).
        bound: the bound of |features|.

    Raises:
        ArgumentError: for unknown names.
    """

    def __init__(
        self,
        features: str | Sequence[str] = "minimal",
        *,
        scaling: str = "pooled",
        bound: float = FEATURE_BOUND,
    ) -> None:
        if isinstance(features, str) and features not in PRESETS:
            raise unknown("feature preset", features, PRESETS)
        if scaling not in ("pooled", "asset"):
            raise unknown("scaling", scaling, ("pooled", "asset"))
        if not 0 < bound < np.inf:
            raise ArgumentError(f"bound is {bound}: it must be positive and finite")
        self.features = features if isinstance(features, str) else tuple(features)
        self.scaling = scaling
        self.bound = bound
        self.scaler: Scaler | None = None

    def fit(self, market: Market | PricePanel, fit_end: int) -> FeaturePipeline:
        """Fit the scaler on the rows before ``fit_end``, and return this pipeline.

        Args:
            market: the panel, or a market whose panel is meant.
            fit_end: the first row not seen, in (0, T].
        """
        panel = market.panel if isinstance(market, Market) else market
        if not 0 < fit_end <= len(panel.timestamps):
            raise ArgumentError(
                f"fit_end is row {fit_end}: give one in [1, {len(panel.timestamps)}]"
            )
        panel = panel.subset(slice(0, fit_end))
        chosen, _ = self._choose(panel)
        values = _compute(panel, chosen)
        self.scaler = Scaler.fit(
            np.where(panel.tradable[..., None], values, np.nan),
            tuple(feature.name for feature in chosen),
            panel.assets if self.scaling == "asset" else (),
        )
        return self

    def transform(self, market: Market | PricePanel) -> Market:
        """The market of a panel, with features."""
        panel = market.panel if isinstance(market, Market) else market
        chosen, left_out = self._choose(panel)
        names = tuple(feature.name for feature in chosen)
        values = _compute(panel, chosen)
        if self.scaler is not None:
            if (self.scaler.names, self.scaler.assets or panel.assets) != (names, panel.assets):
                raise DataError(
                    f"the pipeline was fitted on features {self.scaler.names} of assets "
                    f"{self.scaler.assets or 'any'}, here are {names} of {panel.assets}: fit anew"
                )
            values = self.scaler(values)
        clipped = np.clip(values, -self.bound, self.bound).astype(np.float32)
        known = panel.tradable[..., None] & ~np.isnan(clipped)
        if left_out:
            _say_once("left out, for want of the data they need: " + "; ".join(left_out))
        provenance = {**panel.provenance, "features": self.to_dict(), "left_out": left_out}
        return Market(
            panel=replace(panel, provenance=provenance),
            features=np.where(known, clipped, np.float32(0)),
            feature_names=names,
            warmup=min(len(panel.timestamps), max(feature.lookback for feature in chosen)),
            feature_bound=self.bound,
        )

    def _choose(self, panel: PricePanel) -> tuple[list[Feature], list[str]]:
        """The features this panel allows, and a line on each one left out."""
        names = self.features
        if isinstance(names, str):
            names = tuple(panel.exogenous) or PRESETS[names]
        own = {name: Feature(name, partial(_exogenous, name=name)) for name in panel.exogenous}
        known = FEATURES | own
        chosen, left_out = [], []
        for name in names:
            if name not in known:
                raise unknown("feature", name, known)
            lacking = [need for need in known[name].needs if getattr(panel, need) is None]
            if lacking:
                left_out.append(f"{name} (needs {', '.join(lacking)})")
            else:
                chosen.append(known[name])
        if not chosen:
            raise DataError(f"no feature is left: {'; '.join(left_out) or 'none was asked for'}")
        return chosen, left_out

    def to_dict(self) -> dict[str, Any]:
        """The pipeline as JSON-able data."""
        plain: dict[str, Any] = {
            "features": self.features,
            "scaling": self.scaling,
            "bound": self.bound,
        }
        if self.scaler is not None:
            plain["scaler"] = {
                "names": self.scaler.names,
                "assets": self.scaler.assets,
                "center": self.scaler.center.tolist(),
                "scale": self.scaler.scale.tolist(),
            }
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> FeaturePipeline:
        """The inverse of `to_dict`."""
        pipeline = cls(plain["features"], scaling=plain["scaling"], bound=plain["bound"])
        if "scaler" in plain:
            stored = plain["scaler"]
            pipeline.scaler = Scaler(
                tuple(stored["names"]),
                np.array(stored["center"]),
                np.array(stored["scale"]),
                tuple(stored["assets"]),
            )
        return pipeline

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pipeline as JSON; numbers survive to the last bit."""
        with replacing(Path(path)) as beside:
            beside.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeaturePipeline:
        """Read a pipeline that `save` wrote.

        Raises:
            DataError: if the file is missing or no such pipeline.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no saved pipeline ({error}): write one with FeaturePipeline.save"
            ) from error


def _exogenous(panel: PricePanel, name: str) -> FloatArray:
    return panel.exogenous[name]


def _compute(panel: PricePanel, features: Sequence[Feature]) -> FloatArray:
    """(T, N, F) float64, NaN where unknown."""
    values: npt.NDArray[np.float64] = np.stack([f.compute(panel) for f in features], axis=-1)
    return values
