"""Every task learns a planted signal, sees no later bar, and comes back from its file."""

from pathlib import Path

import numpy as np
import pytest
import torch as th

from agents.losses import coherence_loss, direction_loss, magnitude_loss
from agents.supervised import figures
from agents.supervised.data import WindowDataset
from agents.supervised.model import SupervisedModel
from agents.supervised.tasks import make_task
from agents.supervised.training import SupervisedOptions
from agents.tensors import load_tensors, save_tensors
from portfolio_env import Market, load_market
from portfolio_env.data.generators.planted import PlantedMarket
from portfolio_env.errors import ArgumentError, DataError

TRAIN, VALIDATION, TEST = (0, 900), (900, 1200), (1200, 1500)
TASKS = ("return", "direction", "hybrid")


@pytest.fixture(scope="module")
def market() -> Market:
    return PlantedMarket.draw(seed=3, bars=1500, kappa=0.01, phi=0.9).market


def model_of(market: Market, task: str = "direction", **options: object) -> SupervisedModel:
    small = {"architecture": [16], "flatten": True}
    given = {"encoder": "mlp", "window": 2, "encoder_options": small} | options
    return SupervisedModel(market.feature_names, task=task, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
def test_a_planted_signal_is_learned_and_kept(market: Market, task: str, tmp_path: Path) -> None:
    model = model_of(market, task)
    trainer = model.trainer(
        market, TRAIN, VALIDATION, epochs=4, batch=32, accumulation=2, learning_rate=5e-3
    )
    history = []
    while not trainer.fit.finished:
        history.append(trainer.advance())
    assert trainer.fit.steps == 4 * -(-len(trainer.train) // 64)  # the last partial step counts
    model.take(trainer, TRAIN)
    found = model.forecasts(market, TEST)
    scores = found.scores(n_resamples=100)
    for name in ("accuracy", "brier", "log_score", "crps", "rank_correlation"):
        assert scores.loc[name, "low"] > 0, name
    for draw in (figures.probabilities, figures.calibration, figures.skill_in_time):
        assert draw(found).axes
    assert figures.learning_curves(history).axes
    model.save(tmp_path / "model.safetensors")
    again = SupervisedModel.load(tmp_path / "model.safetensors").forecasts(market, TEST)
    for name in ("mean", "sigma", "up"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    assert found.base == again.base


def test_later_bars_change_neither_training_nor_forecasts(market: Market) -> None:
    made = []
    for known in (market, market.past(1199)):
        model = model_of(market).fit(known, TRAIN, VALIDATION, epochs=1)
        made.append([*model.forecast(known, 1199), *model.forecast(market.past(1000))])
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_targets_of_a_horizon_stay_within_their_range(market: Market) -> None:
    trainer = model_of(market, horizon=5).trainer(market, TRAIN, VALIDATION)
    assert trainer.train[-1] + 5 == TRAIN[1] - 1
    assert trainer.validation[[0, -1]].tolist() == [VALIDATION[0], VALIDATION[1] - 6]
    target = market.targets(horizon=5)
    t = trainer.train[7]
    np.testing.assert_allclose(trainer.returns.target[t] * trainer.returns.scale, target[t], 1e-5)


def test_accuracy_can_choose_the_weights(market: Market) -> None:
    trainer = model_of(market).trainer(market, TRAIN, VALIDATION, epochs=3, measure="accuracy")
    accuracy = [trainer.advance()["validation/accuracy"] for _ in range(3)]
    assert trainer.fit.best == -max(accuracy)


def test_losses_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    realised, given = rng.normal(size=(6, 3)), rng.normal(size=(6, 3))
    mask = rng.random((6, 3)) < 0.7
    t = np.array([4, 5, 9, 10, 11, 20])
    cross, size, jumps = [], [], []
    for i, j in np.argwhere(mask):
        r, x = realised[i, j], given[i, j]
        cross.append(np.log(1 + np.exp(-x if r > 0 else x)))
        error = abs(r) - x
        size.append((3 if r < 0 and error > 0 else 1) * error**2)
        if i and t[i] == t[i - 1] + 1 and mask[i - 1, j]:
            jumps.append((x - given[i - 1, j]) ** 2)
    broken = np.where(mask, realised, np.nan)
    target, x, m = th.tensor(broken), th.tensor(given, requires_grad=True), th.tensor(mask)
    total = [
        direction_loss(target, x, m),
        magnitude_loss(target, x, m, 3.0),
        coherence_loss(x, th.tensor(t), m),
    ]
    assert [each.item() for each in total] == pytest.approx([*map(np.mean, (cross, size, jumps))])
    sum(total).backward()  # type: ignore[union-attr]
    assert x.grad is not None and x.grad.isfinite().all()


def test_every_head_of_the_hybrid_is_taught(market: Market) -> None:
    model = model_of(market, "hybrid")
    trainer = model.trainer(market, TRAIN, VALIDATION)
    trainer._loss(trainer.train[:64]).backward()
    for name in ("direction", "magnitude", "uncertainty"):
        part = getattr(model.embeddings.head, name)
        assert all(weight.grad.abs().sum() > 0 for weight in part.parameters())


def test_data_sets_are_views_with_masks() -> None:
    market = load_market("synthetic?seed=1&bars=400&assets=4&ragged=true")
    data = WindowDataset(market, (100, 300), 5, "direction", 2)
    assert np.shares_memory(data.windows, market.features)
    assert data.rows[-1] + 2 <= 299
    items = [data[k] for k in range(len(data))]
    for row, item in zip(data.rows, items, strict=True):
        np.testing.assert_array_equal(item["window"], market.features[row - 4 : row + 1])
        known = np.isfinite(market.targets("direction", 2)[row])
        np.testing.assert_array_equal(item["mask"], known)
        assert set(item["target"][~item["mask"]].tolist()) <= {0.0}
        assert int(item["time"]) == market.timestamps[row].astype(int)
    in_order = th.cat([batch["time"] for batch in data.loader(7, training=False)])
    assert in_order.tolist() == market.timestamps[data.rows].astype(int).tolist()
    shuffled = th.cat([batch["time"] for batch in data.loader(7, training=True)])
    assert not th.equal(shuffled, in_order) and th.equal(shuffled.sort().values, in_order)
    table = data.table()
    assert len(table.target) == sum(int(item["mask"].sum()) for item in items)
    k = len(table.target) // 2
    window = market.features[table.rows[k] - 4 : table.rows[k] + 1, table.assets[k]]
    np.testing.assert_array_equal(table.inputs[k], window.ravel())


def test_bad_input_is_named(market: Market, tmp_path: Path) -> None:
    save_tensors(file := tmp_path / "other.safetensors", {"config": {}}, kind="supervised")
    for call, error, text in (
        (lambda: make_task("up"), ArgumentError, "task='up'"),
        (lambda: make_task("hybrid", direction=-1.0), ArgumentError, "direction=-1"),
        (lambda: SupervisedOptions(accumulation=0), ArgumentError, "accumulation=0"),
        (lambda: SupervisedOptions(measure="auc"), ArgumentError, "measure='auc'"),
        (lambda: model_of(market).forecast(market, 0), ArgumentError, "no whole window"),
        (lambda: model_of(market).forecasts(market, (5, 6)), ArgumentError, "widen it"),
        (lambda: WindowDataset(market, (5, 6), 3), ArgumentError, "widen it"),
        (lambda: SupervisedModel.load(file), DataError, "not a saved SupervisedModel"),
    ):
        with pytest.raises(error, match=text):
            call()
    for untrained in (model_of(market).forecast, lambda m: model_of(m).forecasts(m, (20, 40))):
        with pytest.raises(ArgumentError, match="is not trained"):
            untrained(market)
    other = load_market("synthetic?bars=60", features="none")
    with pytest.raises(ArgumentError, match="load the market with those"):
        model_of(market).forecast(other)


def test_a_model_whose_numbers_are_not_finite_is_refused(market: Market, tmp_path: Path) -> None:
    model = model_of(market)
    model.fit(market, (0, 200), (200, 300), epochs=1)
    model.save(file := tmp_path / "model.safetensors")
    tree = load_tensors(file, kind="supervised")
    name = next(iter(tree["weights"]))
    lost = {"weights": tree["weights"] | {name: tree["weights"][name] * float("nan")}}
    for change, text in (
        (lost, "weights that are not finite"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"base": tree["base"] | {"up": 2.0}}, "up=2.0"),
        ({"config": tree["config"] | {"seed": float("inf")}}, "not a saved SupervisedModel"),
    ):
        save_tensors(file, tree | change, kind="supervised")
        with pytest.raises(DataError, match=text):
            SupervisedModel.load(file)
