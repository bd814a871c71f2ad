"""Deep momentum network: an LSTM that sizes volatility-scaled positions, one asset at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from baselines.base import Weights
from baselines.networks.base import NetworkModel, ex_ante_volatility
from baselines.rows import Every
from baselines.windows import bars_of_months, carried, named
from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray, PricePanel
from portfolio_env.simulation.constraints import PortfolioConstraints

if TYPE_CHECKING:
    from torch import Tensor, nn

_SPEEDS = ((8, 24), (16, 48), (32, 96))  # time scales of the MACD, in bars
_PRICE_BARS = 63  # of the deviation of prices that a MACD is divided by
_BATCH = 64  # windows of a gradient step
_BLOCK = 256  # bars whose features are computed at once, from the same first bar on
_UNKNOWN = "has too few prices, or some that did not move, for the features of the network"


class Inputs(NamedTuple):
    """Features of prices, and volatilities.

    Attributes:
        features: (T, N, F); NaN where one is not known.
        volatility: (T, N) ex-ante, per bar.
    """

    features: FloatArray
    volatility: FloatArray


class Block(NamedTuple):
    """Inputs of a block of bars and of those before it that they are read with.

    Attributes:
        start: First row of the block.
        first: First row of the inputs.
        horizons: Bars of the returns.
        inputs: Inputs of the rows ``first`` to the end of the block, or to the last bar there is.
    """

    start: int
    first: int
    horizons: tuple[int, ...]
    inputs: Inputs

    def has(self, row: int, horizons: tuple[int, ...]) -> bool:
        """Return whether a bar is in the block and has the same horizons."""
        end = self.first + len(self.inputs.features)
        return self.start <= row < end and self.horizons == horizons

    def up_to(self, row: int) -> Inputs:
        """Return the inputs of the bars up to one of the block."""
        return Inputs(*(each[: row - self.first + 1] for each in self.inputs))


class DeepMomentum(NetworkModel):
    """LSTM shared over assets that sizes each position from its own trend, trained on Sharpe.

    From features of an asset's own past (returns over several horizons over their volatility, MACD
    at three speeds) an LSTM gives a signal, and the position is the signal at a target volatility::

        w_i = signal_i * (volatility / vol_i) / N

    with the N assets whose features are known; cash is the rest. With ``long_only=False`` the
    signal is a tanh, in (-1, 1); else a sigmoid, in (0, 1), the counterpart without short
    positions. Positions are scaled down together where they exceed what the account may invest.
    Training maximises the Sharpe ratio of the pooled returns of all positions, less the cost of
    changing them, on the first part of the fitting period; the weights that are best on the rest
    are kept.

    Args:
        market: The market its environments trade; prices alone are read.
        constraints: See ``PortfolioModel``.
        every: See ``PortfolioModel``.
        volatility: Volatility per year of each position at full signal.
        months: Horizons of the returns besides one bar; counted in bars by the market's bars per
            year. The longest is also the window over which MACDs are standardised.
        sequence: Bars that the LSTM reads.
        hidden: Units of the LSTM.
        dropout: Share of its outputs that are dropped in training.
        cost_bps: Cost of changing a position by its value, in training.
        epochs: Most passes over the training windows; five validations without progress end them.
        learning_rate: Learning rate of Adam at the start.
        validation: Share of the fitting period, at its end, that says which weights are kept.
        seed: Seed of the initial weights and of every draw.

    Raises:
        ArgumentError: If torch is not installed, or an option is none.
    """

    source = (
        'Lim, Zohren & Roberts (2019), "Enhancing Time-Series Momentum Strategies Using Deep '
        'Neural Networks", J. Financial Data Science 1'
    )

    def __init__(
        self,
        market: Market,
        *,
        constraints: PortfolioConstraints | None = None,
        every: Every = 1,
        volatility: float = 0.15,
        months: Sequence[float] = (1, 3, 6, 12),
        sequence: int = 63,
        hidden: int = 20,
        dropout: float = 0.2,
        cost_bps: float = 10.0,
        epochs: int = 30,
        learning_rate: float = 1e-2,
        validation: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__(
            market, constraints=constraints, every=every, validation=validation, seed=seed
        )
        if not isinstance(months, list | tuple) or not months:
            raise ArgumentError(f"months={months!r} must be a list of numbers, e.g. [1, 12].")
        self.volatility = check_number("volatility", volatility, above=0)
        self.months = tuple(check_number("months", each, above=0) for each in months)
        self.sequence = check_integer("sequence", sequence, 2)
        self.hidden = check_integer("hidden", hidden)
        self.dropout = check_number("dropout", dropout, 0, below=1)
        self.cost_bps = check_number("cost_bps", cost_bps, 0)
        self.epochs = check_integer("epochs", epochs)
        self.learning_rate = check_number("learning_rate", learning_rate, above=0)
        self._last_block: Block | None = None

    def target(self, past: PricePanel) -> Weights:
        """Return the positions of assets whose features are known; all cash without any."""
        return self._positions(past, self._block(past, len(past.timestamps) - 1).inputs)

    def _target_at(self, row: int) -> Weights:
        past, block = self.market.panel.past(row), self._last_block
        if block is None or not block.has(row, self._horizons(past)):
            block = self._last_block = self._block(self.market.panel, row)
        return self._positions(past, block.up_to(row))

    def _positions(self, past: PricePanel, inputs: Inputs) -> Weights:
        """Return the target after the last bar, from inputs of the bars up to it."""
        import torch as th

        network = self._trained
        seen = inputs.features[-self.sequence :]
        known = (
            past.tradable[-1] & np.isfinite(seen).all(axis=(0, 2)) & (len(seen) == self.sequence)
        )
        self.leave_out(past, named(past, past.tradable[-1] & ~known, _UNKNOWN))
        out = np.zeros(len(known) + 1)
        out[0] = 1.0
        if not known.any():
            return out
        with th.no_grad():
            rows = th.tensor(seen[:, known].swapaxes(0, 1), dtype=th.float32)
            signal = network.eval()(rows)[:, -1].double().numpy()
        yearly = inputs.volatility[-1, known] * np.sqrt(past.bars_per_year())
        positions = signal * self.volatility / yearly / known.sum()
        limits = self.constraints
        most = self._exposure if limits.long_only else limits.max_leverage
        out[1:][known] = positions * min(1.0, most / max(abs(positions).sum(), 1e-12))
        out[0] = 1 - out[1:].sum()
        return out

    def _horizons(self, past: PricePanel) -> tuple[int, ...]:
        return (1, *(bars_of_months(past, each) for each in self.months))

    def _block(self, panel: PricePanel, row: int) -> Block:
        """Return the inputs of the bars of a panel up to the end of a bar's block.

        Each is of its own past alone, from so early a bar that what is older weighs nothing. The
        first bar is the same for all of a block, so that they do not depend on where it ends.
        """
        horizons, start = self._horizons(panel.past(row)), row - row % _BLOCK
        first = max(0, start - self.sequence - max(horizons) - 500)
        bars = panel.subset(slice(first, start + _BLOCK))
        inputs = momentum_inputs(carried(bars, len(bars.timestamps) - 1), horizons)
        return Block(start, first, horizons, inputs)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_last_block": None}

    def _new_network(self) -> nn.Module:
        import torch as th

        from baselines.networks.momentum_lstm import MomentumLstm

        with th.random.fork_rng(devices=[]):
            th.manual_seed(self.seed)
            shorts = not self.constraints.long_only
            count = 1 + len(self.months) + len(_SPEEDS)
            return MomentumLstm(count, self.hidden, dropout=self.dropout, shorts=shorts)

    def _fit(self, bars: PricePanel) -> None:
        import torch as th

        from agents.fitting import Fit, FitOptions
        from agents.losses import sharpe_loss

        close = carried(bars, len(bars.timestamps) - 1)
        inputs = momentum_inputs(close, self._horizons(bars))
        per_year = bars.bars_per_year()
        scale = self.volatility / (inputs.volatility[:-1] * np.sqrt(per_year))
        data = np.dstack([inputs.features[:-1], scale, close[1:] / close[:-1] - 1])
        data = data[np.isfinite(data).all(axis=2).any(axis=1).argmax() :]  # from the first known on
        split = round((1 - self.validation) * len(data))
        held_back = min(self.sequence, len(data) - split)
        judged = _windows(data[split:], held_back, 0)
        if not len(judged) or not len(_windows(data[:split], self.sequence, 0)):
            raise ArgumentError(
                f"fit_period has {len(close)} bars, which leave DeepMomentum no window of "
                f"sequence={self.sequence} with features over {max(self.months):g} months; give a "
                "longer fit_period, a shorter sequence or shorter months."
            )
        network = self._new_network()
        options = FitOptions(learning_rate=self.learning_rate, patience=5, seed=self.seed)
        fit = Fit(network, options, self.epochs)

        def loss(windows: Tensor) -> Tensor:
            positions = network(windows[..., :-2]) * windows[..., -2]
            changes = positions.diff(dim=1, prepend=positions[:, :1]).abs()
            returns = positions * windows[..., -1] - self.cost_bps / 1e4 * changes
            return sharpe_loss(returns, per_year)

        while not fit.finished:
            rng = np.random.default_rng([self.seed, fit.round])
            offset = int(rng.integers(min(self.sequence, split - self.sequence + 1)))
            windows = _windows(data[:split], self.sequence, offset)
            with fit.draws():
                network.train()
                for chosen in np.array_split(
                    rng.permutation(len(windows)), -(-len(windows) // _BATCH)
                ):
                    if len(chosen):
                        fit.step(loss(th.tensor(windows[chosen], dtype=th.float32)))
                network.eval()
                with th.no_grad():
                    fit.judge(float(loss(th.tensor(judged, dtype=th.float32))))
            fit.end_round()
        network.load_state_dict(fit.best_weights())
        self._network = network.eval()


def momentum_inputs(close: FloatArray, horizons: Sequence[int]) -> Inputs:
    """Return features of trends and the volatility of every asset, each from its own past.

    With s the exponentially weighted deviation of simple returns (span 60): the return over each
    horizon k over ``s sqrt(k)``; and per pair of time scales (a, b) the difference of exponential
    means of the price, of weights 1/a and 1/b, over the deviation of the price in 63 bars, and that
    over its own deviation within the longest horizon. Within +-10.

    Args:
        close: (T, N) prices, carried over gaps; NaN before an asset's first.
        horizons: Bars.
    """
    prices = pd.DataFrame(close)
    volatility = pd.DataFrame(ex_ante_volatility(close))
    found = [prices.pct_change(k, fill_method=None) / (volatility * k**0.5) for k in horizons]
    for fast, slow in _SPEEDS:
        gap = prices.ewm(alpha=1 / fast).mean() - prices.ewm(alpha=1 / slow).mean()
        deviation = prices.rolling(_PRICE_BARS).std()
        gap = gap / deviation.where(deviation > 0)
        spread = gap.rolling(max(2, *horizons)).std()
        found.append(gap / spread.where(spread > 0))
    features = np.clip(np.stack([each.to_numpy() for each in found], axis=-1), -10.0, 10.0)
    return Inputs(features, volatility.to_numpy())


def _windows(data: FloatArray, length: int, offset: int) -> FloatArray:
    """Return windows (K, length, F) of single assets that are known throughout, side by side."""
    count = max(0, (len(data) - offset) // length)
    cut = data[offset : offset + count * length]
    rows = cut.reshape(count, length, *data.shape[1:]).swapaxes(1, 2)
    rows = rows.reshape(-1, length, data.shape[2])
    kept: FloatArray = rows[np.isfinite(rows).all(axis=(1, 2))]
    return kept
