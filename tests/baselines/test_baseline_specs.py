"""Baselines with options as text: what they mean, that nothing runs, and what errors say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portfolio_env as pe
from baselines import evaluate, make_baseline
from baselines.specs import spec_of, split_specs
from baselines.strategies import baseline_strategies
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest

MARKET = pe.load_market("synthetic?bars=300&assets=3&seed=1")
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.none(), st.text(), FINITE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
OPTIONS = st.dictionaries(st.sampled_from(["lookback", "top", "every", "members"]), VALUES)


@given(
    given=st.lists(st.tuples(st.sampled_from(["momentum", "my_rules:Trend"]), OPTIONS), min_size=1)
)
def test_what_is_written_is_read(given):
    texts = [
        f"{name}({', '.join(f'{key} = {value!r}' for key, value in options.items())})"
        for name, options in given
    ]
    assert [spec_of(each) for each in split_specs(",".join(texts))] == given


@pytest.mark.parametrize(
    "text",
    ["f(g())", "f(1)", "f(a=b)", "f(a=1", "f(a=1))", "f(a=1)(b=2)", "f(**{})", "f(a=1, a=2)",
     "f(a=1) + f(b=2)", "f(a=[x for x in ()])", "f(a=" + "(" * 500, "f(a=1).b"],
)  # fmt: skip
def test_nothing_but_named_literals_is_read(text):
    with pytest.raises(ArgumentError, match=r"plain values|once, by name"):
        spec_of(text)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("hrp,momentum(lokback=120)", "momentum has no option 'lokback'; did you mean 'lookback'"),
        ("cash(every=2)", "cash has no option 'every'; it has none"),
        ("momentun(top=1)", "did you mean momentum"),
        ("hrp(constraints={})", "the same for all"),
        ("ensemble(members=['hpr'])", "did you mean hrp"),
        ("momentum(top=1),momentum(top = 1)", "several baselines are called"),
        ("volatility_target(members=3)", "members must be a list of names"),
        ("volatility_target(members='hrp')", "members must be a list of names"),
    ],
)
def test_errors_come_before_any_backtest(names, message):
    with pytest.raises(ArgumentError, match=message):
        baseline_strategies(names)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant_rebalanced", {"proportions": [1, 2, 3]}),
        ("constant_rebalanced", {"proportions": "x"}),
        ("ensemble", {"members": ["hrp", "cash"], "shares": [0.5, 0.5]}),
    ],
)
def test_values_of_the_wrong_kind_are_named(name, options):
    with pytest.raises(ArgumentError, match=f"baseline {name} cannot take .*{list(options)[-1]}="):
        make_baseline(name, MARKET, **options)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("momentum(lookback=-5)", "lookback=-5 must be"),
        ("ensemble(members=['momentum(top=7)', 'hrp'])", "top=7 must be"),
        ("ensemble(members=['hrp', 'cash'], shares={'hrp': 2.0})", "give each of hrp, cash"),
        ("constant_rebalanced(proportions={'XYZ': 1.0})", "XYZ"),
        ("deep_portfolio(loss='luck')", "loss='luck' must be"),
        ("deep_portfolio(training={'iterations': 0})", "iterations=0 must be"),
    ],
)
def test_values_that_no_baseline_takes_use_no_range(names, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        evaluate(f"hrp,{names}", MARKET, start=250, n_resamples=20, folder=tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_what_cannot_run_with_any_options_is_a_row():
    """Constraints of the evaluation are no option: the others are judged all the same."""
    names = "equal_weight,ons(eta=0.5),momentum(lookback=9)"
    limits = {"long_only": False, "max_leverage": 2.0}
    found = evaluate(names, MARKET, start=250, n_resamples=20, constraints=limits)
    assert list(found.comparison.failed) == ["ons(eta=0.5)"]


def test_options_reach_the_baseline_and_its_name():
    names = "momentum(lookback=20, top=0.4),ensemble(members=['momentum(lookback=9)', 'hrp'])"
    found = evaluate(f"{names},momentum", MARKET, start=250, n_resamples=20)
    assert set(found.results) == {"equal_weight", *split_specs(names), "momentum"}
    env = pe.PortfolioEnv(MARKET, observation="index", action="weights", window=1, start=250)
    for options in ({"lookback": 20, "top": 0.4}, {}):
        told = ", ".join(f"{name}={value}" for name, value in options.items())
        alone = backtest(make_baseline("momentum", MARKET, **options), env)
        assert (
            alone.values == found.results[f"momentum({told})" if told else "momentum"].values
        ).all()
    labelled = evaluate(
        {"fast": "momentum(lookback=20, top=0.4)"}, MARKET, start=250, n_resamples=20
    )
    assert (labelled.results["fast"].values == found.results[split_specs(names)[0]].values).all()
