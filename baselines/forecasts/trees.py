"""Forecasts by scikit-learn's ensembles of trees."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from baselines.forecasts.samples import Samples, samples
from baselines.forecasts.tree_arrays import TreeArrays
from portfolio_env.errors import ArgumentError
from portfolio_env.market import Market
from portfolio_env.market.panel import FloatArray

FEWEST = 20  # samples per asset; fewer give no forecast


class Trees:
    """Forest or boosted trees from the features of a bar to the return that follows.

    Returns are nearly all noise, so that trees are kept small. The defaults, in place of
    scikit-learn's:

    - ``random_forest``, Breiman (2001), "Random Forests", Machine Learning 45: 100 trees of a
      quarter of the samples each, 5,000 at most, a fifth of which are in every leaf; all features
      at every split.
    - ``gradient_boosting``, Friedman (2001), "Greedy Function Approximation", Annals of Statistics
      29, on histograms: 50 trees of 4 leaves, each of a tenth of the samples; rate 0.03.

    Args:
        kind: One of the two.
        horizon: Bars ahead; the return is divided by them.
        pooled: One model of all assets; otherwise each has its own.
        seed: Seed of all draws.
        options: Scikit-learn's parameters in place of the defaults.
    """

    def __init__(
        self, kind: str, horizon: int, pooled: bool, seed: int, options: Mapping[str, Any]
    ) -> None:
        self.kind, self.horizon, self.pooled, self.seed = kind, horizon, pooled, seed
        self.options = dict(options)
        self._models: list[TreeArrays | None] = []  # trees per asset; one for all where pooled

    def fit(self, known: Market, first: int) -> None:
        """Fit the trees; see ``Forecaster``. An asset of too few samples gets the forecast 0."""
        given = samples(known, first, self.horizon)
        if len(given.returns) < FEWEST:
            raise ArgumentError(
                f"{len(given.returns)} samples between rows {max(first, known.warmup)} and "
                f"{known.n_bars - 1}, {self.horizon} bars before whose end the last one lies, are "
                f"too few to learn from; give {FEWEST} or more: an earlier start, or a shorter "
                "horizon."
            )
        if self.pooled:
            self._models = [self._fitted(given)]
            return
        self._models = []
        for asset in range(known.n_assets):
            own = given.assets == asset
            part = Samples(given.features[own], given.assets[own], given.returns[own])
            self._models.append(self._fitted(part) if own.sum() >= FEWEST else None)

    def forecast(self, known: Market) -> FloatArray:
        """Return (N,) expected simple returns per bar."""
        out = np.zeros(known.n_assets)
        features = known.features[-1]
        for asset, model in enumerate(self._models):
            rows = slice(None) if self.pooled else slice(asset, asset + 1)
            if model is not None:
                out[rows] = model.predict(features[rows])
        return out

    def state(self) -> dict[str, Any]:
        """Return the trees; see ``Forecaster``."""
        return {"models": [model and model.arrays() for model in self._models]}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the trees; see ``Forecaster``."""
        self._models = [own and TreeArrays.of_arrays(own) for own in state["models"]]

    def _fitted(self, given: Samples) -> TreeArrays:
        count = len(given.returns)
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
        except ImportError as error:
            raise ArgumentError(
                "forecasts by trees need scikit-learn, which is not installed; "
                "pip install scikit-learn."
            ) from error
        if self.kind == "random_forest":
            drawn = min(-(-count // 4), 5_000)
            model = RandomForestRegressor(
                n_estimators=100,
                max_samples=drawn,
                min_samples_leaf=max(1, drawn // 5),
                random_state=self.seed,
            )
        else:
            model = HistGradientBoostingRegressor(
                learning_rate=0.03,
                max_iter=50,
                max_leaf_nodes=4,
                min_samples_leaf=max(1, count // 10),
                early_stopping=False,
                random_state=self.seed,
            )
        try:
            model.set_params(**self.options)
        except ValueError as error:
            raise ArgumentError(f"{self.kind} does not know an option: {error}") from error
        return TreeArrays.of(model.fit(given.features, given.returns))
