"""Summary of a comparison: the text table, and plain sentences."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from portfolio_env.evaluation.attribution.sentences import (
    Lead,
    explanations,
    halves_text,
    hindsight,
)
from portfolio_env.evaluation.comparison import (
    BENCHMARK,
    DIFFERENCES,
    INTERVAL_PERIODS,
    Comparison,
    Judge,
)
from portfolio_env.evaluation.gate import GateDecision, ValidationGate
from portfolio_env.evaluation.left_out import remark_sentences
from portfolio_env.evaluation.statistics import growth_difference
from portfolio_env.evaluation.task import GATED, EvaluationTask
from portfolio_env.evaluation.usage_log import UsageEntry, usage_warning

SIGNIFICANCE = 0.05
JUDGED = {
    "growth": "{:+.1f} % a year",
    "sharpe": "Sharpe difference {:+.2f}",
    "equal_risk": "{:+.1f} % a year at equal volatility",
}
"""Text of a difference by what strategies are judged by."""
LEGEND = (
    "Growth is log growth a year, in %, after costs; strategies are ranked by it. Oracles know the "
    "future: upper bounds, not competitors.",
    "Brackets hold 95 % intervals of a stationary bootstrap of time: sampling variation "
    "within this period, not other markets or periods.",
    "Sharpe difference is the Sharpe ratio less that of the benchmark (Ledoit & Wolf 2008): "
    "leverage buys growth on a rising market, but no higher Sharpe ratio.",
    "p is the chance of a difference in growth to the benchmark as large as this where there is no "
    "true one, for one strategy taken alone, by the bootstrap of the interval beside it.",
    "Deflated vs cash is the probability that the true Sharpe ratio is above the largest that as "
    "many trials without skill show by luck (Bailey & Lopez de Prado 2014). No skill is a ratio of "
    "0, that of cash: on a rising market all that holds assets passes, equal weight too, which is "
    "no merit of a strategy over the benchmark. Strategies that are sure to lose, to costs say, "
    "widen the spread that counts as luck.",
    "Model confidence set: strategies statistically indistinguishable from the best (Hansen, Lunde "
    "& Nason 2011); membership is not evidence of skill.",
)
"""How to read the table."""


def sentence(comparison: Comparison, strategy: str) -> str:
    """Return a sentence on a strategy: whether it alone beats the benchmark, and why.

    What alone explains a lead, an asset or a style, is named (see ``explanations``), and so is a
    universe that was chosen with hindsight. One that hardly traded is said to.

    Args:
        comparison: Result of ``compare``.
        strategy: Name of a row of its table.
    """
    verdict = _verdict(comparison, strategy)
    result = comparison.results.get(strategy)
    sentences = [] if result is None else remark_sentences(result)
    return " ".join([verdict, *sentences, *_why(comparison, strategy)])


def leads(comparison: Comparison, strategy: str) -> list[Lead]:
    """Return in what a strategy is ahead of the benchmark, taken alone: growth, Sharpe ratio."""
    ranked = strategy in comparison.solvent and comparison.benchmark in comparison.solvent
    measures: tuple[Lead, ...] = ("growth", "sharpe")
    return [each for each in measures if ranked and _ahead(comparison, strategy, each) > 0]


def _why(comparison: Comparison, strategy: str) -> list[str]:
    """Return sentences on what explains a lead, and whether survivors flatter it."""
    ahead = leads(comparison, strategy)
    result = comparison.results.get(strategy)
    if not ahead or result is None or result.outside:
        return []
    found = comparison.attribution(strategy)
    sentences = explanations(found, ahead)
    panel = comparison.panel
    if reason := "" if panel is None else hindsight(result, panel):
        sentences.append(
            f"The assets seem to be chosen with hindsight ({reason}), which flatters what holds "
            f"winners; {halves_text(found, ahead)}."
        )
    return sentences


def universe_lines(comparison: Comparison) -> list[str]:
    """Return sentences on the choice of the assets, measured against outside prices if given."""
    lines, equal = [], comparison.results.get(BENCHMARK)
    for result in comparison.results.values():
        if not result.outside or equal is None or BENCHMARK not in comparison.solvent:
            continue
        pair = equal.log_returns, result.log_returns
        if len(pair[0]) < INTERVAL_PERIODS or np.array_equal(*pair):
            continue
        estimate, low, high, _ = growth_difference(*pair, equal.periods_per_year)
        lines.append(
            f"Equal weight of this universe made {100 * estimate:+.1f} "
            f"[{100 * low:+.1f}, {100 * high:+.1f}] % a year against {result.outside}: so much may "
            "be the choice of the assets."
        )
    return lines


def _verdict(comparison: Comparison, strategy: str) -> str:
    if strategy in comparison.failed:
        return f"{strategy} could not run: {comparison.failed[strategy]}"
    row, benchmark = comparison.table.loc[strategy], comparison.benchmark
    growth = f"{100 * row['annual_log_growth']:+.1f} % log growth a year after costs"
    if strategy in comparison.oracles:
        return f"{strategy} knows the future: {growth}, an upper bound, not a competitor."
    if strategy == benchmark:
        return f"{strategy} is the benchmark: {growth}."
    if strategy not in comparison.solvent:
        return f"{strategy} was ruined before the end, so there is nothing to compare."
    if benchmark not in comparison.solvent:
        return f"{strategy}: {growth}; {benchmark} was ruined, so there is nothing to compare with."
    if comparison.duplicate_of[strategy] == comparison.duplicate_of[benchmark]:
        return f"{strategy} is the same account as {benchmark}."
    other = benchmark.replace("_", " ")
    if comparison.table["growth_difference_low"].isna()[strategy]:
        return (
            f"{strategy}: difference to {other} {100 * row['growth_difference']:+.1f} % a year, "
            f"over {len(comparison.results[strategy].costs)} periods, too few for an interval."
        )
    in_growth, at_risk = (
        _ahead(comparison, strategy, "growth"),
        _ahead(comparison, strategy, "sharpe"),
    )
    numbers, ratios = (
        _difference_text(comparison, strategy, "growth"),
        _difference_text(comparison, strategy, "sharpe"),
    )
    if comparison.table["sharpe_difference_low"].isna()[strategy]:  # without risk
        verb = ", taken alone, outgrows" if in_growth > 0 else " does not beat"
        return f"{strategy}{' falls behind' if in_growth < 0 else verb} {other}: {numbers}."
    if in_growth > 0 and at_risk > 0:
        return f"{strategy}, taken alone, beats {other}: {numbers}; {ratios}."
    if in_growth > 0:
        return (
            f"{strategy}, taken alone, outgrows {other}, but is not shown to beat it at equal "
            f"risk: {numbers}; {ratios}."
        )
    if at_risk > 0:
        return (
            f"{strategy}, taken alone, beats {other} at equal risk: {ratios}; not in growth: "
            f"{numbers}."
        )
    verb = "falls behind" if in_growth < 0 else "does not beat"
    return f"{strategy} {verb} {other}: {numbers}; {ratios}."


def _difference_text(comparison: Comparison, strategy: str, judge: Judge) -> str:
    """Return a difference with its interval, e.g. "Sharpe difference +0.38 [+0.18, +0.58]"."""
    columns = [f"{DIFFERENCES[judge]}{part}" for part in ("", "_low", "_high")]
    numbers: list[float] = list(comparison.table.loc[strategy, columns].to_numpy(float))
    if judge == "sharpe":
        ratio, *bounds = map(number_text("{:+.2f}"), numbers)
        return f"Sharpe difference {ratio} [{', '.join(bounds)}]"
    text = number_text("{:+.1f}")
    growth, *bounds = (text(100 * each) for each in numbers)
    return f"difference {growth} % a year, 95 % interval {' to '.join(bounds)}"


def _ahead(comparison: Comparison, strategy: str, judge: Judge) -> int:
    """Return 1 where the interval of the difference lies above 0, -1 where below, else 0."""
    columns = [f"{DIFFERENCES[judge]}_{bound}" for bound in ("low", "high")]
    low, high = comparison.table.loc[strategy, columns].to_numpy(float)
    return int(low > 0) - int(high < 0)


def beats(comparison: Comparison, strategy: str) -> bool:
    """Return whether the interval of the difference to the benchmark lies above 0.

    Args:
        comparison: Result of ``compare``; its ``judge`` says of what the difference is.
        strategy: Name of a row of its table.
    """
    return _ahead(comparison, strategy, comparison.judge) > 0


def best_beats(comparison: Comparison) -> bool:
    """Return whether the best of all strategies is ahead by Hansen's test, at ``SIGNIFICANCE``."""
    test = comparison.superiority
    return test is not None and test.p_value <= SIGNIFICANCE and test.estimate > 0


def overall(comparison: Comparison) -> str:
    """Return the sentence on all strategies: whether the best significantly beats the benchmark."""
    test, benchmark_name = comparison.superiority, comparison.benchmark
    benchmark = benchmark_name.replace("_", " ")
    if test is None:
        return f"No test of the best strategy against {benchmark}."
    tried = [n for n in comparison.unique if not comparison.results[n].outside]
    count = len((set(tried) & comparison.solvent.keys()) - {benchmark_name})
    size = JUDGED[comparison.judge].format(
        test.estimate if comparison.judge == "sharpe" else 100 * test.estimate
    )
    chance = f"p = {test.p_value:.3f} by Hansen's test of superior predictive ability"
    best = called(comparison, test.best)
    if test.estimate <= 0:
        return f"No strategy is ahead of {benchmark} (best of {count}: {best}, {size})."
    if not best_beats(comparison):
        return (
            f"No strategy significantly outperforms {benchmark} (best of {count}: {best}, "
            f"{size}, {chance})."
        )
    if beats(comparison, test.best):
        return (
            f"{best}, the best of {count}, significantly outperforms {benchmark} ({size}, "
            f"{chance})."
        )
    # The test goes by differences over their errors, so that it may be another one it tells of.
    return (
        f"At least one of {count} strategies significantly outperforms {benchmark} ({chance}), "
        f"but for {best}, the first of them, this is not significant ({size})."
    )


def called(comparison: Comparison, strategy: str) -> str:
    """Return the name of a strategy that ran, with a remark if it never invested.

    Where the benchmark lost, an account that never invested is ahead of it without any skill.
    """
    idle = comparison.results[strategy].idle
    return f"{strategy} (never invested)" if idle else strategy


def gate_sentence(agent: str, decision: GateDecision, *, chosen_there: bool = False) -> str:
    """Return a sentence on the gate's decision on the validation range.

    Args:
        agent: Name of the agent.
        decision: Decision of the gate.
        chosen_there: The model was picked on the validation range too, which flatters it.
    """
    account = f"{agent}{GATED}"
    closed = f"Validation gate closed: {agent}"
    if math.isinf(decision.estimate):
        return f"{closed} was ruined on the validation range, so {account} holds equal weight."
    few = math.isinf(decision.low)
    scale = 1 if decision.judge == "sharpe" else 100
    form = "{:+.2f}" if decision.judge == "sharpe" else "{:+.1f}"
    bound = f"lower bound {form.format(scale * decision.low)}"
    bound = "too short for a lower bound" if few else bound
    flattered = "; the model was chosen on this range, which flatters it" if chosen_there else ""
    figures = (
        f"made {JUDGED[decision.judge].format(scale * decision.estimate)} against equal weight on "
        f"the validation range ({bound}{flattered})"
    )
    if decision.passed:
        return f"Validation gate open: {agent} {figures}, so {account} trades as {agent} does."
    return f"{closed} {figures}, so {account} holds equal weight."


def gate_sentences(task: EvaluationTask, gates: Sequence[ValidationGate]) -> list[str]:
    """Return sentences on the decisions of the gates, for every agent and every fold."""
    return [
        (f"{window}: " if window else "")
        + gate_sentence(gate.agent.name, gate.decide(fold), chosen_there=task.model == "best")
        for gate in gates
        for window, fold in zip(list(task.windows) or [""], task.folds, strict=True)
    ]


def caveats(
    task: EvaluationTask, split: str, use: UsageEntry, earlier: Sequence[UsageEntry]
) -> list[str]:
    """Return caveats of the table: ranges that were used before, and oracles."""
    if split == "train":
        return [
            *task.warnings,
            "This is the training range: agents and baselines were fitted to these bars, and the "
            "gate decided on later ones. Nothing here is out of sample.",
        ]
    if split == "validation" and task.agents:
        return [
            *task.warnings,
            "This is the validation range: it chooses models and settings, which flatters the "
            "agents. Nothing of theirs here is out of sample.",
        ]
    return [*task.warnings, *([usage_warning(earlier, use)] if earlier else [])]


def text_table(comparison: Comparison) -> pd.DataFrame:
    """Return the table as texts, for a page or a terminal.

    Args:
        comparison: Result of ``compare``.
    """
    table, against = comparison.table, f"vs {comparison.benchmark.replace('_', ' ')} %"
    texts = {
        "#": _places(comparison),
        "growth %": _texts(table, "{:+.1f}", "annual_log_growth", scale=100, bounds=True),
        "Sharpe": _texts(table, "{:.2f}", "sharpe", bounds=True),
        "drawdown %": _texts(table, "{:.1f}", "max_drawdown", scale=100),
        "turnover": _texts(table, "{:.1f}", "annual_turnover"),
        "cost %": _texts(table, "{:.2f}", "cost_drag", scale=100),
        against: _texts(table, "{:+.1f}", "growth_difference", scale=100, bounds=True),
        "Sharpe difference": _texts(table, "{:+.2f}", "sharpe_difference", bounds=True),
        "p": _texts(table, "{:.3f}", "growth_difference_p"),
        "deflated vs cash": _texts(table, "{:.2f}", "deflated_sharpe"),
        "set": table["in_confidence_set"].map({1.0: "yes", 0.0: "no"}).fillna(""),
        "remark": table["remark"],
    }
    duplicate_of, benchmark = comparison.duplicate_of, comparison.benchmark
    equal = [name for name in duplicate_of if duplicate_of[name] == duplicate_of[benchmark]]
    for column in (against, "Sharpe difference"):
        texts[column][equal] = ""
    return pd.DataFrame(texts)


def number_text(form: str) -> Callable[[float], str]:
    """Return a function that writes a number of a table: nothing for NaN, and no signed zero.

    >>> number_text("{:+.1f}")(-0.04), number_text("{:.1f} %")(-2.0)
    ('+0.0', '-2.0 %')
    """

    def text(value: float) -> str:
        shown = "" if math.isnan(value) else form.format(value)
        return shown if re.search("[1-9]|inf", shown) or not shown else form.format(0.0)

    return text


def _places(comparison: Comparison) -> pd.Series:
    """Return the ranks of what is ranked."""
    ranks = comparison.table["rank"].map("{:.0f}".format)
    ranks[list(comparison.oracles)] = "oracle"
    ranks[list(comparison.failed)] = "failed"
    return ranks


def _texts(
    table: pd.DataFrame, form: str, column: str, *, scale: float = 1, bounds: bool = False
) -> pd.Series:
    """Return numbers as texts, with their interval in brackets; empty where there is none."""

    def text(row: pd.Series) -> str:
        value, *interval = (number_text(form)(scale * number) for number in row)
        return f"{value} [{', '.join(interval)}]" if all(interval) and interval else value

    columns = [column, f"{column}_low", f"{column}_high"] if bounds else [column]
    return table[columns].apply(text, axis=1)
