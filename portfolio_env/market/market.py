"""``Market``: price bars, features and a mask, in memory.

Panels and markets are immutable: every array is read-only, so one market can be shared by all
environments, agents and baselines of a process, and copies are the object itself.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from portfolio_env.checks import check_integer
from portfolio_env.errors import DataError
from portfolio_env.html import card
from portfolio_env.market import overview
from portfolio_env.market.fingerprints import fingerprint_of
from portfolio_env.market.growing import Room
from portfolio_env.market.market_file import hash_of, read_fields, write_market
from portfolio_env.market.panel import FloatArray, Immutable, PricePanel, frozen
from portfolio_env.market.samples import Kind, Range, separated, targets_of, windows_of
from portfolio_env.market.timeline import TimeLike, Timestamps, row_of, split_rows
from portfolio_env.names import indices_of, unknown

FEATURE_BOUND = 10.0
# Constructor of markets from panels and frames: ``data.load`` sets ``load_market``, which computes
# features and so stands above this module.
_loaders: list[Callable[..., Market]] = []


def vocabularies_of(panel: PricePanel) -> dict[str, tuple[str, ...]]:
    """Return the labels of every category of a panel, sorted."""
    return {name: tuple(sorted({*labels} - {""})) for name, labels in panel.categories.items()}


def _within(values: npt.NDArray[np.float32], bound: float) -> bool:
    """Return whether all values are finite and within +-bound, without a copy of them."""
    return not values.size or bool(-values.min() <= np.float32(bound) >= values.max())


@dataclass(frozen=True, eq=False, repr=False)
class Market(Immutable):
    """Price panel together with the features an agent observes.

    Attributes:
        panel: The bars.
        features: (T, N, F) float32, finite, within +-feature_bound; row t is known at the close of
            bar t. 0 where the asset cannot be traded or the feature is not known yet.
        feature_names: F names.
        warmup: Rows before this one lack the history some feature needs.
        feature_bound: Bound of ``|features|``.
        vocabularies: The labels of every category in the order of their codes; sorted from the
            panel when not given.
    """

    panel: PricePanel
    features: npt.NDArray[np.float32]
    feature_names: tuple[str, ...]
    warmup: int = 0
    feature_bound: float = FEATURE_BOUND
    vocabularies: Mapping[str, tuple[str, ...]] | None = None

    def __post_init__(self) -> None:
        """Freeze and check the features."""
        put = object.__setattr__
        put(self, "features", frozen(self.features, np.float32))
        put(self, "feature_names", tuple(self.feature_names))
        given = vocabularies_of(self.panel) if self.vocabularies is None else self.vocabularies
        put(self, "vocabularies", {name: tuple(labels) for name, labels in given.items()})
        expected = (*self.panel.close.shape, len(self.feature_names))
        if self.features.shape != expected:
            raise DataError(f"features have shape {self.features.shape}: expected {expected}")
        self._check_features(self.features, self.panel.tradable)
        check_integer("warmup", self.warmup, 0)

    def _check_features(
        self, features: npt.NDArray[np.float32], tradable: npt.NDArray[np.bool_]
    ) -> None:
        """Refuse rows of features that are out of bounds, or known of what cannot be traded."""
        if not _within(features, self.feature_bound):
            raise DataError(f"features must be finite and within +-{self.feature_bound}: clip them")
        if features[~tradable].any():
            raise DataError("features of bars that cannot be traded must be 0: set them to 0")

    @classmethod
    def from_panel(cls, panel: PricePanel, **options: Any) -> Market:
        """Return the market of a panel, as ``load_market`` does with the same options."""
        return _loaders[-1](panel, **options)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, **options: Any) -> Market:
        """Return the market of a long frame, as ``load_market`` does with the same options.

        Args:
            frame: Columns date, symbol, close and, where known, open, high, low and volume.
            **options: As for ``load_market``.
        """
        return _loaders[-1](frame, **options)

    @classmethod
    def from_prices(cls, close: pd.DataFrame, **options: Any) -> Market:
        """Return the market of closing prices alone, as ``load_market`` does with the same options.

        Args:
            close: Index dates, one column per asset, NaN where there is no bar.
            **options: As for ``load_market``.
        """
        return _loaders[-1](close, **options)

    def __repr__(self) -> str:
        stated = not math.isnan(self.panel.stated_periods_per_year)
        year = f"{self.bars_per_year():.6g} bars per year, {'stated' if stated else 'counted'}"
        return f"Market({self._summary()}; {year})"

    def _repr_html_(self) -> str | None:
        shown = ", ".join(self.feature_names[:12]) + (", ..." if self.n_features > 12 else "")
        more = {
            "features": f"{self.n_features}: {shown}" if shown else "none",
            "warm-up": f"{self.warmup} bars",
        }
        return card("Market", overview.facts(self.panel) | more, overview.by_asset(self.panel))

    def _summary(self) -> str:
        """Return the market in a few words."""
        return f"{overview.summary(self.panel)}; {self.n_features} features"

    @property
    def timestamps(self) -> Timestamps:
        """Timestamps, (T,) datetime64[ns]."""
        return self.panel.timestamps

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the N assets."""
        return self.panel.assets

    @property
    def open(self) -> FloatArray | None:
        """Opening prices (T, N), or None."""
        return self.panel.open

    @property
    def high(self) -> FloatArray | None:
        """Highest prices (T, N), or None."""
        return self.panel.high

    @property
    def low(self) -> FloatArray | None:
        """Lowest prices (T, N), or None."""
        return self.panel.low

    @property
    def close(self) -> FloatArray:
        """Closing prices (T, N); NaN where there is no bar."""
        return self.panel.close

    @property
    def volume(self) -> FloatArray | None:
        """Units traded (T, N), or None."""
        return self.panel.volume

    @property
    def tradable(self) -> npt.NDArray[np.bool_]:
        """Flags (T, N): whether each asset trades in each bar."""
        return self.panel.tradable

    @property
    def periods_per_year(self) -> float:
        """Bars per year: what was stated, else those of the calendar (365, 252, 8760, ...)."""
        stated = self.panel.stated_periods_per_year
        return self.panel.periods_per_year if math.isnan(stated) else stated

    def bars_per_year(self, start: int = 0, end: int | None = None) -> float:
        """Return the bars per year of the rows from ``start`` to before ``end``.

        Yearly figures follow from it.

        What was stated, else the steps there over the years of 365.25 days that they take.
        """
        return self.panel.bars_per_year(start, end)

    @property
    def n_bars(self) -> int:
        """Number of bars, T."""
        return len(self.panel.timestamps)

    @property
    def n_assets(self) -> int:
        """Number of assets, N."""
        return len(self.panel.assets)

    @property
    def n_features(self) -> int:
        """Number of features per asset, F."""
        return len(self.feature_names)

    @cached_property
    def category_codes(self) -> npt.NDArray[np.int64]:
        """Codes (N, K) of the K categories for embeddings.

        Code k + 1 is label k of the category's vocabulary; 0 is a label that is unknown or was not
        in the vocabulary when the pipeline was fitted. An embedding needs len(vocabulary) + 1 rows.
        """
        columns = []
        for name, labels in (self.vocabularies or {}).items():
            code = {label: k + 1 for k, label in enumerate(labels)}
            own = self.panel.categories.get(name, ("",) * self.n_assets)
            columns.append([code.get(label, 0) for label in own])
        return np.array(columns, np.int64).reshape(len(columns), self.n_assets).T

    @cached_property
    def hash(self) -> str:
        """SHA-256 over all data (not over the provenance, which may name paths), hexadecimal."""
        return hash_of(self)

    @cached_property
    def digest(self) -> str:
        """Identity of the market among those of this process: ``hash``, where it was made at once.

        Of a market that was ``extended`` it is made from the one before and the new bars, at the
        same cost however long it is.
        """
        return self.hash

    @cached_property
    def fingerprint(self) -> int:
        """A number in [0, 2**24) made from ``digest``, which index observations carry."""
        return fingerprint_of(self.digest, self._summary())

    @property
    def continues(self) -> int | None:
        """Fingerprint of the market that was ``extended`` to this one; None if none was."""
        return self.__dict__.get("_continues")

    def row(self, when: TimeLike) -> int:
        """Return the row of a moment: a row number, or the first row at or after a date."""
        return row_of(self.timestamps, when)

    def status(self, asset: str, when: TimeLike) -> str:
        """Return a sentence on whether an asset can be traded at a bar, and why not.

        >>> days = pd.date_range("2024-01-02", periods=3)
        >>> prices = pd.DataFrame({"A": [1.0, 2, 3], "B": [np.nan, 1, 1]}, days)
        >>> print(Market.from_prices(prices, features="none").status("B", "2024-01-02"))
        B cannot be traded at 2024-01-02 (bar 0): it is not listed yet; its first bar is 2024-01-03.
        """
        return self.panel.status(asset, when)

    def to_frame(self, column: str | None = None) -> pd.DataFrame:
        """Return bars and features as a long frame, whose bars ``load_market`` reads.

        Args:
            column: One of its columns, as a wide frame: a row per bar, a column per asset. A field
                of bars is NaN where there is no bar.

        Returns:
            Columns date, symbol and the bar fields that are known, then tradable, then every
            feature (one called close, say, is "feature close"); one row per bar, by date and
            symbol.

        Raises:
            ArgumentError: If there is no such column.
        """
        bars = self.panel.fields
        names = [f"feature {n}" if n in bars else n for n in self.feature_names]
        if column is not None and column not in bars:
            wide: dict[str, npt.NDArray[Any]] = {"tradable": self.tradable}
            wide |= {name: self.features[:, :, k] for k, name in enumerate(names)}
            if column not in wide:
                raise unknown("column", column, [*bars, *wide])
            index = pd.DatetimeIndex(self.timestamps, name="date")
            return pd.DataFrame(wide[column], index, list(self.assets))
        if column is not None:
            return self.panel.to_frame(column)
        rows, columns = np.nonzero(np.isfinite(self.close))
        frame = self.panel.to_frame().assign(tradable=self.tradable[rows, columns])
        features = pd.DataFrame(self.features[rows, columns], columns=names)
        return pd.concat([frame, features], axis=1)

    def past(self, t: int, *, copy: bool = False) -> Market:
        """Return the market as it was known at the close of bar ``t``: rows 0 to t, as views.

        With ``copy`` the arrays are copies, see ``PricePanel.past``.
        """
        features = self.features[: t + 1]
        return self._with(
            self.panel.past(t, copy=copy), features=features.copy() if copy else features
        )

    def select(self, assets: Sequence[str]) -> Market:
        """Return the market of the named assets, in that order, with the features kept here."""
        return self.subset(columns=indices_of("asset", assets, self.assets))

    def subset(self, rows: slice = slice(None), columns: Sequence[int] | None = None) -> Market:
        """Return the market of a range of rows (views) and some assets, in the given order."""
        features = self.features[rows]
        return replace(
            self,
            panel=self.panel.subset(rows, columns),
            features=features if columns is None else features[:, list(columns)],
            warmup=max(0, self.warmup - rows.indices(self.n_bars)[0]),
        )

    def extended(
        self, panel: PricePanel, features: npt.NDArray[np.float32], lookback: int = 0
    ) -> Market:
        """Return the market continued by a longer panel's bars (see ``FeaturePipeline.update``).

        What was checked is not checked again, so this takes the same time for any market.

        Args:
            panel: The panel of this market with K more bars, and maybe without its first ones.
            features: (K, N, F), their features.
            lookback: The warm-up that they need, for a market that has been shorter so far.
        """
        fresh = frozen(features, np.float32)
        dropped = self.n_bars + len(fresh) - len(panel.timestamps)
        expected = (len(fresh), self.n_assets, self.n_features)
        if fresh.shape != expected or dropped < 0:
            raise DataError(f"features have shape {fresh.shape}: expected {expected}")
        self._check_features(fresh, panel.tradable[len(panel.timestamps) - len(fresh) :])
        room = Room.of({"features": self.features}, len(fresh), self.__dict__.get("_room"))
        made, room = room.appended({"features": fresh}, len(panel.timestamps))
        warmup = self.warmup
        if warmup == self.n_bars:
            warmup = min(max(warmup, lookback), warmup + len(fresh))
        warmup = max(0, warmup - dropped)
        digest = hashlib.sha256(f"{self.digest} {len(panel.timestamps)} {warmup}".encode())
        for rows in (*panel.arrays().values(), made["features"]):
            digest.update(rows[len(rows) - len(fresh) :].tobytes())
        grown = {"_room": room, "_continues": self.fingerprint, "digest": digest.hexdigest()}
        return self._with(panel, warmup=warmup, **made, **grown)

    def _with(self, panel: PricePanel, **values: Any) -> Market:
        """Return the market with other rows, which were checked before."""
        market = object.__new__(type(self))
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        market.__dict__.update(own, panel=panel, **values)
        return market

    def split(
        self,
        train: float | TimeLike = 0.7,
        validation: float | TimeLike = 0.15,
        *,
        purge: int = 0,
        embargo: int = 0,
    ) -> tuple[Range, Range, Range]:
        """Return chronological ranges for training, validation and test.

        Args:
            train: The share of all bars, in (0, 1), or the moment at which training ends.
            validation: Likewise the share, or the moment at which validation ends.
            purge: Bars left out at the end of training and validation. With the horizon of the
                targets, or more, none of them needs a bar of the next range.
            embargo: Bars left out at the beginning of validation and test. With the bars of a
                window less one, no window reaches back into the range before.

        Returns:
            Three half-open ranges of rows, which cover the market but for these bars.

        Raises:
            ArgumentError: If a range would be empty.
        """
        ranges = split_rows(self.timestamps, train, validation)
        return separated(ranges, purge, embargo)

    def windows(self, bars: int) -> npt.NDArray[np.float32]:
        """Return the features of all windows of so many bars, as a view that cannot be written to.

        Window k holds rows k to k + bars - 1; the window that ends at row t is ``[t - bars + 1]``.
        No number is copied: a part of it becomes an array of its own when it is computed with.

        Args:
            bars: Bars of a window, from 1 to T.

        Returns:
            (T - bars + 1, bars, N, F) float32.

        >>> prices = pd.DataFrame({"A": [1.0, 2, 3]}, pd.date_range("2024-01-02", periods=3))
        >>> Market.from_prices(prices, features="none").windows(2).shape
        (2, 2, 1, 0)
        """
        return windows_of(self.features, bars)

    def targets(
        self, kind: Kind = "return", horizon: int = 1, *, haircut: float = 0.0
    ) -> FloatArray:
        """Return what each asset did after each bar, for forecasts made at its close.

        Row t holds the simple return ``close[t + horizon] / close[t] - 1`` that weights decided at
        the close of row t earn, without costs and without trading in between. An asset delisted
        on the way is paid out at its last price less the haircut, as in the account. A number is
        NaN where it is unknown: in the last ``horizon`` rows, where the asset cannot be traded at
        t, and where it has no bar at t + horizon but has later ones.

        Args:
            kind: "return", "direction" (1 where the return is positive, else 0), or "magnitude"
                (its absolute value).
            horizon: Bars, at least 1.
            haircut: Share of the last price that a delisting loses, in [0, 1]; see
                ``TransactionCosts.delisting_haircut``.

        Returns:
            (T, N) float64, a new array.

        >>> prices = pd.DataFrame({"A": [1.0, 2, 3]}, pd.date_range("2024-01-02", periods=3))
        >>> Market.from_prices(prices, features="none").targets().ravel().tolist()
        [1.0, 0.5, nan]
        """
        return targets_of(self.panel, kind, horizon, haircut)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the market to one ``.npz`` file, which is complete or absent.

        Args:
            path: Ends in ".npz"; missing folders are created.
        """
        write_market(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = True) -> Market:
        """Read a market that ``save`` wrote; nothing in the file is executed.

        Features are mapped into memory: they are read when they are used, and processes that use
        one file share them.

        Args:
            path: The file.
            verify: Hold the features against their checksum, as all the rest always is, so that
                damaged numbers are rejected.

        Raises:
            DataError: If the file is missing, damaged or no such market.
        """
        try:
            return cls(**read_fields(Path(path), verify=verify))
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as error:
            raise DataError(
                f"{path} is not a saved market ({error}): write one with Market.save"
            ) from error
