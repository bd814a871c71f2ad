"""Networks trained end to end, from windows of features to weights, on net growth."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from baselines.base import Every, PortfolioModel, Weights, rows_of
from baselines.forecasts.networks import streams
from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.targets import may_borrow, scored_weights

if TYPE_CHECKING:
    from agents.direct.agent import DirectAgent

_TRAINING = {
    "iterations": 100,
    "lanes": 8,
    "steps": 20,
    "universe": 0,
    "validation_every": 10,
    "patience": 3,
}


class DeepPortfolio(PortfolioModel):
    """Network that returns weights, trained by gradient ascent on net growth.

    An encoder of ``agents.networks`` reads a window of the market's features, a scorer shared over
    assets gives each a score, and the scores with a free one for cash become weights as in an
    environment of logits (``simulation.targets.score_weights``), short ones where allowed. It
    is trained through the differentiable accounting of ``direct.differentiable_simulator``, costs
    and constraints included, on the first part of the fitting period, and validated on the rest of
    it: the weights of best net growth there are kept. It does not see what is held, so a target
    depends on the market alone.

    The defaults are the deep portfolio network: LSTM layers of 64 and 32 with attention over time,
    dense layers of 64 and 32, the Sharpe ratio less a tenth of the concentration.

    Args:
        market: The market its environments trade; its features are read.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        encoder: A name of an encoder, see ``agents.networks.make_encoder``.
        encoder_kwargs: Options of the encoder; None drops a fifth of the units in training and
            reads the market as a stream of short blocks (see ``agents.networks.base.Encoder``),
            where it can.
        window: Bars the encoder sees.
        net_arch: Widths of the scorer's layers.
        loss: Objective: "growth", net log growth, or "sharpe", the net Sharpe ratio less 0.1
            times the concentration of the weights.
        environment: Keywords of ``PortfolioEnv`` for the accounts it is trained on, JSON-able:
            ``costs``, ``execution``, ``initial_value``.
        validation: Share of the fitting period, at its end, that says which weights are kept.
        training: Options of ``agents.direct.training.DirectOptions``.
        seed: Seed of the initial weights and of every draw.

    Raises:
        ArgumentError: If torch is not installed, or an option is none.
    """

    reads_features = True
    source = (
        'Zhang, Zohren & Roberts (2020), "Deep Learning for Portfolio Optimization", J. Financial '
        "Data Science 2"
    )

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
        encoder: str = "lstm",
        encoder_kwargs: Mapping[str, Any] | None = None,
        window: int = 20,
        net_arch: tuple[int, ...] = (64, 32),
        loss: Literal["growth", "sharpe"] = "sharpe",
        environment: Mapping[str, Any] | None = None,
        validation: float = 0.25,
        training: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(market, constraints=constraints, every=every)
        try:
            from agents.networks import encoder_class
        except ImportError as error:
            raise ArgumentError(
                "networks need torch, which is not installed; pip install torch safetensors."
            ) from error
        kind = encoder_class(encoder)
        if encoder_kwargs is None:
            drops = "dropout" in inspect.signature(kind).parameters
            encoder_kwargs = ({"dropout": 0.2} if drops else {}) | streams(encoder)
        self.encoder, self.encoder_kwargs = encoder, dict(encoder_kwargs)
        self.window = check_integer("window", window, 1)
        self.net_arch = tuple(net_arch)
        self.loss = loss
        self.environment = dict(environment or {})
        self.validation = check_number("validation", validation, 0.05, 0.5)
        self.training = dict(training or {})
        self.seed = check_integer("seed", seed, 0)
        self._agent: DirectAgent | None = None

    def target(self, past: PricePanel) -> Weights:
        """Return target weights, see ``PortfolioModel``; all cash before the first whole window."""
        if self._agent is None:
            raise ArgumentError(
                f"{type(self).__name__} is not trained; call fit(panel, fit_period) first."
            )
        row = rows_of(self.market, past)[1]
        weights = np.zeros(self.market.n_assets + 1)
        if row + 1 < self.market.warmup + self._agent.window:
            weights[0] = 1.0
            return weights
        bars = min(self._agent.network.extractor.embeddings.encoder.reach, row + 1)
        seen = self.market.past(row).subset(slice(row + 1 - bars, row + 1))
        self._agent.bind(seen)
        actions, _ = self._agent.predict(
            {
                "t": np.array([bars - 1]),
                "market": np.array([seen.fingerprint]),
                "tradable": self.market.tradable[row],
                "weights": weights,
            }
        )
        bounds = self.constraints.bounds(self.market.n_assets, self._labels)
        weights = scored_weights(actions[None], self._agent.config["logits_scale"], bounds)[0]
        weights[1:][~past.tradable[-1]] = 0.0
        if may_borrow(bounds[0]):
            weights[0] = 1 - weights[1:].sum()
            return weights
        return weights / weights.sum()

    def _constrained(self, target: Weights, untradable: NDArray[np.bool_]) -> Weights:
        """Return the projection that the network was trained with."""
        return self.constraints.project(target, untradable, self._labels)

    def state(self) -> dict[str, Any]:
        """Return the weights of the network."""
        return {} if self._agent is None else {"weights": dict(self._agent.network.state_dict())}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the weights of the network, see ``Baseline``."""
        agent = self._new_agent()
        agent.network.load_state_dict(state["weights"])
        self._agent = agent

    def _new_agent(self) -> DirectAgent:
        from agents.direct.agent import DirectAgent

        return DirectAgent(
            self.market.n_features,
            self.window,
            encoder=self.encoder,
            encoder_kwargs=self.encoder_kwargs,
            net_arch=self.net_arch,
            sees_holdings=False,
            seed=self.seed,
        )

    def _fit(self, bars: PricePanel) -> None:
        first, last = rows_of(self.market, bars)
        known = self.market.past(last)
        split = last + 1 - round(self.validation * (last + 1 - first))
        agent = self._new_agent()
        agent.train(
            known,
            first,
            split,
            validation=(split, last + 1),
            env_options=self.environment | {"constraints": self.constraints},
            **_TRAINING | {"loss": self.loss, "seed": self.seed} | self.training,
        )
        self._agent = agent


class GatPortfolio(DeepPortfolio):
    """The graph attention network over correlated assets, trained end to end on net growth.

    Args:
        market: See ``DeepPortfolio``.
        encoder_kwargs: Options of ``agents.networks.gat.GAT``; None is a small one.
        loss: See ``DeepPortfolio``.
        **options: See ``DeepPortfolio``.
    """

    preset = ("encoder",)
    source = 'Brody, Alon & Yahav (2022), "How Attentive are Graph Attention Networks?", ICLR'

    def __init__(
        self,
        market: Market,
        *,
        encoder_kwargs: Mapping[str, Any] | None = None,
        loss: Literal["growth", "sharpe"] = "growth",
        **options: Any,
    ) -> None:
        small = {"hidden": 32, "heads": 4, "layers": 2, "dropout": 0.2}
        kwargs = small if encoder_kwargs is None else encoder_kwargs
        super().__init__(market, encoder="gat", encoder_kwargs=kwargs, loss=loss, **options)


class TcnGnnLstmPortfolio(DeepPortfolio):
    """Convolutions, graph attention and an LSTM in one, trained end to end on net growth.

    Args:
        market: See ``DeepPortfolio``.
        loss: See ``DeepPortfolio``.
        **options: See ``DeepPortfolio``; the encoder is the small preset.
    """

    preset = ("encoder",)
    source = 'Lim & Zohren (2021), "Time-series forecasting with deep learning", Phil. Trans. A'

    def __init__(
        self, market: Market, *, loss: Literal["growth", "sharpe"] = "growth", **options: Any
    ) -> None:
        super().__init__(market, encoder="tcn_gnn_lstm_small", loss=loss, **options)
