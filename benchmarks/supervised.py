"""Compare forecasters of the next return by number of samples, and carry them to other assets.

    python benchmarks/supervised.py               # the tables of docs/supervised.md
    python benchmarks/supervised.py --seeds 1 --steps 20 --resamples 50

Prints Markdown tables: skill, calibration and processor seconds of every forecaster for each number
of training bars, on a planted signal and on real prices; then encoders that were trained on ten
assets, on ten others. Training ranges end at the same bar, so that all are scored on the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch as th
from numpy.typing import NDArray

from agents.supervised.data import WindowDataset
from agents.supervised.model import SupervisedModel
from agents.supervised.scores import Base, Forecasts
from portfolio_env import load_market
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.market import Market
from portfolio_env.market.samples import Range

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "MLP, wide (256, 128)": ("mlp", {"architecture": [256, 128]}),
    "MLP, deep (64 x 5)": ("mlp", {"architecture": [64] * 5}),
    "MLP, pyramid (128, 64, 32)": ("mlp", {"architecture": [128, 64, 32]}),
    "factor network": ("factor", {}),
    "LSTM": ("lstm", {"hidden": 32, "channels": 16}),
    "GAT": ("gat", {"hidden": 16, "heads": 2, "layers": 1}),
    "TCN-GNN-LSTM": ("tcn_gnn_lstm_small", {"width": 16, "layers": 2, "lstm_hidden": 16}),
    "transformer": ("transformer", {"width": 16, "heads": 2, "layers": 1, "feedforward": 32}),
    "state space": ("state_space", {"state": 16, "memory": 16, "heads": 2}),
}
"""Encoders by the name to show, with options; windows of 10 bars, rows of one."""
MOVED = ("MLP, pyramid (128, 64, 32)", "LSTM", "GAT")
SIZES = (250, 1000, 4000)
FEW = SIZES[0]
WINDOW, VALIDATION, TEST, BATCH = 10, 500, 1500, 64


class Split(NamedTuple):
    """Market with the ranges of one table row."""

    market: Market
    train: Range
    validation: Range
    test: Range

    @classmethod
    def of(cls, market: Market, bars: int) -> Split:
        """Return the split whose training range has so many bars; the others never move."""
        end = market.n_bars - TEST - VALIDATION
        later = end + VALIDATION
        return cls(market, (end - bars, end), (end, later), (later, market.n_bars))


@dataclass(frozen=True)
class Found:
    """Forecasts on the test range with what they took."""

    forecasts: Forecasts
    weights: int | None = None
    seconds: float = 0.0


def planted(seed: int, assets: int) -> PlantedMarket:
    """Return a market in which the signal explains 4 % of the variance of returns."""
    bars = 2 * WINDOW + SIZES[-1] + VALIDATION + TEST
    return PlantedMarket.draw(seed=seed, bars=bars, assets=assets, kappa=0.004, phi=0.9)


def real(assets: slice) -> Market:
    """Return US stocks, of which 6,000 bars end with 2022; scaled on bars before the test range."""
    market = load_market("sp500", start="1998-06-01", fit_end="2014-01-01")
    return market.select(market.assets[assets])


def zero(split: Split, seed: int, steps: int) -> Found:
    """Return the forecast that the next return is 0, give or take its usual deviation."""
    known, seen = (WindowDataset(split.market, part, 1) for part in (split.train, split.test))
    base, realised = _base(known.table().target), split.market.targets()[seen.rows]
    shape = realised.shape
    parts = np.zeros(shape), np.full(shape, base.sigma), np.full(shape, 0.5), realised
    return Found(Forecasts(split.market.timestamps[seen.rows], *parts, base))


def boosted(split: Split, seed: int, steps: int) -> Found:
    """Return forecasts by gradient boosting of the last bar's features, with a constant sigma."""
    from scipy.special import ndtr
    from sklearn.ensemble import HistGradientBoostingRegressor

    began = time.process_time()
    known, seen = (
        WindowDataset(split.market, part, 1).table() for part in (split.train, split.test)
    )
    trees = HistGradientBoostingRegressor(max_iter=100, max_depth=3, random_state=seed)
    trees.fit(known.inputs, known.target)
    seconds = time.process_time() - began
    sigma = float((known.target - trees.predict(known.inputs)).std())
    rows = np.unique(seen.rows)
    mean, realised = np.zeros((len(rows), split.market.n_assets)), split.market.targets()[rows]
    mean[np.searchsorted(rows, seen.rows), seen.assets] = trees.predict(seen.inputs)
    parts = mean, np.full_like(mean, sigma), np.asarray(ndtr(mean / sigma)), realised
    return Found(
        Forecasts(split.market.timestamps[rows], *parts, _base(known.target)), None, seconds
    )


def network(name: str) -> Callable[[Split, int, int], Found]:
    """Return the forecaster of an encoder."""

    def forecast(split: Split, seed: int, steps: int) -> Found:
        began = time.process_time()
        model = fitted(new_model(name, split.market, seed), split, steps)
        seconds = time.process_time() - began
        return Found(model.forecasts(split.market, split.test), model.parameters, seconds)

    return forecast


def new_model(name: str, market: Market, seed: int) -> SupervisedModel:
    """Return a model of an encoder of the table, not trained yet."""
    encoder, options = ENCODERS[name]
    window = 1 if encoder in ("mlp", "factor") else WINDOW
    return SupervisedModel(
        market.feature_names, encoder=encoder, window=window, encoder_options=options, seed=seed
    )


def fitted(model: SupervisedModel, split: Split, steps: int) -> SupervisedModel:
    """Train a model for so many gradient steps, whatever the bars; the best on validation stays."""
    epochs = max(1, round(steps * BATCH / (split.train[1] - split.train[0])))
    return model.fit(
        split.market,
        split.train,
        split.validation,
        epochs=epochs,
        batch=BATCH,
        weight_decay=0.01,
        patience=8,
    )


def _base(target: NDArray[np.float64]) -> Base:
    return Base(float(target.mean()), float(target.std()), float((target > 0).mean()))


def summary(found: Sequence[Found], resamples: int) -> dict[str, str]:
    """Return the cells of a row: means over seeds, and the means of the limits of intervals."""
    tables = [each.forecasts.scores(n_resamples=resamples) for each in found]
    covered = [each.forecasts.calibration.coverage([0.9])[0] for each in found]
    cells = {"coverage": f"{100 * np.mean(covered):.0f}"}
    for name, score, scale, digits in (
        ("rank", "rank_correlation", 1, 3),
        ("accuracy", "accuracy", 100, 1),
        ("density", "log_density", 1, 3),
    ):
        numbers = scale * np.array([_numbers(table, score) for table in tables])
        gain, low, high = numbers.mean(0)
        spread = numbers[:, 0].std(ddof=1) if len(numbers) > 1 else 0.0
        told = f"{gain:+.{digits}f} ± {spread:.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
        cells[name] = "-" if np.isnan(gain) else told
    return cells


def _numbers(scores: pd.DataFrame, name: str) -> list[float]:
    return [float(scores.loc[name, column]) for column in ("gain", "low", "high")]


def compared(
    label: str, market_of: Callable[[int], Market], seeds: int, steps: int, resamples: int
) -> None:
    """Print the tables of one market: skill, and calibration with costs."""
    makers = {"zero": zero, "gradient boosting": boosted}
    makers |= {name: network(name) for name in ENCODERS}
    markets = [market_of(seed) for seed in range(seeds)]
    skill, cost = [], []
    for name, make in makers.items():
        rows = []
        for bars in SIZES:
            found = [make(Split.of(m, bars), seed, steps) for seed, m in enumerate(markets)]
            rows.append((summary(found, resamples), found))
        weights = rows[0][1][0].weights
        seconds = [f"{np.mean([each.seconds for each in found]):.1f}" for _, found in rows]
        cells = [cells for cells, _ in rows]
        skill.append([name, *(each["rank"] for each in cells), cells[-1]["accuracy"]])
        cost.append(
            [
                name,
                "-" if weights is None else f"{weights:,}",
                *(each["density"] for each in cells),
                ", ".join(each["coverage"] for each in cells),
                ", ".join(seconds),
            ]
        )
    print(f"\n`{label}`, {markets[0].n_assets} assets, {seeds} seeds:\n")
    bars_ = [f"{bars:,} bars" for bars in SIZES]
    accuracy = f"accuracy above base rate, points, {bars_[-1]}"
    _table(["rank correlation", *bars_, accuracy], skill)
    print()
    head = ["log density, gain", "weights", *bars_, "90 % covers, %", "seconds"]
    _table(head, cost)


def carried(
    label: str,
    markets_of: Callable[[int], tuple[Market, Market]],
    seeds: int,
    steps: int,
    resamples: int,
) -> None:
    """Print what encoders that were trained on ten assets forecast of ten others."""
    lines = []
    pairs = [markets_of(seed) for seed in range(seeds)]
    for name in MOVED:
        found: dict[str, list[Found]] = {}
        for seed, (ten, others) in enumerate(pairs):
            for way, model in _ways(name, Split.of(ten, SIZES[-1]), others, seed, steps):
                test = Split.of(others, FEW).test
                found.setdefault(way, []).append(Found(model.forecasts(others, test)))
        lines.append([name, *(summary(each, resamples)["rank"] for each in found.values())])
    print(f"\n`{label}`, ten other assets, {seeds} seeds:\n")
    _table(["rank correlation", *found], lines)


def _ways(
    name: str, known: Split, others: Market, seed: int, steps: int
) -> Iterator[tuple[str, SupervisedModel]]:
    few, many = Split.of(others, FEW), Split.of(others, SIZES[-1])
    yield f"their own {FEW} bars", fitted(new_model(name, others, seed), few, steps)
    model = fitted(new_model(name, known.market, seed), known, steps)
    yield "trained on the ten alone", model
    yield f"warm start, then their own {FEW} bars", fitted(model, few, steps // 4)
    yield f"their own {SIZES[-1]:,} bars", fitted(new_model(name, others, seed), many, steps)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for line in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(line)} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="gradient steps of a training")
    parser.add_argument("--resamples", type=int, default=500)
    options = vars(parser.parse_args())
    th.set_num_threads(1)
    ten, others, eight = slice(0, 10), slice(10, 20), slice(0, 8)
    stocks = real(eight)
    compared("planted", lambda seed: planted(seed, 5).market, **options)
    compared("sp500", lambda seed: stocks, **options)

    def halves(seed: int) -> tuple[Market, Market]:
        market = planted(seed, 20).market
        return market.select(market.assets[ten]), market.select(market.assets[others])

    pair = real(ten), real(others)
    carried("planted", halves, **options)
    carried("sp500", lambda seed: pair, **options)
    print(f"\nprocessor time: {time.process_time() / 60:.1f} minutes")


if __name__ == "__main__":
    main()
