"""Summary of a comparison: the text table, and plain sentences."""

import math
from collections.abc import Sequence

import pandas as pd

from portfolio_env.evaluation.comparison import Comparison
from portfolio_env.evaluation.gate import GateDecision, ValidationGate
from portfolio_env.evaluation.left_out import inactivity
from portfolio_env.evaluation.task import GATED, EvaluationTask
from portfolio_env.evaluation.usage_log import UsageEntry, usage_warning

SIGNIFICANCE = 0.05
LEGEND = (
    "Growth is log growth a year, in %, after costs; strategies are ranked by it. Oracles know the "
    "future: upper bounds, not competitors.",
    "Brackets hold 95 % intervals of a stationary bootstrap of time: sampling variation "
    "within this period, not other markets or periods.",
    "p is the chance of a difference to the benchmark as large as this where there is no true one, "
    "for one strategy taken alone: a t-test that allows for autocorrelation (Newey & West 1987).",
    "The deflated Sharpe ratio is the probability that the true Sharpe ratio is above the largest "
    "that as many trials without skill show by luck (Bailey & Lopez de Prado 2014). It compares "
    "with no skill, not with the benchmark, and strategies that are sure to lose, to costs say, "
    "widen the spread that counts as luck.",
    "Model confidence set: strategies statistically indistinguishable from the best (Hansen, Lunde "
    "& Nason 2011); membership is not evidence of skill.",
)
"""How to read the table."""


def sentence(comparison: Comparison, strategy: str) -> str:
    """Return a sentence on a strategy: whether it alone beats the benchmark.

    One that hardly traded is said to.

    Args:
        comparison: Result of ``compare``.
        strategy: Name of a row of its table.
    """
    verdict = _verdict(comparison, strategy)
    result = comparison.results.get(strategy)
    found = "" if result is None else inactivity(result)
    if not found:
        return verdict
    return f"{verdict} It {'held ' * found.endswith('average')}{found}."


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
    difference, low, high = (
        100 * row[f"growth_difference{part}"] for part in ("", "_low", "_high")
    )
    if comparison.duplicate_of[strategy] == comparison.duplicate_of[benchmark]:
        return f"{strategy} is the same account as {benchmark}."
    if comparison.table["growth_difference_low"].isna()[strategy]:
        return (
            f"{strategy}: difference to {benchmark.replace('_', ' ')} {difference:+.1f} % a year, "
            f"over {len(comparison.results[strategy].costs)} periods, too few for an interval."
        )
    ahead, behind = beats(comparison, strategy), high < 0
    verb = ", taken alone, beats" if ahead else " falls behind" if behind else " does not beat"
    return (
        f"{strategy}{verb} {benchmark.replace('_', ' ')}: difference {difference:+.1f} % a year, "
        f"95 % interval {low:+.1f} to {high:+.1f}."
    )


def beats(comparison: Comparison, strategy: str) -> bool:
    """Return whether the interval of the difference in growth to the benchmark lies above 0.

    Args:
        comparison: Result of ``compare``.
        strategy: Name of a row of its table.
    """
    return float(comparison.table["growth_difference_low"][strategy]) > 0


def best_beats(comparison: Comparison) -> bool:
    """Return whether the best of all strategies is ahead by Hansen's test, at ``SIGNIFICANCE``."""
    test = comparison.superiority
    return test is not None and test.p_value <= SIGNIFICANCE and test.estimate > 0


def overall(comparison: Comparison) -> str:
    """Return the sentence on all strategies: whether the best significantly beats the benchmark."""
    test, benchmark = comparison.superiority, comparison.benchmark.replace("_", " ")
    if test is None:
        return f"No test of the best strategy against {benchmark}."
    count = len(comparison.unique.keys() & comparison.solvent.keys()) - 1
    growth = f"{100 * test.estimate:+.1f} % a year"
    chance = f"p = {test.p_value:.3f} by Hansen's test of superior predictive ability"
    if test.estimate <= 0:
        return f"No strategy is ahead of {benchmark} (best of {count}: {test.best}, {growth})."
    if not best_beats(comparison):
        return (
            f"No strategy significantly outperforms {benchmark} (best of {count}: {test.best}, "
            f"{growth}, {chance})."
        )
    if beats(comparison, test.best):
        return (
            f"{test.best}, the best of {count}, significantly outperforms {benchmark} ({growth}, "
            f"{chance})."
        )
    # The test goes by differences over their errors, so that it may be another one it tells of.
    return (
        f"At least one of {count} strategies significantly outperforms {benchmark} ({chance}), "
        f"but for {test.best}, which grew most, this is not significant ({growth})."
    )


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
    bound = "too short for a lower bound" if few else f"lower bound {100 * decision.low:+.1f}"
    flattered = "; the model was chosen on this range, which flatters it" if chosen_there else ""
    figures = (
        f"made {100 * decision.estimate:+.1f} % a year against equal weight on the validation "
        f"range ({bound}{flattered})"
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
            "This is the training range: agents and baselines were fitted to these bars, and the "
            "gate decided on later ones. Nothing here is out of sample."
        ]
    if split == "validation" and task.agents:
        return [
            "This is the validation range: it chooses models and settings, which flatters the "
            "agents. Nothing of theirs here is out of sample."
        ]
    return [*task.warnings, *([usage_warning(earlier, use)] if earlier else [])]


def text_table(comparison: Comparison) -> pd.DataFrame:
    """Return the table as texts, for a page or a terminal.

    Args:
        comparison: Result of ``compare``.
    """
    table = comparison.table
    texts = {
        "#": _places(comparison),
        "growth %": _texts(table, "{:+.1f}", "annual_log_growth", scale=100, bounds=True),
        "Sharpe": _texts(table, "{:.2f}", "sharpe", bounds=True),
        "drawdown %": _texts(table, "{:.1f}", "max_drawdown", scale=100),
        "turnover": _texts(table, "{:.1f}", "annual_turnover"),
        "cost %": _texts(table, "{:.2f}", "cost_drag", scale=100),
        f"vs {comparison.benchmark} %": _texts(
            table, "{:+.1f}", "growth_difference", scale=100, bounds=True
        ),
        "p": _texts(table, "{:.3f}", "hac_p"),
        "deflated": _texts(table, "{:.2f}", "deflated_sharpe"),
        "set": table["in_confidence_set"].map({1.0: "yes", 0.0: "no"}).fillna(""),
        "remark": table["remark"],
    }
    duplicate_of, benchmark = comparison.duplicate_of, comparison.benchmark
    equal = [name for name in duplicate_of if duplicate_of[name] == duplicate_of[benchmark]]
    texts[f"vs {benchmark} %"][equal] = ""
    return pd.DataFrame(texts)


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
        value, *interval = (
            "" if math.isnan(number) else form.format(scale * number) for number in row
        )
        return f"{value} [{', '.join(interval)}]" if all(interval) and interval else value

    columns = [column, f"{column}_low", f"{column}_high"] if bounds else [column]
    return table[columns].apply(text, axis=1)
