"""Networks trained end to end, from windows of features to weights, on net growth."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from baselines.base import Weights
from baselines.forecasts.networks import streams
from baselines.networks.base import NetworkModel, ex_ante_volatility
from baselines.rows import Every, rows_of
from baselines.windows import carried, named
from portfolio_env.checks import check_integer, check_number
from portfolio_env.market import Market
from portfolio_env.market.panel import PricePanel
from portfolio_env.names import check_keywords
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.targets import may_borrow, scored_weights

if TYPE_CHECKING:
    from torch import nn

    from agents.direct.agent import DirectAgent

_TRAINING = {
    "iterations": 100,
    "lanes": 8,
    "steps": 20,
    "universe": 0,
    "validation_every": 10,
    "patience": 3,
}


class DeepPortfolio(NetworkModel):
    """Network that returns weights, trained by gradient ascent on net growth.

    An encoder of ``agents.networks`` reads a window of the market's features, a scorer shared over
    assets gives each a score, and the scores with a free one for cash become weights as in an
    environment of logits (``simulation.targets.score_weights``), short ones where allowed. It
    is trained through the differentiable accounting of ``direct.differentiable_simulator``, costs
    and constraints included, on the first part of the fitting period, and validated on the rest of
    it: the weights of best net growth there are kept. It does not see what is held, so a target
    depends on the market alone.

    The defaults are the deep portfolio network: LSTM layers of 64 and 32 with attention over time,
    dense layers of 64 and 32, the Sharpe ratio less a tenth of the concentration. With a
    ``volatility`` the weight of each asset is scaled to it, in training too::

        w_i = score_weight_i * volatility / vol_i

    with ``vol_i`` from ``networks.base.ex_ante_volatility`` and cash for the rest; all are scaled
    down together where they exceed what the account may invest.

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
        volatility: Volatility per year to which the weight of each asset is scaled; None leaves
            the weights as they are.
        environment: Keywords of ``PortfolioEnv`` for the accounts it is trained on, JSON-able:
            ``costs``, ``execution``, ``initial_value``.
        validation: Share of the fitting period, at its end, that says which weights are kept.
        training: Options of ``agents.direct.training.DirectOptions``.
        seed: Seed of the initial weights and of every draw.

    Raises:
        ArgumentError: If torch is not installed, or an option is none.
    """

    reads_features = True
    reads_holdings: ClassVar[bool] = False  # the weights held, beside the market
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
        volatility: float | None = None,
        environment: Mapping[str, Any] | None = None,
        validation: float = 0.25,
        training: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            market, constraints=constraints, every=every, validation=validation, seed=seed
        )
        from agents.direct.training import DirectOptions
        from agents.networks import encoder_class

        kind = encoder_class(encoder)
        if encoder_kwargs is None:
            drops = "dropout" in inspect.signature(kind).parameters
            encoder_kwargs = ({"dropout": 0.2} if drops else {}) | streams(encoder)
        self.encoder, self.encoder_kwargs = encoder, dict(encoder_kwargs)
        self.window = check_integer("window", window, 1)
        self.net_arch = tuple(net_arch)
        self.loss = loss
        if volatility is not None:
            check_number("volatility", volatility, above=0)
        self.volatility = volatility
        self.environment = dict(environment or {})
        self.training = dict(training or {})
        known = [each.name for each in fields(DirectOptions)]
        check_keywords(type(self).__name__, "training option", self.training, known)
        self._options_of_training = _TRAINING | {"loss": loss, "seed": seed} | self.training
        DirectOptions(**self._options_of_training)
        self._agent: DirectAgent | None = None

    def target(self, past: PricePanel) -> Weights:
        """Return target weights, see ``PortfolioModel``; all cash before the first whole window."""
        return self._target_of(past, np.eye(1, self.market.n_assets + 1)[0])

    def _target_of(self, past: PricePanel, held: Weights) -> Weights:
        """Return the target of an account that holds these weights (N + 1,)."""
        network, agent = self._trained, self._agent
        assert agent is not None
        row = rows_of(self.market, past)[1]
        cash = np.eye(1, self.market.n_assets + 1)[0]
        if row + 1 < self.market.warmup + agent.window:
            return cash
        network.extractor.follow(self.market, row)
        actions, _ = agent.predict(
            {
                "t": np.array([row]),
                "market": np.array([self.market.fingerprint]),
                "tradable": self.market.tradable[row],
                "weights": held,
            }
        )
        bounds = self.constraints.bounds(self.market.n_assets, self._labels)
        weights = scored_weights(actions[None], agent.config["logits_scale"], bounds)[0]
        weights[1:][~past.tradable[-1]] = 0.0
        if self.volatility is not None:
            return self._scaled(weights, past)
        if may_borrow(bounds[0]):
            weights[0] = 1 - weights[1:].sum()
            return weights
        return weights / weights.sum()

    def _scaled(self, weights: Weights, past: PricePanel) -> Weights:
        """Return weights that are scaled to the volatility; assets without one are left out."""
        import torch as th

        from agents.direct.differentiable_projection import bounds_of, scaled_weights

        scales = self._scales(past)[-1]
        unknown = past.tradable[-1] & (scales == 0)
        self.leave_out(past, named(past, unknown, "has too few prices for its volatility"))
        bounds = bounds_of(self.constraints, len(scales))
        scaled = scaled_weights(th.tensor(weights)[None], th.tensor(scales)[None], bounds)
        return scaled[0].numpy()

    def _scales(self, past: PricePanel) -> NDArray[np.float64]:
        """Return (T, N) what the weights are multiplied by at every bar; 0 where it is unknown."""
        volatility = ex_ante_volatility(carried(past, len(past.timestamps) - 1))
        assert self.volatility is not None
        return np.nan_to_num(self.volatility / (volatility * past.bars_per_year() ** 0.5))

    def _constrained(self, target: Weights, untradable: NDArray[np.bool_]) -> Weights:
        """Return the projection that the network was trained with."""
        return self.constraints.project(target, untradable, self._labels)

    def _new_network(self) -> nn.Module:
        self._agent = self._new_agent()
        return self._agent.network

    def _new_agent(self) -> DirectAgent:
        from agents.direct.agent import DirectAgent

        return DirectAgent(
            self.market.n_features,
            self.window,
            encoder=self.encoder,
            encoder_kwargs=self.encoder_kwargs,
            net_arch=self.net_arch,
            sees_holdings=self.reads_holdings,
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
            scales=None if self.volatility is None else self._scales(known.panel),
            **self._options_of_training,
        )
        self._agent, self._network = agent, agent.network  # a fit that ends early changes nothing


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


class EIIE(DeepPortfolio):
    """Ensemble of identical independent evaluators, trained end to end on net growth.

    Convolutions shared over assets (``agents.networks.eiie``) read each asset by itself; their
    channels and the weight that is held give its score by one linear map, to which cash adds a
    free score of its own; a softmax makes weights of the scores. What is held enters as it does in
    an account, drifted and net of costs, and gradients pass through it; the paper keeps the last
    target in a memory instead, and reads relative prices in place of the market's features.

    ``target`` and ``predict_weights`` are the decision of an account that holds cash alone.

    Args:
        market: See ``DeepPortfolio``.
        encoder_kwargs: Options of ``agents.networks.eiie.Eiie``.
        window: Bars the convolutions see.
        loss: See ``DeepPortfolio``.
        **options: See ``DeepPortfolio``.
    """

    preset = ("encoder", "net_arch")
    reads_holdings = True
    source = (
        'Jiang, Xu & Liang (2017), "A Deep Reinforcement Learning Framework for the Financial '
        'Portfolio Management Problem", arXiv:1706.10059'
    )

    def __init__(
        self,
        market: Market,
        *,
        encoder_kwargs: Mapping[str, Any] | None = None,
        window: int = 50,
        loss: Literal["growth", "sharpe"] = "growth",
        **options: Any,
    ) -> None:
        super().__init__(
            market,
            encoder="eiie",
            encoder_kwargs=encoder_kwargs,
            window=window,
            net_arch=(),
            loss=loss,
            **options,
        )

    def _decisions(self, row: int, held: Weights) -> Weights:
        distinct, place = np.unique(held, axis=0, return_inverse=True)
        past, untradable = self.market.panel.past(row), ~self.market.tradable[row]
        targets = [self._constrained(self._target_of(past, own), untradable) for own in distinct]
        return np.array(targets)[place.ravel()]


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
