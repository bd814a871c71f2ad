"""Random environments and actions for the differential fuzz: any that the package accepts."""

from __future__ import annotations

from typing import Any

import numpy as np

from portfolio_env import ArgumentError, Market, PortfolioConstraints, PricePanel
from portfolio_env.simulation.episodes import Episodes

SIZES = (2, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 50, 64, 100, 200, 300)
"""Around the widths of vector registers, where machine code changes its way of running a loop."""


def random_market(rng: np.random.Generator) -> Market:
    """Assets listed late, delisted, halted, without a bar; moves from -99.9 % to a hundredfold."""
    n, bars = int(rng.choice(SIZES)), int(rng.integers(3, 25))
    spread = rng.choice([0.0, 0.01, 0.1, 1.0])
    moves = np.exp(rng.normal(0, spread, (bars, n)))
    wild = rng.random((bars, n)) < rng.choice([0.0, 0.02])
    moves[wild] = np.exp(rng.uniform(np.log(1e-3), np.log(100), wild.sum()))
    close = np.clip(rng.uniform(0.01, 1000, n) * np.cumprod(moves, axis=0), 1e-9, 1e12)
    opens = close * np.exp(rng.normal(0, min(spread, 0.2), close.shape))
    volume = np.exp(rng.normal(10, 2, close.shape))
    volume[rng.random(close.shape) < rng.choice([0.0, 0.05, 0.3])] = 0.0
    gaps = rng.random(close.shape) < rng.choice([0.0, 0.05, 0.3])
    if rng.random() < 0.6:  # ragged listings
        for i in np.flatnonzero(rng.random(n) < 0.4):
            gaps[: rng.integers(0, bars), i] = True
            gaps[rng.integers(1, bars + 1) :, i] = True
    for values in (close, opens, volume):
        values[gaps] = np.nan
    has_open, has_volume = rng.random() < 0.9, rng.random() < 0.9
    pauses = rng.choice([0.3, 1.0, 1.0, 3.5, 31.0], bars) if rng.random() < 0.5 else np.ones(bars)
    panel = PricePanel(
        timestamps=np.datetime64("2021-01-04", "ns")
        + (pauses.cumsum() * 86_400).astype("timedelta64[s]"),
        assets=tuple(f"A{i}" for i in range(n)),
        close=close,
        open=opens if has_open else None,
        high=np.fmax(opens, close) if has_open else None,
        low=np.fmin(opens, close) if has_open else None,
        volume=volume if has_volume else None,
        categories={"kind": tuple(("", "A", "B", "C")[i % 4] for i in range(n))},
    )
    features = rng.uniform(-10, 10, (bars, n, 1)).astype(np.float32) * panel.tradable[:, :, None]
    return Market(panel, features, ("noise",))


def random_options(rng: np.random.Generator, market: Market) -> dict[str, Any]:
    """Keywords of ``PortfolioVectorEnv`` that fit the market."""
    n, bars = market.n_assets, market.n_bars
    options: dict[str, Any] = {
        "window": int(rng.integers(1, min(bars - 1, 4))),
        "observation": str(rng.choice(["window", "flat", "index"])),
        "action": str(rng.choice(["logits", "weights"])),
        "execution": "next_open"
        if market.panel.open is not None and rng.random() < 0.5
        else "close",
        "adjustment": float(rng.choice([1.0, 1.0, 0.1, rng.uniform(0.01, 1)])),
        "initial": str(rng.choice(["cash", "equal_weight"])),
        "initial_value": float(rng.choice([1.0, 1e4, 1e9])),
        "logits_scale": float(rng.choice([0.5, 5.0, 20.0])),
    }
    options["costs"] = costs = random_costs(rng, market)
    if "fixed_fee" in costs:  # one of all the account is refused
        costs["fixed_fee"] = min(costs["fixed_fee"], 0.999 * options["initial_value"])
    if rng.random() < 0.5:
        options["episode_length"] = int(rng.integers(1, bars - options["window"] + 1))
        options["random_start"] = bool(rng.random() < 0.7)
    if rng.random() < 0.3:
        length, chosen = options.get("episode_length"), options.get("random_start", False)
        episodes = Episodes(market, options["window"], None, None, length, chosen, None)
        listed = max(len(episodes.listed(int(t))) for t in episodes.starts)
        if listed >= 2:
            options["universe"] = int(rng.integers(2, listed + 1))
    for _ in range(100):
        limits = random_constraints(rng, options.get("universe", n))
        try:
            PortfolioConstraints(**limits).bounds(options.get("universe", n))
        except ArgumentError:
            continue
        options["constraints"] = limits
        break
    return options


def grouped(options: dict[str, Any], market: Market, seed: int) -> dict[str, Any]:
    """The options with random bounds of groups, where they go together with the others.

    They are drawn apart, so that cases without them stay what they were.
    """
    rng, labels = np.random.default_rng(seed), market.panel.categories["kind"]
    limits = options.get("constraints", {})
    for _ in range(20):
        bounds = {}
        for label in sorted({"A", "B", "C"} & {*labels}):
            if rng.random() < 0.7:
                low, high = sorted(rng.choice([0.0, 0.0, 0.05, 0.1, 0.3, 0.5, 1.0], 2))
                low = low if limits.get("long_only", True) else -low
                bounds[label] = (float(low), float(high))
        fields = limits | {"group_by": "kind", "group_bounds": bounds}
        try:
            PortfolioConstraints(**fields).bounds(market.n_assets, labels)
        except ArgumentError:
            continue
        return {key: value for key, value in options.items() if key != "universe"} | {
            "constraints": fields
        }
    return options


def random_fills(market: Market, seed: int) -> dict[str, Any]:
    """Fields of ``Fills``, drawn apart as those of ``grouped`` are."""
    rng, fills = np.random.default_rng(seed), {}
    if market.panel.volume is not None and rng.random() < 0.5:
        fills["participation"] = float(10 ** rng.uniform(-6, 0))
    if rng.random() < 0.7:
        fills["failure"] = float(rng.choice([0.05, 0.3, 1.0]))
    if rng.random() < 0.5:
        fills["partial"] = float(rng.uniform(0, 1 - fills.get("failure", 0.0)))
    return fills


def random_costs(rng: np.random.Generator, market: Market) -> dict[str, Any]:
    n, top = market.n_assets, rng.choice([0.0, 10.0, 100.0, 2000.0, 4900.0])
    each = rng.uniform(0, top, n) * (rng.random(n) < 0.8)
    costs: dict[str, Any] = {"commission_bps": each.tolist() if rng.random() < 0.5 else float(top)}
    if rng.random() < 0.3:
        costs["sell_commission_bps"] = float(rng.uniform(0, top))
    if rng.random() < 0.5:
        costs["slippage_bps"] = rng.uniform(0, top, n).tolist()
    if market.panel.volume is not None and rng.random() < 0.4:
        costs["impact"] = float(rng.choice([0.5, 5.0]))
        costs["impact_window"] = int(rng.integers(2, 6))
    if rng.random() < 0.4:
        costs["fixed_fee"] = float(rng.choice([0.01, 1.0, 100.0, 2e4]))
    for name in ("cash_rate_annual", "margin_rate_annual", "borrow_rate_annual"):
        if rng.random() < 0.4:
            costs[name] = float(rng.uniform(-0.5, 3))
    if "cash_rate_annual" in costs:  # more is refused, as it would be a rate in percent
        costs["cash_rate_annual"] = min(costs["cash_rate_annual"], 1.0)
    if rng.random() < 0.2:  # a rate that changes, known from before the first bar on
        days = market.timestamps[:1] + rng.integers(0, 40, 5).cumsum() * np.timedelta64(12, "h")
        days = [np.datetime64("1900-01-01"), *np.unique(days)]
        costs["cash_rate_annual"] = {str(day): float(rng.uniform(-0.5, 1)) for day in days}
    costs["delisting_haircut"] = float(rng.choice([0.0, 0.3, 1.0]))
    return costs


def random_constraints(rng: np.random.Generator, n: int) -> dict[str, Any]:
    """Fields of ``PortfolioConstraints``; not all of them go together."""

    def sometimes(name: str, value: float, often: float = 0.25) -> None:
        if rng.random() < often:
            limits[name] = value

    limits: dict[str, Any] = {}
    sometimes("long_only", False, 0.3)
    sometimes("max_leverage", float(rng.choice([0.5, 1.5, 3.0])), 0.3)
    sometimes("max_weight", float(rng.choice([1.5 / n, 0.2, 0.6, 2.0])))
    sometimes("min_weight", float(rng.choice([-0.1, 0.0, 0.5 / n, 1.0 / n])), 0.15)
    sometimes("min_cash", float(rng.choice([-0.5, 0.0, 0.05, 0.3])), 0.15)
    sometimes("max_cash", float(rng.choice([0.0, 0.3, 0.8])))
    sometimes("max_turnover", float(rng.choice([1e-6, 0.1, 0.5])))
    sometimes("no_trade_band", float(rng.choice([1e-6, 0.02, 0.3])))
    sometimes("top_k", int(rng.integers(1, n + 1)), 0.3)
    if rng.random() < 0.25:
        limits["max_period_turnover"] = float(rng.choice([0.2, 1.0]))
        limits["turnover_period"] = int(rng.integers(1, 6))
    return limits


def random_action(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """An action for a lane that holds these weights: plausible ones and any finite numbers."""
    m = len(weights)
    kind = rng.integers(15)
    one_hot = np.eye(m)[rng.integers(m)]
    if kind == 0:
        action = rng.dirichlet(np.ones(m))
    elif kind == 1:
        action = rng.dirichlet(np.full(m, 0.1))
    elif kind == 2:
        action = one_hot
    elif kind == 3:
        action = np.full(m, 1 / m)
    elif kind == 4:
        action = weights.astype(np.float32)
    elif kind == 5:
        action = weights.copy()
    elif kind == 6:  # as observed, but for one asset
        action = weights.astype(np.float32).astype(float)
        action[rng.integers(m)] += rng.choice([-0.1, 1e-9, 0.1])
    elif kind == 7:
        action = rng.uniform(-1, 1, m)
    elif kind == 8:
        action = rng.choice([-1.0, 0.0, 1.0], m)
    elif kind == 9:
        action = rng.normal(0, 1, m) * rng.choice([1e-300, 1e-20, 1e6, 1e30, 1e300])
    elif kind == 10:
        action = rng.dirichlet(np.ones(m)) * rng.choice([0.0, 0.3, 1 + 1e-7, 2.0])
    elif kind == 11:  # long and short, on the simplex
        action = rng.normal(0, 1, m)
        action[0] = 1 - action[1:].sum()
    elif kind == 12:
        action = one_hot * rng.choice([1e30, 1e-30, -1.0])
    elif kind == 13:
        action = rng.permutation(weights)
    else:
        action = np.zeros(m)
    if rng.random() < 0.5 and np.abs(action).max() < 1e38:
        return action.astype(np.float32).astype(float)
    return action
