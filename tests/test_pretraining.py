"""Pretraining learns a planted signal, knows nothing of later bars, and stops in time."""

from typing import Any

import numpy as np
import pytest
import torch as th

from agents.networks import make_encoder
from agents.pretraining import Pretrainer, PretrainingOptions
from portfolio_env import Market, load_market
from portfolio_env.data.planted import PlantedMarket
from portfolio_env.errors import ArgumentError


@pytest.fixture(scope="module")
def planted() -> PlantedMarket:
    th.set_num_threads(1)
    return PlantedMarket.draw(seed=3, bars=2500, kappa=0.01, phi=0.9)


def pretrainer(market: Market, name: str = "mlp", **options: Any) -> Pretrainer:
    th.manual_seed(0)
    encoder = make_encoder(name, market.n_features, 4, **options.pop("encoder", {}))
    return Pretrainer(
        encoder, market, (0, 1500), (1500, 2000), PretrainingOptions(**({"epochs": 6} | options))
    )


def test_forecasts_find_the_planted_signal_and_their_sigma_is_calibrated(
    planted: PlantedMarket,
) -> None:
    trainer = pretrainer(planted.market)
    history = list(trainer.run())
    assert history[-1]["pretraining/validation_nll"] < history[0]["pretraining/validation_nll"]
    t = th.arange(2000, 2400)
    trainer.embeddings.eval()
    with th.no_grad():
        mu, _ = trainer.head(trainer.embeddings(t))
    expected = planted.expected[2000:2400]
    assert np.corrcoef(mu.numpy().ravel(), expected.ravel())[0, 1] > 0.9
    assert abs(history[-1]["pretraining/coverage"] - 0.683) < 0.1


@pytest.mark.parametrize("name", ["gat", "lstm", "tcn_gnn_lstm_small"])
def test_every_kind_of_encoder_moves(planted: PlantedMarket, name: str) -> None:
    trainer = pretrainer(planted.market.subset(slice(0, 2000)), name, epochs=1, batch=256)
    before = [weight.detach().clone() for weight in trainer.encoder.parameters()]
    numbers = trainer.advance()
    assert all(np.isfinite(value) for value in numbers.values())
    moved = [
        not th.equal(old, new)
        for old, new in zip(before, trainer.encoder.parameters(), strict=True)
    ]
    assert np.mean(moved) > 0.9


def test_later_bars_change_nothing(planted: PlantedMarket) -> None:
    market = planted.market
    trained = []
    for known in (market, market.past(1999)):  # the ranges end at bar 2000
        trainer = pretrainer(known, epochs=1)
        trained.append((list(trainer.run()), trainer.encoder.state_dict(), trainer.scale))
    assert trained[0][0] == trained[1][0]
    assert trained[0][2] == trained[1][2]
    for name, value in trained[0][1].items():
        assert th.equal(value, trained[1][1][name])


def test_targets_stay_within_their_range(planted: PlantedMarket) -> None:
    trainer = pretrainer(planted.market)
    assert trainer.rows["train"][-1] + 1 == 1499
    assert trainer.rows["validation"][[0, -1]].tolist() == [1500, 1998]


def test_training_stops_when_validation_does_not_improve_and_keeps_the_best(
    planted: PlantedMarket,
) -> None:
    trainer = pretrainer(planted.market, epochs=200, patience=2, learning_rate=0.05)
    history = [numbers["pretraining/validation_nll"] for numbers in trainer.run()]
    assert len(history) < 200
    assert trainer.best == min(history) == history[-3]
    assert history[-1] > trainer.best


def test_unlisted_assets_and_missing_bars_do_not_count() -> None:
    market = load_market("synthetic?seed=1&bars=2000&assets=4&ragged=true")
    trainer = pretrainer(market, epochs=1)
    mask = trainer._mask.numpy()
    close = market.close
    for t, i in np.argwhere(~market.tradable[:-1])[:50]:
        assert not mask[t, i]
    last = np.flatnonzero(market.tradable.any(axis=1) & ~np.isfinite(close).all(axis=1))
    assert len(last)
    assert (mask == (market.tradable[:-1] & np.isfinite(close[1:] / close[:-1]))).all()
    assert np.isfinite(trainer.advance()["pretraining/nll"])


def test_bad_options_are_refused(planted: PlantedMarket) -> None:
    market = planted.market
    for call, text in (
        (lambda: PretrainingOptions(epochs=0), "epochs is 0"),
        (lambda: PretrainingOptions(learning_rate=0), "learning_rate is 0"),
        (lambda: pretrainer(market, "per_asset"), "no weights"),
        (lambda: Pretrainer(make_encoder("lstm", 4, 5), market, (0, 3), (3, 9)), "widen it"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
