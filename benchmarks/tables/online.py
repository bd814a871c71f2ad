"""Online portfolio selection: final wealth on the classical data sets, as papers print it.

From 1 invested, without costs. The data are relatives (close over close before) of NYSE(O) and
NYSE(N), SP500 and DJIA: CSV files with a header, one column per stock. Digits beyond those that
were printed were computed elsewhere, from the recursions and the relatives alone. Left out: OLMAR-1
as printed, which does not follow from the paper's formula (this row is what its authors' code
gives), and CWMR on SP500 and DJIA.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import portfolio_env as pe
from baselines import make_baseline
from baselines.base import Baseline
from benchmarks.tables.table import Table
from portfolio_env.evaluation import BacktestResult, backtest

Array = NDArray[np.float64]

WEALTH: dict[str, dict[str, str]] = {
    "nyse_o": {
        "buy_and_hold": "14.4973082771",
        "best_asset": "54.1403643616",
        "best_constant_rebalanced": "250.5970749",
        "equal_weight": "27.0752463446",
        "eg": "27.0948896003",
        "ons": "109.189",
        "pamr": "5.13842776416e15",
        "olmar1": "7.2149181924e16",
        "olmar2": "1.02195481547e18",
        "cwmr_stdev": "6.49e15",
        "rmr": "1.64e17",
    },
    "nyse_n": {
        "buy_and_hold": "18.0565479821",
        "best_asset": "83.506698304",
        "best_constant_rebalanced": "120.3209099",
        "equal_weight": "31.5517059976",
        "eg": "31.0000950479",
        "ons": "21.586",
        "pamr": "1252597.61559",
        "olmar1": "413678311.052",
        "olmar2": "468811792.661",
        "cwmr_stdev": "1.41e6",
        "rmr": "3.25e8",
    },
    "sp500": {
        "buy_and_hold": "1.34164386564",
        "best_asset": "3.77918186942",
        "best_constant_rebalanced": "4.06862732",
        "equal_weight": "1.64871373863",
        "eg": "1.63332497208",
        "ons": "3.34171",
        "pamr": "5.09487522143",
        "olmar1": "15.9434552119",
        "olmar2": "9.59451110519",
        "rmr": "8.28",
    },
    "djia": {
        "buy_and_hold": ".764361032318",
        "best_asset": "1.18836045056",
        "best_constant_rebalanced": "1.239928438",
        "equal_weight": ".812726066459",
        "eg": ".810030182174",
        "ons": "1.53299",
        "pamr": ".680049794129",
        "olmar1": "2.53723178409",
        "olmar2": "1.16113308272",
        "rmr": "2.67",
    },
}
"""Final wealth by data set and baseline, as printed or with more digits."""
IN_HINDSIGHT = ("best_asset", "best_constant_rebalanced")


def tables(data: Path) -> Iterator[Table]:
    """Return a table for every data set that is found in a folder."""
    for name, wealth in WEALTH.items():
        file = next(iter(sorted(data.rglob(f"{name}.csv"))), None)
        if file is None:
            continue
        market, policies = load(name, file)
        found = play(market, list(policies.values()))
        ours = {
            row: {"wealth": account.values[-1]}
            for row, account in zip(policies, found, strict=True)
        }
        printed = {row: {"wealth": float(text)} for row, text in wealth.items()}
        notes = ("One account each in this environment, without costs.",)
        yield Table(f"Online portfolio selection, {name}", printed, ours, {}, notes)


def load(name: str, file: Path) -> tuple[pe.Market, dict[str, Baseline]]:
    """Return the market of a data set and the baselines of its table."""
    relatives = np.loadtxt(file, delimiter=",", skiprows=1)
    close = np.vstack([np.ones(relatives.shape[1]), relatives.cumprod(axis=0)])
    days = np.datetime64("1962-07-02") + np.arange(len(close))
    panel = pe.PricePanel(days, tuple(f"stock {i}" for i in range(close.shape[1])), close)
    market = pe.Market(panel, np.zeros((*close.shape, 0)), ())
    models = {row: make_baseline(row, market) for row in WEALTH[name]}
    for row in IN_HINDSIGHT:
        models[row].fit(panel, (0, len(close)))
    return market, models


def play(
    market: pe.Market, policies: Sequence[Baseline], commission: float = 0.0
) -> list[BacktestResult]:
    """Return the accounts of policies, from 1 in cash, at a commission in basis points."""
    env = pe.PortfolioVectorEnv(
        len(policies),
        market,
        observation="index",
        action="weights",
        window=1,
        costs={"commission_bps": commission},
        initial_value=1.0,
        autoreset_mode="Disabled",
    )
    return backtest(Each(policies), env)


class Each:
    """Lets every policy decide for the lane of its own."""

    action = "weights"

    def __init__(self, policies: Sequence[Baseline]) -> None:
        self.policies = policies

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Array, Any]:
        """Return target weights (B, N + 1)."""
        lanes = [
            policy.predict({name: entry[lane] for name, entry in observation.items()})[0]
            for lane, policy in enumerate(self.policies)
        ]
        return np.array(lanes), state
