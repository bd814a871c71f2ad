"""A damaged file of any kind is told or does no harm: never other numbers, never another error.

``KINDS`` names every kind of file that is written and read back: how to write one, and how to read
all that it says. One bit is flipped at many places of each (300, or as many as the environment
variable ``CORRUPTION_FLIPS`` says), and it is cut at many lengths.
"""

import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.panels import panel_of

from portfolio_env import Market, load_market
from portfolio_env.data.bars import frame_of_panel, read_panel
from portfolio_env.data.downloads.store import Series, read_series, write_series
from portfolio_env.errors import PortfolioError
from portfolio_env.evaluation.usage_log import FILE, Trial, UsageEntry, log_usage, read_usage_log
from portfolio_env.features import FeaturePipeline
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.files.parquet import write_parquet

FLIPS, CUTS = int(os.environ.get("CORRUPTION_FLIPS", "300")), 60


def write_market(folder: Path) -> Path:
    panel = panel_of("D", 60)
    pipeline = FeaturePipeline().fit(panel, 40)
    load_market(panel, features=pipeline).save(folder / "market.npz")
    return folder / "market.npz"


def read_market(path: Path) -> Any:
    market = Market.load(path)
    return market.hash, repr(market.panel.provenance)


def write_candles(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    times = np.arange(200) * 86_400_000
    series = Series(
        "binance", "BTC/USDT", "1d", times, rng.random((200, 5)), ((0, 17_280_000_000),)
    )
    return write_series(folder, series)


def read_candles(path: Path) -> Any:
    series = read_series(path)
    names = (series.exchange, series.symbol, series.timeframe, series.covered)
    return *names, series.times.tobytes(), series.bars.tobytes()


def write_bars(folder: Path) -> Path:
    write_parquet(folder / "bars.parquet", frame_of_panel(panel_of("D", 60)))
    return folder / "bars.parquet"


def read_bars(path: Path) -> Any:
    panel = read_panel(path)
    fields = (panel.open, panel.high, panel.low, panel.close, panel.volume)
    return panel.assets, panel.timestamps.tobytes(), *(np.asarray(f).tobytes() for f in fields)


def write_pipeline(folder: Path) -> Path:
    FeaturePipeline().fit(panel_of("D", 60), 40).save(folder / "features.json")
    return folder / "features.json"


def read_pipeline(path: Path) -> Any:
    return FeaturePipeline.load(path).to_dict()


def write_registry(folder: Path) -> Path:
    trials = (Trial("agent", "f1", True, 0.5), Trial("cash", "f2", False, None))
    look = UsageEntry(
        "2026-01-01", "evaluate.py run", "ppo", "2025-01-01", "2025-12-31", "h", trials
    )
    log_usage(folder, look)
    return folder / FILE


def read_registry(path: Path) -> Any:
    return read_usage_log(path.parent)


def write_settings(folder: Path) -> Path:
    write_json(folder / "config.json", {"steps": 10, "rate": 1e-3, "market": "é", "seeds": [1, 2]})
    return folder / "config.json"


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Any]]] = {
    "market": (write_market, read_market),
    "candles": (write_candles, read_candles),
    "bars": (write_bars, read_bars),
    "pipeline": (write_pipeline, read_pipeline),
    "looks": (write_registry, read_registry),
    "json": (write_settings, read_json),
}


def damages(content: bytes) -> list[tuple[str, bytes]]:
    """Copies of a file's bytes with one bit flipped, or cut short; the ends are always among them.

    What a format says about itself stands at its ends.
    """
    rng = random.Random(len(content))
    size = len(content)
    edges = [*range(min(64, size)), *range(max(0, size - 64), size)]
    damaged = []
    for place in [*edges, *(rng.randrange(size) for _ in range(FLIPS))]:
        bit = rng.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        damaged.append((f"bit {bit} of byte {place}", bytes(flipped)))
    cuts = [0, 1, size - 1, *(rng.randrange(size) for _ in range(CUTS))]
    return damaged + [(f"cut to {length} bytes", content[:length]) for length in cuts]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_told_or_reads_the_same(tmp_path, kind):
    write, read = KINDS[kind]
    path = write(tmp_path)
    whole, content = read(path), path.read_bytes()
    told = 0
    for what, damaged in damages(content):
        path.unlink()  # a mapped file must not change under its map
        path.write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = read(path)
        except PortfolioError as error:
            assert path.name in str(error), (what, error)
            told += 1
        except BaseException as error:
            raise AssertionError(f"{kind}, {what}: {type(error).__name__}: {error}") from error
        else:
            assert found == whole, (kind, what)
    assert told > 50
