"""Forecasts by networks that read windows of features: the encoders of ``agents.networks``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from portfolio_env.checks import check_integer
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray

if TYPE_CHECKING:
    from agents.encoding.market_encoder import MarketEncoder

SIZES: dict[str, dict[str, Any]] = {
    "lstm": {"hidden": 32, "channels": 16},
    "state_space": {"state": 16, "memory": 16, "heads": 2},
    "transformer": {"width": 16, "heads": 2, "layers": 1, "feedforward": 32},
    "gat": {"hidden": 16, "heads": 2, "layers": 1},
    "tcn_gnn_lstm_small": {"width": 16, "layers": 2, "lstm_hidden": 16},
}
"""Smaller than the encoders' own: next returns are nearly noise, and large networks learn it."""

WINDOW = 20  # bars that a network sees
IN_BLOCKS = {"batch": 256, "learning_rate": 3e-3}
"""Training of a network that reads blocks: 64 bars are but two, which say nearly the same."""


BLOCK = 40  # bars of a block: accounts live for 20, and longer ones read what none trades in


def streams(encoder: str) -> dict[str, Any]:
    """Return the options with which an encoder reads blocks of bars; {} if it reads windows.

    A network in blocks learns in a third of the time.
    """
    from agents.settings.encoders import STREAMS

    known = STREAMS | {"state_space": {}}
    return {"history": "stream", "block": BLOCK} | known[encoder] if encoder in known else {}


class Network:
    """Encoder of windows, with a head for the mean and deviation of each next return.

    Trained by the Gaussian likelihood of the next bar's return, see
    ``supervised.training.SupervisedTrainer``: the last fifth of the bars says when to stop, and the
    best weights on it are kept.

    Args:
        encoder: A name of an encoder, see ``agents.networks.make_encoder``.
        seed: Seed of the initial weights and of every draw.
        options: ``window`` (20 bars), options of ``SupervisedOptions`` (``epochs``, ``batch``,
            ``learning_rate``, ...; 5 epochs unless given, and in blocks ``IN_BLOCKS``), and all
            others to the encoder, over ``SIZES``.

    Raises:
        ArgumentError: If torch is not installed.
    """

    def __init__(self, encoder: str, seed: int, options: Mapping[str, Any]) -> None:
        try:
            import agents.supervised.training  # noqa: F401
        except ImportError as error:
            raise ArgumentError(
                "forecasts by networks need torch, which is not installed; "
                "pip install torch safetensors."
            ) from error
        self.encoder, self.seed, self.options = encoder, seed, dict(options)

    def fit(self, known: Market, first: int) -> None:
        """Fit the network; see ``Forecaster``."""
        from agents.supervised.training import SupervisedOptions, SupervisedTrainer

        own, _ = self._sorted_options()
        self._embeddings = self._new_encoder(known.n_features)
        default = {"epochs": 5} | (IN_BLOCKS if self._embeddings.encoder.block else {})
        split = first + round(0.8 * (known.n_bars - first))
        trainer = SupervisedTrainer(
            self._embeddings,
            known,
            (first, split),
            (split, known.n_bars),
            SupervisedOptions(**default | own | {"seed": self.seed}),
        )
        while not trainer.fit.finished:
            trainer.advance()
        trainer.restore_best()
        self._scale = trainer.returns.scale

    def forecast(self, known: Market) -> FloatArray:
        """Return (N,) expected simple returns of the next bar."""
        import torch as th

        from agents.encoding.market_encoder import market_tensors

        row = known.n_bars - 1
        first = self._embeddings.first_row(known, row)
        self._embeddings.bind(*market_tensors(known, "cpu", first), first)
        with th.no_grad():
            mean, _ = self._embeddings.forecast(th.tensor([row]))
        return self._scale * mean[0].double().numpy()

    def state(self) -> dict[str, Any]:
        """Return the weights; see ``Forecaster``."""
        return {
            "features": self._embeddings.encoder.n_features,
            "weights": dict(self._embeddings.state_dict()),
            "scale": self._scale,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the weights; see ``Forecaster``."""
        embeddings = self._new_encoder(state["features"])
        embeddings.load_state_dict(state["weights"])
        self._embeddings, self._scale = embeddings.eval(), state["scale"]

    def _new_encoder(self, n_features: int) -> MarketEncoder:
        import torch as th

        from agents.encoding.market_encoder import MarketEncoder
        from agents.networks import make_encoder

        options = SIZES.get(self.encoder, {}) | self._sorted_options()[1]
        self.window = check_integer("window", options.pop("window", WINDOW), 1)
        with th.random.fork_rng(devices=[]):
            th.manual_seed(self.seed)
            encoder = make_encoder(self.encoder, n_features, self.window, **options)
            return MarketEncoder(encoder, forecasts=True)

    def _sorted_options(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the options of the training, and the others."""
        from dataclasses import fields

        from agents.supervised.training import SupervisedOptions

        names = {each.name for each in fields(SupervisedOptions)} - {"seed"}
        own = {name: value for name, value in self.options.items() if name in names}
        return own, {name: value for name, value in self.options.items() if name not in names}
