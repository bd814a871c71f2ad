"""Regression trees of scikit-learn as plain arrays, without its objects.

Arrays can be stored without pickles, which run code when they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import FloatArray

_LOSSES = ("squared_error", "absolute_error", "quantile")  # whose boosted forecasts are sums


@dataclass(frozen=True, eq=False)
class TreeArrays:
    """Trees over F features; the nodes of all trees stand one after the other.

    Attributes:
        starts: (trees,) int64 the first node of each tree, its root.
        feature: (nodes,) int64 what a node asks for; -1 at a leaf.
        threshold: (nodes,) float64; a sample goes left where its feature is at most that.
        children: (nodes, 2) int64 nodes to the left and right; a leaf's own number.
        missing_left: (nodes,) bool where a sample goes whose feature is NaN.
        value: (nodes,) float64 of leaves.
        base: (1,) float64 to which the values of all trees are added, one after the other.
        divisor: (1,) float64 by which the sum is divided.
    """

    starts: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: FloatArray
    children: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    value: FloatArray
    base: FloatArray
    divisor: FloatArray

    def __post_init__(self) -> None:
        """Reject arrays that are not trees: they may come from a file."""
        nodes = len(self.feature)
        lengths = {len(self.threshold), len(self.children), len(self.missing_left), len(self.value)}
        inner = self.feature >= 0
        own = np.arange(nodes)[:, None]
        if not (
            lengths == {nodes}
            and self.children.shape == (nodes, 2)
            and self.base.shape == self.divisor.shape == (1,)
            and ((self.starts >= 0) & (self.starts < nodes)).all()
            and (self.children < nodes).all()
            # children come after their parent, so that every path ends
            and (self.children[inner] > own[inner]).all()
            and (self.children[~inner] == own[~inner]).all()
        ):
            raise DataError("the arrays are not trees; save the model again")

    @classmethod
    def of(cls, model: Any) -> TreeArrays:
        """Return the trees of a ``RandomForestRegressor`` or ``HistGradientBoostingRegressor``.

        Raises:
            ArgumentError: If its forecasts are no plain sums of leaves.
        """
        if hasattr(model, "estimators_"):
            trees = [_forest_tree(each.tree_) for each in model.estimators_]
            return cls._joined(trees, 0.0, len(trees))
        boosted = [each.nodes for (each,) in model._predictors]
        if model.loss not in _LOSSES or any(nodes["is_categorical"].any() for nodes in boosted):
            raise ArgumentError(
                f"boosted trees with the loss {model.loss!r} or with categories forecast no plain "
                f"sums of leaves; choose a loss of {', '.join(_LOSSES)}, and no categories"
            )
        trees = [_boosted_tree(nodes) for nodes in boosted]
        return cls._joined(trees, model._baseline_prediction.item(), 1.0)

    @classmethod
    def _joined(
        cls, trees: list[tuple[NDArray[Any], ...]], base: float, divisor: float
    ) -> TreeArrays:
        sizes = [len(feature) for feature, *_ in trees]
        starts = np.cumsum([0, *sizes[:-1]])
        feature, threshold, children, missing, value = (
            np.concatenate(parts) for parts in zip(*trees, strict=True)
        )
        children = children + np.repeat(starts, sizes)[:, None]
        own = np.arange(len(feature))[:, None]
        return cls(
            starts.astype(np.int64),
            feature.astype(np.int64),
            threshold.astype(np.float64),
            np.where(feature[:, None] < 0, own, children).astype(np.int64),
            missing.astype(np.bool_),
            value.astype(np.float64),
            np.array([base]),
            np.array([divisor], np.float64),
        )

    def predict(self, features: NDArray[np.float32]) -> FloatArray:
        """Return (M,) forecasts for (M, F) features, bit-equal to scikit-learn's."""
        node = np.repeat(self.starts[:, None], len(features), axis=1)  # (trees, M)
        samples = np.arange(len(features))
        while (inner := self.feature[node] >= 0).any():
            asked = features[samples, np.maximum(self.feature[node], 0)].astype(np.float64)
            left = np.where(np.isnan(asked), self.missing_left[node], asked <= self.threshold[node])
            node = np.where(inner, self.children[node, np.where(left, 0, 1)], node)
        out = np.full(len(features), self.base.item())
        for leaf in self.value[node]:  # in this order, as sums of floats depend on it
            out += leaf
        return out / self.divisor.item()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return dict(vars(self))

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TreeArrays:
        """Invert ``arrays``.

        Raises:
            DataError: If one is missing, or they are no trees.
        """
        try:
            return cls(**arrays)
        except TypeError as error:
            raise DataError(f"the arrays are not trees ({error}); save the model again") from error


def _forest_tree(tree: Any) -> tuple[NDArray[Any], ...]:
    """Return features, thresholds, children, ways of NaN and values of one tree of a forest."""
    leaf = tree.children_left < 0
    return (
        np.where(leaf, -1, tree.feature),
        tree.threshold,
        np.column_stack([tree.children_left, tree.children_right]),
        tree.missing_go_to_left.astype(np.bool_),
        tree.value[:, 0, 0],
    )


def _boosted_tree(nodes: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the arrays of ``_forest_tree`` of one boosted tree."""
    leaf = nodes["is_leaf"].astype(np.bool_)
    return (
        np.where(leaf, -1, nodes["feature_idx"].astype(np.int64)),
        nodes["num_threshold"],
        np.column_stack([nodes["left"], nodes["right"]]).astype(np.int64),
        nodes["missing_go_to_left"].astype(np.bool_),
        nodes["value"],
    )
