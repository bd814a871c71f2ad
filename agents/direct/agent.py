"""``DirectAgent``: a policy trained by gradient ascent on net growth, without RL.

The accounting is differentiable (``direct.differentiable_simulator``), so growth after costs over
short windows can be climbed directly, as in Moody & Saffell (2001), "Learning to Trade via Direct
Reinforcement". It learns in a tenth of the time PPO takes and overfits sooner;
``agents.direct.training`` trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from torch import Tensor, nn

from agents.direct.training import DirectTrainer
from agents.encoding.market_encoder import market_tensors
from agents.encoding.market_rows import MarketRows, check_parts
from agents.networks import AssetHead, RowMlp, encoder_class
from agents.networks.heads import bounded_scores
from agents.networks.plugins import Maker
from agents.tensors import check_finite, load_tensors, reason_of, save_tensors
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.files.plugins import admit, plugins_within, record
from portfolio_env.market import Market
from portfolio_env.names import plugin_name

KIND = "direct agent"
_INDEX = spaces.Dict(t=spaces.Box(0, 1, (1,), np.int64))


def _named(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the encoders in settings."""
    return {"encoder": [config["encoder"], *plugins_within(dict(config))]}


class DirectNetwork(nn.Module):
    """Encoder, scorer shared over assets and a learned logit for cash; for any number of assets.

    Args:
        n_features: Features per asset.
        window: Bars the encoder sees.
        encoder: Name or class of the encoder, see ``agents.networks.make_encoder``.
        encoder_kwargs: Further options of the encoder.
        embedding_kwargs: Options of its evaluation, those of ``MarketEncoder``.
        net_arch: Widths of the scorer's tanh layers.
        sees_holdings: The scorer reads the weights held.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        encoder: str | Maker,
        encoder_kwargs: dict[str, Any],
        embedding_kwargs: dict[str, Any],
        net_arch: list[int],
        sees_holdings: bool,
    ) -> None:
        super().__init__()
        self.sees_holdings = sees_holdings
        self._extractor_options: dict[str, Any] = {
            "n_features": n_features,
            "window": window,
            "encoder": encoder,
            "encoder_kwargs": encoder_kwargs,
        }
        self.extractor = MarketRows(
            _INDEX, 1, **self._extractor_options, embedding_kwargs=embedding_kwargs
        )
        self.scorer = RowMlp(self.extractor.width, net_arch, nn.Tanh)
        self.head = AssetHead(self.scorer.out_width)
        self._readers: dict[tuple[int, ...], MarketRows] = {}

    def forward(self, rows: Tensor) -> Tensor:
        """Return actions (batch, 1 + assets) in [-1, 1] from rows (see ``MarketRows``)."""
        if not self.sees_holdings:
            rows = th.cat([rows[..., :-2], th.zeros_like(rows[..., :1]), rows[..., -1:]], -1)
        return bounded_scores(self.head(self.scorer(rows)))

    def act(self, observation: Tensor | dict[str, Tensor], n_assets: int | None) -> Tensor:
        """Return actions for observations of any mode; flat ones need the number of assets."""
        rows: Tensor = self._reader(observation, n_assets)(observation)
        return self(rows)

    def _reader(self, observation: Tensor | dict[str, Tensor], n_assets: int | None) -> MarketRows:
        """Return the extractor for an observation mode, around the one encoder."""
        if isinstance(observation, dict):
            if "t" in observation:
                return self.extractor
            shape = tuple(observation["market"].shape[1:])
            space: spaces.Space[Any] = spaces.Dict(market=spaces.Box(-np.inf, np.inf, shape))
            n_assets = shape[1]
        else:
            if n_assets is None:
                raise ArgumentError(
                    "a flat observation does not state its number of assets; call bind(market)"
                )
            shape = tuple(observation.shape[1:])
            space = spaces.Box(-np.inf, np.inf, shape)
        key = (*shape, n_assets)
        if key not in self._readers:
            reader = MarketRows(space, n_assets, **self._extractor_options)
            reader.embeddings = self.extractor.embeddings
            self._readers[key] = reader
        return self._readers[key]


class DirectAgent:
    """Deterministic policy with the ``predict`` method of an SB3 model.

    Args:
        n_features: Features per asset of the markets it reads.
        window: Bars the encoder sees, at most the environment's window.
        encoder: Name or class of the encoder, see ``agents.networks.make_encoder``.
        encoder_kwargs: Further options of the encoder, JSON-able.
        embedding_kwargs: Options of its evaluation, those of ``MarketEncoder``,
            JSON-able.
        net_arch: Widths of the scorer's layers; default two of 32.
        sees_holdings: Whether actions depend on the holdings, to spare costs; False makes it a
            function of the market alone.
        logits_scale: Scale of the logits in the environment.
        seed: Seed of the initial weights.
        device: Torch device.
    """

    action: ClassVar[str] = "logits"

    def __init__(
        self,
        n_features: int,
        window: int = 1,
        *,
        encoder: str | Maker = "per_asset",
        encoder_kwargs: Mapping[str, Any] | None = None,
        embedding_kwargs: Mapping[str, Any] | None = None,
        net_arch: tuple[int, ...] = (32, 32),
        sees_holdings: bool = True,
        logits_scale: float = 5.0,
        seed: int = 0,
        device: th.device | str = "cpu",
    ) -> None:
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "window": window,
            "encoder": encoder,
            "encoder_kwargs": dict(encoder_kwargs or {}),
            "embedding_kwargs": dict(embedding_kwargs or {}),
            "net_arch": list(net_arch),
            "sees_holdings": sees_holdings,
            "logits_scale": logits_scale,
        }
        self.device = th.device(device)
        with th.random.fork_rng(devices=[]):
            th.manual_seed(seed)
            network = DirectNetwork(
                n_features,
                window,
                encoder,
                self.config["encoder_kwargs"],
                self.config["embedding_kwargs"],
                list(net_arch),
                sees_holdings,
            )
        self.network = network.to(self.device).eval()
        self.n_assets: int | None = None

    @property
    def window(self) -> int:
        """Return the number of bars an observation must hold."""
        return self.network.extractor.bars

    @property
    def env_options(self) -> dict[str, Any]:
        """Return keywords of its environment: the observation mode, the window and the action."""
        scale = self.config["logits_scale"]
        return {
            "observation": "index",
            "action": self.action,
            "window": self.window,
            "logits_scale": scale,
        }

    def bind(self, market: Market, n_assets: int | None = None) -> None:
        """Attach the market that index observations refer to; it is not saved with the agent.

        Args:
            market: Market with the features of the agent.
            n_assets: Assets of flat observations; default all of the market's.
        """
        self.network.extractor.bind(*market_tensors(market, self.device), market)
        self.n_assets = market.n_assets if n_assets is None else n_assets

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Any]:
        """Return actions for an observation or a batch of them, of any mode of the environment.

        Args:
            observation: As the environment gives it; ``"index"`` and ``"flat"`` ones need ``bind``.
            state: Returned as it came: it remembers nothing.
            episode_start: Ignored.
            deterministic: Ignored: there is no noise.

        Returns:
            ``(actions, state)``: (1 + N,) or (B, 1 + N) float32 in [-1, 1], cash first.
        """
        if isinstance(observation, Mapping):
            check_parts(observation, "market", fingerprint="t" in observation)
        parts = observation if isinstance(observation, Mapping) else {"": observation}
        tensors = {name: self._tensor(name, part) for name, part in parts.items()}
        last = tensors["weights"] if isinstance(observation, Mapping) else tensors[""]
        single = last.ndim == 1
        if single:
            tensors = {name: tensor[None] for name, tensor in tensors.items()}
        with th.no_grad():
            batch = tensors if isinstance(observation, Mapping) else tensors[""]
            actions = self.network.act(batch, self.n_assets).cpu().numpy()
        return actions[0] if single else actions, state

    def _tensor(self, name: str, part: Any) -> Tensor:
        dtype = th.int64 if name in ("t", "assets") else th.float32
        return th.tensor(np.asarray(part), device=self.device, dtype=dtype)

    def train(
        self,
        market: Market,
        start: int,
        end: int,
        *,
        validation: tuple[int, int] | None = None,
        callback: Callable[[int, dict[str, float]], None] | None = None,
        **options: Any,
    ) -> DirectTrainer:
        """Train on the bars ``[start, end)`` of a market and keep the best model.

        Args:
            market: See ``bind``.
            start: First bar.
            end: Bar after the last one.
            validation: Bars on which growth is measured in between; the best model is restored.
                None keeps the last.
            callback: Called with the iteration and its numbers.
            options: Options of ``agents.direct.training.DirectTrainer``.

        Returns:
            The trainer, at its end.
        """
        trainer = DirectTrainer(self, market, start, end, validation=validation, **options)
        trainer.run(callback)
        return trainer

    def save(self, path: str | Path) -> None:
        """Write settings and weights to one file without code, which is complete or absent."""
        save_tensors(path, self.tree(), kind=KIND)

    def tree(self) -> dict[str, Any]:
        """Return settings, weights and plug-ins, for ``save_tensors``.

        Raises:
            ArgumentError: If its encoder is not a class that a name finds again.
        """
        encoder = self.config["encoder"]
        if not isinstance(encoder, str):
            encoder = plugin_name(encoder)
            encoder_class(encoder)  # a function is not a class
        config = self.config | {"encoder": encoder}
        plugins = record(_named(config))
        recorded = {"plugins": plugins} if plugins else {}
        return {"config": config, **recorded, "weights": self.network.state_dict()}

    @classmethod
    def load(
        cls, path: str | Path, *, device: th.device | str = "cpu", within: Path | None = None
    ) -> DirectAgent:
        """Read what ``save`` wrote; nothing in the file is executed.

        Args:
            path: The file.
            device: Where to run.
            within: The folder that it came in, e.g. that of a run: no code in it is imported.

        Raises:
            DataError: If the file is no such agent.
        """
        return cls.of_tree(load_tensors(path, kind=KIND), path, device=device, within=within)

    @classmethod
    def of_tree(
        cls,
        tree: Mapping[str, Any],
        path: str | Path,
        *,
        device: th.device | str = "cpu",
        within: Path | None = None,
    ) -> DirectAgent:
        """Return the agent of a ``tree`` that was read from ``path``; see ``load``."""
        try:
            admit(_named(tree["config"]), tree.get("plugins", {}), Path(path), within=within)
            agent = cls(**tree["config"], device=device)
            agent.network.load_state_dict(tree["weights"])
        except PortfolioError:
            raise
        except Exception as error:  # any error of the libraries for settings that never worked
            raise DataError(f"{path} is not a saved DirectAgent ({reason_of(error)})") from error
        check_finite(agent.network.state_dict(), path)
        return agent
