"""Networks that a run writes down: fast ones for new runs, what they were for older ones."""

import json
from typing import Any

import pytest

from agents.networks import make_encoder
from agents.training.config import TrainConfig


def options(config: TrainConfig) -> tuple[Any, Any]:
    return config.encoder_kwargs, config.algo_kwargs


@pytest.mark.parametrize("encoder", ["lstm", "tcn_gnn_lstm", "tcn_gnn_lstm_small"])
def test_new_runs_stream_with_one_encoder_and_say_so(encoder: str) -> None:
    config = TrainConfig(encoder=encoder, algo_options='{"gamma": 0.5}').resolved()
    network, of_algo = options(config)
    assert network["history"] == "stream" and network.get("bidirectional", False) is False
    assert of_algo == {"gamma": 0.5, "critic_gradient": 0.0}
    assert make_encoder(encoder, 3, 60, **network).block > 0
    assert config.resolved() == config
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encoder_options": '{"history": "window"}'}, {"history": "window"}),
        ({"encoder_options": '{"block": 30}'}, {"block": 30, "history": "stream"}),
        ({"observation": "window"}, {"history": "window"}),
    ],
)
def test_what_is_asked_for_is_kept(settings: dict[str, Any], expected: Any) -> None:
    assert options(TrainConfig(encoder="lstm", **settings).resolved())[0] == expected


def test_a_state_that_runs_backwards_reads_windows() -> None:
    given = TrainConfig(encoder="tcn_gnn_lstm", encoder_options='{"bidirectional": true}')
    expected = {"bidirectional": True, "history": "window"}
    assert options(given.resolved())[0] == expected


def test_older_runs_keep_windows_and_two_encoders() -> None:
    now = TrainConfig(encoder="tcn_gnn_lstm_small").resolved().to_json()
    old = TrainConfig.from_json(now | {"encoder_options": "{}", "algo_options": "{}"})
    network, of_algo = options(old)
    assert network == {"history": "window"}
    assert of_algo == {"share_features_extractor": False, "critic_gradient": 1.0}
    shared = json.dumps({"share_features_extractor": True})
    once = TrainConfig.from_json(now | {"algo_options": shared})
    assert once.algo_kwargs == {"share_features_extractor": True, "critic_gradient": 1.0}


@pytest.mark.parametrize("encoder", ["mlp", "residual_mlp", "branches", "factor"])
def test_encoders_of_rows_read_the_window_that_is_asked_for(encoder: str) -> None:
    usual = TrainConfig(encoder=encoder).resolved()
    assert usual.window == 1 and usual.encoder_kwargs == {}
    asked = TrainConfig(encoder=encoder, window=5).resolved()
    assert make_encoder(encoder, 3, 5, **asked.encoder_kwargs).bars == 5
    assert asked.resolved() == asked
    last = TrainConfig(encoder=encoder, window=5, encoder_options='{"flatten": false}').resolved()
    assert last.encoder_kwargs == {"flatten": False}


def test_older_runs_keep_starts_of_each_lane() -> None:
    now = TrainConfig(encoder="gat").resolved().to_json()
    del now["start_groups"]
    assert TrainConfig.from_json(now).start_groups == 0


@pytest.mark.parametrize(
    ("settings", "bounded"),
    [
        ({"curriculum": "2,3"}, True),
        ({"curriculum": "1,2,3", "algo": "a2c"}, True),
        ({"curriculum": "2,3", "algo_options": '{"bounded_scores": false}'}, False),
        ({"curriculum": "1,3"}, None),
        ({"curriculum": "2,3", "algo": "sac"}, True),
        ({"curriculum": "2,3", "algo": "direct"}, None),
        ({"curriculum": "2,3", "policy": "dirichlet"}, None),
    ],
)
def test_scores_are_bounded_after_stage_2(settings: dict[str, Any], bounded: bool | None) -> None:
    config = TrainConfig(encoder="lstm", **settings).resolved()
    assert config.algo_kwargs.get("bounded_scores") is bounded


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        ({}, 0),
        ({"encoder": "lstm"}, 0),  # a stream
        ({"encoder": "gat"}, 32),
        ({"encoder": "gat", "num_envs": 8}, 8),
        ({"encoder": "gat", "algo": "sac"}, 0),
        ({"encoder": "gat", "observation": "window"}, 0),
        ({"encoder": "gat", "start_groups": 0}, 0),
    ],
)
def test_encoders_of_windows_train_on_shared_starts(settings: dict[str, Any], groups: int) -> None:
    assert TrainConfig(**settings).resolved().start_groups == groups


@pytest.mark.parametrize("settings", [{}, {"policy": "flat_mlp", "observation": "flat"}])
def test_networks_without_an_encoder_need_neither(settings: dict[str, Any]) -> None:
    config = TrainConfig(**settings).resolved()
    assert options(config) == ({}, {})
    assert TrainConfig.from_json(config.to_json()) == config
