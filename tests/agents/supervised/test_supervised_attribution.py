"""Attributions add up to what the forecasts differ by, and find the input that matters."""

import numpy as np
import pytest
import torch as th

from agents.supervised import SupervisedModel, attribute, figures
from portfolio_env import Market
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError


@pytest.fixture(scope="module")
def market() -> Market:
    return PlantedMarket.draw(seed=3, bars=900, kappa=0.01, phi=0.9).market


def model_of(market: Market, encoder: str, task: str, **options: object) -> SupervisedModel:
    window = {"window": 3, "encoder_options": options}
    return SupervisedModel(market.feature_names, task=task, encoder=encoder, **window)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoder", "task", "output", "options"),
    [
        ("mlp", "return", "mean", {"architecture": [8], "flatten": True}),
        ("lstm", "hybrid", "sigma", {"hidden": 4, "channels": 4}),
        ("gat", "direction", "up", {"hidden": 4, "heads": 2, "layers": 1}),
    ],
)
def test_attributions_add_up(
    market: Market, encoder: str, task: str, output: str, options: dict[str, object]
) -> None:
    model = model_of(market, encoder, task, **options)
    model.fit(market, (0, 400), (400, 500), epochs=1)
    found = attribute(model, market, (500, 900), output, most=4)  # type: ignore[arg-type]
    assert found.values.shape == (4, 3, market.n_assets, market.n_features)
    forecasts = model.forecasts(market, (500, 900))
    at = np.isin(forecasts.times, found.times)
    whole = getattr(forecasts, output)[at].sum(1)
    total, size = found.values.sum((1, 2, 3)), np.abs(found.values).sum((1, 2, 3)).max()
    np.testing.assert_allclose(total, found.difference, rtol=0, atol=0.02 * size)
    assert found.error == pytest.approx(np.abs(total - found.difference).max() / size)
    rough, fine = (
        attribute(model, market, (500, 900), output, most=4, steps=steps).error  # type: ignore[arg-type]
        for steps in (2, 256)
    )
    assert fine < found.error < rough and fine < 0.01
    silent = whole - found.difference  # what is forecast of no features depends on no feature
    np.testing.assert_allclose(silent, silent[0], rtol=1e-5)
    assert figures.attributions(found).axes


def test_a_linear_forecast_is_attributed_to_its_weights(market: Market) -> None:
    class Linear(th.nn.Module):
        def __init__(self, n_features: int, window: int) -> None:
            super().__init__()
            self.weight = th.nn.Parameter(th.linspace(-1, 1, n_features * window)[:, None])

        def forward(self, windows: th.Tensor, tradable: th.Tensor) -> th.Tensor:
            out: th.Tensor = windows.transpose(1, 2).flatten(2) @ self.weight
            return out

    model = SupervisedModel(market.feature_names, encoder=Linear, window=2)
    model.fit(market, (0, 400), (400, 500), epochs=1)
    head = model.embeddings.head
    assert head is not None
    head.rows = th.nn.Identity()
    found = attribute(model, market, (500, 600), most=5)
    weights = model.embeddings.encoder.module.weight.detach().numpy().reshape(2, 1, -1)  # type: ignore[union-attr, operator]
    mean = head.out.weight[0].item()
    rows = np.searchsorted(market.timestamps, found.times)
    expected = market.windows(2)[rows - 1] * weights * mean * model._scale
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-9)


def test_the_planted_signal_matters_most(market: Market) -> None:
    model = model_of(market, "mlp", "return", architecture=[16], flatten=True)
    model.fit(market, (0, 500), (500, 600), epochs=6, learning_rate=5e-3)
    table = attribute(model, market, (600, 900)).table()
    assert table.stack().idxmax() == ("signal", 0)
    assert [*table.columns] == [0, 1, 2] and (table.to_numpy() >= 0).all()


def test_latency_and_bad_input(market: Market) -> None:
    model = model_of(market, "mlp", "return", architecture=[8])
    with pytest.raises(ArgumentError, match="is not trained"):
        attribute(model, market, (500, 900))
    with pytest.raises(ArgumentError, match=r"share the bars 400 to 499"):
        model.fit(market, (0, 500), (400, 600))
    model.fit(market, (0, 400), (400, 500), epochs=1)
    took = model.latency(market, decisions=20)
    assert 0 < took["p50_ms"] <= took["p99_ms"]
    for call, text in (
        (lambda: attribute(model, market, (0, 1)), "widen it"),
        (lambda: attribute(model, market, (500, 900), "median"), "output='median'"),  # type: ignore[arg-type]
        (lambda: attribute(model, market, (500, 900), steps=0), "steps=0"),
        (lambda: model.latency(market, 0), "decisions=0"),
    ):
        with pytest.raises(ArgumentError, match=text):
            call()
