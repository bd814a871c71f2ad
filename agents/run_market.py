"""The market that a run is applied to: its own, with the bars that came since, or another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from agents.settings.market import RunConfig
from agents.tensors import SUFFIX, load_tensors, save_tensors
from agents.training.config import NAMES, Range, TrainConfig
from portfolio_env import Market
from portfolio_env.errors import MALFORMED, ArgumentError, DataError
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import read_json
from portfolio_env.market.lineage import PriceRecord
from portfolio_env.market.panel import PricePanel

FEATURES = "features.json"
PRICES = f"prices{SUFFIX}"  # by which later data of the same market are recognised
AFTER = "after"  # range of the bars that came after a run's own


def load_checked_market(path: Path, config: RunConfig) -> tuple[Market, dict[str, Range]]:
    """Load the market of a run and its ranges; reject another market than it was trained on."""
    market, ranges = config.load_market()
    check_market(path, config, market)
    return market, ranges


def check_market(path: Path, config: RunConfig, market: Market) -> None:
    """Reject a market that is not the one the run was trained on."""
    recorded = _recorded_market(path)
    if market.hash != recorded["hash"]:
        raise _changed(path, config, market, recorded)


def _recorded_market(path: Path) -> dict[str, Any]:
    """Return what a run says of the market that it was trained on."""
    try:
        recorded = read_json(path / "market.json")
        known, bars, assets = recorded["hash"], recorded["n_bars"], recorded["assets"]
        if not (isinstance(known, str) and isinstance(bars, int) and isinstance(assets, list)):
            raise TypeError("its hash, n_bars or assets are of another type")
    except (FileNotFoundError, LookupError, TypeError) as error:
        raise DataError(f"{path / 'market.json'} is damaged ({error}); restore it") from error
    return recorded


def _changed(path: Path, config: RunConfig, market: Market, recorded: Any) -> DataError:
    return DataError(
        f"market {config.market!r} has changed since the run {path} was trained: its hash is "
        f"{market.hash[:12]}, the run's was {recorded['hash'][:12]} ({recorded['n_bars']} bars of "
        f"{len(recorded['assets'])} assets); restore the data, or train again"
    )


REVISED = (
    "Something other than the closes of the training's bars has changed since: their other fields, "
    "or how features are computed. The agent may see them otherwise than it did."
)


class RunMarket(NamedTuple):
    """Market that a run is applied to.

    Attributes:
        market: The market, its features scaled as they were for training.
        ranges: Rows by name, see ``Run``.
        news: Its differences from the market of the training, a sentence each.
    """

    market: Market
    ranges: dict[str, Range]
    news: tuple[str, ...] = ()


def run_market(
    path: Path,
    config: TrainConfig,
    *,
    data: str | Path | None = None,
    market: str | None = None,
    newest: bool = False,
) -> RunMarket:
    """Return the market that a run is applied to: its own as it is now, newer data, or another.

    Args:
        path: Folder of the run.
        config: Its settings.
        data: See ``load_run``.
        market: See ``load_run``.
        newest: Also the bars of its own market that came after the end of the training's data.

    Raises:
        DataError: As of ``load_run``.
        ArgumentError: As of ``load_run``.
    """
    if market is not None:
        return _other_market(path, config, market)
    if data is None and not newest:
        own, ranges = config.load_market()
        recorded = _recorded_market(path)
        if own.hash == recorded["hash"]:
            return RunMarket(own, ranges)
        if not any((path / name).exists() for name in (PRICES, FEATURES)):
            raise _changed(path, config, own, recorded)
        panel = own.panel
    else:
        where = config.market if data is None else str(data)
        panel = config.data.panel(where, config.assets, config.start, None)
    return continued_market(path, config, panel)


def continued_market(path: Path, config: TrainConfig, panel: PricePanel) -> RunMarket:
    """Return the market of bars that continue those of a run, see ``run_market``."""
    recorded = _recorded_market(path)
    later = pipeline_of(path).transform(panel)
    _check_readable(config, recorded["assets"], later)
    if (path / PRICES).exists():
        record = _read_prices(path / PRICES)
        news = tuple(record.changes(panel))
        if record.are_in(panel) and not _was(later, recorded):
            news += (REVISED,)
    elif _was(later, recorded):
        news = ()
    else:
        raise _changed(path, config, later, recorded)
    return RunMarket(later, _ranges_by_date(path, recorded, later), news)


def _other_market(path: Path, config: TrainConfig, market: str) -> RunMarket:
    other = dataclasses.replace(config, market=market, assets=None, start=None, end=None)
    panel = other.data.panel(market, None, None, None)
    found = pipeline_of(path).transform(panel)
    recorded = _recorded_market(path)
    _check_readable(config, recorded["assets"], found)
    news = f"This is not the market of the run, {recorded.get('name')}, but {market}."
    dates = recorded.get("dates")
    seen = dates.get("train") if isinstance(dates, dict) else None
    if isinstance(seen, list) and len(seen) == 2 and str(panel.timestamps[0]) <= str(seen[1]):
        news += (
            f" The agent was trained on bars up to {str(seen[1])[:10]}: what it earns here before "
            "that date is not out of sample in time."
        )
    pace, own_pace = found.periods_per_year, recorded.get("periods_per_year")
    if isinstance(own_pace, int | float) and not isclose(pace, own_pace):
        news += (
            f" It has {pace:g} bars a year and the run's has {own_pace:g}: the agent, its features "
            "and its window count bars."
        )
    return RunMarket(found, other.ranges_of(panel.timestamps), (news,))


def pipeline_of(path: Path) -> FeaturePipeline:
    """Return the pipeline of a run, as it was fitted for training."""
    return FeaturePipeline.load(path / FEATURES)


def _check_readable(config: TrainConfig, assets: Sequence[str], market: Market) -> None:
    """Reject a market whose assets a flat network does not know."""
    if config.policy == "flat_mlp" and tuple(assets) != market.assets:
        raise ArgumentError(
            f"the policy flat_mlp was trained for the assets {', '.join(assets)} in this order and "
            f"reads no others; the market has {', '.join(market.assets)}. Name them with the "
            "option assets, or train a per_asset policy"
        )


def _was(later: Market, recorded: Mapping[str, Any]) -> bool:
    """Return whether a market begins with the one of a run that kept no prices."""
    bars = recorded["n_bars"]
    return 0 < bars <= later.n_bars and later.past(bars - 1).hash == recorded["hash"]


def _ranges_by_date(path: Path, recorded: Mapping[str, Any], market: Market) -> dict[str, Range]:
    """Return the rows of a run's ranges in a market that continues its own, and "after"."""
    times = market.timestamps
    try:
        dates = {name: [np.datetime64(end) for end in recorded["dates"][name]] for name in NAMES}
        last = np.datetime64(recorded.get("last", recorded["dates"]["test"][1]))
        ranges = {
            name: (int(times.searchsorted(first)), int(times.searchsorted(end, side="right")))
            for name, (first, end) in dates.items()
        }
    except MALFORMED as error:
        raise DataError(f"{path / 'market.json'} is damaged ({error}); restore it") from error
    end = int(times.searchsorted(last, side="right"))
    after = {AFTER: (end - 1, market.n_bars)} if 0 < end < market.n_bars else {}
    return {name: rows for name, rows in ranges.items() if rows[1] - rows[0] > 1} | after


def write_prices(path: Path, panel: PricePanel) -> None:
    """Write the record of closes by which later data of a market are recognised."""
    record = PriceRecord.of(panel)
    times = record.timestamps.astype("datetime64[ns]").astype(np.int64)
    close = np.array(record.close)
    save_tensors(path, {"assets": record.assets, "times": times, "close": close}, kind="prices")


def _read_prices(path: Path) -> PriceRecord:
    tree = load_tensors(path, kind="prices")
    try:
        assets, times, close = tuple(tree["assets"]), tree["times"], tree["close"]
        if close.shape != (len(times), len(assets)) or times.dtype != np.int64 or not len(times):
            raise ValueError(f"{close.shape} prices of {len(assets)} assets")
    except MALFORMED as error:
        raise DataError(f"{path} is damaged ({error}); restore it from a copy") from error
    return PriceRecord(assets, times.astype("datetime64[ns]"), close)
