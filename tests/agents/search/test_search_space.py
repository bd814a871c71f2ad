"""Spaces: what they draw fits train.py, what they cannot mean is told with the nearest name."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.search.space import Draws, Interval
from agents.search.space_files import make_space, read_space
from agents.training.config import TrainConfig
from portfolio_env.errors import ArgumentError, DataError

SPACE = {
    "encoder": ["per_asset", "mlp"],
    "algo_options.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "algo_options": {"n_epochs": {"low": 1, "high": 4}},
    "adjustment": {"low": 0.1, "high": 1.0, "step": 0.3},
    "encoder_options.architecture": {
        "each": [16, 32],
        "length": [1, 3],
        "when": {"encoder": "mlp"},
    },
    "encoder_options.activation": {"values": ["relu", "gelu"], "when": {"encoder": "mlp"}},
}


def test_a_yaml_file_gives_settings_of_runs(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "encoder: [mlp]\n"
        "algo_options.learning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "encoder_options.architecture: {each: [16, 32], length: 2}\n"
    )
    base = TrainConfig(algo_options='{"gamma": 0.9}')
    space = read_space(file)
    options = space.draw(Draws(3))
    config = space.config(base, options)
    assert config.encoder == "mlp"
    assert json.loads(config.algo_options)["gamma"] == 0.9
    assert 1e-4 <= json.loads(config.algo_options)["learning_rate"] <= 1e-2
    assert len(json.loads(config.encoder_options)["architecture"]) == 2
    space.check(base)


def test_draws_stay_within_the_space() -> None:
    space, lengths = make_space(SPACE), set()
    source = Draws(0)
    for _ in range(200):
        drawn = space.draw(source)
        assert 1e-4 <= drawn["algo_options.learning_rate"] <= 1e-2
        assert drawn["algo_options.n_epochs"] in (1, 2, 3, 4)
        assert drawn["adjustment"] in (0.1, 0.4, 0.7, 1.0)
        assert ("encoder_options.architecture" in drawn) is (drawn["encoder"] == "mlp")
        lengths.add(len(drawn.get("encoder_options.architecture", [])))
    assert lengths == {0, 1, 2, 3}


@given(
    st.floats(1e-6, 1.0), st.floats(1.001, 1e6), st.booleans(), st.floats(0, 1, exclude_max=True)
)
def test_numbers_lie_between_their_ends(low: float, ratio: float, log: bool, share: float) -> None:
    interval = Interval(low, low * ratio, log)
    assert low * (1 - 1e-5) <= interval.between(share) <= low * ratio * (1 + 1e-5)


def test_a_grid_is_every_combination_once() -> None:
    space = make_space(
        {
            "encoder": ["per_asset", "mlp"],
            "adjustment": [0.1, 1.0],
            "encoder_options.architecture": {
                "each": [16, 32],
                "length": [1, 2],
                "when": {"encoder": ["mlp"]},
            },
        }
    )
    found = [json.dumps(each) for each in space.grid()]
    assert len(found) == len(set(found)) == 2 + 2 * (2 + 4)


def test_options_of_another_encoder_are_not_kept() -> None:
    base = TrainConfig(encoder="gat", encoder_options='{"heads": 2}')
    options = {"encoder": "mlp", "encoder_options.dropout": 0.2}
    config = make_space(SPACE).config(base, options)
    assert json.loads(config.encoder_options) == {"dropout": 0.2}


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"adjustmet": [0.1, 1]}, "did you mean 'adjustment'"),
        ({"learning_rate": [0.1]}, "algo_options.learning_rate"),
        ({"costs.commission_bps": [0, 10]}, "do not compare"),
        ({"test": [0.1, 0.2]}, "do not compare"),
        ({"data.timeframe": ["1d", "1w"]}, "do not compare"),
        ({"data.scalr": ["robust"]}, "did you mean 'data.scaler'"),
        ({"seed": [0, 1]}, "seed is not searched"),
        ({"adjustment": 0.5}, "give a list of values"),
        ({"adjustment": []}, "give each once"),
        ({"adjustment": {"low": 1.0, "high": 0.1}}, "above 1"),
        ({"adjustment": {"low": 0, "high": 1, "log": True}}, "above 0"),
        ({"adjustment": {"low": 0.1, "high": 1, "stp": 0.1}}, "give a list of values"),
        ({"window": {"each": [1], "length": [3, 1]}}, "must be rising"),
        ({"adjustment": {"values": [1.0], "when": {"encoder": "mlp"}}}, "an entry before it"),
        ({}, "the space is empty"),
    ],
)
def test_what_a_space_cannot_mean_is_told(stated: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        make_space(stated)


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ({"algo_options.learning_rte": [0.1]}, "'learning_rate'"),
        ({"encoder": ["mlp"], "encoder_options.droput": [0.1]}, "'dropout'"),
        ({"encoder": ["mlpp"]}, "mlp"),
        ({"window": [0]}, "window=0 must be"),
        ({"encoder": ["mlp", "gat"], "encoder_options.depth": [2]}, "when: {encoder: mlp}"),
    ],
)
def test_what_cannot_be_trained_is_told_before(stated: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentError, match=told):
        make_space(stated).check(TrainConfig())


def test_yaml_is_data_alone(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("adjustment: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(DataError, match="not valid YAML"):
        read_space(file)
