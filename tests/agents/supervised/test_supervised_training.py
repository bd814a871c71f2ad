"""Pretraining learns a planted signal, knows nothing of later bars, and stops in time."""

from typing import Any

import numpy as np
import pytest
import torch as th

from agents.encoding.market_encoder import MarketEncoder
from agents.forecasts import NextReturns
from agents.networks import make_encoder
from agents.supervised.training import SupervisedOptions, SupervisedTrainer
from portfolio_env import Market, load_market
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError


@pytest.fixture(scope="module")
def planted() -> PlantedMarket:
    return PlantedMarket.draw(seed=3, bars=2500, kappa=0.01, phi=0.9)


def pretrainer(market: Market, name: str = "mlp", **options: Any) -> SupervisedTrainer:
    th.manual_seed(0)
    encoder = make_encoder(name, market.n_features, 4, **options.pop("encoder", {}))
    options = {"epochs": 6} | options
    return SupervisedTrainer(
        MarketEncoder(encoder, forecasts=True),
        market,
        (0, 1500),
        (1500, 2000),
        SupervisedOptions(**options),
    )


def run(trainer: SupervisedTrainer) -> list[dict[str, float]]:
    history = []
    while not trainer.fit.finished:
        history.append(trainer.advance())
    trainer.restore_best()
    return history


def test_forecasts_find_the_planted_signal_and_their_sigma_is_calibrated(
    planted: PlantedMarket,
) -> None:
    trainer = pretrainer(planted.market)
    history = run(trainer)
    assert history[-1]["validation/nll"] < history[0]["validation/nll"]
    t = th.arange(2000, 2400)
    with th.no_grad():
        mu, _ = trainer.embeddings.forecast(t)
    expected = planted.expected[2000:2400]
    assert np.corrcoef(mu.numpy().ravel(), expected.ravel())[0, 1] > 0.9
    assert abs(history[-1]["calibration/coverage_68"] - 0.68) < 0.1
    assert abs(history[-1]["calibration/mean_square_z"] - 1) < 0.2


@pytest.mark.parametrize("name", ["gat", "lstm", "tcn_gnn_lstm_small"])
def test_every_kind_of_encoder_moves(planted: PlantedMarket, name: str) -> None:
    trainer = pretrainer(planted.market.subset(slice(0, 2000)), name, epochs=1, batch=256)
    before = [weight.detach().clone() for weight in trainer.embeddings.parameters()]
    numbers = trainer.advance()
    assert all(np.isfinite(value) for value in numbers.values())
    moved = [
        not th.equal(old, new)
        for old, new in zip(before, trainer.embeddings.parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.9


def test_later_bars_change_nothing(planted: PlantedMarket) -> None:
    market = planted.market
    trained = []
    for known in (market, market.past(1999)):  # the ranges end at bar 2000
        trainer = pretrainer(known, epochs=1)
        trained.append((run(trainer), trainer.embeddings.state_dict(), trainer.returns.scale))
    assert trained[0][0] == trained[1][0]
    assert trained[0][2] == trained[1][2]
    for name, value in trained[0][1].items():
        assert th.equal(value, trained[1][1][name])


def test_targets_stay_within_their_range(planted: PlantedMarket) -> None:
    trainer = pretrainer(planted.market)
    assert trainer.train[-1] + 1 == 1499
    assert trainer.validation[[0, -1]].tolist() == [1500, 1998]


def test_training_stops_when_validation_does_not_improve_and_keeps_the_best(
    planted: PlantedMarket,
) -> None:
    trainer = pretrainer(planted.market, epochs=200, patience=2, learning_rate=0.05)
    history = [numbers["validation/nll"] for numbers in run(trainer)]
    assert len(history) < 200
    assert trainer.fit.best == min(history) == history[-3]
    assert history[-1] > trainer.fit.best
    t = th.tensor(trainer.validation)
    with th.no_grad():
        assert float(trainer.returns.nll(*trainer.embeddings.forecast(t), t)) == min(history)


def test_unlisted_assets_and_missing_bars_do_not_count() -> None:
    market = load_market("synthetic?seed=1&bars=2000&assets=4&ragged=true")
    trainer = pretrainer(market, epochs=1)
    mask = trainer.returns.mask.numpy()
    close = market.close
    for t, i in np.argwhere(~market.tradable[:-1])[:50]:
        assert not mask[t, i]
    last = np.flatnonzero(market.tradable.any(axis=1) & ~np.isfinite(close).all(axis=1))
    assert len(last)
    assert (mask == np.isfinite(market.targets())).all()
    assert np.isfinite(trainer.advance()["train/nll"])


def test_bad_options_are_refused(planted: PlantedMarket) -> None:
    market = planted.market
    for call, text in (
        (lambda: SupervisedOptions(epochs=0), "epochs=0 must be"),
        (lambda: SupervisedOptions(learning_rate=0), "learning_rate=0 must be"),
        (lambda: pretrainer(market, "per_asset"), "no weights"),
        (lambda: NextReturns(market, (0, 3), bars=5), "widen it"),
        (
            lambda: MarketEncoder(make_encoder("lstm", 4, 5)).forecast_of(th.zeros(1)),
            "forecasts=True",
        ),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
