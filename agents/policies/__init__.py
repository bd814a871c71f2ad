"""Per-asset policies: a scorer shared over assets, a separate logit for cash, a pooled critic.

A flat network over all assets memorises the training history; sharing one small scorer over the
assets makes the policy permutation-equivariant and its parameters independent of the number of
assets, so a model trained on 5 assets runs on 20. The policy of TQC is in
``agents.policies.quantile``, which needs sb3-contrib.
"""

import agents.policies.aliases  # noqa: F401  # enters their names into SB3's tables
from agents.policies.common import LOG_STD_INIT
from agents.policies.dirichlet import DirichletDistribution, PerAssetDirichletPolicy
from agents.policies.off_policy import PerAssetSACPolicy, PerAssetTD3Policy
from agents.policies.on_policy import PerAssetActorCriticPolicy

__all__ = [
    "LOG_STD_INIT",
    "DirichletDistribution",
    "PerAssetActorCriticPolicy",
    "PerAssetDirichletPolicy",
    "PerAssetSACPolicy",
    "PerAssetTD3Policy",
]
