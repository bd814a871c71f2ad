"""``evaluate``: names, objects and agents in, the same accounts as by hand out."""

import json
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from gymnasium.wrappers import TimeLimit
from helpers.small_runs import made_run
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import portfolio_env as pe
from agents import load_run, make_agent, make_sb3_vec_env, policy_for
from agents.direct.agent import DirectAgent
from baselines import Ensemble, PortfolioModel, evaluate, make_baseline
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import TrainedAgent, backtest, write_evaluation
from portfolio_env.files.atomic import read_json

MARKET = pe.load_market("synthetic?bars=400&assets=3&seed=1", fit_end=300)
FEW = {"start": 300, "n_resamples": 40}
TRADING = {"observation": "index", "action": "weights", "window": 1, "start": 300}


def half(past):
    """Half in cash."""
    return np.array([0.5, 0.2, 0.2, 0.1])


def model(end=300, **options):
    """An agent that was not trained, in its environment."""
    options = {"observation": "index", "window": 2} | options
    return make_agent("ppo", make_sb3_vec_env(MARKET, 2, end=end, **options), window=1, seed=0)


def same(result, account):
    return np.array_equal(result.values, account.values) and np.array_equal(
        result.held, account.held
    )


def test_baselines_trade_as_they_do_by_hand():
    built = make_baseline("inverse_volatility", MARKET, lookback=20)
    given = {"mo": "momentum", "built": built, "half": half, "class": type(built)}
    found = evaluate(given, MARKET, costs={"commission_bps": 25}, **FEW).comparison
    assert set(found.results) == {"equal_weight", *given}
    env = pe.PortfolioEnv(MARKET, costs={"commission_bps": 25}, **TRADING)
    for name, policy in (
        ("mo", make_baseline("momentum", MARKET)),
        ("built", built),
        ("half", make_baseline(half, MARKET)),
        ("class", make_baseline("inverse_volatility", MARKET)),
        ("equal_weight", make_baseline("equal_weight", MARKET)),
    ):
        assert same(found.results[name], backtest(policy, env))


def test_an_agent_trades_in_the_environment_that_it_was_trained_in():
    options = {
        "costs": {"commission_bps": 3.0, "slippage_bps": 1.0},
        "constraints": {"max_weight": 0.5},
        "initial_value": 500.0,
        "adjustment": 0.3,
        "logits_scale": 2.0,
        "window": 2,
    }
    agent = model(**options)
    found = evaluate({"ppo": agent, "hrp": "hrp"}, MARKET, **FEW).comparison
    env = pe.PortfolioEnv(MARKET, start=300, observation="index", **options)
    assert same(found.results["ppo"], backtest(agent, env))
    own = {name: options[name] for name in ("costs", "constraints", "initial_value")}
    limits = pe.PortfolioConstraints(max_weight=0.5)
    baseline = make_baseline("hrp", MARKET, constraints=limits)
    env = pe.PortfolioEnv(MARKET, **TRADING, **own)
    assert same(found.results["hrp"], backtest(baseline, env))


def test_agents_may_read_and_act_differently():
    plain = PPO("MlpPolicy", pe.PortfolioEnv(MARKET, window=1, end=300, observation="flat"))
    direct = DirectAgent(MARKET.n_features, logits_scale=3.0)
    direct.bind(MARKET)
    weights = model(action="weights", window=3)
    given = {"plain": plain, "direct": direct, "weights": weights}
    found = evaluate(given, MARKET, **FEW).comparison
    for name, options in {
        "plain": {"window": 1, "observation": "flat"},
        "direct": {"window": 1, "observation": "index", "logits_scale": 3.0},
        "weights": {"window": 3, "observation": "index", "action": "weights"},
    }.items():
        env = pe.PortfolioEnv(MARKET, start=300, **options)
        assert same(found.results[name], backtest(given[name], env))
    (dates,) = {tuple(result.timestamps) for result in found.results.values()}
    assert dates[0] == MARKET.timestamps[300]


def test_an_agent_that_was_trained_on_some_assets_at_a_time_trades_all():
    agent = model(universe=2)
    found = evaluate({"ppo": agent}, MARKET, **FEW).comparison
    venv = make_sb3_vec_env(MARKET, observation="index", window=2)
    env = pe.PortfolioEnv(MARKET, start=300, observation="index", window=2)
    assert same(found.results["ppo"], backtest(policy_for(agent, venv), env))
    assert (found.results["ppo"].held > 0).all()


def test_what_is_given_counts_more_than_what_agents_were_trained_with():
    agent = model(costs={"commission_bps": 3})
    found = evaluate({"ppo": agent}, MARKET, costs={"commission_bps": 40}, **FEW).comparison
    costs = {"commission_bps": 40}
    env = pe.PortfolioEnv(MARKET, start=300, observation="index", window=2, costs=costs)
    assert same(found.results["ppo"], backtest(agent, env))


def test_rules_that_differ_must_be_given():
    agents = {"a": model(costs={"commission_bps": 3}), "b": model(costs={"commission_bps": 4})}
    with pytest.raises(ArgumentError, match=r"environments of a, b differ in costs.*give costs="):
        evaluate(agents, MARKET, **FEW)
    evaluate(agents, MARKET, costs={"commission_bps": 3}, **FEW)


def test_policies_of_any_kind():
    class Own:
        """Holds cash and the first asset; says nothing of its environment."""

        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            return np.tile([0.5, 0.5, 0, 0], (len(observation["weights"]), 1)), state

    class Flat(Own):
        env_options: ClassVar = {"observation": "flat", "action": "weights", "window": 4}

        def predict(self, observation, state=None, episode_start=None, deterministic=True):
            assert observation.shape == (1, 4 * 3 * MARKET.n_features + 3 + 4)
            return np.array([[0.5, 0.5, 0, 0]]), state

    told = TrainedAgent(Flat(), options=Flat.env_options)
    found = evaluate({"own": Own(), "flat": Flat(), "told": told}, MARKET, **FEW).comparison
    assert found.duplicate_of["flat"] == found.duplicate_of["told"] == found.duplicate_of["own"]


def test_a_run_by_its_folder(tmp_path):
    path = made_run(tmp_path / "run", market="synthetic?bars=400&assets=3&seed=2")
    run = load_run(path, device="cpu")
    (start, end), options = run.ranges["test"], run.env_options
    found = evaluate({"a": str(path), "b": path, "c": run}, run.market, start=start, n_resamples=40)
    env = pe.PortfolioEnv(run.market, start=start, end=end, **options)
    assert all(same(found.comparison.results[n], backtest(run.model, env)) for n in "abc")
    assert f"Run({path}: algo ppo" in repr(run)
    assert "validation" in run._repr_html_()
    with pytest.raises((ArgumentError, DataError), match="market"):
        evaluate({"a": path}, MARKET, **FEW)


# ---- ranges, and what a reader must know


class Fitted(PortfolioModel):
    """Remembers what it was fitted on."""

    seen = None

    def target(self, past):
        return np.array([1.0, 0, 0, 0])

    def _fit(self, bars):
        type(self).seen = bars.timestamps


@pytest.mark.parametrize(("validation", "cut"), [(None, 300), (200, 200)])
def test_baselines_are_fitted_before_the_ranges_that_judge(validation, cut):
    found = evaluate({"fitted": Fitted}, MARKET, validation=validation, end=380, **FEW)
    assert (Fitted.seen == MARKET.timestamps[:cut]).all()
    assert len(found.comparison.results["fitted"].costs) == 79


def test_with_a_validation_range_agents_pass_the_gate():
    alone = evaluate({"ppo": model(200)}, MARKET, **FEW)
    gated = evaluate({"ppo": model(200)}, MARKET, validation=200, **FEW)
    assert "ppo_gated" not in alone.comparison.results
    assert "ppo_gated" in gated.comparison.results
    assert "gate" in gated.inputs.gate[0]


def test_an_agent_that_has_seen_the_range_is_told():
    agents = {"early": model(300), "late": model(301), "whole": model(None)}
    lines = evaluate(agents, MARKET, **FEW).inputs.warnings
    told = [line.partition(" ")[0] for line in lines if "not out of sample" in line]
    assert told == ["late", "whole"]
    day = str(MARKET.timestamps[300])[:10]
    assert f"late was trained on bars up to {day}, and the evaluation begins at {day}" in lines[0]


@pytest.mark.usefixtures("undrawn")
def test_uses_of_the_range_are_counted_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = evaluate("momentum", MARKET, **FEW)
    assert "is not counted" in found.inputs.warnings[-1]
    assert list(tmp_path.iterdir()) == []
    for seed in (0, 0, 1):
        noise = make_baseline("random", MARKET, seed=seed)
        found = evaluate({"noise": noise, "ppo": model()}, MARKET, folder="kept", **FEW)
    assert "evaluation 3" in found.inputs.title
    assert found.comparison.trials == 4  # equal weight, one agent, two seeds of noise
    looks = read_json(tmp_path / "kept" / "looks.json")["looks"]
    assert [trial["name"] for trial in looks[0]["trials"]] == ["ppo", "equal_weight", "noise"]
    assert looks[0]["model"] == "ppo"
    write_evaluation(found)
    assert (tmp_path / "kept" / "evaluation" / "test" / "report.html").exists()
    facts = json.loads((tmp_path / "kept" / "evaluation" / "test" / "metrics.json").read_text())
    assert facts["steps"] == 99


@pytest.mark.parametrize(
    ("strategies", "options", "message"),
    [
        ("momentun", {}, "did you mean momentum"),
        ({"x": 7}, {}, "must be a subclass"),
        ("momentum", {"start": 1}, "2 bars or more before"),
        ("momentum", {"end": 301}, "2 or more to judge"),
        ("momentum", {"validation": 350}, "must increase"),
        ("momentum", {"start": "soon"}, "not a date"),
        ({"equal_weight": TrainedAgent(None)}, {}, "call the agent something else"),
        ("momentum", {"execution": "tomorrow"}, "execution"),
    ],
)
def test_what_makes_no_sense_is_an_error(strategies, options, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(strategies, MARKET, **FEW | options)


def test_models_that_do_not_tell_their_environment():
    agent = model()
    agent.env = None
    with pytest.raises(ArgumentError, match=r"'ppo' has no environment; call set_env\(venv\)"):
        evaluate({"ppo": agent}, MARKET, **FEW)
    other = PPO("MlpPolicy", "Pendulum-v1")
    with pytest.raises(ArgumentError, match="trained in no PortfolioEnv"):
        evaluate({"ppo": other}, MARKET, **FEW)
    env = DummyVecEnv([lambda: pe.PortfolioEnv(MARKET, observation="flat", window=1, end=300)])
    scaled = PPO("MlpPolicy", VecNormalize(env))
    with pytest.raises(ArgumentError, match="VecNormalize scales"):
        evaluate({"ppo": scaled}, MARKET, **FEW)


def test_wrappers_of_gymnasium_are_seen_through():
    def env():
        inner = pe.PortfolioEnv(MARKET, observation="flat", window=2, end=300)
        return TimeLimit(inner, 20)

    agent = PPO("MlpPolicy", DummyVecEnv([env]))
    found = evaluate({"ppo": agent}, MARKET, **FEW).comparison
    own = pe.PortfolioEnv(MARKET, observation="flat", window=2, start=300)
    assert same(found.results["ppo"], backtest(agent, own))


@pytest.mark.usefixtures("undrawn")
def test_who_was_left_out_and_who_hardly_traded_is_said_everywhere(tmp_path, capsys):
    rng = np.random.default_rng(0)
    days = pd.bdate_range("2020-01-01", periods=420)
    close = pd.DataFrame(np.exp(rng.normal(0, 0.01, (420, 3)).cumsum(0)), days, list("ABC"))
    close.iloc[:280, 0] = np.nan  # listed late for a window of 60 from row 300 on
    market = pe.load_market(close, features="none")

    def timid(past):
        return np.array([0.95, 0.0, 0.05, 0.0])

    strategies = {"calm": make_baseline("inverse_volatility", market), "timid": timid}
    found = evaluate(strategies, market, start=300, n_resamples=40, folder=tmp_path)
    (row,) = found.left_out.to_dict(orient="records")
    assert row == {
        "asset": "A",
        "reason": "has no price from 60 bars before",
        "strategies": ["calm"],
        "first": str(days[300])[:10],
        "last": str(days[339])[:10],
        "decisions": 40,
    }
    calm = found.comparison.results["calm"]
    assert next(iter(calm.left_out)) == str(np.datetime64(days[300], "ns"))
    assert calm.held[39, 1] == 0 < calm.held[40, 1]
    found.print()
    said = capsys.readouterr().out.replace("\n", " ")
    assert "Left out of decisions, though tradable: A (by calm)" in said
    assert "It held 95 % cash on average." in said
    assert found.comparison.table.loc["timid", "remark"] == "95 % cash on average"
    write_evaluation(found)
    assert read_json(found.folder / "metrics.json")["left_out"] == [row]
    page = (found.folder / "report.html").read_text()
    assert "has no price from 60 bars before" in page and "95 % cash on average" in page


def test_members_of_an_ensemble_tell_whom_they_left_out():
    late = MARKET.panel
    close = np.array(late.close)
    close[:250, 0] = np.nan
    prices = pd.DataFrame(close, late.timestamps, list(late.assets))
    market = pe.load_market(prices, features="none")
    mix = Ensemble(market, members=["inverse_volatility", "momentum"])
    env = pe.PortfolioEnv(market, observation="index", action="weights", start=300, end=305)
    left_out = backtest(mix, env).left_out
    reason = "has no price from 60 bars before"
    assert {tuple(each.items()) for each in left_out.values()} == {((late.assets[0], reason),)}


def test_the_benchmark_under_another_name_is_shown_once(caplog):
    found = evaluate({"ew": "equal_weight", "half": half}, MARKET, **FEW)
    assert set(found.results) == {"equal_weight", "half"}
    assert "ew is the benchmark, equal_weight" in caplog.text


def test_weights_are_a_frame_of_dates_and_slots():
    result = evaluate({"half": half}, MARKET, **FEW).results["half"]
    weights = result.weights()
    assert list(weights.columns) == ["cash", *MARKET.assets]
    assert isinstance(weights.index, pd.DatetimeIndex) and weights.index.name == "date"
    long = result.holdings().pivot(index="date", columns="asset", values="weight")
    assert weights.to_numpy() == pytest.approx(long[weights.columns].to_numpy())
