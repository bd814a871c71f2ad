"""A model that forecasts: an encoder with the head of a task, fitted, judged and kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.networks import encoder_class, make_encoder
from agents.supervised.scores import Base, Forecasts
from agents.supervised.tasks import Forecast, make_task
from agents.supervised.training import SupervisedOptions, SupervisedTrainer
from agents.tensors import check_finite, load_tensors, reason_of, save_tensors
from portfolio_env.checks import check_integer, check_number
from portfolio_env.errors import MALFORMED, ArgumentError, DataError
from portfolio_env.files.plugins import admit, plugins_within, record
from portfolio_env.market import Market
from portfolio_env.market.samples import Range
from portfolio_env.names import plugin_name

KIND = "supervised"
Array = NDArray[np.float64]


class SupervisedModel:
    """Encoder that forecasts what each asset of a market does after each bar.

    Args:
        features: Names of the features that it reads, ``market.feature_names``.
        task: "return" (mean and deviation by Gaussian likelihood), "direction" (a classifier) or
            "hybrid" (direction, magnitude and uncertainty).
        encoder: Name of an encoder, see ``agents.networks.make_encoder``, or a class.
        window: Bars that it looks back.
        horizon: Bars that a return takes.
        encoder_options: Options of the encoder.
        task_options: Options of the task, see ``agents.supervised.tasks``.
        seed: Seed of the initial weights and of the training.
        device: Torch device.

    Attributes:
        embeddings: The network.
    """

    def __init__(
        self,
        features: tuple[str, ...],
        *,
        task: str = "return",
        encoder: Any = "lstm",
        window: int = 20,
        horizon: int = 1,
        encoder_options: Mapping[str, Any] | None = None,
        task_options: Mapping[str, Any] | None = None,
        seed: int = 0,
        device: th.device | str = "cpu",
    ) -> None:
        self.task = make_task(task, **dict(task_options or {}))
        self.config: dict[str, Any] = {
            "features": list(features),
            "task": task,
            "encoder": encoder,
            "window": window,
            "horizon": horizon,
            "encoder_options": dict(encoder_options or {}),
            "task_options": dict(task_options or {}),
            "seed": seed,
        }
        self.horizon = horizon
        with th.random.fork_rng(devices=[]):
            th.manual_seed(seed)
            made = make_encoder(encoder, len(features), window, **dict(encoder_options or {}))
            self.embeddings = MarketEncoder(made, forecasts=self.task.head(made.channels))
        self.embeddings.to(device)
        self._bound: Market | None = None
        self._scale, self._size = 1.0, 1.0
        self._known: Base | None = None

    @property
    def _base(self) -> Base:
        """Return what was usual in the training range.

        Raises:
            ArgumentError: If the model was never fitted.
        """
        if self._known is None:
            raise ArgumentError(
                "the model is not trained: call fit(market, train, validation) first."
            )
        return self._known

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(weight.numel() for weight in self.embeddings.parameters())

    def fit(
        self, market: Market, train: Range, validation: Range, **options: Any
    ) -> SupervisedModel:
        """Train the model and keep the weights that were best on validation.

        A model that was fitted before starts from its weights: so one that was trained on some
        assets is carried to others.

        Args:
            market: Market with its features.
            train: Half-open range of bars.
            validation: Half-open range on which training is stopped; it may not overlap the other.
            **options: See ``SupervisedOptions``.

        Raises:
            ArgumentError: If the ranges overlap, or one has no bar with a whole window and a known
                return.
        """
        trainer = self.trainer(market, train, validation, **options)
        while not trainer.fit.finished:
            trainer.advance()
        return self.take(trainer, train)

    def trainer(
        self, market: Market, train: Range, validation: Range, **options: Any
    ) -> SupervisedTrainer:
        """Return the trainer of the model, before its first epoch; see ``fit``."""
        self._check(market)
        made = SupervisedOptions(**{"seed": self.config["seed"], **options})
        where = (self.embeddings, market, train, validation)
        trainer = SupervisedTrainer(*where, made, self.task, self.horizon)
        self._bound = market
        return trainer

    def take(self, trainer: SupervisedTrainer, train: Range) -> SupervisedModel:
        """Take the best weights of a trainer, and what was usual in the training range."""
        trainer.restore_best()
        returns, market = trainer.returns, self._bound
        assert market is not None
        self._scale, self._size = returns.scale, returns.size
        seen = market.targets("return", self.horizon)[returns.rows(train)]
        seen = seen[np.isfinite(seen)]
        self._known = Base(float(seen.mean()), returns.scale, float((seen > 0).mean()))
        return self

    def forecasts(self, market: Market, within: Range) -> Forecasts:
        """Return the forecasts at the bars of a half-open range whose returns lie within it.

        Args:
            market: A market with the features that it was trained on, of any assets.
            within: The range; bars before the first whole window are left out.
        """
        rows = self.rows(market, within)
        realised = market.targets("return", self.horizon)[rows]
        mean, sigma, up = self._at(market, rows)
        times = market.timestamps[rows]
        return Forecasts(times, mean, sigma, up, realised, self._base, self.horizon)

    def rows(self, market: Market, within: Range) -> NDArray[np.int64]:
        """Return the bars of a half-open range with a whole window and a return within that range.

        Raises:
            ArgumentError: If there is none.
        """
        start, end = max(within[0], self._first(market)), within[1] - self.horizon
        if start >= end:
            raise ArgumentError(
                f"the range {within[0]} to {within[1]} has no bar from {self._first(market)} on, "
                f"the first with a whole window, with one {self.horizon} bars later: widen it"
            )
        return np.arange(start, end)

    def forecast(self, market: Market, row: int = -1) -> tuple[Array, Array, Array]:
        """Return mean and sigma of the simple return, and the probability of a gain, at a row.

        Args:
            market: See ``forecasts``; no bar after the row is read.
            row: Row of the market, by default the last.

        Returns:
            (N,) each.
        """
        row = row % market.n_bars
        if row < self._first(market):
            raise ArgumentError(
                f"row {row} has no whole window: the first that has is {self._first(market)}"
            )
        mean, sigma, up = self._at(market, np.array([row]))
        return mean[0], sigma[0], up[0]

    def fingerprint(self) -> str:
        """Return SHA-256 of the weights, which tells one training from another."""
        digest = sha256()
        for name, weight in sorted(self.embeddings.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)} ".encode())
            digest.update(weight.cpu().numpy().tobytes())
        return digest.hexdigest()

    def latency(self, market: Market, decisions: int = 200) -> dict[str, float]:
        """Measure the wall time of a decision: the forecast of all assets at one bar.

        Nothing is kept from one decision to the next.

        Args:
            market: See ``forecasts``.
            decisions: Number of decisions timed, at the last bars of the market.

        Returns:
            ``p50_ms`` and ``p99_ms``, percentiles in milliseconds.
        """
        last = market.n_bars - 1
        rows = last - np.arange(check_integer("decisions", decisions)) % (
            last - self._first(market) + 1
        )
        self.forecast(market)  # the first call binds the market
        seconds = []
        for row in rows:
            self.embeddings.forget()
            began = perf_counter()
            self.forecast(market, int(row))
            seconds.append(perf_counter() - began)
        p50, p99 = 1000 * np.percentile(seconds, [50, 99])
        return {"p50_ms": float(p50), "p99_ms": float(p99)}

    def save(self, path: str | Path) -> None:
        """Write settings and weights to one file without code, which is complete or absent.

        An encoder of one's own is named, with the SHA-256 of its source.

        Raises:
            ArgumentError: If the model was not fitted, or its encoder is not a class that a name
                finds again.
        """
        encoder = self.config["encoder"]
        if not isinstance(encoder, str):
            encoder = plugin_name(encoder)
            encoder_class(encoder)  # a function is not a class
        config = self.config | {"encoder": encoder}
        plugins = record(_named(config))
        tree = {
            "config": config,
            **({"plugins": plugins} if plugins else {}),
            "weights": self.embeddings.state_dict(),
            "scale": self._scale,
            "size": self._size,
            "base": asdict(self._base),
        }
        save_tensors(path, tree, kind=KIND)

    @classmethod
    def load(
        cls, path: str | Path, *, device: th.device | str = "cpu", within: Path | None = None
    ) -> SupervisedModel:
        """Read what ``save`` wrote; nothing in the file is executed.

        Args:
            path: The file.
            device: Torch device.
            within: The folder that it came in, e.g. that of a run: no code in it is imported.

        Raises:
            DataError: If the file is no such model, or names an encoder of one's own that it may
                not, see ``portfolio_env.files.plugins.admit``.
            ArgumentError: If the source of that encoder is not found.
        """
        tree = load_tensors(path, kind=KIND)
        try:
            config = dict(tree["config"])
            admitted = _named(config), tree.get("plugins", {}), Path(path)
        except MALFORMED as error:
            raise _no_model(path, error) from error
        admit(*admitted, within=within)
        try:
            model = cls(tuple(config.pop("features")), **config, device=device)
            model.embeddings.load_state_dict(tree["weights"])
            model._scale = float(check_number("scale", tree["scale"]))
            model._size = float(check_number("size", tree["size"]))
            model._known = Base(**tree["base"])
        except (*MALFORMED, RuntimeError) as error:
            raise _no_model(path, error) from error
        check_finite(model.embeddings.state_dict(), path)
        model.embeddings.eval()
        return model

    def in_returns(self, outputs: Any) -> Forecast:
        """Return the forecast of the head's outputs, mean and sigma in simple returns.

        Raises:
            ArgumentError: If the model was never fitted.
        """
        _ = self._base
        mean, sigma, up = self.task.forecast(outputs, self._size)
        return Forecast(self._scale * mean.double(), self._scale * sigma.double(), up)

    def _first(self, market: Market) -> int:
        return market.warmup + self.embeddings.encoder.bars - 1

    def _check(self, market: Market) -> None:
        if list(market.feature_names) != self.config["features"]:
            raise ArgumentError(
                f"the market has the features {', '.join(market.feature_names)}; the model reads "
                f"{', '.join(self.config['features'])}: load the market with those"
            )

    def _at(self, market: Market, rows: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Return mean, sigma and probability (rows, N) in units of simple returns."""
        if self._bound is not market:
            self._check(market)
            device = next(self.embeddings.parameters()).device
            self.embeddings.bind(*market_tensors(market, device))
            self._bound = market
        self.embeddings.eval()
        with th.no_grad():
            forecast = self.in_returns(self.embeddings.forecast(th.from_numpy(rows)))
        mean, sigma, up = (part.double().cpu().numpy() for part in forecast)
        return mean, sigma, up


def _named(config: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the names in settings that may be plug-ins."""
    return {"encoder": [config["encoder"], *plugins_within(config["encoder_options"])]}


def _no_model(path: str | Path, error: Exception) -> DataError:
    return DataError(f"{path} is not a saved SupervisedModel ({reason_of(error)})")
