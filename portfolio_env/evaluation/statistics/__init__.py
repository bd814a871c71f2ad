"""Statistical inference: intervals, tests of differences, corrections for many trials, seeds.

- How sure is a measure, or its difference between accounts? ``resample_measures``.
- Does one account outgrow another? ``growth_difference`` (bootstrap), ``growth_difference_test``.
  Is it better at equal risk? ``sharpe_difference``, ``sharpe_difference_test`` (of normal
  returns), ``equal_risk_growth_difference``.
- Is a Sharpe ratio above a threshold? ``probabilistic_sharpe_ratio``; the best of many trials?
  ``deflated_sharpe_ratio``.
- Does any of many strategies outgrow the benchmark? ``superiority_test``; which may be the best?
  ``model_confidence_set``.
- What explains the returns of an account? ``regression``.
- What does a learner do over its seeds? ``seeds_interval``.
"""

from portfolio_env.evaluation.statistics.bootstrap import (
    Interval,
    optimal_block_length,
    stationary_bootstrap_indices,
)
from portfolio_env.evaluation.statistics.data_snooping import (
    ConfidenceSet,
    SuperiorityTest,
    model_confidence_set,
    superiority_test,
)
from portfolio_env.evaluation.statistics.equal_risk import (
    equal_risk_growth_difference,
    sharpe_difference,
)
from portfolio_env.evaluation.statistics.growth import growth_difference, growth_difference_test
from portfolio_env.evaluation.statistics.measures import ResampledMeasures, resample_measures
from portfolio_env.evaluation.statistics.regression import Regression, regression
from portfolio_env.evaluation.statistics.seeds import interquartile_mean, seeds_interval
from portfolio_env.evaluation.statistics.sharpe_ratios import (
    SharpeTest,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    probabilistic_sharpe_ratio,
    sharpe_difference_test,
)

__all__ = [
    "ConfidenceSet",
    "Interval",
    "Regression",
    "ResampledMeasures",
    "SharpeTest",
    "SuperiorityTest",
    "deflated_sharpe_ratio",
    "equal_risk_growth_difference",
    "expected_maximum_sharpe",
    "growth_difference",
    "growth_difference_test",
    "interquartile_mean",
    "model_confidence_set",
    "optimal_block_length",
    "probabilistic_sharpe_ratio",
    "regression",
    "resample_measures",
    "seeds_interval",
    "sharpe_difference",
    "sharpe_difference_test",
    "stationary_bootstrap_indices",
    "superiority_test",
]
