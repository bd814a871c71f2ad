"""Data preparation of a market as settings; see ``portfolio_env.load_market``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from portfolio_env.checks import check_fields, check_number, shortened
from portfolio_env.data.currencies import absolute
from portfolio_env.data.load import load_panel
from portfolio_env.data.repair import Repair
from portfolio_env.errors import ArgumentError
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import parse_json
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import MOST_PERIODS

PATHS = ("metadata", "exogenous", "actions")
"""Settings that are paths of files."""


@dataclass(frozen=True)
class DataOptions:
    """Options of data preparation, applied before anything is learned."""

    timeframe: str | None = None
    """Combine the bars of the market into longer ones, e.g. 1d or 1w."""
    metadata: str | None = None
    """File with labels of the assets, e.g. their sectors."""
    exogenous: str | None = None
    """CSV or Parquet file of further channels, e.g. sentiment, each value with the time it became
    known."""
    repair: str = "{}"
    """Repairs of a file of bars, as JSON, e.g. '{"drop_duplicates": "last"}'."""
    adjust: Literal["auto", "none", "splits", "all"] = "auto"
    """Adjustment of the prices of a file: auto, by its adjusted close, else by splits; all, for
    splits and dividends; splits, for those only; none, prices as they are quoted."""
    actions: str | None = None
    """File of splits and dividends to adjust for: columns date, symbol, split, dividend."""
    base_currency: str | None = None
    """Currency that all prices are converted to, e.g. USD."""
    exchange_rates: str | None = None
    """Rates of exchange for it: EUR=EURUSD,GBP=gbp.csv,USDT=1 (assets of the market,
    files, numbers), or one file with a column per currency."""
    reference: str | None = None
    """Asset that stands for the market in cross-asset features; the mean of all by default."""
    scaler: Literal["robust", "standard", "rank"] = "robust"
    """Scaling of features: by median and quartiles, mean and deviation, or ranks."""
    scaling: Literal["pooled", "asset"] = "pooled"
    """One scaler for each feature, or one for each asset and feature."""

    periods_per_year: float | None = None
    """Bars per year, from which yearly figures follow; by default counted in each range."""

    def __post_init__(self) -> None:
        """Check every value before data are read."""
        check_fields(self, "data.")
        json_object("data.repair", self.repair, '{"sort": true}')
        if self.periods_per_year is not None:
            name, value = "data.periods_per_year", self.periods_per_year
            check_number(name, value, above=0, high=MOST_PERIODS)
        try:
            Repair.of(self.repairs)
        except TypeError as error:
            raise ArgumentError(f"data.repair is {shortened(self.repair)}: {error}") from error

    @property
    def repairs(self) -> dict[str, Any]:
        """Return the repairs to apply."""
        return json_object("data.repair", self.repair, "{}")

    def panel(
        self, market: str, assets: str | None, start: str | None, end: str | None
    ) -> PricePanel:
        """Return the prepared bars of a market; names of assets are separated by commas."""
        return load_panel(
            market,
            assets=[name.strip() for name in assets.split(",")] if assets else None,
            start=start,
            end=end,
            timeframe=self.timeframe,
            metadata=self.metadata,
            exogenous=self.exogenous,
            repair=self.repairs or None,
            adjust=self.adjust,
            actions=self.actions,
            base_currency=self.base_currency,
            exchange_rates=self.exchange_rates,
            periods_per_year=self.periods_per_year,
        )

    def pipeline(self, features: str) -> FeaturePipeline:
        """Return the feature pipeline, not fitted yet."""
        return FeaturePipeline(
            features, scaler=self.scaler, scaling=self.scaling, reference=self.reference
        )

    def resolved(self) -> DataOptions:
        """Return the options with absolute paths."""
        given = {name: getattr(self, name) for name in PATHS}
        paths: dict[str, Any] = {k: str(Path(v).resolve()) for k, v in given.items() if v}
        if self.exchange_rates is not None:
            paths["exchange_rates"] = absolute(self.exchange_rates)
        return replace(self, **paths)


def json_object(name: str, text: str, example: str) -> dict[str, Any]:
    """Return the object that a setting holds as JSON.

    Raises:
        ArgumentError: If it is none.
    """
    try:
        value = parse_json(text)
        if not isinstance(value, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise ArgumentError(
            f"{name} is {shortened(text)}: give a JSON object such as '{example}' ({error})"
        ) from error
    return value
