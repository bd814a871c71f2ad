"""Fitting in rounds: schedules, averages, the best weights, and exact resumption."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch as th
from helpers.small_runs import small
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from agents.fitting import KIND, Fit, FitOptions, run_rounds, take_up
from agents.tensors import save_tensors
from agents.training.train import train
from portfolio_env.errors import ArgumentError, DataError

OPTIONS = [
    {},
    {"schedule": "plateau"},
    {"ema": 0.8},
    {"schedule": "plateau", "ema": 0.5, "patience": 4, "warmup": 7, "weight_decay": 0.1},
]


class Regression:
    """A linear regression with dropout, two noisy steps a round."""

    def __init__(self, rounds: int = 12, **options: Any) -> None:
        with th.random.fork_rng(devices=[]):
            th.manual_seed(3)
            self.x = th.randn(64, 4)
            self.y = self.x @ th.tensor([1.0, -2.0, 0.5, 0.0]) + 0.3 * th.randn(64)
            self.network = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 1))
        self.fit = Fit(self.network, FitOptions(**({"learning_rate": 0.1} | options)), rounds)

    @property
    def samples(self) -> int:
        return 64 * self.fit.round

    def loss(self, rows: slice) -> th.Tensor:
        return (self.network(self.x[rows])[:, 0] - self.y[rows]).square().mean()

    def advance(self) -> dict[str, float]:
        numbers = {"learning_rate": self.fit.learning_rate}
        with self.fit.draws():
            self.network.train()
            for rows in (slice(0, 16), slice(16, 32)):
                self.fit.step(self.loss(rows))
        self.network.eval()
        with self.fit.averaged(), th.no_grad():
            numbers["loss"] = float(self.loss(slice(32, 64)))
            self.fit.judge(numbers["loss"])
        self.fit.end_round()
        return numbers


def history(trainer: Regression, file: Path, **options: Any) -> list[tuple[int, dict[str, float]]]:
    records: list[tuple[int, dict[str, float]]] = []
    take_up(trainer, file)
    run_rounds(trainer, file, lambda numbers, step: records.append((step, numbers)), **options)
    return records


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return th.equal(first, second) if isinstance(first, th.Tensor) else first == second


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("every", [1, 3])
def test_an_interrupted_training_ends_as_one_that_was_not(
    options: dict[str, Any], every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = Regression(**options)
    whole = history(straight, tmp_path / "whole.safetensors", every=every)
    stopped, seen = Regression(**options), 0
    advance = stopped.advance

    def interrupted() -> dict[str, float]:
        if stopped.fit.round == 5:
            raise KeyboardInterrupt
        return advance()

    monkeypatch.setattr(stopped, "advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        history(stopped, tmp_path / "fit.safetensors", every=every)
    resumed = Regression(**options)
    rest = history(resumed, tmp_path / "fit.safetensors", every=every)
    seen = 5 if every == 1 else 3
    assert rest == whole[seen:]
    assert [step for step, _ in whole] == [64 * (i + 1) for i in range(len(whole))]
    assert same(resumed.fit.state_dict(), straight.fit.state_dict())
    assert same(resumed.fit.best_weights(), straight.fit.best_weights())
    again = Regression(**options)
    assert history(again, tmp_path / "fit.safetensors") == []  # nothing is left to do
    assert same(again.fit.best_weights(), straight.fit.best_weights())


def test_cosine_ends_at_zero_and_plateau_halves_where_validation_stalls() -> None:
    cosine = Regression(rounds=8)
    rates = [cosine.advance()["learning_rate"] for _ in range(8)]
    expected = [0.05 * (1 + th.cos(th.tensor(th.pi * k / 8))).item() for k in range(8)]
    assert rates == pytest.approx(expected, abs=1e-6)
    assert cosine.fit.learning_rate == pytest.approx(0, abs=1e-9)
    plateau = Regression(schedule="plateau", rounds=100).fit
    rates = []
    for loss in (2.0, 1.0, 3.0, 3.0, 3.0, 0.5, 3.0, 3.0, 3.0):
        plateau.steps += 1
        plateau.judge(loss)
        plateau.end_round()
        rates.append(plateau.learning_rate)
    assert rates == [0.1] * 4 + [0.05] * 4 + [0.025]


def test_the_average_is_that_of_the_library_and_lives_beside_the_weights() -> None:
    trainer = Regression(ema=0.9)
    theirs = AveragedModel(trainer.network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(7):
        trainer.fit.step(trainer.loss(slice(0, 64)))
        theirs.update_parameters(trainer.network)
    own = [weight.detach().clone() for weight in trainer.network.parameters()]
    with pytest.raises(ZeroDivisionError), trainer.fit.averaged():
        for weight, other in zip(
            trainer.network.parameters(), theirs.module.parameters(), strict=True
        ):
            assert th.equal(weight, other)
        raise ZeroDivisionError
    for weight, before in zip(trainer.network.parameters(), own, strict=True):
        assert th.equal(weight, before)
    for name, value in trainer.fit.weights().items():
        assert th.equal(value, theirs.module.state_dict()[name])
        assert not th.equal(value, trainer.network.state_dict()[name])


def test_averages_are_validated_and_kept() -> None:
    trainer = Regression(ema=0.9, rounds=20)
    losses = [trainer.advance()["loss"] for _ in range(20)]
    trainer.network.load_state_dict(trainer.fit.best_weights())
    with th.no_grad():
        assert float(trainer.loss(slice(32, 64))) == min(losses) == trainer.fit.best


def test_draws_repeat_and_leave_others_alone() -> None:
    trainer = Regression()
    state = th.random.get_rng_state()
    with trainer.fit.draws():
        first = th.rand(3)
    with trainer.fit.draws():
        assert th.equal(th.rand(3), first)
    trainer.advance()
    with trainer.fit.draws():
        assert not th.equal(th.rand(3), first)
    assert th.equal(state, th.random.get_rng_state())


def test_checkpoints_of_other_options_are_refused() -> None:
    with pytest.raises(ArgumentError, match="made with"):
        Regression(ema=0.5).fit.load_state_dict(Regression().fit.state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"best_weights": {"1.weight": th.zeros(1, 5), "1.bias": th.zeros(1)}},
        {"best_weights": {"1.weight": th.zeros(1, 4)}},
        {"average": [1]},
        {"schedule": {"T_max": 1}, "network": {}},
    ],
)
def test_a_checkpoint_that_was_edited_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    state = Regression().fit.state_dict() | change
    save_tensors(tmp_path / "fit.safetensors", state, kind=KIND)
    with pytest.raises(DataError, match="is not a checkpoint of this training"):
        take_up(Regression(), tmp_path / "fit.safetensors")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"ema": 1.0}, "ema=1.0"),
        ({"patience": 0}, "patience=0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        FitOptions(**options)


def test_accumulated_parts_are_one_batch_and_the_last_ones_are_not_lost() -> None:
    whole, parts = Regression(), Regression()
    for trainer in (whole, parts):
        trainer.network.eval()
    rows = [slice(0, 16), slice(16, 32)]
    whole.fit.step(whole.loss(slice(0, 32)))
    parts.fit.step(parts.loss(part) / 2 for part in rows)
    for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        th.testing.assert_close(one, other)
    assert whole.fit.steps == parts.fit.steps == 1


def test_learning_rate_warms_up_and_weights_decay() -> None:
    trainer = Regression(warmup=4, schedule="plateau")
    rates = []
    for _ in range(6):
        rates.append(trainer.fit.learning_rate)
        trainer.fit.step(trainer.loss(slice(0, 32)))
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    decayed = Regression(weight_decay=0.5)
    before = [weight.detach().clone() for weight in decayed.network.parameters()]
    decayed.fit.step(0.0 * decayed.loss(slice(0, 32)))
    for old, new in zip(before, decayed.network.parameters(), strict=True):
        th.testing.assert_close(new.detach(), old * (1 - 0.1 * 0.5))


def test_a_gain_of_less_than_min_delta_is_none() -> None:
    fit = Regression(min_delta=0.1, patience=2).fit
    for loss, stale in ((1.0, 0), (0.95, 1), (0.89, 0), (0.8, 1), (0.795, 2)):
        fit.steps += 1
        fit.judge(loss)
        assert fit.stale == stale
    assert fit.finished
    assert fit.best == 0.89


@pytest.mark.parametrize("late", [0.4, 0.6])
def test_a_slow_start_behind_the_untrained_network_is_no_standstill(late: float) -> None:
    """Nor does the learning rate fall for it; in the end the best of all is kept."""
    trainer = Regression(patience=2, schedule="plateau")
    fit = trainer.fit
    fit.judge(0.5)  # of the untrained network
    for loss, stale in ((0.9, 0), (0.8, 0), (0.85, 1), (0.7, 0), (late, 0), (0.95, 1)):
        fit.step(trainer.loss(slice(0, 32)))
        fit.judge(loss)
        assert fit.stale == stale and not fit.finished
        fit.end_round()
    assert fit.learning_rate == 0.1
    assert fit.best == min(0.5, late) and fit.best_steps == (5 if late < 0.5 else 0)
    fit.judge(0.95)
    assert fit.finished


@pytest.mark.parametrize("lacking", [{"best_steps", "best_trained"}, {"best_trained"}])
@pytest.mark.parametrize("untrained", [0.5, 1.0])
def test_checkpoints_of_before_claim_no_step_of_the_best_model(
    tmp_path: Path, lacking: set[str], untrained: float
) -> None:
    """What they do not say is not made up, and a best untrained network begins no patience."""
    before = Regression(patience=2).fit
    before.judge(untrained)
    before.steps = before.round = 3
    before.judge(0.8)
    state = {name: value for name, value in before.state_dict().items() if name not in lacking}
    save_tensors(tmp_path / "fit", state, kind="fit")
    after = Regression(patience=2)
    take_up(after, tmp_path / "fit")
    known = None if "best_steps" in lacking else before.best_steps
    assert after.fit.best_steps == known == after.fit.state_dict()["best_steps"]
    after.fit.steps = 4
    after.fit.judge(0.7)
    assert after.fit.stale == (1 if known is None and untrained == 0.5 else 0)
    assert after.fit.best_steps == (4 if untrained == 1.0 else known)


def test_weights_that_are_not_finite_are_told_at_the_end_of_a_round() -> None:
    trainer = Regression(learning_rate=1e308)
    with pytest.raises(ArgumentError, match="the training diverged: after gradient step 2"):
        trainer.advance()


@pytest.mark.parametrize(  # where distributions do not check, the env meets what is not finite
    ("algo", "checked", "options", "done"),
    [
        ("ppo", True, {"n_steps": 8, "batch_size": 32}, "32 steps"),
        ("ppo", False, {"n_steps": 8, "batch_size": 32}, "32 steps"),
        ("direct", True, {}, "gradient step 1"),
    ],
)
def test_a_training_that_diverges_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algo: str,
    checked: bool,
    options: dict[str, Any],
    done: str,
) -> None:
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", checked)
    given = {"timesteps": 240, "num_envs": 4, "validation_every": 120}
    given |= {"algo_options": json.dumps(options | {"learning_rate": 1e308})}
    with pytest.raises(ArgumentError, match=f"the training diverged: after {done} weights"):
        train(small(tmp_path / "run", algo=algo, **given), progress_bar=False)
