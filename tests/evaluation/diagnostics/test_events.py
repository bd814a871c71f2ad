"""Event studies find planted reactions, are silent without any, and know only what came before."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.diagnostics.events import event_study, profit_per_event, read_events


def panel_with(jumps, bars=400, assets=6, seed=0, silent=()):
    """One factor; ``jumps`` maps (row, asset) to further returns, ``silent`` bars are missing."""
    rng = np.random.default_rng(seed)
    betas = np.linspace(0.5, 1.5, assets)
    returns = betas * rng.normal(0.0005, 0.01, (bars, 1)) + rng.normal(0, 0.01, (bars, assets))
    for (row, asset), jump in jumps.items():
        returns[row, asset] += jump
    close = 100 * np.cumprod(1 + returns, axis=0)
    for row, asset in silent:
        close[row, asset] = np.nan
    times = np.datetime64("2020-01-01", "ns") + np.arange(bars) * np.timedelta64(1, "D")
    return pe.PricePanel(times, tuple("ABCDEF"[:assets]), close)


def events_at(panel, rows, symbols="*", kind="news"):
    symbols = [symbols] * len(rows) if isinstance(symbols, str) else symbols
    frame = pd.DataFrame({"date": panel.timestamps[rows], "type": kind, "symbol": symbols})
    return read_events(frame)


ROWS = list(range(150, 390, 20))


@pytest.mark.parametrize("model", ["market", "mean"])
def test_a_planted_reaction_is_found(model):
    symbols = ["ABCDEF"[i % 6] for i in range(len(ROWS))]
    jumps = {}
    for row, symbol in zip(ROWS, symbols, strict=True):
        jumps[row, "ABCDEF".index(symbol)] = 0.03
        jumps[row + 2, "ABCDEF".index(symbol)] = 0.02
    panel = panel_with(jumps)
    study = event_study(panel, events_at(panel, ROWS, symbols), model=model, before=3, after=5)
    path, row = study.path.loc["news"], study.summary.loc["news"]
    assert row["events"] == len(ROWS) == len(study.events)
    assert path.loc[0, "abnormal_return"] == pytest.approx(
        0.03, abs=3 * path.loc[0, "standard_error"]
    )
    assert row["cumulative"] == pytest.approx(0.05, abs=3 * row["standard_error"])
    assert row["t"] > 3
    assert row["reaction_time"] == 2
    assert path["cumulative"].iloc[-1] == pytest.approx(row["cumulative"])
    if model == "market":  # it takes the factor out, so it sees more sharply
        blunt = event_study(panel, events_at(panel, ROWS, symbols), model="mean", after=5, before=3)
        assert row["standard_error"] < 0.9 * blunt.summary.loc["news", "standard_error"]


def test_without_a_reaction_the_statistic_is_standard_normal():
    """The errors are right, also those of the estimate from few bars."""
    panel = panel_with({}, bars=12_000, seed=1)
    rows = list(range(50, 11_950, 20))
    study = event_study(panel, events_at(panel, rows, "B"), before=2, after=3, estimation=14)
    scores = study.events["cumulative"] / study.events["standard_error"]
    assert len(scores) == len(rows)
    # Student's t with 14 - 2 degrees of freedom; the windows with their estimation do not overlap
    assert scores.std() == pytest.approx(np.sqrt(12 / 10), abs=4 / np.sqrt(2 * len(rows)))
    assert scores.mean() == pytest.approx(0, abs=4 / np.sqrt(len(rows)))


def test_one_event_agrees_with_a_regression():
    from statsmodels.api import OLS

    panel = panel_with({})
    study = event_study(panel, events_at(panel, [200], "C"), before=0, after=0, estimation=50)
    returns = panel.close[1:] / panel.close[:-1] - 1
    others = np.delete(returns, 2, axis=1).mean(axis=1)
    regressors = np.column_stack([np.ones(399), others])
    fitted = OLS(returns[149:199, 2], regressors[149:199]).fit()
    expected = fitted.get_prediction(regressors[199:200])
    row = study.path.loc[("news", 0)]
    assert row["abnormal_return"] == pytest.approx(returns[199, 2] - expected.predicted_mean[0])
    assert row["standard_error"] == pytest.approx(expected.se_obs[0])


def test_events_at_one_bar_are_one():
    """Assets that move together say the same thing twice, which is not twice as sure."""
    panel = panel_with({})
    twin = replace(panel, close=panel.close[:, [0, 0, 2, 3, 4, 5]])
    alone = event_study(twin, events_at(twin, [200], "A"), model="mean")
    both = event_study(twin, events_at(twin, [200, 200], ["A", "B"]), model="mean")
    assert both.summary.loc["news", "events"] == 1
    np.testing.assert_allclose(both.summary, alone.summary, rtol=1e-9)


def test_only_the_past_and_the_window_count():
    panel = panel_with({})
    study = event_study(panel, events_at(panel, [200]), before=4, after=6, estimation=60)
    close = np.array(panel.close)
    close[207:] *= 3  # after the window
    close[:135] *= 5  # before the estimation: its first return is that of row 136
    other = event_study(
        replace(panel, close=close), events_at(panel, [200]), before=4, after=6, estimation=60
    )
    pd.testing.assert_frame_equal(study.path, other.path, rtol=1e-9)
    assert study.summary.loc["news", "cumulative"] != 0


def test_what_cannot_be_studied_is_said():
    panel = panel_with({}, silent=[(230, 1), (231, 1)])
    events = pd.concat(
        [events_at(panel, [30, 395], "A"), events_at(panel, [228], "B"), events_at(panel, [228])]
    )
    study = event_study(panel, events, estimation=50)
    assert len(study.events) == 1  # the one about all assets, of which five are known
    reasons = study.left_out.set_index("date")["reason"]
    assert reasons[panel.timestamps[30]].startswith("needs 50 bars")
    assert reasons[panel.timestamps[395]].startswith("needs 50 bars")
    # B and all assets at one bar and of one type are one event
    assert study.events["symbols"].iloc[0] == ("*", "B")
    lone = event_study(panel, events_at(panel, [228], "B"), estimation=50)
    assert lone.left_out["reason"].iloc[0].startswith("prices are missing")
    assert lone.summary.empty


def test_weekend_news_meet_the_next_bar():
    days = pd.bdate_range("2020-01-01", periods=300)
    panel = replace(panel_with({}, bars=300), timestamps=days.to_numpy("datetime64[ns]"))
    saturday = days[200] + pd.offsets.Week(weekday=5)
    study = event_study(panel, read_events(pd.DataFrame({"date": [saturday], "type": ["x"]})))
    assert study.events["bar"].iloc[0] == saturday + pd.Timedelta(days=2)


def test_events_are_read_from_files(tmp_path, write):
    path = write(
        "date,type,symbol", "2020-02-03,split,A", "2020-01-02,halving,", "2020-01-02,halving,*"
    )
    events = read_events(path)
    assert events["symbol"].tolist() == ["*", "A"]
    assert events["type"].tolist() == ["halving", "split"]
    assert read_events(write("date,type", "2020-01-02,x"))["symbol"].tolist() == ["*"]
    for lines, match in (
        (["date,kind", "2020-01-02,x"], r"lacks the columns \['type'\]"),
        (["date,type", "2020-01-02,"], "line 2: there is no type"),
        (["date,type", "2020-01-32,x"], "line 2: unreadable date '2020-01-32'"),
        (["date,type"], "holds no"),
    ):
        with pytest.raises(DataError, match=match):
            read_events(write(*lines))
    panel = panel_with({})
    with pytest.raises(ArgumentError, match="unknown asset of an event"):
        event_study(panel, events_at(panel, [200], "Z"))
    with pytest.raises(ArgumentError, match="unknown model"):
        event_study(panel, events, model="capm")
    with pytest.raises(ArgumentError, match="estimation=5"):
        event_study(panel, events, estimation=5)


def test_profit_per_event_by_hand():
    panel = panel_with({(row, 0): 0.05 for row in ROWS})
    market = pe.load_market(panel)
    env = pe.PortfolioEnv(market, observation="index", action="weights", window=1, start=100)
    account = backtest(make_baseline("equal_weight", market), env)
    cash = backtest(make_baseline("cash", market), env)
    events = read_events(
        pd.concat([events_at(panel, ROWS), events_at(panel, [50, 398], kind="outside")])
    )
    row = profit_per_event(account, events, after=2).loc["news"]
    growth = np.r_[0.0, account.log_returns]
    inside = {r - 100 + k for r in ROWS for k in range(3)}
    usual = np.mean([growth[k] for k in range(1, len(growth)) if k not in inside])
    sums = np.array([growth[r - 100 : r - 97].sum() for r in ROWS])
    assert row["growth"] == pytest.approx(sums.mean())
    assert row["excess"] == pytest.approx(sums.mean() - 3 * usual)
    assert row["standard_error"] == pytest.approx(sums.std(ddof=1) / np.sqrt(len(ROWS)))
    assert row["hit_ratio"] == np.mean(sums > 3 * usual)
    money = [account.values[r - 98] - account.values[r - 101] for r in ROWS]
    assert row["profit"] == pytest.approx(np.mean(money))
    against = profit_per_event(account, events, after=2, benchmark=cash).loc["news"]
    assert against["excess"] == pytest.approx(sums.mean())
    assert profit_per_event(account, events).index.tolist() == ["news"]
    with pytest.raises(ArgumentError, match="different dates"):
        profit_per_event(account, events, benchmark=replace(cash, timestamps=cash.timestamps[1:]))
