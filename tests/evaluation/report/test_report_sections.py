"""What the sections on time and doubt say, on a market with known dates and planted look-ahead."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers.accounts import ruined

from portfolio_env import PortfolioEnv, load_market
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.evaluation import backtest, compare, read_events
from portfolio_env.evaluation.comparison import BENCHMARK
from portfolio_env.evaluation.diagnostics.decay import signal_decay
from portfolio_env.evaluation.report.inputs import ReportInputs
from portfolio_env.evaluation.report.plots import styles
from portfolio_env.evaluation.report.robustness import (
    decay_section,
    overfitting_section,
    plausibility_section,
)
from portfolio_env.evaluation.report.subperiods import (
    blocks_section,
    events_section,
    regimes_section,
    seed_sentences,
    seeds_section,
)
from portfolio_env.html import Page

BARS, START = 420, 160
DAYS = np.busday_offset(np.datetime64("2019-01-02"), np.arange(BARS)).astype("datetime64[ns]")


class Fixed:
    """Holds the same weights for ever."""

    action = "weights"

    def __init__(self, weights):
        self.weights = np.asarray(weights, float)

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return self.weights[None], state


class Seer(Fixed):
    """Holds what will rise most until the next bar."""

    def __init__(self, close):
        self.best = (close[1:] / close[:-1]).argmax(axis=1) + 1
        self.count = close.shape[1] + 1

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        return np.eye(self.count)[self.best[observation["t"][:, 0]]], state


@pytest.fixture(scope="module")
def panel():
    made = synthetic_panel(bars=BARS, assets=3, seed=5)
    return replace(made, timestamps=DAYS, provenance={"source": "prices.csv"})


@pytest.fixture(scope="module")
def comparison(panel):
    market = load_market(panel)
    policies = {
        BENCHMARK: Fixed([0, 1 / 3, 1 / 3, 1 / 3]),
        "seer": Seer(panel.close),
        "tilted": Fixed([0.1, 0.5, 0.2, 0.2]),
    }
    options = {"observation": "index", "action": "weights", "window": 1, "start": START}
    results = {n: backtest(p, PortfolioEnv(market, **options)) for n, p in policies.items()}
    return compare(results, n_resamples=40)


def chapters(folder, comparison, panel, **more):
    """The HTML of the chapters, by title, and the figures."""
    material = ReportInputs("a range", panel, (START, BARS), (0, START), **more)
    page = Page(folder)
    for chapter in (seeds_section, blocks_section, regimes_section, events_section):
        chapter(page, comparison, material)
    plausibility_section(page, comparison, material)
    return {section.title: "".join(section.parts) for section in page.sections}, page.figures


def test_known_dates_and_regimes(tmp_path, comparison, panel):
    pytest.importorskip("statsmodels")
    found, figures = chapters(tmp_path, comparison, panel)
    assert set(figures) == {"blocks", "periods", "regimes"}
    text = found["Calm and crisis"]
    assert "crisis: 2020-03-01 to 2020-04-30" in text
    assert "normal: 2019-01-01" in text  # a part of it lies in the range
    assert "Of 1 known breaks (COVID low)" in text  # neither Lehman nor tightening
    result = comparison.results["tilted"]
    days = result.timestamps[1:].astype("datetime64[M]").astype(str)
    inside = np.isin(days, ["2020-03", "2020-04"])
    own = 100 * result.log_returns[inside].sum()
    ahead = own - 100 * comparison.results[BENCHMARK].log_returns[inside].sum()
    assert f"{own:+.1f}<wbr> [{ahead:+.1f}]" in text


def test_one_regime_alone_has_no_picture(tmp_path, comparison, panel):
    pytest.importorskip("statsmodels")
    tense = synthetic_panel(bars=BARS, assets=3, seed=2)  # where the model tells turbulence alone
    found, figures = chapters(tmp_path, comparison, replace(tense, timestamps=DAYS))
    assert "turbulence at 100 % of the bars" in found["Calm and crisis"]
    assert "regimes" not in figures


def test_look_ahead_is_flagged(tmp_path, comparison, panel):
    found, _ = chapters(tmp_path, comparison, panel, capital=1e15)
    text = found["Plausibility"]
    for check in ("timing", "foresight", "capacity"):
        assert f"seer: {check} is" in text
    assert f"{BENCHMARK}: timing is" not in text
    assert "a coefficient of 1, as the costs have no impact of their own" in text


def test_what_cannot_be_said_is_not(tmp_path, comparison, panel):
    bare = replace(panel, volume=None, provenance={"source": "synthetic"})
    found, figures = chapters(tmp_path, comparison, bare)
    assert set(found) == {"Blocks of time", "Calm and crisis", "Plausibility"}
    assert "periods" not in figures and "Known periods" not in found["Calm and crisis"]
    assert "The market has no volumes" in found["Plausibility"]
    assert ">capacity<" not in found["Plausibility"]
    assert "participation %" not in found["Plausibility"]


def test_one_account_alone_has_no_picture_of_differences(tmp_path, comparison, panel):
    alone = compare({BENCHMARK: comparison.results[BENCHMARK]}, n_resamples=40)
    found, figures = chapters(tmp_path, alone, panel)
    assert set(found) == {"Plausibility"} and not figures


def test_seeds_speak_together_unless_one_was_ruined(comparison):
    groups = {"ppo": ["seer", "tilted"]}
    (said,) = seed_sentences(comparison, groups)
    assert re.match(
        r"ppo: interquartile mean over 2 seeds \+.* % a year against equal weight", said
    )
    short = replace(ruined(50), timestamps=comparison.results["seer"].timestamps[:51])
    (said,) = seed_sentences(
        compare({**comparison.results, "tilted": short}, n_resamples=40), groups
    )
    assert said == "ppo: no mean over 2 seeds against equal weight, for tilted was ruined."


def test_events(tmp_path, comparison, panel):
    jump, close = 300, panel.close.copy()
    close[jump:] *= 1.3
    moved = replace(panel, close=close, open=None, high=None, low=None)
    dates = [str(DAYS[row])[:10] for row in (jump, 20, BARS - 3)]
    events = read_events(pd.DataFrame({"date": dates, "type": ["jump", "before", "late"]}))
    found, figures = chapters(tmp_path, comparison, moved, events=events)
    assert "events" in figures
    assert '<th scope="row">jump</th><td>1</td>' in found["Events"]
    assert ">before<" not in found["Events"]  # it lies outside the range
    assert "1 left out: needs 120 bars and its window within the prices" in found["Events"]
    before = events[events["type"] == "before"]
    found, _ = chapters(tmp_path, comparison, moved, events=before)
    assert "None of the events lies in the evaluated range." in found["Events"]


def test_folds_take_the_place_of_years(tmp_path, comparison, panel):
    cut = START + 100
    folds = {"fold 1": (DAYS[START + 1], DAYS[cut]), "fold 2": (DAYS[cut + 1], DAYS[-1])}
    found, _ = chapters(tmp_path, comparison, panel, folds=folds)
    assert "Blocks of time" not in found
    own = [r.values for r in (comparison.results["tilted"], comparison.results[BENCHMARK])]
    growth = [100 * np.log(values[100] / values[0]) for values in own]
    assert f"{growth[0]:+.1f}<wbr> [{growth[0] - growth[1]:+.1f}]" in found["Folds"]


def test_decay_and_luck(tmp_path, comparison, panel):
    page = Page(tmp_path)
    drawn = styles(list(comparison.unique), benchmark=BENCHMARK)
    material = ReportInputs("a range", panel, (START, BARS))
    decay_section(page, comparison, material, drawn)
    overfitting_section(page, comparison)
    decay, luck = ("".join(section.parts) for section in page.sections)
    assert set(page.figures) == {"signal_decay", "overfitting"}
    edges = signal_decay(comparison.results["seer"], panel, (0, 1, 2, 5, 10), n_resamples=500)
    for lag in (0, 10):
        assert f">{100 * edges.at[lag, 'edge']:+.1f}<wbr> [" in decay
    assert "In 0 % of 12,870 splits it ends in the lower half" in luck  # the seer is always first
