"""Walk forward: train on the past, test on what comes next, move on, and join the tests.

Rows are half-open ranges of plain numbers. Two ways to let labels and memory end where a range
does: *purge* leaves out rows whose labels reach into the next range, *embargo* further rows that
resemble it by autocorrelation (Lopez de Prado 2018, "Advances in Financial Machine Learning", ch.
7). What the environment rewards at a row never reaches beyond its range, so agents need neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation.backtest import BacktestResult
from portfolio_env.market.timeline import time_text
from portfolio_env.simulation.dynamics import RUIN_FRACTION

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Fold:
    """One step of a walk forward, in half-open ranges of rows.

    Attributes:
        train: Range for training.
        validation: Range for model selection; it may be empty.
        test: Range that is evaluated once; later than both.
    """

    train: Range
    validation: Range
    test: Range

    def test_bars(self, end: int) -> Range:
        """Return the bars of an environment that decides at all test rows: the last earns one more.

        Args:
            end: Row after the last bar; the last test row before it sees nothing that comes after
                and makes no decision.
        """
        return self.test[0], min(self.test[1] + 1, end)


def walk_forward_folds(
    start: int,
    first_test: int,
    end: int,
    folds: int,
    *,
    validation: int,
    rolling: bool = False,
    purge: int = 0,
    embargo: int = 0,
) -> list[Fold]:
    """Return folds whose tests cover [first_test, end) once, in order, each after its own past.

    Args:
        start: First row of the first training range.
        first_test: First row of the first test range.
        end: The row after the last test range.
        folds: Number of folds; their test ranges are equally long, but for a row.
        validation: Rows of every validation range, just before the test.
        rolling: All training ranges are as long as the first, instead of all beginning at
            ``start``.
        purge: Rows left out between training and validation, and between validation and test,
            because labels look so far ahead.
        embargo: Rows left out there on top. (All that is learned from lies before the test here, so
            the two widen the same gap.)

    Raises:
        ArgumentError: If a number is out of range, or a range holds fewer than 2 rows.
    """
    if min(validation, purge, embargo) < 0 or folds < 1:
        raise ArgumentError(
            f"folds={folds} must be at least 1, validation={validation}, purge={purge} and "
            f"embargo={embargo} at least 0."
        )
    gap = purge + embargo
    history = first_test - start - (validation + gap if validation else 0) - gap
    if start < 0 or history < 2:
        raise ArgumentError(
            f"rows {start} to {first_test} leave {history} for training once validation="
            f"{validation} and gaps of {gap} are taken; move first_test back, or shorten them."
        )
    if end - first_test < 2 * folds:
        raise ArgumentError(
            f"rows {first_test} to {end} are too few for {folds} tests of 2 or more; ask for fewer "
            "folds."
        )
    bounds = [first_test + i * (end - first_test) // folds for i in range(folds + 1)]
    plan = []
    for test in pairwise(bounds):
        selected = (test[0] - gap - validation, test[0] - gap)
        learned = selected[0] - gap if validation else selected[1]
        plan.append(Fold((learned - history if rolling else start, learned), selected, test))
    return plan


def stitch(results: Sequence[BacktestResult]) -> BacktestResult:
    """Join the tests of consecutive folds into one account.

    Returns are chained, not money: each fold restarted, with its own initial value and in cash,
    so its money is scaled to what the path is worth by then, and every fold pays for buying in. A
    path that is ruined in some fold ends there.

    Args:
        results: Backtests in order, each from the bar where the one before ends (see
            ``Fold.test_bars``), of the same assets.

    Returns:
        The account; its values begin with those of the first fold.

    Raises:
        ArgumentError: If there is none, or one does not go on where the one before ended.
    """
    if not results:
        raise ArgumentError("there are no results to stitch; give at least one.")
    joined = [results[0]]
    for i, later in enumerate(results[1:], start=1):
        if joined[-1].values[-1] <= RUIN_FRACTION * joined[-1].values[0]:
            break
        _check_continues(i, joined[-1], later)
        joined.append(later)
    growth = [result.values[-1] / result.values[0] for result in joined]
    worth = results[0].values[0] * np.cumprod([1.0, *growth[:-1]])
    scales = [value / result.values[0] for value, result in zip(worth, joined, strict=True)]

    def money(name: str) -> NDArray[np.float64]:
        parts = zip(joined, scales, strict=True)
        return np.concatenate([getattr(result, name) * scale for result, scale in parts])

    def by_step(name: str) -> NDArray[Any]:
        parts = [(len(result.costs), np.asarray(getattr(result, name))) for result in joined]
        return np.concatenate([np.broadcast_to(p, (k, *p.shape[1:])) for k, p in parts])

    lengths = [len(result.costs) for result in joined]
    values = [result.values[1:] * scale for result, scale in zip(joined, scales, strict=True)]
    plain = ("drifted", "held", "turnovers", "cash_returns", "cut", "unfilled", "refused")
    records: dict[str, Any] = {name: money(name) for name in ("trades", "costs", "carries")}
    records |= {name: by_step(name) for name in plain}
    return replace(
        joined[0],
        timestamps=np.concatenate(
            [joined[0].timestamps[:1], *(result.timestamps[1:] for result in joined)]
        ),
        values=np.concatenate([joined[0].values[:1], *values]),
        **records,
        last_weights=joined[-1].last_weights,
        ends={
            int(last) - 1: result.last_weights
            for last, result in zip(np.cumsum(lengths), joined[:-1], strict=False)
        },
        left_out={date: reasons for each in joined for date, reasons in each.left_out.items()},
    )


def _check_continues(i: int, before: BacktestResult, later: BacktestResult) -> None:
    """Reject a result that does not go on where the one before ended."""
    years = [each.stated_periods_per_year for each in (later, before)]
    if later.assets != before.assets or years[0] != years[1]:
        raise ArgumentError(
            f"result {i} is of {later.assets} with {years[0]} stated periods a year, the one "
            f"before of {before.assets} with {years[1]}; stitch accounts of one market."
        )
    if later.timestamps[0] != before.timestamps[-1]:
        raise ArgumentError(
            f"result {i} starts at {time_text(later.timestamps[0])}, the one before ends at "
            f"{time_text(before.timestamps[-1])}; run each to the bar at which the next starts."
        )


@dataclass(frozen=True)
class CombinatorialFold:
    """One split of combinatorial cross-validation, in half-open ranges of rows.

    Attributes:
        train: Rows to learn from, which may lie before, between and after the tests.
        tests: Rows to test on.
        paths: The backtest path that each of the tests belongs to.
    """

    train: tuple[Range, ...]
    tests: tuple[Range, ...]
    paths: tuple[int, ...]


def combinatorial_folds(
    start: int, end: int, *, blocks: int = 6, tests: int = 2, purge: int = 0, embargo: int = 0
) -> list[CombinatorialFold]:
    """Return every way to test on some blocks of rows and learn from the others.

    Lopez de Prado (2018), ch. 12, by skfolio's ``CombinatorialPurgedCV``: each block is tested in
    ``comb(blocks - 1, tests - 1)`` splits, so its tests recombine to so many paths through all
    rows. Models also learn from what comes after a test: this is for judging how much a method's
    result depends on the period, not for pretending to have traded.

    Args:
        start: First row.
        end: The row after the last.
        blocks: Consecutive blocks, at least 3.
        tests: Blocks tested in each split, at least 2 and fewer than ``blocks``.
        purge: Rows left out of training next to a test, on both sides, because labels look so far
            ahead.
        embargo: Rows left out on top after a test.

    Raises:
        ArgumentError: If a number is out of range.
        PortfolioError: If skfolio is not installed.
    """
    try:
        from skfolio.model_selection import CombinatorialPurgedCV
    except ImportError as error:
        raise PortfolioError(
            "combinatorial_folds needs skfolio; pip install 'skfolio>=1.12,<1.13'"
        ) from error
    if not 0 <= start < end:
        raise ArgumentError(f"start={start}, end={end}: give rows with 0 <= start < end.")
    try:
        plan = CombinatorialPurgedCV(blocks, tests, purge, embargo)
        splits = list(plan.split(np.zeros((end - start, 1))))
    except ValueError as error:
        raise ArgumentError(
            f"blocks={blocks}, tests={tests}, purge={purge}, embargo={embargo} do not split "
            f"{end - start} rows: {error}"
        ) from error
    return [
        CombinatorialFold(
            train=tuple(_ranges(start + train)),
            tests=tuple((start + int(rows[0]), start + int(rows[-1]) + 1) for rows in tested),
            paths=tuple(int(path) for path in paths),
        )
        for (train, tested), paths in zip(splits, plan.get_path_ids(), strict=True)
    ]


def _ranges(rows: NDArray[np.int64]) -> list[Range]:
    """Return sorted rows as the fewest half-open ranges."""
    pieces = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces if len(piece)]
