"""Baselines: policies that need no training, evaluated in the same environment as any agent."""

from baselines.base import BASELINES, Baseline
from baselines.ensemble import Ensemble
from baselines.evaluation import evaluate
from baselines.forecasts import (
    ForecastMeanVariance,
    LstmMeanVariance,
    RandomForestMeanVariance,
    StateSpaceMeanVariance,
    TransformerMeanVariance,
)
from baselines.networks import (
    EIIE,
    DeepMomentum,
    DeepPortfolio,
    GatPortfolio,
    TcnGnnLstmPortfolio,
)
from baselines.online import (
    OLMAR1,
    OLMAR2,
    PAMR,
    RMR,
    CWMRStdev,
    CWMRVar,
    ExponentiatedGradient,
    OnlineNewtonStep,
)
from baselines.optimisers import (
    HierarchicalEqualRisk,
    HierarchicalRiskParity,
    MeanVariance,
    MinimumVariance,
    NestedClusters,
    RiskParity,
)
from baselines.oracles import BestAsset, BestConstantRebalanced
from baselines.plugins import make_baseline
from baselines.portfolio_model import PortfolioModel
from baselines.rules import (
    BuyAndHold,
    Cash,
    ConstantRebalanced,
    CrossSectionalMomentum,
    EqualWeight,
    InverseVolatility,
    LowVolatility,
    Momentum,
    RandomWeights,
    RegimeSwitching,
    TimeSeriesMomentum,
    TrendFilter,
    VolatilityManaged,
)
from baselines.saving import load_baseline, save_baseline
from baselines.volatility_target import VolatilityTarget

__all__ = [
    "BASELINES",
    "Baseline",
    "PortfolioModel",
    "evaluate",
    "load_baseline",
    "make_baseline",
    "save_baseline",
]

# In the order in which an evaluation of all takes them: those that other processes fit come late.
BASELINES.update(
    {
        # rules
        "buy_and_hold": BuyAndHold,
        "cash": Cash,
        "constant_rebalanced": ConstantRebalanced,
        "cross_sectional_momentum": CrossSectionalMomentum,
        "equal_weight": EqualWeight,
        "inverse_volatility": InverseVolatility,
        "low_volatility": LowVolatility,
        "momentum": Momentum,
        "random": RandomWeights,
        "regime_switching": RegimeSwitching,
        "time_series_momentum": TimeSeriesMomentum,
        "trend_filter": TrendFilter,
        "volatility_managed": VolatilityManaged,
        # optimisers
        "herc": HierarchicalEqualRisk,
        "hrp": HierarchicalRiskParity,
        "mean_variance": MeanVariance,
        "min_variance": MinimumVariance,
        "nested_clusters": NestedClusters,
        "risk_parity": RiskParity,
        # oracles, fitted to the evaluated bars
        "best_asset": BestAsset,
        "best_constant_rebalanced": BestConstantRebalanced,
        # online portfolio selection
        "cwmr_stdev": CWMRStdev,
        "cwmr_var": CWMRVar,
        "eg": ExponentiatedGradient,
        "olmar1": OLMAR1,
        "olmar2": OLMAR2,
        "ons": OnlineNewtonStep,
        "pamr": PAMR,
        "rmr": RMR,
        # optimisers of expected returns that are forecast
        "forecast_mean_variance": ForecastMeanVariance,
        "lstm_mean_variance": LstmMeanVariance,
        "random_forest_mean_variance": RandomForestMeanVariance,
        "state_space_mean_variance": StateSpaceMeanVariance,
        "transformer_mean_variance": TransformerMeanVariance,
        # networks trained end to end
        "deep_momentum": DeepMomentum,
        "deep_portfolio": DeepPortfolio,
        "eiie": EIIE,
        "gat_portfolio": GatPortfolio,
        "tcn_gnn_lstm_portfolio": TcnGnnLstmPortfolio,
        # mixtures
        "ensemble": Ensemble,
        "volatility_target": VolatilityTarget,
    }
)
