"""Options of the data: those of ``load_market``, read once, with the results of before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from agents.settings.data import DataOptions
from agents.training import config as config_module
from agents.training.config import TrainConfig
from portfolio_env import PortfolioEnv, TransactionCosts, load_market
from portfolio_env.errors import ArgumentError
from portfolio_env.features import FeaturePipeline

MARKET = "synthetic?bars=200&assets=3"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A file of daily bars of three assets, with a row twice."""
    frame = pd.DataFrame(
        [
            (date, symbol, 10 + step + place)
            for step, date in enumerate(pd.date_range("2020-01-01", periods=120))
            for place, symbol in enumerate("ABC")
        ],
        columns=["date", "symbol", "close"],
    )
    file = tmp_path / "prices.csv"
    pd.concat([frame, frame.tail(1)]).to_csv(file, index=False)
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"assets": "A,C", "start": "2020-01-10", "end": "2020-04-20"},
        {"train": "2020-02-20", "validation": "2020-03-20", "test": 0.1},
        {"features": "return_1,volatility_10"},
    ],
)
def test_reading_once_gives_what_reading_twice_gave(prices: Path, changes: dict[str, Any]) -> None:
    mended = DataOptions(repair='{"drop_duplicates": "last"}')
    config = TrainConfig(market=str(prices), data=mended, **changes)
    market, ranges = config.load_market()
    options = {
        "assets": config.assets.split(",") if config.assets else None,
        "start": config.start, "end": config.end, "features": config.features,
        "repair": {"drop_duplicates": "last"},
    }  # fmt: skip
    unfitted = load_market(str(prices), **options)
    assert tuple(ranges.values())[:2] == unfitted.split(config.train, config.validation)[:2]
    expected = load_market(str(prices), fit_end=ranges["train"][1], **options)
    assert market.hash == expected.hash and np.array_equal(market.features, expected.features)
    assert market.panel.provenance == expected.panel.provenance


def test_features_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = FeaturePipeline.transform
    monkeypatch.setattr(
        FeaturePipeline, "transform", lambda *args: made.append(1) or original(*args)
    )
    TrainConfig(market=MARKET).load_market()
    assert len(made) == 1


def test_every_option_reaches_the_market(prices: Path, tmp_path: Path) -> None:
    labels, channel = tmp_path / "labels.csv", tmp_path / "mood.csv"
    labels.write_text("symbol,sector\nA,x\nB,y\nC,x\n")
    when = pd.date_range("2019-12-31", periods=125).strftime("%Y-%m-%d")
    rows = {
        "date": when,
        "symbol": "A",
        "name": "mood",
        "value": np.arange(125.0),
        "known_at": when,
    }
    pd.DataFrame(rows).to_csv(channel, index=False)
    data = DataOptions(
        timeframe="1w", metadata=str(labels), exogenous=str(channel),
        repair='{"drop_duplicates": "first"}', reference="A", scaler="rank", scaling="asset",
    )  # fmt: skip
    features = "return_1,market_return_5,exogenous"
    market, ranges = TrainConfig(market=str(prices), features=features, data=data).load_market()
    expected = load_market(
        prices, timeframe="1w", metadata=labels, exogenous=channel,
        repair={"drop_duplicates": "first"}, fit_end=ranges["train"][1],
        features=FeaturePipeline(features, scaler="rank", scaling="asset", reference="A"),
    )  # fmt: skip
    assert market.hash == expected.hash
    assert market.panel.categories and "mood" in market.feature_names


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"repair": '{"sort": true}'}, "repair is for files"),
        ({"timeframe": "1x"}, "1x"),
        ({"reference": "nobody"}, "nobody"),
        ({"metadata": "nowhere.csv"}, "nowhere"),
    ],
)
def test_what_makes_no_sense_together_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises((ArgumentError, ValueError, OSError), match=says):
        TrainConfig(
            market=MARKET, features="minimal,market_beta_60", data=DataOptions(**changes)
        ).load_market()


def test_paths_are_absolute_in_a_run(prices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prices.parent)
    config = TrainConfig(market="prices.csv", data=DataOptions(metadata="labels.csv")).resolved()
    assert config.data.metadata == str(prices.parent / "labels.csv")
    assert config.market == str(prices)


def test_runs_of_before_have_these_defaults() -> None:
    later = ("data", "algo_options", "reward_options", "cost_model", "cost_options")
    before = {k: v for k, v in TrainConfig().resolved().to_json().items() if k not in later}
    assert TrainConfig.from_json(before) == TrainConfig().resolved()
    assert set(later) < set(config_module.LATER)


def test_a_run_keeps_its_bars_per_year_and_the_file_of_its_cash_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rates.csv").write_text("date,bill_pct\n2000-01-03,2.0\n2010-06-01,4.0\n")
    monkeypatch.chdir(tmp_path)
    text = {"costs": {"cash_rate_annual": "rates.csv?column=bill_pct"}}
    config = TrainConfig(
        market=MARKET,
        costs=TransactionCosts(**text["costs"]),
        data=DataOptions(periods_per_year=250),
    ).resolved()
    again = TrainConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    monkeypatch.chdir("/")
    market, ranges = again.load_market()
    assert market.periods_per_year == 250
    start, end = ranges["test"]
    env = PortfolioEnv(market, start=start, end=end, **again.env_options())
    earned = env.simulator.arrays.interest[start : end - 1, 0]
    rates = np.where(market.timestamps[start : end - 1] < np.datetime64("2010-06-01"), 0.02, 0.04)
    days = np.diff(market.timestamps[start:end]) / np.timedelta64(1, "D")
    assert earned == pytest.approx(rates * days / 365.25, rel=1e-12)
    (tmp_path / "rates.csv").unlink()  # the run can still be read
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(ArgumentError, match=r"data\.periods_per_year=0 must be"):
        DataOptions(periods_per_year=0)
