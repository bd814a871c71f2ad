"""Classes derived from baselines: what is overridden decides, or is refused."""

import numpy as np
import pytest
from helpers.panels import panel_of

import portfolio_env as pe
from baselines import (
    BASELINES,
    Baseline,
    PortfolioModel,
    load_baseline,
    make_baseline,
    save_baseline,
)
from portfolio_env.errors import ArgumentError

MARKET = pe.load_market(panel_of("B", 260, assets=4, seed=3, ragged=False))


class Halves:
    """A mixin beside a model whose own ``_target_at`` never calls ``target``."""

    def target(self, past):
        return 0.5 * super().target(past) + 0.5 * np.eye(1, self.market.n_assets + 1)[0]


@pytest.mark.parametrize("name", ["eg", "pamr", "deep_momentum", "eiie"])
def test_a_target_that_is_overridden_decides(name):
    built_in, options = BASELINES[name], {}
    if name == "deep_momentum":
        options = {"months": [1], "sequence": 5, "epochs": 1}
    if name == "eiie":
        options = {"window": 5, "training": {"iterations": 1}}
    mixed = type("Mixed", (Halves, built_in), {})
    directly = type("Directly", (built_in,), {"target": lambda self, past: None})
    later = type("Later", (mixed,), {})
    faster = type("Faster", (mixed,), {"_target_at": built_in._target_at})
    model, half = (make_baseline(kind, MARKET, **options) for kind in (built_in, later))
    if options:
        for each in (model, half):
            each.fit(MARKET.panel, (0, MARKET.n_bars))
    env = pe.PortfolioEnv(MARKET, start=200, observation="index", action="weights", window=1)
    observation, _ = env.reset(seed=0)
    decided = model.predict(observation)[0]
    expected = 0.5 * decided + 0.5 * np.eye(1, len(decided))[0]
    assert decided[0] < 1
    assert half.predict(observation)[0] == pytest.approx(expected, abs=1e-6)
    assert mixed._target_at is directly._target_at is PortfolioModel._target_at
    assert mixed._decisions is directly._decisions is PortfolioModel._decisions
    assert faster._target_at is built_in._target_at


@pytest.mark.parametrize("name", ["hrp", "ensemble", "volatility_target"])
def test_weights_that_nothing_would_ask_for_are_refused(name):
    decides = "target" if name == "hrp" else "predict"
    with pytest.raises(ArgumentError, match=rf"Mine overrides weights, .* override {decides}"):
        type("Mine", (BASELINES[name],), {"weights": lambda self, observation: None})
    assert type("Mine", (BASELINES[name],), {"weights": (0.5, 0.5)}).weights == (0.5, 0.5)
    own = {"weights": lambda self, observation: None, "_answer": Baseline._answer}
    assert issubclass(type("Mine", (BASELINES[name],), own), Baseline)


@pytest.mark.parametrize("name", ["equal_weight", "ensemble", "volatility_target"])
def test_a_target_that_nothing_would_ask_for_is_refused(name):
    with pytest.raises(ArgumentError, match=r"Mine overrides target, .* from PortfolioModel"):
        type("Mine", (BASELINES[name],), {"target": lambda self, past: None})
    own = {"target": lambda self, past: None, BASELINES[name]._decides_by: BASELINES[name].predict}
    assert issubclass(type("Mine", (BASELINES[name],), own), Baseline)


def test_a_predict_with_other_arguments_is_refused():
    with pytest.raises(ArgumentError, match=r"Mine overrides predict, .* another name"):
        type("Mine", (BASELINES["hrp"],), {"predict": lambda self, features: None})
    type("Mine", (BASELINES["hrp"],), {"predict": lambda self, observation, *_, **__: None})


def test_keywords_of_a_class_reach_its_mixins():
    class Tagged:
        def __init_subclass__(cls, tag="", **options):
            super().__init_subclass__(**options)
            cls.tag = tag

    class Mine(PortfolioModel, Tagged, tag="mine"):
        pass

    assert Mine.tag == "mine"


class Even(PortfolioModel):
    def target(self, past):
        return np.r_[0.0, np.full(len(past.assets), 1 / len(past.assets))]


class KeepsTarget(Even):
    def __init__(self, market, *, target=0.1, **options):
        super().__init__(market, **options)
        self.target = target


class KeepsElsewhere(Even):
    def __init__(self, market, *, target=0.1, **options):
        super().__init__(market, **options)
        self.level = target


class KeepsState(Even):
    def __init__(self, market, **options):
        super().__init__(market, **options)
        self.state = None


class NoParent(Even):
    def __init__(self, market, *, tau=0.5):
        self.market, self.tau = market, tau


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (KeepsTarget, "keeps 0.1 as 'target', which is the name of a method"),
        (KeepsElsewhere, "no attribute 'target' .* under its own name"),
        (KeepsState, "keeps None as 'state', which is the name of a method"),
        (NoParent, r"no attribute 'constraints' after its __init__: call super\(\)"),
    ],
)
def test_attributes_of_a_model_are_checked_when_it_is_made(kind, message):
    with pytest.raises(ArgumentError, match=message):
        make_baseline(kind, MARKET)


class Forgets(Even):
    mean = 0.0

    def _fit(self, bars):
        self.mean = float(np.nanmean(bars.close))


class Keeps(Forgets):
    def state(self):
        return {"mean": self.mean} if self.mean else {}


class Restores(Keeps):
    def restore(self, state):
        self.mean = state["mean"]


def test_what_was_learned_and_would_be_lost_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_baseline(make_baseline(Forgets, MARKET), path)  # not fitted
    for kind, message in ((Forgets, "its state is empty"), (Keeps, "has no restore")):
        model = make_baseline(kind, MARKET).fit(MARKET.panel, (0, 100))
        with pytest.raises(ArgumentError, match=f"{kind.__name__} .*{message}"):
            save_baseline(model, path)
    model = make_baseline(Restores, MARKET).fit(MARKET.panel, (0, 100))
    save_baseline(model, path)
    assert load_baseline(path, MARKET).mean == model.mean > 0
