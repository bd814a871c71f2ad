"""DeMiguel, Garlappi & Uppal (2009): portfolios that are optimised, and 1/N, month by month.

"Optimal Versus Naive Diversification: How Inefficient is the 1/N Portfolio Strategy?", Review of
Financial Studies 22, tables 3 to 5. Every month moments of the last 120 months of returns in excess
of the bill are estimated, weights are traded at the month's close without costs, and the account
earns the next month. Measures are per month, of returns in excess of the bill.

A column of the paper is a CSV file of month-end closes (a date and one column per asset; total
returns chained from any number) with a file of the bill's monthly returns, or one of closes of
returns in excess of the bill. In a folder they are called ``dgu_NAME_monthly.csv.gz``,
``dgu_NAME_rf.csv.gz`` and ``dgu_NAME_excess_monthly.csv.gz``, and further printed numbers are read
from ``dgu2009.json`` there: ``{"sharpe": {"mv": {NAME: 0.0794}}, "ceq": ..., "p_value": ...,
"turnover": ...}``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import portfolio_env as pe
from baselines import make_baseline
from baselines.base import Baseline, Weights
from baselines.optimisers import MeanVariance
from benchmarks.tables.table import Cells, Table
from portfolio_env import metrics
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import BacktestResult, backtest
from portfolio_env.evaluation.backtest import realised_returns
from portfolio_env.evaluation.statistics import sharpe_difference_test
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.rates import rates_from_returns

WINDOW = 120  # months
LEVERAGE = 1e6  # no limit
NAIVE = "1/N"
RENAMED = {"sharpe": "Sharpe", "ceq": "CEQ", "p_value": "p", "turnover": "turnover"}
PRINTED: dict[str, dict[str, tuple[float, float, float, float]]] = {
    "sp_sectors": {
        NAIVE: (0.1876, 0.0069, np.nan, 0.0305),
        "mv": (0.0794, 0.0031, 0.12, 38.99),
        "bs": (0.0811, 0.0030, 0.09, 22.41),
        "min": (0.0820, 0.0024, 0.05, 6.54),
        "mv-c": (0.0892, 0.0040, 0.09, 4.53),
        "bs-c": (0.1075, 0.0052, 0.14, 3.64),
        "min-c": (0.0834, 0.0024, 0.01, 2.47),
        "g-min-c": (0.1371, 0.0044, 0.08, 1.30),
    },
    "industry": {
        NAIVE: (0.1353, 0.0050, np.nan, 0.0216),
        "mv": (0.0679, -0.7816, 0.17, 606594.36),
        "bs": (0.0719, -0.3157, 0.19, 10621.23),
        "min": (0.1554, 0.0052, 0.30, 21.65),
        "mv-c": (0.0678, 0.0023, 0.03, 7.17),
        "bs-c": (0.0819, 0.0031, 0.06, 7.22),
        "min-c": (0.1425, 0.0047, 0.41, 2.58),
        "g-min-c": (0.1451, 0.0048, 0.31, 1.52),
    },
}
"""Sharpe ratio, certainty equivalent, p-value and turnover, which is that of 1/N for 1/N and a
multiple of it for the others."""
BAYES = {"mean": "bayes_stein", "covariance": "bayes_stein"}
LEAST = {"objective": "min_variance", "covariance": "sample"}
STRATEGIES: dict[str, dict[str, Any]] = {
    "mv": {"covariance": "sample", "shorts": True},
    "bs": BAYES | {"shorts": True},
    "min": LEAST | {"shorts": True},
    "mv-c": {"objective": "utility", "covariance": "sample"},
    "bs-c": {"objective": "utility"} | BAYES,
    "min-c": LEAST,
    "g-min-c": LEAST | {"least": 0.5},  # of an equal share
}
"""Options of ``MeanVariance``. Weights of the paper's mv and bs, which are divided by their sum,
have the largest Sharpe ratio at any risk aversion; mv-c and bs-c sum to 1, with risk aversion 1."""


class EitherSign(MeanVariance):
    """The long-short portfolio of largest Sharpe ratio, also where its weights sum to less than 0.

    No portfolio whose weights sum to 1 has that ratio then; the paper holds one that sums to -1.
    """

    def target(self, past: PricePanel) -> Weights:
        """Return the weights, cash first."""
        problem = self.problem(past)
        mean, covariance = self.moments(problem)
        best = np.linalg.solve(covariance, mean - self.risk_free(problem))
        if self.objective == "min_variance" or best.sum() > 0:
            return super().target(past)
        out = np.zeros(len(past.assets) + 1)
        out[1 + problem.assets] = best / -best.sum()
        out[0] = 2.0
        self.fallbacks[problem.date] = "the portfolio of largest Sharpe ratio is short in sum"
        return out


class Column(NamedTuple):
    """Data of one column of the paper: prices, and the bill's dated rates (0 for excess prices)."""

    name: str
    market: pe.Market
    rates: Any


def tables(data: Path, bill: Path | None = None, name: str | None = None) -> Iterator[Table]:
    """Return a table for every column whose data are found.

    Args:
        data: A folder, or a file of closes.
        bill: Monthly returns of the bill, for a file of closes of total returns.
        name: Column of the paper, for a file; else a part of its name.
    """
    if data.is_file():
        name = name or data.name.removeprefix("dgu_").partition("_monthly")[0]
        yield table(column(name, data, bill), PRINTED.get(name, {}))
        return
    for file in sorted(data.rglob("dgu_*_monthly.csv*")):
        own = file.name.removeprefix("dgu_").partition("_monthly")[0]
        rates = next(iter(file.parent.glob(f"dgu_{own.removesuffix('_excess')}_rf.csv*")), None)
        if own.endswith("_excess"):
            own = own.removesuffix("_excess")
            if rates is not None and list(file.parent.glob(f"dgu_{own}_monthly.csv*")):
                continue  # total returns and the bill say more
            rates = None
        if name in (None, own):
            yield table(column(own, file, rates), printed(file.parent, own))


def printed(folder: Path, name: str) -> dict[str, tuple[float, float, float, float]]:
    """Return the printed numbers of a column by strategy, see ``PRINTED``."""
    file = folder / "dgu2009.json"
    if name in PRINTED or not file.is_file():
        return PRINTED.get(name, {})
    given = json.loads(file.read_text())
    rows = (NAIVE, *STRATEGIES)
    values = ([given[key].get(row, {}).get(name, np.nan) for key in RENAMED] for row in rows)
    return {row: tuple(map(float, each)) for row, each in zip(rows, values, strict=True)}


def column(name: str, closes: Path, bill: Path | None) -> Column:
    """Return the data of a column.

    Raises:
        ArgumentError: If the bill does not cover the months of the prices.
    """
    frame = pd.read_csv(closes, index_col=0, parse_dates=True)
    if name == "industry":  # the paper's months
        frame = frame["1963-06-30":"2004-11-30"]
    frame = frame.loc[:, frame.notna().all()]
    market = pe.load_market(frame, periods_per_year=12)
    if bill is None:
        return Column(name, market, 0.0)
    returns = pd.read_csv(bill, index_col=0, parse_dates=True).iloc[:, 0]
    months = pd.PeriodIndex(market.timestamps[1:], freq="M")
    earned = returns.groupby(pd.PeriodIndex(returns.index, freq="M")).last().reindex(months)
    if earned.isna().any():
        raise ArgumentError(
            f"{bill} has no return of the bill for {earned.index[earned.isna()][0]}, which "
            f"{closes} has: give both for the same months."
        )
    return Column(name, market, rates_from_returns(market.timestamps, earned.to_numpy()))


def limits(shorts: bool) -> pe.PortfolioConstraints:
    """Return the constraints of a portfolio, of its model and of its account."""
    if not shorts:
        return pe.PortfolioConstraints()
    return pe.PortfolioConstraints(
        long_only=False, max_leverage=LEVERAGE, max_weight=LEVERAGE, min_cash=0.0
    )


def model(name: str, column: Column) -> Baseline:
    """Return the baseline of a row of the table."""
    if name == NAIVE:
        return make_baseline("equal_weight", column.market)
    options, n = dict(STRATEGIES[name]), column.market.n_assets
    shorts, least = options.pop("shorts", False), options.pop("least", 0.0)
    if name == "mv-c":  # the paper divides its sums of squares by the months less N + 2
        options["risk_aversion"] = (WINDOW - 1) / (WINDOW - n - 2)
    return (EitherSign if shorts else MeanVariance)(
        column.market,
        constraints=limits(shorts),
        every=1,
        lookback=WINDOW,
        min_weight=None if shorts else least / n,
        max_weight=LEVERAGE if shorts else 1.0,
        risk_free_rate=column.rates,
        excess=True,
        **options,
    )


class Months(NamedTuple):
    """A strategy out of sample: K months of accounts, each of which begins where one was ruined."""

    accounts: list[BacktestResult]

    @property
    def excess(self) -> NDArray[np.float64]:
        """Return (K,) returns in excess of the bill."""
        return np.concatenate([account.excess_returns for account in self.accounts])

    @property
    def turnover(self) -> float:
        """Return the mean turnover of all rebalancings but those out of an account in cash."""
        return float(np.concatenate([account.turnovers[1:] for account in self.accounts]).mean())

    def turnover_by_next_month(self, market: pe.Market) -> float:
        """Return the turnover with the slip of timing that explains the printed numbers.

        Weights held over a month are drifted with the returns of the month after it, and the sum is
        divided by the number of months rather than of the rebalancings between them.
        """
        held = np.concatenate([account.held[:, 1:] for account in self.accounts])
        moves = np.concatenate(
            [realised_returns(account, market.panel) for account in self.accounts]
        )
        drifted = held[:-1] * (1 + moves[1:])
        drifted /= abs(drifted.sum(axis=1, keepdims=True))
        return float(abs(held[1:] - drifted).sum() / len(held))


def accounts(name: str, column: Column) -> Months:
    """Return the accounts of a strategy: one, and more where it is ruined, as nothing compounds."""
    policy, found, start = model(name, column), [], WINDOW
    while start < column.market.n_bars - 1:
        env = pe.PortfolioEnv(
            column.market,
            start=start,
            window=1,
            observation="index",
            action="weights",
            constraints=limits(STRATEGIES.get(name, {}).get("shorts", False)),
            costs={"commission_bps": 0, "cash_rate_annual": column.rates},
        )
        found.append(backtest(policy, env))
        start += len(found[-1].costs)
    return Months(found)


def table(column: Column, printed: Mapping[str, tuple[float, ...]]) -> Table:
    """Return the table of a column."""
    months = {name: accounts(name, column) for name in (NAIVE, *STRATEGIES)}
    naive = months[NAIVE]
    ours: dict[str, dict[str, float]] = {}
    for name, own in months.items():
        right, slipped = own.turnover, own.turnover_by_next_month(column.market)
        ours[name] = {
            "Sharpe": float(metrics.sharpe(own.excess, 1)),
            "CEQ": float(metrics.certainty_equivalent(own.excess, 1)),
            "p": 0.5 * sharpe_difference_test(own.excess, naive.excess, 1).p_value,
            "turnover": slipped if own is naive else slipped / ours[NAIVE]["turnover"],
            "turnover, right": right if own is naive else right / naive.turnover,
            "most leverage": max(abs(each.held[:, 1:]).sum(axis=1).max() for each in own.accounts),
            "ruined": len(own.accounts) - 1,
        }
    cells: Cells = {
        row: dict(zip(RENAMED.values(), numbers, strict=True)) for row, numbers in printed.items()
    }
    notes = [
        "Turnover: 1/N's own, the others' as multiples of it. The printed numbers drift the "
        "weights of a month with the returns of the month after it; *right* is what is traded.",
    ]
    if column.rates == 0.0:
        notes.append("Prices are of returns in excess of the bill: turnovers drift with those.")
    if column.name == "industry":
        lacking = ", without the market, its 11th asset" if column.market.n_assets < 11 else ""
        notes.append(
            f"The data are of another vintage than the paper's{lacking}. Weights of mv and bs are "
            "divided by a sum that comes near 0: no other data give their numbers."
        )
    if any(row["ruined"] for row in ours.values()):
        notes.append(
            "The paper adds up months in which more than everything is lost; an account that is "
            "ruined begins again the month after."
        )
    digits = {"p": 2, "most leverage": 1, "ruined": 0}
    return Table(
        f"DeMiguel, Garlappi & Uppal (2009), {column.name}", cells, ours, digits, tuple(notes)
    )
