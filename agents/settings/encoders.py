"""Defaults of networks that a run writes down, so that later ones change no run before."""

import json
from typing import Any

from agents.settings.data import json_object
from portfolio_env.errors import ArgumentError

STREAMS: dict[str, dict[str, Any]] = {
    "lstm": {},
    "tcn_gnn_lstm": {"bidirectional": False},
    "tcn_gnn_lstm_small": {"bidirectional": False},
}
"""Encoders that train in blocks of bars by default, and the options that they need for it."""
ROWS = ("per_asset", "mlp", "residual_mlp", "branches", "factor")
"""Encoders that lay out their bars in one row, and read a single one unless more are asked for."""


def check_encoder_options(options: str) -> None:
    """Reject options of an encoder, as JSON, that are no object or that other settings decide.

    Raises:
        ArgumentError: For the first of them.
    """
    given = json_object("encoder_options", options, '{"hidden": 32}')
    for name, fix in (("window", "give --window"), ("n_features", "the features decide it")):
        if name in given:
            raise ArgumentError(f"encoder_options has {name!r}: leave it out, {fix}")


def with_window(encoder: str, options: str, window: int) -> str:
    """Return the options of an encoder that reads rows with all bars of the window, as JSON.

    >>> with_window("mlp", "{}", 5)
    '{"flatten": true}'
    """
    given = json.loads(options)
    if encoder not in ROWS[1:] or window == 1 or "flatten" in given:
        return options
    return json.dumps(given | {"flatten": True})


def with_history(encoder: str, options: str, observation: str, algo: str) -> str:
    """Return the options of an encoder with what it reads of the past, as JSON.

    Blocks need observations that refer to the market, and no state that runs backwards. TRPO
    differentiates twice, which the attention of blocks cannot do.

    >>> with_history("tcn_gnn_lstm", '{"heads": 2}', "index", "ppo")
    '{"heads": 2, "history": "stream", "bidirectional": false}'
    >>> with_history("tcn_gnn_lstm", '{"bidirectional": true}', "index", "ppo")
    '{"bidirectional": true, "history": "window"}'
    """
    given = json.loads(options)
    if encoder not in STREAMS or "history" in given:
        return options
    streams = observation == "index" and algo != "trpo" and not given.get("bidirectional", False)
    added = {"history": "stream", **STREAMS[encoder]} if streams else {"history": "window"}
    return json.dumps(given | added)


def with_policy(options: str, *, encoder: bool, scorer: bool) -> str:
    """Return the options of an algorithm with how its policy is built.

    Args:
        options: As JSON.
        encoder: Whether there is an encoder, which the critic may teach.
        scorer: Whether it takes over the scorer of stage 2.
    """
    usual: dict[str, Any] = {"critic_gradient": 0.0} if encoder else {}
    usual |= {"bounded_scores": True} if scorer else {}
    given = json.loads(options)
    return options if usual.keys() <= given.keys() else json.dumps(given | usual | given)


def history_before(encoder: str, options: str) -> str:
    """Return the recorded options of an encoder, with windows where none says what it reads."""
    given = json.loads(options)
    if encoder not in STREAMS or "history" in given:
        return options
    return json.dumps(given | {"history": "window"})


def sharing_before(options: str) -> str:
    """Return recorded options of an on-policy algorithm; actor and critic had an encoder each."""
    given = json.loads(options)
    if "critic_gradient" in given:
        return options
    return json.dumps({"share_features_extractor": False, "critic_gradient": 1.0} | given)
