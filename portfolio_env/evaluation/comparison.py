"""Comparison of backtests over the same dates: one table, best first, with intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from portfolio_env.checks import check_choice
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation.attribution.attribution import Attribution, attribution
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.evaluation.left_out import remarks
from portfolio_env.evaluation.statistics import (
    SuperiorityTest,
    deflated_sharpe_ratio,
    equal_risk_growth_difference,
    growth_difference,
    growth_difference_test,
    model_confidence_set,
    resample_measures,
    sharpe_difference,
    superiority_test,
)
from portfolio_env.html import card
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import time_text
from portfolio_env.metrics import RELATIVE_MEASURES, relative_summary
from portfolio_env.metrics.arrays import FloatArray, deviation, is_constant
from portfolio_env.names import unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENCHMARK = "equal_weight"
RANKED_BY = "annual_log_growth"  # after costs
INTERVALS = (RANKED_BY, "sharpe")  # measures with an interval of their own
ROUNDING = 1e-9  # accounts that differ by less are the same
MIN_PERIODS = 3  # fewer periods have no standard error
# Of noise without costs an interval of 1 period lies above 0 in 48 %, of 3 in 11 %, of 10 in 5 %.
INTERVAL_PERIODS = 10
# Of 20 strategies of noise the test of the best, at 5 %, finds one in 40 % of records of 10
# periods, 17 % of 30, 8 % of 60, 7 % of 250.
SUPERIORITY_PERIODS = 60

Judge: TypeAlias = Literal["growth", "sharpe", "equal_risk"]
DIFFERENCES: dict[Judge, str] = {
    "growth": "growth_difference",
    "sharpe": "sharpe_difference",
    "equal_risk": "equal_risk_difference",
}
"""Column of the difference to the benchmark by what strategies are judged by."""

_BOUNDS = ("low", "high")
_CHANCE = [f"{name}_{part}" for name in DIFFERENCES.values() for part in (*_BOUNDS, "p")]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Comparison of strategies with a benchmark account over the same dates.

    Attributes:
        results: Backtests by name, in the order of the table.
        table: One row per strategy: the best by growth after costs first, then the oracles, which
            are never ranked. Columns:

            - ``rank`` from 1 (equals share one), NaN for oracles;
            - the measures of ``metrics.summary`` and ``metrics.relative_summary`` (against the
              benchmark);
            - ``annual_log_growth_low``, ``_high``, ``sharpe_low``, ``_high``: bootstrap intervals;
            - ``growth_difference``: yearly log growth less that of the benchmark, with ``_low``,
              ``_high`` and ``_p`` from the paired bootstrap, and ``hac_p`` from the t-test;
            - ``sharpe_difference``: Sharpe ratio less that of the benchmark, likewise, by the
              studentised bootstrap of Ledoit & Wolf (2008);
            - ``equal_risk_difference``: ``growth_difference`` after the account was mixed with cash
              or levered to the volatility of the benchmark, likewise;
            - ``deflated_sharpe``: probability that the true Sharpe ratio is above the largest that
              so many trials show by luck alone;
            - ``in_confidence_set``: 1 for strategies in the model confidence set, else 0;
            - ``remark``: "oracle", "ruined", "same as ...", "never invested" or why a strategy
              could not run, and "93 % cash on average" of one that hardly traded and the like,
              see ``left_out.remarks``.

            NaN where nothing can be said: intervals and tests of oracles and of ruined accounts,
            and of records that are too short. Strategies that could not run are the last rows.
        benchmark: Name of the strategy that the others are compared with.
        oracles: Names of those fitted to the evaluated bars.
        duplicate_of: For every ranked account the name of the first equal one, mostly its own;
            the benchmark is first. A gate that is closed makes an agent the benchmark.
        trials: Number of different strategies in the deflated Sharpe ratios.
        superiority: Test of "the best is no better than the benchmark", by ``judge``; None where
            there is none.
        mean_block: Mean block length of the bootstrap, in periods.
        notes: Measures that could not be computed, with the reasons.
        failed: Why a strategy could not run, by name.
        judge: Measure that the test of the best and the confidence set go by: "growth", "sharpe",
            or "equal_risk", growth at the volatility of the benchmark.
        panel: Prices of the market, from which ``attribution`` makes style accounts; or None.
    """

    results: dict[str, BacktestResult]
    table: pd.DataFrame
    benchmark: str
    oracles: tuple[str, ...]
    duplicate_of: dict[str, str]
    trials: int
    superiority: SuperiorityTest | None
    mean_block: float
    notes: tuple[str, ...]
    failed: dict[str, str]
    judge: Judge = "growth"
    panel: PricePanel | None = None
    _attributions: dict[str, Attribution] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        best, rest = str(self.table.index[0]), len(self.table) - 1
        growth = 100 * float(self.table[RANKED_BY][best])
        return (
            f"Comparison({best} {growth:+.1f} % a year, {rest} other{'s' * (rest != 1)}; "
            f"benchmark {self.benchmark}; {self._range()})"
        )

    def _repr_html_(self) -> str | None:
        texts = self.headline().map(lambda cell: f"{cell:.2f}" if isinstance(cell, float) else cell)
        facts = {"range": self._range(), "benchmark": self.benchmark, "units": "% a year"}
        return card("Comparison", facts, texts.replace("nan", ""))

    def _range(self) -> str:
        """Return the first and the last date."""
        times = self.results[self.benchmark].timestamps
        return f"{time_text(times[0])} to {time_text(times[-1])}"

    def headline(self) -> pd.DataFrame:
        """Return the main columns of the table.

        Returns:
            One row per strategy, the best first: ``growth`` (log growth a year after costs, in %),
            ``sharpe``, ``drawdown`` (the largest, in %), ``turnover`` a year, ``cost`` (% a year),
            ``difference`` of growth to the benchmark with its 95 % interval ``low`` and ``high``
            (% a year), ``sharpe_difference`` likewise with ``sharpe_low`` and ``sharpe_high``,
            and ``remark``.
        """
        columns = {
            "growth": 100 * self.table[RANKED_BY],
            "sharpe": self.table["sharpe"],
            "drawdown": 100 * self.table["max_drawdown"],
            "turnover": self.table["annual_turnover"],
            "cost": 100 * self.table["cost_drag"],
            "difference": 100 * self.table["growth_difference"],
            "low": 100 * self.table["growth_difference_low"],
            "high": 100 * self.table["growth_difference_high"],
            "sharpe_difference": self.table["sharpe_difference"],
            "sharpe_low": self.table["sharpe_difference_low"],
            "sharpe_high": self.table["sharpe_difference_high"],
        }
        return pd.DataFrame(columns).round(2).assign(remark=self.table["remark"])

    def values(self) -> pd.DataFrame:
        """Return the value of every account: a row per closed bar, a column per strategy.

        Accounts that were ruined before the end, and prices from outside, are among them; rows
        after a ruin are NaN.
        """
        columns = {
            name: pd.Series(result.values, pd.DatetimeIndex(result.timestamps, name="date"))
            for name, result in self.results.items()
        }
        return pd.DataFrame(columns)

    def returns(self) -> pd.DataFrame:
        """Return simple returns after costs: a row per step, dated by its end; see ``values``."""
        return self.values().pct_change(fill_method=None).iloc[1:]

    def plot(self, names: Sequence[str] | None = None) -> Figure:
        """Plot the values of the accounts and their drawdowns.

        Args:
            names: Strategies to draw; None draws all that ran, the best six with names.

        Returns:
            A matplotlib figure, which needs no display: a notebook shows it, ``savefig`` writes it.

        Raises:
            ArgumentError: If there is no backtest of a name.
            PortfolioError: If matplotlib is not installed.
        """
        from portfolio_env.evaluation.report.plots import comparison_figure, styles

        chosen = list(self.unique) if names is None else list(names)
        for name in chosen:
            if name not in self.results:
                raise unknown("strategy", name, self.results)
        drawn = styles(chosen, benchmark=self.benchmark)
        return comparison_figure({name: self.results[name] for name in chosen}, drawn)

    def attribution(self, name: str) -> Attribution:
        """Return where the difference between a strategy and the benchmark comes from.

        Args:
            name: A strategy that was not ruined, oracles included.

        Raises:
            ArgumentError: If there is no backtest of the name, or it or the benchmark was ruined.
        """
        if name not in self.results:
            raise unknown("strategy", name, self.results)
        for each in (name, self.benchmark):
            if not _solvent({each: self.results[each]}, self._steps):
                raise ArgumentError(f"{each} was ruined: there is nothing to attribute.")
        if name not in self._attributions:
            reference = self.results[self.benchmark]
            rest = self.results.get(BENCHMARK, reference) if reference.outside else reference
            pair = self.results[name], reference
            self._attributions[name] = attribution((name, self.benchmark), *pair, rest, self.panel)
        return self._attributions[name]

    def attributions(self) -> dict[str, Attribution]:
        """Return ``attribution`` of every different ranked account that was not ruined."""
        solvent = self.solvent
        if self.benchmark not in solvent:
            return {}
        equal = self.duplicate_of[self.benchmark]
        names = (name for name in self.unique if name in solvent and name != equal)
        return {name: self.attribution(name) for name in names}

    @property
    def ranked(self) -> dict[str, BacktestResult]:
        """Return the backtests of all but the oracles, best first."""
        return {name: r for name, r in self.results.items() if name not in self.oracles}

    @property
    def solvent(self) -> dict[str, BacktestResult]:
        """Return the ranked accounts that were not ruined."""
        return _solvent(self.ranked, self._steps)

    @property
    def _steps(self) -> int:
        return max(len(result.costs) for result in self.results.values())

    @property
    def unique(self) -> dict[str, BacktestResult]:
        """Return the ranked backtests without duplicates under another name."""
        return {n: result for n, result in self.ranked.items() if self.duplicate_of[n] == n}


def compare(
    results: Mapping[str, BacktestResult],
    benchmark: str = BENCHMARK,
    *,
    oracles: Collection[str] = (),
    failed: Mapping[str, str] | None = None,
    earlier_sharpes: Sequence[float] = (),
    judge: Judge = "growth",
    panel: PricePanel | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Rank strategies by growth after costs, with intervals of their differences.

    Args:
        results: Backtests by name, from the same dates; those of ruined accounts may end earlier.
        benchmark: Name of the strategy that the others are compared with.
        oracles: Names of strategies with knowledge of the evaluation: shown, but in no ranking.
        failed: Why other strategies could not run, by name: they become rows with that remark.
        earlier_sharpes: Yearly Sharpe ratios of other strategies that were tried on these dates.
        judge: Measure that the test of the best and the confidence set go by, see ``Comparison``.
        panel: Prices of the market that they ran on, with bars from before where there are any, by
            which ``Comparison.attribution`` tells styles.
        n_resamples: Number of resamples of every bootstrap.
        seed: Seed of every bootstrap: the same input gives the same table.

    Raises:
        ArgumentError: If there is no result of the benchmark, or the dates differ.
    """
    _check(results, benchmark)
    check_choice("judge", judge, DIFFERENCES)
    measures = pd.DataFrame.from_dict({n: r.metrics() for n, r in results.items()}, orient="index")
    order = measures[RANKED_BY].sort_values(ascending=False, kind="stable").index
    names = [*(n for n in order if n not in oracles), *(n for n in order if n in oracles)]
    everything = {name: results[name] for name in names}
    ranked = {name: results[name] for name in names if name not in oracles}
    steps = max(len(result.costs) for result in results.values())
    solvent = _solvent(ranked, steps)
    options: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    intervals, mean_block = _intervals(solvent, **options)
    own = {name: result for name, result in ranked.items() if not result.outside}
    duplicate_of = _duplicates({benchmark: results[benchmark], **own, **ranked})
    # Prices from outside are no strategy that was tried.
    distinct = [
        name
        for name in ranked
        if duplicate_of[name] == name and (name == benchmark or not results[name].outside)
    ]
    unique = {name: solvent[name] for name in distinct if name in solvent}
    own_sharpes = measures.loc[distinct, "sharpe"]
    trials = [*own_sharpes[np.isfinite(own_sharpes)], *earlier_sharpes]
    table = measures.loc[names].join(
        [
            _relative(everything, benchmark),
            intervals,
            _differences(solvent, benchmark, **options),
            _deflated(solvent, trials),
        ]
    )
    growth = pd.Series({name: measures.at[duplicate_of[name], RANKED_BY] for name in ranked})
    table.insert(0, "rank", growth.rank(ascending=False, method="min"))
    notes = [] if find_spec("statsmodels") else [_missing("the t-test", "statsmodels")]
    if steps < INTERVAL_PERIODS:
        table[[*intervals, *_CHANCE]] = math.nan
        notes.append(f"{steps} periods are too few for intervals: give {INTERVAL_PERIODS} or more.")
    obstacles = _obstacles(steps)
    series = {} if obstacles else judged_series(unique, benchmark, judge)
    superiority, table["in_confidence_set"] = None, math.nan
    if len(series) > 1:
        year = results[benchmark].periods_per_year
        superiority = superiority_test(series, benchmark, year, **options)
        included = model_confidence_set(series, **options).included
        table["in_confidence_set"] = pd.Series(
            {n: float(duplicate_of[n] in included) for n in solvent if duplicate_of[n] in series}
        )
    failures = dict(failed or {})
    remarks = pd.Series({name: _remark(name, solvent, oracles, duplicate_of) for name in names})
    table = table.reindex([*names, *failures])
    table["remark"] = pd.concat([remarks, "could not run: " + pd.Series(failures, dtype=object)])
    return Comparison(
        results=everything,
        table=table.rename_axis("strategy"),
        benchmark=benchmark,
        oracles=tuple(name for name in names if name in oracles),
        duplicate_of=duplicate_of,
        trials=len(trials),
        superiority=superiority,
        mean_block=mean_block,
        notes=(*notes, *obstacles),
        failed=failures,
        judge=judge,
        panel=panel,
    )


def judged_series(
    unique: Mapping[str, BacktestResult], benchmark: str, judge: Judge
) -> dict[str, FloatArray]:
    """Return (K,) series by name whose means times the periods of a year are what is judged by.

    At equal risk accounts without risk are left out, and those that would be ruined at the
    volatility of the benchmark; all, where the benchmark itself is.
    """
    if benchmark not in unique:
        return {}
    if judge == "growth":
        return {name: result.log_returns for name, result in unique.items()}
    series, year = {}, unique[benchmark].periods_per_year
    target = deviation(unique[benchmark].excess_returns)
    for name, result in unique.items():
        excess = result.excess_returns
        if is_constant(excess) or not target > 0:
            continue
        if judge == "sharpe":
            series[name] = excess / deviation(excess) / math.sqrt(year)
            continue
        scaled = excess * (target / deviation(excess)) + result.cash_returns
        if scaled.min() > -1:
            series[name] = np.log1p(scaled)
    return series if benchmark in series else {}


def _check(results: Mapping[str, BacktestResult], benchmark: str) -> None:
    if benchmark not in results:
        raise ArgumentError(f"benchmark={benchmark!r} is none of the results {sorted(results)}.")
    whole = results[benchmark]
    for name, result in results.items():
        shared = min(len(result.timestamps), len(whole.timestamps))
        if not np.array_equal(result.timestamps[:shared], whole.timestamps[:shared]):
            raise ArgumentError(f"{name} and {benchmark} ran over different dates; use one range.")


def _remark(
    name: str,
    solvent: Mapping[str, BacktestResult],
    oracles: Collection[str],
    duplicate_of: Mapping[str, str],
) -> str:
    if name in oracles:
        return "oracle"
    if name not in solvent:
        return "ruined"
    if duplicate_of[name] != name:
        return f"same as {duplicate_of[name]}"
    return ", ".join(remarks(solvent[name]))


def _solvent(results: Mapping[str, BacktestResult], steps: int) -> dict[str, BacktestResult]:
    """Return the accounts with a finite return in every step: those that were not ruined."""
    return {
        name: result
        for name, result in results.items()
        if len(result.costs) == steps and (result.values > 0).all()
    }


def _duplicates(results: Mapping[str, BacktestResult]) -> dict[str, str]:
    """Return for every name the first name of the same account."""
    first: dict[str, str] = {}
    for name, result in results.items():
        same = (other for other in first.values() if _same(result, results[other]))
        first[name] = next(same, name)
    return first


def _same(one: BacktestResult, other: BacktestResult) -> bool:
    equal_length = len(one.values) == len(other.values)
    return equal_length and np.allclose(one.values, other.values, rtol=ROUNDING, atol=0)


def _relative(results: Mapping[str, BacktestResult], benchmark: str) -> pd.DataFrame:
    """Return measures against the benchmark, of accounts as long as its own."""
    other = results[benchmark]
    rows = {
        name: relative_summary(result.values, other.values, other.periods_per_year)
        for name, result in results.items()
        if len(result.values) == len(other.values)
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(RELATIVE_MEASURES))


def _intervals(solvent: Mapping[str, BacktestResult], **options: Any) -> tuple[pd.DataFrame, float]:
    columns = [f"{measure}_{bound}" for measure in INTERVALS for bound in _BOUNDS]
    if not solvent:
        return pd.DataFrame(columns=columns, dtype=float), math.nan
    records = {name: result.track_record() for name, result in solvent.items()}
    year = next(iter(solvent.values())).periods_per_year
    drawn = resample_measures(records, year, measures=INTERVALS, **options)
    rows = {}
    for name in solvent:
        found = {measure: drawn.interval(name, measure) for measure in INTERVALS}
        rows[name] = [getattr(found[m], bound) for m in INTERVALS for bound in _BOUNDS]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns), drawn.mean_block


def _differences(
    solvent: Mapping[str, BacktestResult], benchmark: str, **options: Any
) -> pd.DataFrame:
    parts = ("", "_low", "_high", "_p")
    columns = [f"{name}{part}" for name in DIFFERENCES.values() for part in parts]
    rows: dict[str, list[float]] = {}
    for name, result in solvent.items() if benchmark in solvent else ():
        if _same(result, solvent[benchmark]):
            rows[name] = [*(3 * [0.0, 0.0, 0.0, math.nan]), math.nan]
            continue
        pair = (result.log_returns, solvent[benchmark].log_returns, result.periods_per_year)
        robust = math.nan
        if len(result.costs) >= MIN_PERIODS and find_spec("statsmodels"):
            robust = growth_difference_test(*pair).p_value
        rows[name] = [*growth_difference(*pair, **options), *(8 * [math.nan]), robust]
        if len(result.costs) >= INTERVAL_PERIODS:
            other, year = solvent[benchmark], result.periods_per_year
            excess = (result.excess_returns, other.excess_returns, year)
            rows[name][4:8] = sharpe_difference(*excess, **options)
            rows[name][8:12] = equal_risk_growth_difference(
                result.returns, other.returns, year, cash_returns=result.cash_returns, **options
            )
    columns.append("hac_p")
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)


def _deflated(solvent: Mapping[str, BacktestResult], trials: Sequence[float]) -> pd.DataFrame:
    rows = {
        name: deflated_sharpe_ratio(
            result.excess_returns, result.periods_per_year, trials
        ).probability
        for name, result in solvent.items()
        if len(trials) > 1 and len(result.costs) >= MIN_PERIODS
    }
    return pd.DataFrame({"deflated_sharpe": rows}, dtype=float)


def _obstacles(steps: int) -> list[str]:
    """Return why there is neither a test of the best nor a confidence set, or nothing."""
    what = "the test of the best and the confidence set"
    if find_spec("arch") is None:
        return [_missing(what, "arch")]
    if steps < SUPERIORITY_PERIODS:
        return [f"{steps} periods are too few for {what}: give {SUPERIORITY_PERIODS} or more."]
    return []


def _missing(what: str, library: str) -> str:
    return f"Without {library} {what} is skipped: pip install {library}"
