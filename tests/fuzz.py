"""Differential fuzz: the environment beside a slow account in plain Python, on random cases.

    python tests/fuzz.py --minutes 10      # cases from the clock's seed on
    python tests/fuzz.py --seed 123        # one case again

A case is a market, an environment over it and its episodes. Every step of every lane is done again
by ``helpers.oracles.steps`` from the state before it and compared; what must hold whatever the
arithmetic (weights sum to 1, costs are those of the trades, limits) is checked besides. Where a
change of the inputs in their last digits changes the answer (which of two equal assets is the
largest, say), the answers are not compared and the step counts as ill-posed.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import Any

import numpy as np
from helpers.fuzz_cases import (
    grouped,
    random_action,
    random_fills,
    random_market,
    random_options,
)
from helpers.oracles.steps import Prices, Setting, State, step, turnover_limit
from helpers.oracles.targets import Limits, violation

from portfolio_env import PortfolioVectorEnv
from portfolio_env.simulation import dynamics

TOLERANCE = 1e-9
MODES = ("Disabled", "NextStep")


def seconds(time: Any) -> float:
    """Seconds since 1970."""
    return np.datetime64(time, "ns").astype(np.int64) / 1e9


class FoundFault(AssertionError):
    """The environment and the slow account disagree."""


class Case:
    """A random environment and what it takes to follow it, reproduced by its seed."""

    def __init__(self, seed: int) -> None:
        self.seed, self.rng, self.counts = seed, np.random.default_rng(seed), Counter()
        self.market = random_market(self.rng)
        self.options = random_options(self.rng, self.market)
        if seed % 4 == 3:
            self.options = grouped(self.options, self.market, seed)
        if seed % 3 == 2:
            self.options["fills"] = random_fills(self.market, seed)
        self.lanes = int(self.rng.integers(1, 4))
        self.mode = str(self.rng.choice(MODES))

    @np.errstate(all="ignore")
    def run(self) -> Counter:
        """Step through the episodes; returns how many steps were followed and ill-posed."""
        self.env = PortfolioVectorEnv(
            self.lanes, self.market, autoreset_mode=self.mode, **self.options
        )
        self.simulator = self.env.simulator
        self.observed(self.env.reset(seed=self.seed % 2**31)[0])
        self.settings: dict[bytes, tuple[Setting, Prices]] = {}
        self.states = [self.started(lane) for lane in range(self.lanes)]
        ended = np.zeros(self.lanes, bool)
        for _ in range(self.market.n_bars + 3):
            actions = np.array([self.action(lane) for lane in range(self.lanes)])
            before = [self.state(lane) for lane in range(self.lanes)]
            observation, rewards, terminated, truncated, _ = self.env.step(actions)
            self.observed(observation)
            for lane in range(self.lanes):
                if not ended[lane]:
                    self.follow(lane, before[lane], actions[lane], rewards[lane])
                elif self.mode == "NextStep":
                    self.states[lane] = self.started(lane)
            ended = terminated | truncated
            if ended.all() and self.mode == "Disabled":
                break
        return self.counts

    # ---- the environment as plain numbers

    def setting(self, lane: int) -> tuple[Setting, Prices]:
        """What the lane trades, as lists."""
        columns = self.simulator.assets[lane]
        key = columns.tobytes()
        if key not in self.settings:
            panel, costs = self.market.panel, self.simulator.costs
            buy, sell = costs.rates(self.market.n_assets)
            scale, rate = self.options["logits_scale"], costs.cash_rate_annual
            impact = costs.impact_coefficients(panel)
            close = panel.close[:, columns].tolist()
            setting = Setting(
                seconds=list(map(seconds, panel.timestamps)),
                close=close,
                open=None if panel.open is None else panel.open[:, columns].tolist(),
                tradable=panel.tradable[:, columns].tolist(),
                impact=impact[:, columns].tolist() if impact.size else None,
                buy=buy[columns].tolist(),
                sell=sell[columns].tolist(),
                costs={
                    "fixed_fee": costs.fixed_fee,
                    "cash_rates": (
                        sorted((seconds(day), each) for day, each in rate.items())
                        if isinstance(rate, dict)
                        else [(-np.inf, rate)]
                    ),
                    "margin_rate": costs.margin_rate_annual,
                    "borrow_rate": costs.borrow_rate_annual,
                    "delisting_haircut": costs.delisting_haircut,
                },
                constraints=self.options.get("constraints", {})
                | {"labels": [panel.categories["kind"][column] for column in columns]},
                next_open=self.options["execution"] == "next_open",
                logits_scale=scale if self.options["action"] == "logits" else None,
                adjustment=self.options["adjustment"],
                initial_value=self.options["initial_value"],
                participation=self.options.get("fills", {}).get("participation"),
                volume=None if panel.volume is None else panel.volume[:, columns].tolist(),
            )
            self.settings[key] = setting, Prices(close)
        return self.settings[key]

    def started(self, lane: int) -> State:
        """The state at the start of an episode, which is to be as the options say."""
        weights, ledger = self.simulator.weights[lane], self.row(lane)
        self.check(ledger["portfolio_value"] == self.options["initial_value"], lane, "start value")
        if self.options["initial"] == "cash":
            self.check(weights[0] == 1, lane, "start weights")
        return self.state(lane, self.options["initial_value"], [])

    def state(self, lane: int, peak: float | None = None, turnovers: Any = None) -> State:
        old = self.states[lane] if peak is None else None
        return State(
            t=int(self.simulator.t[lane]),
            weights=self.simulator.weights[lane].tolist(),
            value=self.row(lane)["portfolio_value"],
            peak=old.peak if old else peak,
            turnovers=old.turnovers if old else turnovers,
        )

    def action(self, lane: int) -> np.ndarray:
        return random_action(self.rng, self.simulator.weights[lane])

    def row(self, lane: int) -> dict[str, float]:
        return dict(zip(dynamics.LEDGER, self.simulator.ledger[:, lane].tolist(), strict=True))

    # ---- comparison

    def follow(self, lane: int, before: State, action: np.ndarray, reward: float) -> None:
        """Do one step again and compare; then move the lane's own record on."""
        found = self.row(lane)
        found["held"], found["weights"] = (
            getattr(self.simulator, name)[lane].tolist() for name in ("held", "weights")
        )
        found["ruined"] = bool(self.simulator.terminated[lane])
        setting, prices = self.setting(lane)
        shares = self.simulator.lanes.fills[0, lane].tolist() or None  # as they were drawn
        expected = step(setting, prices, before, action.tolist(), shares=shares)
        self.counts["steps"] += 1
        fault = difference(found, expected, before)
        if fault and self.is_ill_posed(setting, prices, before, action, expected, shares):
            self.counts["ill-posed"] += 1
            fault = ""
        self.check(not fault, lane, fault)
        self.check(reward == found["log_return"], lane, "reward")
        self.invariants(lane, before, found, setting)
        self.states[lane].peak = max(before.peak, found["portfolio_value"])
        self.states[lane].turnovers.append(found["turnover"])

    def is_ill_posed(self, setting, prices, before, action, expected, shares) -> bool:
        """Whether inputs that differ in their last digits have another answer."""
        generator = np.random.default_rng(0)

        def shaken(numbers: Any) -> list[float]:
            return (
                np.asarray(numbers) * (1 + 4e-16 * generator.integers(-4, 5, len(numbers)))
            ).tolist()

        def blurred(weights: list[float]) -> list[float]:
            return (np.array(weights) + 1e-16 * generator.integers(-8, 9, len(weights))).tolist()

        for _ in range(8):
            near = State(**{**vars(before), "weights": shaken(before.weights)})
            other = step(setting, prices, near, shaken(action), blurred, shares)
            if difference(other, expected, before, TOLERANCE / 10):
                return True
        return False

    def invariants(self, lane, before, found, setting) -> None:
        """What must hold of a step whatever the slow account says."""
        numbers = np.array([x for x in found.values() if isinstance(x, float)])
        self.check(np.isfinite(numbers).all(), lane, "a number that is not finite")
        self.check(abs(sum(found["weights"]) - 1) < TOLERANCE, lane, "drifted weights' sum")
        held, limits = np.array(found["held"]), Limits(setting.constraints, len(before.weights) - 1)
        self.check(abs(held.sum() - 1) < TOLERANCE, lane, "held weights' sum")
        own = violation(found["held"], limits)
        self.check(abs(own - found["constraint_violation"]) < 2e-12, lane, "violation")
        if limits.long_only:
            self.check((held[1:] >= 0).all(), lane, "a short position")
            if limits.leverage <= 1 and limits.cash_low >= 0:
                self.check(held[0] >= 0, lane, "debt")
        limit = turnover_limit(setting, before)
        self.check(found["turnover"] <= limit + 1.1e-12, lane, "turnover limit")
        self.check(found["cost"] >= -1e-12 * abs(before.value), lane, "a cost below zero")

    def observed(self, observation: Any) -> None:
        if self.env.observation_space.contains(observation):
            return
        parts = observation if isinstance(observation, dict) else {"flat": observation}
        reach = {name: (float(part.min()), float(part.max())) for name, part in parts.items()}
        self.check(False, -1, f"observation outside its space: {reach}")

    def check(self, holds: bool, lane: int, what: str) -> None:
        if not holds:
            t = self.simulator.t.tolist()
            raise FoundFault(f"{what}\n  lane {lane}, at bars {t}, {self.described()}")

    def described(self) -> str:
        """The options, without lists of a number per asset, and how to run the case again."""
        costs = {
            name: "per asset" if isinstance(value, list) else value
            for name, value in self.options["costs"].items()
        }
        shown = {**self.options, "costs": costs}
        return (
            f"{self.market.n_assets} assets, {self.mode}, {shown}\n"
            f"  again: python tests/fuzz.py --seed {self.seed}"
        )


def difference(found: dict, expected: dict, before: State, tolerance: float = TOLERANCE) -> str:
    """The first number that is not as expected, or nothing."""
    for name, value in expected.items():
        own = found.get(name)
        if name == "ruined":
            if own != value:
                return f"ruined: {own}, expected {value}"
            continue
        scale = abs(before.value) if name in ("portfolio_value", "cost", "carry") else 1.0
        own, value = np.atleast_1d(own), np.atleast_1d(value)
        off = np.abs(own - value) / np.maximum(scale, np.abs(value))
        if not (off <= tolerance).all():
            at = int(np.argmax(~(off <= tolerance)))
            return f"{name}[{at}]: {own[at]!r}, expected {value[at]!r}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, help="run this case alone")
    parser.add_argument("--first", type=int, default=int(time.time()) * 1000, help="first seed")
    parser.add_argument("--faults", type=int, default=1, help="stop after as many faults")
    options = parser.parse_args()
    if options.seed is not None:
        print(dict(Case(options.seed).run()))
        return
    until, total, faults, seed = (
        time.monotonic() + 60 * options.minutes,
        Counter(),
        0,
        options.first,
    )
    while time.monotonic() < until and faults < options.faults:
        case = Case(seed)
        try:
            case.run()
        except Exception as error:
            faults += 1
            print(f"FAULT of seed {seed}: {type(error).__name__}: {error}", flush=True)
        total += case.counts
        seed += 1
    print(
        f"{total['steps']} steps of lanes in {seed - options.first} cases, {total['ill-posed']} "
        f"ill-posed, {faults} faults; seeds {options.first} to {seed - 1}"
    )
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
