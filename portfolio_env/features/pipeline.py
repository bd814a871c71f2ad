"""``FeaturePipeline``: panel in, market out; scalers fitted on past rows only."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.features import plugins
from portfolio_env.features.bars import Bars
from portfolio_env.features.causality import check_once
from portfolio_env.features.presets import KNOWN, FeatureName, select, separate
from portfolio_env.features.registry import ALL, Feature
from portfolio_env.features.scalers import SCALERS, Scaler
from portfolio_env.features.tails import Tails
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.html import card
from portfolio_env.market.market import FEATURE_BOUND, Market, vocabularies_of
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.market.timeline import TimeLike, row_of
from portfolio_env.names import unknown

_LOGGER = logging.getLogger(__name__)
_AT_ONCE = 8  # features that are written side by side: one by one, each write misses the cache


@cache
def _say_once(message: str, level: int = logging.WARNING) -> None:
    """Log a message once per process, not each time a market is loaded."""
    _LOGGER.log(level, message)


class FeaturePipeline:
    """Computes, scales and clips features; fitted on past rows only.

    Unfitted, it leaves the features unscaled. Either way they are clipped to +-bound, and are 0
    where an asset cannot be traded or a feature is not known yet. Ranks, flags and angles are
    bounded by nature and stay as they are.

    Args:
        features: Names of presets, groups and features (see ``describe``), one or several; the
            default "minimal" is what a first experiment needs: the return, the volatility over 10
            bars, the momentum over 5, the log change of volume, close over its 20-bar mean, and the
            exogenous channels of the panel; "none" or [] is no feature at all. Features that need
            bar fields the panel lacks are left out; the log and the provenance of the market say
            so. ``"module:name_20"`` is an ``@indicator`` of your own at a window, which may also be
            given as the function itself, as may any ``(bars) -> (T, N)``. The first time that one
            of these is used, later bars are changed, to see that it does not know them.
        scaler: "robust" (median and interquartile range), "standard" (mean and standard deviation)
            or "rank" (distribution function of the fitted rows).
        scaling: "pooled" (one scaler per feature) or "asset" (one per asset and feature).
        bound: The bound of ``|features|``.
        reference: The asset that stands for the market in cross-asset features, e.g. "BTCUSDT";
            None takes the equally weighted mean.

    Raises:
        ArgumentError: For unknown names, and for features of your own that fail or know the future.
    """

    def __init__(
        self,
        features: str | Sequence[FeatureName] = "minimal",
        *,
        scaler: str = "robust",
        scaling: str = "pooled",
        bound: float = FEATURE_BOUND,
        reference: str | None = None,
    ) -> None:
        if scaler not in SCALERS:
            raise unknown("scaler", scaler, SCALERS)
        if scaling not in ("pooled", "asset"):
            raise unknown("scaling", scaling, ("pooled", "asset"))
        check_number("bound", bound, above=0)
        self.features = features if isinstance(features, str) else tuple(separate(features))
        self.scaler = scaler
        self.scaling = scaling
        self.bound = bound
        self.reference = reference
        self.names: tuple[str, ...] | None = None
        """The F features it was fitted on; None if it is not fitted."""
        self.assets: tuple[str, ...] = ()
        """The assets it was fitted on, where scaling is by asset."""
        self.scalers: dict[str, Scaler] = {}
        """A scaler for every fitted feature that is scaled."""
        self.vocabularies: dict[str, tuple[str, ...]] | None = None
        """The labels of every category that were there when it was fitted."""

    def __repr__(self) -> str:
        names = ("scaler", "scaling", "bound", "reference")
        options = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        asked = [str(getattr(each, "__name__", each)) for each in separate(self.features)]
        state = "not fitted" if self.names is None else f"fitted on {len(self.names)} features"
        return f"FeaturePipeline({', '.join(asked):.60}, {options}; {state})"

    def _repr_html_(self) -> str | None:
        names = ("scaler", "scaling", "bound", "reference")
        asked = [str(getattr(each, "__name__", each)) for each in separate(self.features)]
        fitted = "not fitted" if self.names is None else ", ".join(self.names)
        facts = {"features": ", ".join(asked), **{name: getattr(self, name) for name in names}}
        return card("FeaturePipeline", facts | {"fitted": fitted})

    def fit(self, market: Market | PricePanel, rows: int | slice) -> FeaturePipeline:
        """Fit the scalers, and return this pipeline.

        Args:
            market: The panel, or a market whose panel is meant.
            rows: The rows to fit on, those before a row in (0, T] or a slice of step 1. Features
                are computed as if nothing came after them.
        """
        panel = market.panel if isinstance(market, Market) else market
        first, end = _range(rows, len(panel.timestamps))
        panel = panel.subset(slice(0, end))
        chosen, _ = self._choose(panel)
        bars = Bars(panel, self.reference)
        scalers = {}
        for feature in chosen:
            if feature.scaled:
                values = np.where(panel.tradable, _values(feature, bars), np.nan)[first:]
                scalers[feature.name] = Scaler.fit(self.scaler, values, self.scaling == "asset")
        unseen = [name for name, one in scalers.items() if np.isnan(one.numbers).any()]
        if unseen:
            raise DataError(
                f"no value of {unseen} in the rows {first} to {end} that scalers are fitted on: "
                "fit on more rows (a later fit_end), or leave these features out"
            )
        self.scalers = scalers
        self.names = tuple(feature.name for feature in chosen)
        self.assets = panel.assets if self.scaling == "asset" else ()
        self.vocabularies = vocabularies_of(panel)
        return self

    def transform(self, market: Market | PricePanel) -> Market:
        """Return the market of a panel, with features."""
        panel = market.panel if isinstance(market, Market) else market
        chosen, left_out = self._choose(panel)
        if left_out:
            # nobody asked for those of the default, and the market's page lists them
            quiet = list(separate(self.features)) == ["minimal"]
            level = logging.DEBUG if quiet else logging.INFO
            _say_once("features without inputs are skipped: " + "; ".join(left_out), level)
        bars = Bars(panel, self.reference)
        provenance = {**panel.provenance, "features": self._described(), "left_out": left_out}
        return Market(
            panel=panel.with_provenance(provenance),
            features=self._observed(chosen, lambda _: bars, panel.tradable),
            feature_names=tuple(feature.name for feature in chosen),
            warmup=min(len(panel.timestamps), _lookback(chosen)),
            feature_bound=self.bound,
            vocabularies=self.vocabularies,
        )

    def update(self, market: Market, new_bars: PricePanel, keep: int | None = None) -> Market:
        """Return the market with further bars; only their features are computed.

        They are those of a transformation of all bars, to the bit where a feature has a window, and
        to 1e-15 before they are stored as float32 where it is recursive. Each feature reads as much
        of the past as it remembers, a few rows to a few thousand, however long the market is.

        Args:
            market: Market of this pipeline.
            new_bars: (K, N) later bars of the same assets, fields and exogenous channels.
            keep: Drop the first rows of the market, so that it has this many: a ring of the newest
                bars. All new ones stay, and more where a feature remembers more, for every asset
                with a bar among them; all of them, if one depends on every bar. None keeps all.

        Raises:
            DataError: If the bars do not continue the market, or it has other features.
        """
        if keep is not None:
            check_integer("keep", keep)
        panel = market.panel.extended(new_bars)
        chosen, _ = self._choose(panel)
        if tuple(feature.name for feature in chosen) != market.feature_names:
            raise DataError(
                f"the market has the features {market.feature_names}, this pipeline makes "
                f"{tuple(feature.name for feature in chosen)}: update it with the pipeline that "
                "made it"
            )
        newest = Tails(panel, market.n_bars)
        firsts: dict[int, int] = {}
        tails: dict[int, Bars] = {}

        def tail(feature: Feature) -> Bars:
            memory = market.n_bars if feature.memory == ALL else _ample(feature.memory)
            if memory not in firsts:
                firsts[memory] = newest.first_row(memory)
            first = firsts[memory]
            if first not in tails:
                rows = slice(first, len(panel.timestamps))
                tails[first] = Bars(panel.subset(rows), self.reference)
            return tails[first]

        fresh = self._observed(chosen, tail, panel.tradable[market.n_bars :])
        lookback = _lookback(chosen)
        if keep is None or keep >= len(panel.timestamps):
            return market.extended(panel, fresh, lookback)
        memories = [market.n_bars if each.memory == ALL else _ample(each.memory) for each in chosen]
        longest = max(memories, default=0)
        recent = np.logical_or.reduce(np.isfinite(panel.close[-max(keep, longest) :]))
        needed = Tails(panel, len(panel.timestamps)).first_row(longest, recent)
        drop = min(needed, len(panel.timestamps) - keep, market.n_bars)
        return market.extended(panel.without(drop), fresh, lookback)

    def _choose(self, panel: PricePanel) -> tuple[list[Feature], list[str]]:
        """Return the features this panel allows, and a line on each one left out."""
        chosen, left_out = [], []
        for feature in select(self.features, panel):
            lacking = [name for name in feature.inputs if getattr(panel, name) is None]
            if lacking:
                left_out.append(f"{feature.name} (needs {', '.join(lacking)})")
            else:
                chosen.append(feature)
        if left_out and not chosen:
            raise DataError(f"no feature is left: {'; '.join(left_out)}")
        names = tuple(feature.name for feature in chosen)
        if self.names is not None and self.names != names:
            lost = [name for name in self.names if name not in names]
            fresh = [name for name in names if name not in self.names]
            raise DataError(
                f"the features were fitted as {', '.join(self.names)}; these data lack "
                f"{', '.join(left_out or lost) or 'none'} and add {', '.join(fresh) or 'none'}. "
                "Give data that have the same, or fit (train) again."
            )
        if self.assets and self.assets != panel.assets:
            others = sorted(set(self.assets) ^ set(panel.assets))
            differ = f"differ in {', '.join(others[:5])}" if others else "have another order"
            raise DataError(
                f"every asset has a scaler of its own, of {len(self.assets)} assets; these data "
                f"are of {len(panel.assets)}, which {differ}. Give the same assets in the same "
                "order, or fit (train) again."
            )
        scaled = {feature.name for feature in chosen if feature.scaled}
        if self.names is not None and self.scalers.keys() != scaled:
            odd = ", ".join(sorted(self.scalers.keys() ^ scaled))
            raise DataError(
                f"the pipeline lacks scalers, or has those of features without: {odd}; fit it again"
            )
        for feature in chosen:
            if feature.function is not None:
                check_once(feature, panel, self.reference)
        return chosen, left_out

    def _observed(
        self,
        chosen: Sequence[Feature],
        bars_of: Callable[[Feature], Bars],
        tradable: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """Return features as they are observed in the last K rows, (K, N, F).

        A few features after the other, so that little more than the result is in memory, and
        written together, as neighbours in it.

        Args:
            chosen: The F features.
            bars_of: The bars to compute each from, which end with the last row.
            tradable: (K, N).
        """
        observed = np.zeros((*tradable.shape, len(chosen)), np.float32)
        count = np.zeros(tradable.shape)
        rows = np.empty((_AT_ONCE, *tradable.shape), np.float32)
        for first in range(0, len(chosen), _AT_ONCE):
            some = chosen[first : first + _AT_ONCE]
            for row, feature in zip(rows, some, strict=False):
                bars = bars_of(feature)
                whole = len(bars.close) == len(tradable)
                values = _values(feature, bars, whole=whole)[-len(tradable) :]
                if feature.name in self.scalers:
                    values = self.scalers[feature.name](values)
                seen = tradable & np.isfinite(values)
                count += seen
                row[:] = np.clip(np.where(seen, values, 0.0), -self.bound, self.bound)
            observed[:, :, first : first + len(some)] = np.moveaxis(rows[: len(some)], 0, -1)
        for f, feature in enumerate(chosen):
            if feature.name == KNOWN:
                others = max(1, len(chosen) - 1)
                observed[:, :, f] = np.where(tradable, (count - tradable) / others, 0.0)
        observed.setflags(write=False)  # so that the market need not copy it
        return observed

    def to_dict(self) -> dict[str, Any]:
        """Return the pipeline as JSON, with names and sources of user-defined features.

        Raises:
            ArgumentError: If one of them has no name by which it is found again.
        """
        own: list[FeatureName] = [each for each in separate(self.features) if callable(each)]
        plain = self._plain(plugins.plain_names(separate(self.features)) if own else self.features)
        if found := plugins.sources(separate(plain["features"])):
            plain["sources"] = found
        return plain

    def _described(self) -> dict[str, Any]:
        """Return ``to_dict``, or the nearest to it where a feature has no name."""
        try:
            return self.to_dict()
        except ArgumentError as error:
            labels = [str(getattr(f, "__name__", f)) for f in separate(self.features)]
            return self._plain(labels) | {"unnamed": str(error)}

    def _plain(self, features: str | Sequence[FeatureName]) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "features": features,
            **{name: getattr(self, name) for name in ("scaler", "scaling", "bound", "reference")},
        }
        if self.names is not None:
            plain["fitted"] = {
                "names": self.names,
                "assets": self.assets,
                "scalers": {name: one.to_dict() for name, one in self.scalers.items()},
                "vocabularies": self.vocabularies,
            }
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> FeaturePipeline:
        """Invert ``to_dict``; plug-ins are imported when they are used.

        Raises:
            ArgumentError: If it describes a pipeline with a feature that has no name.
        """
        options = dict(plain)
        if "unnamed" in options:
            raise ArgumentError(str(options["unnamed"]))
        options.pop("sources", None)
        fitted = options.pop("fitted", None)
        pipeline = cls(options.pop("features"), **options)
        if fitted is not None:
            pipeline.names = tuple(fitted["names"])
            pipeline.assets = tuple(fitted["assets"])
            pipeline.scalers = {
                name: Scaler.from_dict(stored) for name, stored in fitted["scalers"].items()
            }
            rows = {1, len(pipeline.assets)}
            for name, scaler in pipeline.scalers.items():
                if scaler.kind != pipeline.scaler or len(scaler.numbers) not in rows:
                    raise ArgumentError(
                        f"the {scaler.kind} scaler of {name} for {len(scaler.numbers)} assets is "
                        f"none of this pipeline: it has {pipeline.scaler} scalers for "
                        f"{len(pipeline.assets) or 'all'} assets; fit it again."
                    )
            pipeline.vocabularies = {
                name: tuple(labels) for name, labels in fitted["vocabularies"].items()
            }
        return pipeline

    @classmethod
    def of(cls, market: Market) -> FeaturePipeline:
        """Return the pipeline that made a market, as its provenance describes it.

        Raises:
            ArgumentError: If it is not described, or has features of your own: a market may come
                from a file, which is to name no code.
        """
        plain = market.panel.provenance.get("features")
        if plain is None and not market.n_features:
            return cls("none")
        try:
            if plain is not None and not plugins.sources(separate(plain["features"])):
                return cls.from_dict(plain)
        except (ArgumentError, LookupError, TypeError, ValueError, AttributeError):
            pass
        raise ArgumentError(
            "the market does not say how its features are made, or with features of your own: give "
            "the FeaturePipeline that made it, as pipeline=..."
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pipeline as JSON; numbers survive to the last bit.

        Raises:
            ArgumentError: See ``to_dict``.
        """
        write_json(os.fspath(path), self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeaturePipeline:
        """Read a pipeline that ``save`` wrote; warn of user-defined features changed since.

        A module of your own may lie beside the file if your program has imported it before.

        Raises:
            DataError: If the file is missing or no such pipeline, or names code of which it has no
                record, or that lies beside it.
            ArgumentError: If a feature that it names has no source.
        """
        try:
            plain = read_json(os.fspath(path))
            names = separate(plain["features"])
            if not all(isinstance(name, str) for name in names):
                raise TypeError("features are not a list of names")
            plugins.admit(names, plain.get("sources", {}), Path(path))
            return cls.from_dict(plain)
        except PortfolioError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is not a saved pipeline ({error}): write one with FeaturePipeline.save"
            ) from error


def build_market(
    panel: PricePanel,
    *,
    features: str | Sequence[FeatureName] | FeaturePipeline = "minimal",
    fit_end: TimeLike | None = None,
) -> Market:
    """Return the market of a panel, with features.

    Args:
        panel: The bars.
        features: A preset ("minimal"), names of features, or a pipeline, fitted or not.
        fit_end: The pipeline is fitted on the rows before this row or date; None leaves it as it
            is, which means unscaled features if it is not fitted.
    """
    pipeline = features if isinstance(features, FeaturePipeline) else FeaturePipeline(features)
    if fit_end is not None:
        pipeline.fit(panel, row_of(panel.timestamps, fit_end, end=True))
    return pipeline.transform(panel)


def _range(rows: int | slice, bars: int) -> tuple[int, int]:
    """Return first and last + 1 of the rows to fit on."""
    if isinstance(rows, slice):
        first, end, step = rows.indices(bars)
    else:
        first, end, step = 0, int(rows), 1
    if not 0 <= first < end <= bars or step != 1:
        raise ArgumentError(
            f"rows to fit on are {rows}: give their end in [1, {bars}], or a slice of step 1"
        )
    return first, end


def _lookback(features: Sequence[Feature]) -> int:
    """Return the rows before the first one of which all features can be known."""
    return max((each.lookback for each in features), default=0)


def _ample(memory: int) -> int:
    """Return a quarter more than the memory, up to a power of 2, so that features share their bars.

    What gives a value to 1e-12 then gives it to 1e-15, which float32 does not see.
    """
    return max(64, 1 << (memory * 5 // 4).bit_length())


def _values(feature: Feature, bars: Bars, *, whole: bool = False) -> FloatArray:
    """Return (T, N) float64, NaN where unknown.

    Args:
        feature: The feature.
        bars: The bars.
        whole: They are all of a market; what is odd about an own feature there is said.
    """
    values = np.broadcast_to(feature.compute(bars), bars.close.shape)
    if feature.function is None:
        return values
    known = np.isfinite(values)
    if whole and known.size:
        _check_known(feature, bars.panel, values)
    return np.where(known, values, np.nan)


def _check_known(feature: Feature, panel: PricePanel, values: FloatArray) -> None:
    """Refuse an own feature that is known nowhere; say where one is infinite.

    Raises:
        ArgumentError: If it has no finite value where an asset can be traded.
    """
    infinite = np.isinf(values) & panel.tradable
    count, seen = int(infinite.sum()), int(panel.tradable.sum())
    size = f"must be a number within -{plugins.FAR:g} to {plugins.FAR:g}, NaN where unknown"
    if seen and not (np.isfinite(values) & panel.tradable).any():
        raise ArgumentError(
            f"feature {feature.name!r} has no known value in {len(values):,} bars: of {seen:,} "
            f"values {count:,} are infinite, the others NaN. It {size}: look for a division by 0, "
            "an overflow or a window longer than the data, or leave the feature out"
        )
    if count:
        row, column = np.argwhere(infinite)[0]
        _say_once(
            f"feature {feature.name!r} is infinite in {count:,} of {seen:,} values, first of "
            f"{panel.assets[column]} at {str(panel.timestamps[row])[:16]}: they count as unknown. "
            f"It {size}"
        )
