"""Compare encoders, gradient boosting and the base rate as forecasters of the next return.

    python benchmarks/supervised.py               # the table of docs/supervised.md, minutes
    python benchmarks/supervised.py --epochs 1 --resamples 50

Prints a Markdown table per market: accuracy and scores on the test range with the gain over the
base rate and its 95 % interval, calibration, weights, and processor seconds of the training.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
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
WINDOW = 10
Ranges = tuple[Range, Range, Range]


def markets() -> dict[str, Market]:
    """Return the markets: a planted signal, and real prices from 2012 on."""
    planted = PlantedMarket.draw(seed=3, bars=2000, kappa=0.01, phi=0.9).market
    real = load_market("sp500", start="2012-01-01", fit_end="2018-01-01")
    return {"planted": planted, "sp500": real.select(real.assets[:8])}


def boosted(market: Market, ranges: Ranges) -> tuple[Forecasts, float]:
    """Return forecasts by gradient boosting of the last bar's features, and seconds of the fit."""
    from scipy.special import ndtr
    from sklearn.ensemble import HistGradientBoostingRegressor

    train, _, test = ranges
    began = time.process_time()
    known, seen = (WindowDataset(market, part, 1).table() for part in (train, test))
    trees = HistGradientBoostingRegressor(max_iter=100, max_depth=3, random_state=0)
    trees.fit(known.inputs, known.target)
    seconds = time.process_time() - began
    sigma = float((known.target - trees.predict(known.inputs)).std())
    rows = np.unique(seen.rows)
    place = np.searchsorted(rows, seen.rows), seen.assets
    mean, realised = np.zeros((len(rows), market.n_assets)), market.targets()[rows]
    mean[place] = trees.predict(seen.inputs)
    up = np.asarray(ndtr(mean / sigma))
    base = _base(known.target)
    found = Forecasts(market.timestamps[rows], mean, np.full_like(mean, sigma), up, realised, base)
    return found, seconds


def constant(market: Market, ranges: Ranges) -> Forecasts:
    """Return the forecast that the next return is 0, give or take its usual deviation."""
    train, _, test = ranges
    known, seen = (WindowDataset(market, part, 1) for part in (train, test))
    base = _base(known.table().target)
    shape = len(seen.rows), market.n_assets
    parts = (np.zeros(shape), np.full(shape, base.sigma), np.full(shape, 0.5))
    return Forecasts(market.timestamps[seen.rows], *parts, market.targets()[seen.rows], base)


def _base(target: NDArray[np.float64]) -> Base:
    return Base(float(target.mean()), float(target.std()), float((target > 0).mean()))


def row(name: str, found: Forecasts, weights: str, seconds: float, resamples: int) -> str:
    """Return a line of the table."""
    scores = found.scores(n_resamples=resamples)
    accuracy, log_score, rank = (
        scores.loc[each] for each in ("accuracy", "log_density", "rank_correlation")
    )
    coverage = found.calibration.coverage([0.9])[0]
    cells = (
        name,
        f"{100 * accuracy.value:.1f}",
        f"{100 * accuracy.gain:+.1f} [{100 * accuracy.low:+.1f}, {100 * accuracy.high:+.1f}]",
        f"{log_score.gain:+.3f} [{log_score.low:+.3f}, {log_score.high:+.3f}]",
        "-" if np.isnan(rank.value) else f"{rank.value:+.3f} [{rank.low:+.3f}, {rank.high:+.3f}]",
        f"{100 * coverage:.0f}",
        weights,
        f"{seconds:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--resamples", type=int, default=500)
    options = parser.parse_args()
    th.set_num_threads(1)
    for label, market in markets().items():
        ranges = market.split(0.6, 0.2, purge=1)
        train, validation, test = ranges
        print(f"\n{label}: {market.n_assets} assets, {market.n_bars:,} bars\n")
        print(
            "| forecaster | accuracy, % | above base rate | log density, gain | rank correlation "
            "| 90 % covers, % | weights | seconds |\n|---|---|---|---|---|---|---|---|"
        )
        print(row("zero", constant(market, ranges), "0", 0.0, options.resamples))
        found, seconds = boosted(market, ranges)
        print(row("gradient boosting", found, "-", seconds, options.resamples), flush=True)
        for name, (encoder, own) in ENCODERS.items():
            window = 1 if encoder in ("mlp", "factor") else WINDOW
            model = SupervisedModel(
                market.feature_names, encoder=encoder, window=window, encoder_options=own
            )
            began = time.process_time()
            model.fit(market, train, validation, epochs=options.epochs, weight_decay=0.01)
            seconds = time.process_time() - began
            found = model.forecasts(market, test)
            print(row(name, found, f"{model.parameters:,}", seconds, options.resamples), flush=True)


if __name__ == "__main__":
    main()
