"""Who takes part in an evaluation: baselines by the rules of the stage, and their mixture."""

from types import SimpleNamespace

import pytest
from panels import panel_of

import portfolio_env as pe
from agents.config import TrainConfig
from agents.setting import Setting, Stage
from baselines import contestants, make_baseline
from portfolio_env.evaluation import backtest

MARKET = pe.Market.from_panel(panel_of("B", 260, assets=4, seed=3, ragged=False))
RANGES = {"train": (0, 150), "validation": (150, 200), "test": (200, 260)}
FITTED = {"mean_variance": "inverse_volatility", "deep_portfolio": "equal_weight", "hrp": "cash"}


def stage_of(names=(), **options):
    """A stage whose agents are rules, so that nothing has to be trained."""
    runs = {name: SimpleNamespace(model=make_baseline("momentum", MARKET)) for name in names}
    config = TrainConfig(**{"window": 1} | options).resolved()
    return Stage(MARKET, RANGES, config.env_options(), runs)


def mixture(monkeypatch, tmp_path, stage):
    """The ensemble that takes part, made of quick members."""
    monkeypatch.setattr(
        contestants, "baseline", lambda name, stage, split: make_baseline(FITTED[name], MARKET)
    )
    monkeypatch.setattr(contestants, "_decision", lambda stage, run: False)
    monkeypatch.setattr(contestants, "_gated", lambda *_: None)
    setting = Setting(tmp_path, stage, (stage,))
    entries, _ = contestants.contestants(setting, "test", ["ensemble"])
    (entry,) = [entry for entry in entries if entry.name == "ensemble"]
    return entry.legs[0].make(), entry.legs[0].options


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_third_each_for_optimiser_network_and_agents(monkeypatch, tmp_path, seeds):
    names = [f"ppo_seed_{seed}" for seed in range(seeds)]
    model, options = mixture(monkeypatch, tmp_path, stage_of(names, adjustment=0.5))
    assert model.shares == pytest.approx(
        {"mean_variance": 1 / 3, "deep_portfolio": 1 / 3} | dict.fromkeys(names, 1 / 3 / seeds)
    )
    assert model.paces == {"mean_variance": 1, "deep_portfolio": 1} | dict.fromkeys(names, 0.5)
    held = backtest(model, pe.PortfolioEnv(**options)).held
    assert held.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("names", "options"),
    [((), {}), (["ppo"], {"observation": "window"})],
)
def test_hrp_stands_in_where_no_agent_can_be_mixed(monkeypatch, tmp_path, names, options):
    model, _ = mixture(monkeypatch, tmp_path, stage_of(names, **options))
    assert list(model.members) == ["mean_variance", "deep_portfolio", "hrp"]


def test_networks_are_trained_by_the_costs_and_constraints_of_the_stage(monkeypatch):
    from baselines.deep import DeepPortfolio

    monkeypatch.setattr(DeepPortfolio, "_fit", lambda self, bars: None)
    costs, limits = pe.TransactionCosts(commission_bps=33), pe.PortfolioConstraints(max_weight=0.4)
    stage = stage_of(costs=costs, constraints=limits)
    model = contestants.baseline("deep_portfolio", stage, "test")
    assert (model.costs, model.constraints, model.fit_period) == (costs, limits, (0, 150))
