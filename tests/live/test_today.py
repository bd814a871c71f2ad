"""The orders of the last bar: what they follow from, what they say, and when an alert fires."""

import json
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.panels import panel_of, rewritten_after

import trade
from agents import bind_market, make_agent, make_sb3_vec_env
from agents.direct.agent import DirectAgent
from baselines import make_baseline
from portfolio_env import Market, PortfolioEnv, load_market
from portfolio_env.errors import ArgumentError
from portfolio_env.features.pipeline import FeaturePipeline
from portfolio_env.live import AccountOptions, AlertBounds, Predictor, Today, orders_at, today

OPTIONS: dict[str, Any] = {"observation": "index", "window": 4}
WEIGHTS = {"action": "weights", **OPTIONS}
CAPITAL = AccountOptions(capital=10_000, lot=0.01)
PANEL = panel_of("D", 120, assets=4)
PIPELINE = FeaturePipeline("minimal").fit(PANEL, 60)


def market_of(panel: Any) -> Market:
    return PIPELINE.transform(panel)


def orders_of_today(policy: Any, market: Market, **options: Any) -> Today:
    predictor = Predictor(policy, PortfolioEnv(market, **options))
    return today(predictor, CAPITAL, name="x", now=market.timestamps[-1])


def test_a_changed_future_does_not_change_the_orders_of_a_bar() -> None:
    """Of another future and of none: decided at the bar, within the market and at its end."""
    t, costs = 100, {"costs": {"impact": 0.3}}
    venv = make_sb3_vec_env(market_of(PANEL), 1, **OPTIONS)
    ppo = make_agent("ppo", venv, seed=0, n_steps=8, batch_size=8, device="cpu")
    direct = DirectAgent(PIPELINE.transform(PANEL).n_features, window=4, device="cpu")
    for execution in ("close", "next_open"):
        for name in ("momentum", "inverse_volatility", "ppo", "direct"):
            found = []
            for panel in (PANEL, rewritten_after(PANEL, t, 8), PANEL.past(t)):
                market, kind = market_of(panel), WEIGHTS
                if name == "ppo":
                    bind_market(ppo, market)
                    policy, kind = ppo, OPTIONS
                elif name == "direct":
                    direct.bind(market)
                    policy, kind = direct, OPTIONS
                else:
                    policy = make_baseline(name, market)
                env = PortfolioEnv(market, **kind, **costs, execution=execution)
                orders = orders_at(Predictor(policy, env), CAPITAL, t)
                found.append((orders.units, orders.prices, orders.cost, orders.reasons))
            assert found[0] == found[1] == found[2], name


def test_a_late_candle_is_no_delisting(tmp_path: Path) -> None:
    market = market_of(PANEL)
    held = next(n for k, n in enumerate(PANEL.assets) if market.tradable[-2:, k].all())
    place = PANEL.assets.index(held)
    bars = {name: np.array(getattr(PANEL, name)) for name in ("open", "high", "low", "close")}
    volume = np.array(PANEL.volume)
    for values in (*bars.values(), volume):
        values[-1, place] = np.nan
    late = market_of(replace(PANEL, **bars, volume=volume))
    path = tmp_path / "h.csv"
    path.write_text(f"asset,units\n{held},7\ncash,100\n")
    predictor = Predictor(make_baseline("cash", late), PortfolioEnv(late, **WEIGHTS))
    found = today(predictor, AccountOptions(path), name="x", now=late.timestamps[-1])
    assert found.orders.after.units[place] == 7
    assert found.orders.reasons[place] == "no bar now"
    assert float(found.orders.prices[place]) == PANEL.close[-2, place]


def test_alerts(tmp_path: Path) -> None:
    market = market_of(PANEL)
    first = orders_of_today(make_baseline("equal_weight", market), market, **WEIGHTS)
    assert first.alerts == ()
    first.write(tmp_path)
    path = tmp_path / "h.csv"
    name = PANEL.assets[int(np.argmax(market.tradable[-1]))]
    path.write_text(f"asset,units\n{name},5\ncash,100\n")

    def found(policy: str = "equal_weight", days: float = 0, **bounds: Any) -> str:
        predictor = Predictor(make_baseline(policy, market), PortfolioEnv(market, **WEIGHTS))
        now = market.timestamps[-1] + np.timedelta64(round(days * 86_400), "s")
        limits = AlertBounds(**{"drift": None, "target": None, "drawdown": None} | bounds)
        account = AccountOptions(path)
        return " ".join(
            today(predictor, account, name="x", now=now, bounds=limits, folder=tmp_path).alerts
        )

    assert found() == ""
    assert found(drift=0.05).startswith("drift: ")
    assert found("cash", target=0.1).startswith("change of target: 100.0 %")
    assert "below the highest value so far, 10,000.00" in found(drawdown=0.1)
    assert found(days=1.5) == ""
    assert "stale data: the last bar is of" in found(days=9)
    assert found(days=9, age=10) == ""
    assert "(bound 2.0 days)" in found(days=3, age=2)


def test_what_is_printed_fits_the_terminal_and_the_files_are_exact(tmp_path: Path) -> None:
    market = market_of(PANEL)
    found = orders_of_today(make_baseline("momentum", market), market, **WEIGHTS)
    assert all(len(line) <= 80 for line in found.text().splitlines())
    for name in PANEL.assets:
        assert name in found.text()
    found.write(tmp_path)
    table = pd.read_csv(tmp_path / "orders.csv", index_col="asset")
    assert list(table.index) == [*PANEL.assets, "cash"]
    record = json.loads((tmp_path / "today.json").read_text())
    cash = Decimal(record["cash_before"]) - Decimal(record["cash_after"]) - Decimal(record["cost"])
    spent = sum(Decimal(o["order_units"]) * Decimal(o["price"] or 0) for o in record["orders"])
    assert cash == spent


def test_many_assets_under_a_lot_take_one_line() -> None:
    market = load_market("synthetic?bars=30&assets=40")
    predictor = Predictor(make_baseline("equal_weight", market), PortfolioEnv(market, **WEIGHTS))
    account = AccountOptions(capital=1_000, lot=1_000)
    found = today(predictor, account, name="x", now=market.timestamps[-1])
    said = " ".join(found.text().split())
    first = ", ".join(market.assets[:5])
    assert (
        "Under a lot, 40 assets: together held 0.0 %, target 100.0 %, orders of 1,000.00 left out: "
        f"{first} and 35 more." in said
    )
    assert len(found.text().splitlines()) < 15 and len(found.orders.table()) == 41
    few = AccountOptions(capital=1_000, lot=0.0)
    assert "Under a lot" not in today(predictor, few, name="x", now=market.timestamps[-1]).text()


# ---- the command


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["trade.py", *map(str, arguments)])
    return trade.main()


def test_a_baseline_s_orders_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "prices.csv"
    PANEL.to_frame().to_csv(data, index=False)
    out, asked = tmp_path / "out", ("--baseline", "momentum", "--data", data)
    as_of = ("--as-of", str(PANEL.timestamps[-1])[:10], "--out", out)
    assert command(monkeypatch, *asked, "--capital", 5000, *as_of) == 0
    said = capsys.readouterr().out
    assert "Orders of momentum, decided at the close of 2021-04-30" in said
    assert "Written: " in said and said.strip().endswith("orders.csv")
    assert (out / "orders.csv").exists()
    assert command(monkeypatch, *asked, "--capital", 5000, "--out", out) == trade.ALERT
    assert "ALERT: stale data" in capsys.readouterr().out
    lots = tmp_path / "lots.csv"
    lots.write_text("asset,lot\n*,0.5\n")
    json_ = (*asked, "--capital", 5000, "--lots", lots, *as_of, "--format", "json")
    assert command(monkeypatch, *json_) == 0
    record = json.loads(capsys.readouterr().out)
    assert all(Decimal(each["order_units"]) % Decimal("0.5") == 0 for each in record["orders"])


def test_long_names_are_printed_whole_in_lines_of_80(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "prices.csv"
    names = [f"Emerging Markets Bond Series {i}" for i in range(len(PANEL.assets))]
    replace(PANEL, assets=tuple(names)).to_frame().to_csv(data, index=False)
    asked = ("--baseline", "equal_weight", "--data", data, "--capital", 5000)
    as_of = ("--as-of", str(PANEL.timestamps[-1])[:10], "--out", tmp_path / "out")
    assert command(monkeypatch, *asked, *as_of) == 0
    lines = capsys.readouterr().out.splitlines()
    assert set(names) <= set(lines) and max(map(len, lines[:-1])) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the folder of a run, or --baseline"),
        (("--baseline", "hrp"), "give the account"),
        (("--baseline", " ,"), "baseline=' ,' must be the name of one"),
        (("nowhere", "today", "--capital", 5), "nowhere is not a run folder"),
        (("--baseline", "hrp", "--capital", -1), "capital=-1.0 must be"),
        (("--baseline", "hrp,momentum", "--capital", 1, "--data", "?"), "several baselines"),
        (("--baseline", "best_asset", "--capital", 1, "--data", "?"), "knows the future"),
        (("--baseline", "hrp", "--capital", 1, "--update"), "is no folder of a store"),
        (
            ("--baseline", "hrp", "--capital", 1, "--as-of", "2000-01-01", "--data", "?"),
            "after the",
        ),
        (
            ("--baseline", "hrp", "--holdings", "none.csv", "--data", "?"),
            "there is no file none.csv",
        ),
        (("--baseline", "hrp", "--holdings", ".", "--data", "?"), "it is a folder: give a file"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[object, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    PANEL.to_frame().to_csv("prices.csv", index=False)
    given = ["prices.csv" if each == "?" else each for each in arguments]
    assert command(monkeypatch, *given) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ") and message in told and told.count("\n") == 1


# ---- baselines between their rebalancing dates


def test_a_baseline_decides_anew_at_its_first_call_and_goes_on_to_its_target(
    tmp_path: Path,
) -> None:
    """A crumb of holdings does not make it wait, and what was not filled is ordered again."""
    last = len(PANEL.timestamps) - 1
    every = next(k for k in range(7, 60) if last % k and (last - 1) % k)  # no date at the end
    path, out = tmp_path / "h.csv", tmp_path / "out"
    name = PANEL.assets[int(np.argmax(market_of(PANEL).tradable[-1]))]

    def found(panel: Any, held: str) -> Today:
        path.write_text(held)
        market = market_of(panel)
        model = make_baseline("inverse_volatility", market, every=every)
        predictor = Predictor(model, PortfolioEnv(market, **WEIGHTS))
        now = market.timestamps[-1]
        told = today(predictor, AccountOptions(path, lot=0.01), name="x", now=now, folder=out)
        told.write(out)
        return told

    crumb = f"asset,units\n{name},0.01\ncash,10000\n"
    first = found(PANEL.past(last - 1), crumb)
    assert first.orders.plan.held[0] < 0.01 and any(first.orders.units)
    second = found(PANEL, crumb)  # nothing of it was filled
    market = market_of(PANEL)
    growth = np.array(PANEL.close[last] / PANEL.close[last - 1])
    moved = first.orders.plan.held * np.r_[1.0, np.where(market.tradable[last], growth, 1.0)]
    np.testing.assert_allclose(second.orders.plan.held, moved / moved.sum(), atol=2e-3)
    assert any("was not reached: carried on" in note for note in second.notes)
    units = zip(PANEL.assets, second.orders.after.units, strict=True)
    rows = [f"{asset},{each}" for asset, each in units]
    done = "\n".join(["asset,units", *rows, f"cash,{second.orders.after.cash}"])
    third = found(PANEL, done)
    assert not any(third.orders.units)
    assert "It is no rebalancing date: what is held is held on." in third.notes


def test_long_names_keep_the_lines_within_the_terminal() -> None:
    market = market_of(PANEL)
    found = orders_of_today(make_baseline("momentum", market), market, **WEIGHTS)
    text = replace(found, name="momentum(lookback=20, top=3, " + "every=5, " * 9).text()
    assert all(len(line) <= 80 for line in text.splitlines())


def test_an_account_is_a_file() -> None:
    with pytest.raises(ArgumentError, match="holdings of type Series must be the path of a file"):
        AccountOptions(holdings=pd.Series({"A": 1.0}))  # type: ignore[arg-type]
