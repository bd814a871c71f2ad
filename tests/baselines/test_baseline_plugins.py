"""Baselines of one's own: classes and functions of past prices, by name or themselves."""

import logging
import re
import sys

import numpy as np
import pytest
from helpers.panels import panel_of

import portfolio_env as pe
from agents.training.config import TrainConfig
from baselines import (
    BASELINES,
    Baseline,
    PortfolioModel,
    load_baseline,
    make_baseline,
    save_baseline,
    strategies,
)
from portfolio_env.errors import ArgumentError, DataError, Terminated, user_code
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.runner import run_backtests
from portfolio_env.evaluation.task import EvaluationFold, EvaluationTask
from portfolio_env.evaluation.usage_log import trials

SOURCE = """
import numpy as np
from baselines import Baseline, PortfolioModel

made = []

class TrendRule(PortfolioModel):
    def __init__(self, market, *, bars=20, **options):
        super().__init__(market, **options)
        self.bars = bars
        made.append(self)

    def target(self, past):
        out = np.zeros(len(past.assets) + 1)
        row = past.close[-1] if len(past.close) <= self.bars else past.close[-1 - self.bars]
        out[1:] = (past.close[-1] > row) & past.tradable[-1]
        out[0] = not out.any()
        return out / out.sum()

class Bare(PortfolioModel):
    def __init__(self, market, *, cash=0.5):
        super().__init__(market)
        self.cash = cash

    def target(self, past):
        n = len(past.assets)
        return np.r_[self.cash, np.full(n, (1 - self.cash) / n)]

class Loud(Baseline):
    def weights(self, observation):
        return np.asarray(observation["weights"], float)

class cash(TrendRule):
    pass

class NoBaseline:
    def __init__(self, *args, **options):
        made.append(options)

def half(past):
    n = len(past.assets)
    return np.r_[0.5, np.full(n, 0.5 / n)]

def options(past, more=1):
    made.append(more)

def short(past):
    return half(past)[1:]

def leaky(past):
    return 2 * half(past)

def unknown(past):
    return half(past) * np.nan

def broken(past):
    return past.nothing

def text(past):
    return [str(weight) for weight in half(past)]

def imaginary(past):
    return half(past) + 1j

def empty(past):
    return [None, *half(past)[1:]]

def silent(past):
    raise ValueError

def ended(past):
    raise SystemExit(0)

def odd(past):
    raise ValueError("two\\nlines \\x1b[31m \\ud800")

class Unfitted(TrendRule):
    def _fit(self, bars):
        raise SystemExit(0)

class Forgetful(PortfolioModel):
    def __init__(self, market, *, bars=20, **options):
        super().__init__(market, **options)

    def target(self, past):
        return half(past)

class Orphan(Forgetful):
    def __init__(self, market, **options):
        self.bars = 20
"""
PANEL = panel_of("B", 260, assets=4, seed=3, ragged=False)
MARKET = pe.load_market(PANEL)
RANGES = {"train": (0, 150), "validation": (150, 200), "test": (200, 260)}


@pytest.fixture
def mine(own_module):
    own_module("my_rules", SOURCE)
    import my_rules

    return my_rules


def task(tmp_path, **options):
    config = TrainConfig(**{"window": 1} | options).resolved()
    fold = EvaluationFold(MARKET, RANGES, config.env_options())
    return EvaluationTask(tmp_path, fold, [fold])


def account(model):
    env = pe.PortfolioEnv(MARKET, window=1, observation="index", action="weights", start=30)
    return backtest(model, env).held


def test_by_name_and_themselves(mine):
    for name, thing in (("my_rules:TrendRule", mine.TrendRule), ("my_rules:half", mine.half)):
        first, second = (account(make_baseline(own, MARKET)) for own in (name, thing))
        np.testing.assert_array_equal(first, second)
    assert make_baseline("my_rules:TrendRule", MARKET, bars=5, every="week").bars == 5
    rule = make_baseline("my_rules:half", MARKET, every="month")
    np.testing.assert_allclose(account(rule)[0], [0.5, *[0.125] * 4])
    assert (rule.every, rule.model_info()["name"]) == ("month", "half")
    assert isinstance(make_baseline("my_rules:Loud", MARKET), mine.Loud)


def test_functions_keep_to_constraints(mine):
    limits = pe.PortfolioConstraints(max_weight=0.4)
    greedy = make_baseline(lambda past: np.eye(1, 5, 2)[0], MARKET, constraints=limits)
    held = greedy.predict_weights(100)
    assert held["cash"] == pytest.approx(0.6) and held.iloc[1:].max() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("my_rules:TrendRul", {}, "did you mean TrendRule"),
        ("my_rules:NoBaseline", {"x": 1}, "must be a subclass of baselines.Baseline"),
        ("my_rules:options", {"more": 2}, "must be a subclass of baselines.Baseline"),
        (
            "my_rules:half",
            {"bars": 2},
            r"'half', ...\) has no option 'bars'; it has constraints, e",
        ),
        ("my_rules:np.save", {"file": "x"}, "must be a subclass"),
        ("os:system", {"command": "touch x"}, "a module of Python itself"),
        ("subprocess:run", {"args": ["touch", "x"]}, "a module of Python itself"),
        ("momentun", {}, "did you mean momentum"),
        (7, {}, "must be a subclass"),
    ],
)
def test_nothing_else_is_called(mine, name, options, says):
    with pytest.raises(ArgumentError, match=says):
        make_baseline(name, MARKET, **options)
    if isinstance(name, str):
        with pytest.raises(ArgumentError):
            strategies.baseline_strategies(name) and make_baseline(name, MARKET, **options)
    assert mine.made == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "short",
            r"short at bar 40 .* answered with a ndarray of the shape \(4,\): it must be \(5,\)",
        ),
        ("leaky", "answered with weights of sum 2: they must be finite and sum to 1"),
        ("unknown", "answered with weights of sum nan"),
        ("broken", r"broken at bar 40 .* raised AttributeError: .*my_rules.py, line \d+"),
        ("text", "text at bar 40 .* answered with '0.5' of type str_ as a weight: give real"),
        ("imaginary", "imaginary at bar 40 .* type complex128 as a weight"),
        ("empty", "empty at bar 40 .* answered with None of type NoneType as a weight"),
        ("silent", r"silent at bar 40 .* raised ValueError \(my_rules.py, line \d+\)$"),
        ("ended", r"ended at bar 40 .* raised SystemExit: 0 \(my_rules.py, line \d+\)$"),
    ],
)
def test_what_it_answers_is_checked(mine, name, says):
    with pytest.raises(ArgumentError, match=says):
        make_baseline(f"my_rules:{name}", MARKET).predict_weights(40)


class Rule(PortfolioModel):
    """In the asset of the highest number, or cash."""

    def in_one(self, numbers):
        best = np.nanargmax(np.r_[0.0, numbers])
        return np.eye(1, self.market.n_assets + 1, best)[0]


class ReadsNextBar(Rule):
    def target(self, past):
        t = len(past.close) - 1
        return self.in_one(self.market.close[t + 1] - self.market.close[t])


class ReadsLastBar(Rule):
    def target(self, past):
        last = self.market.panel.close[min(len(past.close), self.market.n_bars - 1)]
        return self.in_one(last - past.close[-1])


class KeepsPrices(Rule):
    def __init__(self, market):
        super().__init__(market)
        self.prices = {"all": market.panel.close}

    def target(self, past):
        return self.in_one(past.close[-1] - self.prices["all"][-1])


class Draws(Rule):
    def target(self, past):
        return np.random.default_rng().dirichlet(np.ones(self.market.n_assets + 1))


class Remembers(Rule):
    """Impure, but blameless: its own generator, memory, market and past."""

    def __init__(self, market):
        super().__init__(market)
        self.generator, self.seen = np.random.default_rng(0), []

    def target(self, past):
        self.seen.append(len(past.close))
        drawn = self.generator.dirichlet(np.ones(self.market.n_assets + 1))
        return drawn if self.market.tradable[self.seen[-1] - 1].any() else np.eye(1, len(drawn))[0]


class Foresees(ReadsNextBar):
    oracle = True  # which says that it does


@pytest.mark.parametrize("kind", [ReadsNextBar, ReadsLastBar, KeepsPrices, Draws])
def test_what_reads_later_bars_is_refused(kind):
    model = make_baseline(kind, MARKET)
    with pytest.raises(
        ArgumentError, match=rf"{kind.__name__} at bar \d+ .* knows the future.*Read"
    ):
        for t in (40, 50, 60):
            model.predict_weights(t)


def test_what_reads_the_past_is_decided_once(mine):
    model = make_baseline(Remembers, MARKET)
    for t in range(40, 50):
        model.predict_weights(t)
    assert model.seen == [*range(41, 51)]
    assert make_baseline(Foresees, MARKET).predict_weights(40).sum() == 1
    make_baseline("my_rules:half", MARKET).predict_weights(0)


class NoTarget(PortfolioModel):
    pass


class Fails(ReadsNextBar):
    def __init__(self, market, **options):
        raise KeyError("options")


class TakesNothing(ReadsNextBar):
    def __init__(self):
        pass


class OneLane(Baseline):
    def weights(self, observation):
        return np.ones(5) / 5


class NoLane(Baseline):
    def weights(self, observation):
        return observation["nothing"]


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (NoTarget, {}, "NoTarget raised TypeError: .*abstract"),
        (Fails, {}, r"Fails raised KeyError: 'options' \(test_baseline_plugins.py"),
        (TakesNothing, {}, r"TakesNothing does not take \(market\): too many"),
        ("momentum", {"bars": 3}, r"make_baseline\('momentum', \.\.\.\) has no option 'bars'"),
        (
            OneLane,
            {},
            r"OneLane answered with .* the shape \(5,\): it must be \(1, 5\), for each lane",
        ),
        (NoLane, {}, r"NoLane raised KeyError: 'nothing' \(test_baseline_plugins.py"),
    ],
)
def test_what_is_wrong_with_a_class_is_told(kind, options, says):
    with pytest.raises(ArgumentError, match=says):
        account(make_baseline(kind, MARKET, **options))


def test_a_class_that_lacks_what_its_parents_set(mine):
    for name, lacks in (("Forgetful", "bars"), ("Orphan", "market")):
        with pytest.raises(
            ArgumentError, match=f"{name} has no attribute '{lacks}' after its __in"
        ):
            make_baseline(f"my_rules:{name}", MARKET)


def test_what_fails_in_an_evaluation_is_told_in_one_line(mine, tmp_path):
    names = ["my_rules:Unfitted", "my_rules:Forgetful", "my_rules:odd"]
    runs = run_backtests(strategies.baseline_strategies(names), task(tmp_path))
    assert list(runs.results) == ["equal_weight"]
    assert re.match(r"fit of Unfitted raised SystemExit: 0 \(my_rules", runs.failed["Unfitted"])
    assert "no attribute 'bars'" in runs.failed["Forgetful"]
    assert r"ValueError: two lines \x1b[31m \ud800 (my_rules.py" in runs.failed["odd"]


def test_the_arrays_behind_views_end_with_the_decision_too():
    def beyond(past):
        after = past.close.base[min(len(past.close), len(past.close.base) - 1)]
        return np.r_[0.0, np.eye(4)[np.argmax(after / past.close[-1])]]

    model = make_baseline(beyond, MARKET)
    with pytest.raises(ArgumentError, match="knows the future"):
        for bar in range(40, 45):
            model.predict_weights(bar)


def test_an_end_by_a_signal_is_no_error_of_their_code():
    with pytest.raises(Terminated), user_code("mine"):
        raise Terminated(143)


def test_strategies_of_an_evaluation(mine, tmp_path):
    names = "momentum,my_rules:TrendRule,my_rules:half,my_rules:Bare,my_rules:cash,my_rules:broken"
    found = strategies.baseline_strategies(names)
    labels = ["equal_weight", "momentum", "TrendRule", "half", "Bare", "my_rules:cash", "broken"]
    assert [each.name for each in found] == labels
    whole = task(tmp_path)
    runs = run_backtests(found, whole)
    assert list(runs.results) == labels[:-1]
    assert "my_rules.py" in runs.failed["broken"]
    built = make_baseline("my_rules:Bare", MARKET, cash=0.2)
    objects = strategies.baseline_strategies([mine.TrendRule, mine.half, built])
    assert [each.name for each in objects] == ["equal_weight", "TrendRule", "half", "Bare"]
    again = run_backtests(objects, whole)
    for name in ("TrendRule", "half"):
        np.testing.assert_array_equal(again.results[name].held, runs.results[name].held)
    assert again.results["Bare"].held[0, 0] == pytest.approx(0.2)
    with pytest.raises(ArgumentError, match="several baselines are called 'my_rules:Bare'"):
        strategies.baseline_strategies([built, make_baseline("my_rules:Bare", MARKET)])


def test_what_was_tried_is_told_by_its_source(mine, own_module, tmp_path):
    whole = task(tmp_path)

    def tried():
        runs = run_backtests(strategies.baseline_strategies("my_rules:half,my_rules:Loud"), whole)
        return {trial.name: trial.fingerprint for trial in trials(whole, runs)}

    first = tried()
    assert first == tried()
    own_module("my_rules", SOURCE + "\n# another line")
    second = tried()
    assert {name for name in first if first[name] != second[name]} == {"half", "Loud"}


def test_what_stands_in_no_module_has_a_source_too():
    rules = [make_baseline(lambda past, k=k: k, MARKET) for k in (1, 2)]
    assert rules[0].source_sha256() is not None
    assert make_baseline("momentum", MARKET).source_sha256() is None
    other = make_baseline(lambda past: past.close[-1] * 3, MARKET)
    assert other.source_sha256() != rules[0].source_sha256()


def test_saved_by_name(mine, own_module, tmp_path, caplog):
    for name, options in (("my_rules:TrendRule", {"bars": 7}), ("my_rules:half", {"every": 5})):
        model = make_baseline(name, MARKET, **options)
        save_baseline(model, tmp_path / "kept" / "model")
        loaded = load_baseline(tmp_path / "kept" / "model", MARKET)
        assert loaded.model_info() == model.model_info()
        np.testing.assert_array_equal(account(loaded), account(model))
    assert not caplog.records
    own_module("my_rules", SOURCE + "\n# another line")
    with caplog.at_level(logging.WARNING):
        load_baseline(tmp_path / "kept" / "model", MARKET)
    assert "the source of the baseline my_rules:half has changed" in caplog.text
    with pytest.raises(ArgumentError, match="which no file can name"):
        save_baseline(make_baseline(lambda past: past, MARKET), tmp_path / "kept" / "other")


def test_a_file_brings_no_code(own_module, tmp_path):
    from agents.tensors import save_tensors

    own_module("beside", "raise SystemExit")
    tree = {"options": {}, "fit_period": None, "fitted_on": None, "learned": {}}
    for name, says in (
        ("beside:Rule", "nothing that is loaded can bring code"),
        ("os:system", "Python itself"),
        ("subprocess:run", "Python itself"),
        ("numpy:save", "must be a subclass"),
        ("numpy:load", "of which it has no record"),
    ):
        recorded = {"baseline": {} if name == "numpy:load" else {name: "0"}}
        options = {} if name == "beside:Rule" else {"args": ["touch", "here"]}
        file = tmp_path / ("own" if name == "beside:Rule" else "kept") / "model"
        content = tree | {"baseline": name, "options": options, "plugins": recorded}
        save_tensors(file, content, kind="baseline")
        with pytest.raises((ArgumentError, DataError), match=says):
            load_baseline(file, MARKET)
    hidden = tree | {"baseline": "ensemble", "options": {"members": ["beside:Rule"]}}
    save_tensors(tmp_path / "mix", hidden, kind="baseline")
    with pytest.raises(DataError, match="of which it has no record"):
        load_baseline(tmp_path / "mix", MARKET)
    assert "beside" not in sys.modules


def test_a_file_beside_its_module(mine, tmp_path):
    save_baseline(make_baseline("my_rules:half", MARKET), tmp_path / "model")
    assert load_baseline(tmp_path / "model", MARKET).model_info()["name"] == "half"
    del sys.modules["my_rules"]
    with pytest.raises(DataError, match="import it in your program before you load the file"):
        load_baseline(tmp_path / "model", MARKET)
    assert "my_rules" not in sys.modules


def test_names_of_built_in_ones_stay():
    labels = [each.name for each in strategies.baseline_strategies("all")]
    assert sorted(labels) == sorted(BASELINES)
