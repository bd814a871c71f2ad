"""The GAT encoder and the graph it makes: masked, equivariant, finite."""

from typing import Any

import numpy as np
import pytest
import torch as th
from helpers.encoder_checks import finite_at_extremes, scrambled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agents.networks import graph as graphs
from agents.networks.gat import GAT, WindowSummary
from agents.networks.graph import correlation_graph, correlations
from portfolio_env.errors import ArgumentError

BATCH, WINDOW, ASSETS, FEATURES = 3, 12, 6, 4


def windows_of(batch: int = BATCH, window: int = WINDOW, n: int = ASSETS) -> tuple[Tensor, Tensor]:
    common = th.randn(batch, window, 1, FEATURES)
    tradable = (th.rand(batch, n) < 0.7).float()
    tradable[:, 0] = 1
    return common + 0.7 * th.randn(batch, window, n, FEATURES), tradable


@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=40)
def test_correlations_are_numpys(bars: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.uniform(-3, 3, n) + rng.standard_normal((bars, n)) * 10.0 ** rng.integers(-2, 1)
    rho = correlations(th.tensor(returns, dtype=th.float32)[None])[0]
    assert np.allclose(rho, np.corrcoef(returns, rowvar=False).reshape(n, n), atol=2e-4)


@pytest.mark.parametrize("level", [0.0, 0.1, -10.0, 1e-3])
@pytest.mark.parametrize("bars", [1, 2, 7, 60])
def test_a_constant_series_has_no_correlation(level: float, bars: int) -> None:
    returns = th.randn(2, bars, 3)
    returns[:, :, 1] = level
    rho = correlations(returns)
    assert rho.isfinite().all()
    assert (rho[:, 1, [0, 2]] == 0).all()
    assert (rho.diagonal(dim1=1, dim2=2) == 1).all()


def test_the_graph_by_hand() -> None:
    up = th.tensor([1.0, -1.0, 1.0, -1.0])
    side = th.tensor([1.0, 1.0, -1.0, -1.0])
    returns = th.stack([up, -up, side, up + side], dim=1)[None]  # correlations 0, -1, .707
    graph = correlation_graph(returns, th.ones(1, 4), threshold=0.8)
    assert graph.adjacency[0].int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert graph.edges[0, 0, 1].tolist() == [-1, 1, -1]
    assert graph.edges[0, 0, 2].tolist() == [0, 0, 0]
    assert graph.edges[0, 3, 3].tolist() == [1, 1, 1]
    assert th.allclose(graph.edges[0, 3, 0], th.tensor([0.7071, 0.7071, 1.0]))
    # The nearest: ties stay together, no correlation is no neighbour.
    nearest = correlation_graph(returns, th.ones(1, 4), threshold=0.8, neighbours=1)
    assert nearest.adjacency[0].int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 1],
        [1, 1, 1, 1],
    ]
    masked = correlation_graph(returns, th.tensor([[1, 0, 1, 1]]), threshold=0.8, neighbours=1)
    assert masked.adjacency[0, 0].int().tolist() == [1, 0, 0, 1]
    assert masked.adjacency[0, 1].int().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("options", [{"threshold": 0.3}, {"threshold": 0.3, "neighbours": 2}])
def test_one_bar_gives_the_complete_graph(options: dict[str, Any]) -> None:
    tradable = th.tensor([[1, 1, 0]])
    graph = correlation_graph(th.randn(1, 1, 3), tradable, **options)
    assert graph.adjacency[0].int().tolist() == [[1, 1, 0], [1, 1, 0], [1, 1, 1]]
    assert (graph.edges[0][~th.eye(3, dtype=th.bool)] == 0).all()


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_the_nearest_are_the_largest_correlations(neighbours: int) -> None:
    windows, tradable = windows_of(n=9)
    returns = windows[..., 0]
    graph = correlation_graph(returns, tradable, 0.3, neighbours)
    assert (graph.sources is not None) == (neighbours <= 3)
    size = correlations(returns).abs()
    for b in range(BATCH):
        for i in range(9):
            others = [j for j in range(9) if j != i and tradable[b, j] > 0]
            expected = {i, *sorted(others, key=(-size[b, i]).tolist().__getitem__)[:neighbours]}
            found = graph.adjacency[b, i].nonzero().flatten()
            found = found if graph.sources is None else graph.sources[b, i, found]
            assert set(found.tolist()) == expected


@given(st.integers(0, 99), st.integers(1, 12), st.integers(1, 3))
@settings(max_examples=25)
def test_listed_sources_make_what_all_pairs_make(seed: int, n: int, neighbours: int) -> None:
    th.manual_seed(seed)
    encoder = scrambled(GAT(FEATURES, WINDOW, hidden=8, heads=2, layers=2, neighbours=neighbours))
    windows, tradable = windows_of(n=n)
    windows[..., 0] = windows[..., 0].round()  # ties
    weights = th.randn(BATCH, n, 8)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for _ in range(2):
            encoder.zero_grad()
            out = encoder(windows, tradable)
            (out * weights).sum().backward()
            gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
            attention = encoder.attention(windows, tradable)
            found.append([out.detach(), *attention.values(), *gradients])
            patch.setattr(graphs, "_listed", lambda adjacency: None)
    for listed, dense in zip(*found, strict=True):
        th.testing.assert_close(listed, dense, rtol=1e-4, atol=1e-4)


OPTIONS = [{}, {"neighbours": 2}, {"threshold": 0.0}, {"hidden": 8, "heads": 2, "layers": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("window", [1, 2, WINDOW])
def test_permuting_assets_permutes_the_output(options: dict[str, Any], window: int) -> None:
    encoder = scrambled(GAT(FEATURES, window, **options))
    windows, tradable = windows_of(window=window)
    out = encoder(windows, tradable)
    assert out.shape == (BATCH, ASSETS, encoder.channels)
    order = th.randperm(ASSETS)
    assert th.allclose(encoder(windows[:, :, order], tradable[:, order]), out[:, order], atol=1e-5)
    alone = th.cat([encoder(windows[i : i + 1], tradable[i : i + 1]) for i in range(BATCH)])
    assert th.allclose(alone, out, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nobody_reads_assets_that_do_not_trade(options: dict[str, Any]) -> None:
    encoder = scrambled(GAT(FEATURES, WINDOW, **options))
    windows, tradable = windows_of()
    tradable[:, 1] = 0
    other = windows.clone()
    other[:, :, 1] = 10 * th.randn(BATCH, WINDOW, FEATURES)
    out, changed = encoder(windows, tradable), encoder(other, tradable)
    rest = [i for i in range(ASSETS) if i != 1]
    assert th.equal(out[:, rest], changed[:, rest])
    assert not th.allclose(out[:, 1], changed[:, 1])
    tradable[:, 1] = 1
    assert not th.allclose(encoder(windows, tradable)[:, rest], out[:, rest])
    none = encoder(windows, th.zeros(BATCH, ASSETS))
    assert none.isfinite().all()
    fewer = encoder(windows[:, :, rest], th.zeros(BATCH, ASSETS - 1))
    assert th.allclose(fewer, none[:, rest], atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_attention_is_what_the_layers_use(options: dict[str, Any]) -> None:
    encoder = scrambled(GAT(FEATURES, WINDOW, **options))
    windows, tradable = windows_of()
    attention = encoder.attention(windows, tradable)
    assert list(attention) == [f"assets_{i}" for i in range(len(encoder.layers))]
    adjacency, _, sources = encoder.graph(windows, tradable)
    if sources is not None:
        adjacency = th.zeros(BATCH, ASSETS, ASSETS, dtype=th.bool).scatter(2, sources, adjacency)
    for weights in attention.values():
        assert weights.shape == (BATCH, encoder.layers[0].heads, ASSETS, ASSETS)
        assert th.allclose(weights.sum(-1), th.ones(()), atol=1e-5)
        assert (weights.mean(1) > 0).eq(adjacency).all()
    nodes = encoder.summary(windows)
    for i, (norm, layer) in enumerate(zip(encoder.norms, encoder.layers, strict=True)):
        values = layer.source(norm(nodes)).unflatten(-1, (layer.heads, -1))
        read = th.einsum("bhij,bjhc->bihc", attention[f"assets_{i}"], values).flatten(2)
        nodes = nodes + th.nn.functional.elu(read + layer.bias)
    assert th.allclose(encoder.final_norm(nodes), encoder(windows, tradable), atol=1e-5)


@pytest.mark.parametrize("kind", ["large", "constant", "zero"])
def test_gradients_are_finite(kind: str) -> None:
    encoder = GAT(FEATURES, WINDOW, dropout=0.1)
    windows, tradable = windows_of()
    finite_at_extremes(encoder, windows, tradable, kind)


def test_dropout_acts_in_training_only() -> None:
    encoder = GAT(FEATURES, WINDOW, dropout=0.5)
    windows, tradable = windows_of()
    assert not th.equal(encoder(windows, tradable), encoder(windows, tradable))
    encoder.eval()
    assert th.equal(encoder(windows, tradable), encoder(windows, tradable))
    plain = GAT(FEATURES, WINDOW)
    assert th.equal(plain(windows, tradable), plain(windows, tradable))


def test_counts_its_parameters() -> None:
    def count(module: th.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    for n_features, window in ((44, 60), (3, 1)):
        encoder, filters = GAT(n_features, window), min(8, window)
        layer = 2 * (64 * 64 + 64) + 3 * 64 + 64 + 64  # source and target, edges, attention, bias
        inputs = n_features * (filters + 1) * 64 + 64 + 64 * 64 + 64
        summary = filters * window + inputs
        assert count(encoder.layers[0]) == layer == 8640
        assert count(encoder) == summary + 3 * (layer + 128) + 128
    assert count(GAT(44, 60)) == 56_480


def test_the_averages_start_as_exponential_ones() -> None:
    averages = WindowSummary(FEATURES, WINDOW, 8).averages.detach()
    assert th.allclose(averages.sum(1), th.ones(8))
    half_lives = np.log(0.5) / np.log((averages[:, -2] / averages[:, -1]).numpy())
    assert np.allclose(half_lives, np.geomspace(1, WINDOW, 8), rtol=1e-4)


def test_refuses_bad_options() -> None:
    for options in (
        {"hidden": 60},
        {"heads": 0},
        {"layers": 0},
        {"threshold": 1.5},
        {"neighbours": 0},
        {"return_feature": FEATURES},
        {"return_feature": -1},
        {"dropout": 1.0},
    ):
        with pytest.raises(ArgumentError):
            GAT(FEATURES, WINDOW, **options)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    encoder = scrambled(GAT(FEATURES, WINDOW))
    windows, tradable = windows_of()
    expected = encoder(windows, tradable)
    out = encoder.cuda()(windows.cuda(), tradable.cuda())
    assert th.allclose(out.cpu(), expected, atol=1e-4)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
