"""Graph attention: equal to PyTorch Geometric's, exact gradients, masked, equivariant."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agents.networks import gatv2
from agents.networks.correlation_graph import correlation_graph, correlations
from agents.networks.gat import GAT, WindowSummary
from agents.networks.gatv2 import GATv2Layer
from portfolio_env.errors import ArgumentError

BATCH, WINDOW, ASSETS, FEATURES = 3, 12, 6, 4


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    th.set_num_threads(1)
    th.manual_seed(0)


def random_graph(batch: int, n: int, edge_dim: int, loops: bool = False) -> tuple[Tensor, Tensor]:
    adjacency = th.rand(batch, n, n) < 0.5
    adjacency[:, 0] = False  # a node that nothing comes into
    adjacency[:, 1] = True
    if not loops:
        adjacency &= ~th.eye(n, dtype=th.bool)
    return adjacency, th.randn(batch, n, n, edge_dim)


def windows_of(batch: int = BATCH, window: int = WINDOW, n: int = ASSETS) -> tuple[Tensor, Tensor]:
    common = th.randn(batch, window, 1, FEATURES)
    tradable = (th.rand(batch, n) < 0.7).float()
    tradable[:, 0] = 1
    return common + 0.7 * th.randn(batch, window, n, FEATURES), tradable


def scrambled(module: Any) -> Any:
    """Parameters of the size that training gives them, in evaluation mode."""
    with th.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * th.randn_like(parameter))
    return module.eval()


NAMES = {
    "lin_l.weight": "source.weight",
    "lin_l.bias": "source.bias",
    "lin_r.weight": "target.weight",
    "lin_r.bias": "target.bias",
    "lin_edge.weight": "edge.weight",
    "att": "attention",
    "bias": "bias",
    "res.weight": "skip.weight",
}


@pytest.fixture(scope="module")
def conv_class() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
        nn = pytest.importorskip(
            "torch_geometric.nn", reason="torch-geometric, the reference, is not installed"
        )
    return nn.GATv2Conv


def as_edge_list(adjacency: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """One graph of all samples side by side."""
    n = adjacency.shape[1]
    sample, target, source = adjacency.nonzero(as_tuple=True)
    return th.stack([sample * n + source, sample * n + target]), edges[adjacency]


@pytest.mark.parametrize("chunk", [2**18, 700, 1])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"concat": False},
        {"residual": True, "negative_slope": 0.0},
        {"concat": False, "residual": True, "negative_slope": 0.5},
        {"add_self_loops": False},
        {"fill_value": 1.0},
        {"fill_value": 0.0, "concat": False},
    ],
    ids=str,
)
def test_equals_pytorch_geometric(
    conv_class: Any, options: dict[str, Any], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatv2, "_CHUNK", {"cpu": chunk})
    conv = scrambled(conv_class(5, 4, heads=3, edge_dim=2, **options))
    ours = dict(options)
    loops = ours.pop("add_self_loops", True)
    layer = GATv2Layer(5, 4, 3, 2, self_loops=loops, fill=ours.pop("fill_value", "mean"), **ours)
    state = {NAMES[name]: value for name, value in conv.state_dict().items()}
    layer.load_state_dict({n: v.view_as(layer.state_dict()[n]) for n, v in state.items()})

    adjacency, edges = random_graph(3, 7, 2, loops=loops)
    nodes = th.randn(3, 7, 5)
    inputs = [(nodes.clone().requires_grad_(), edges.clone().requires_grad_()) for _ in range(2)]
    index, attributes = as_edge_list(adjacency, inputs[0][1])
    theirs = conv(inputs[0][0].flatten(0, 1), index, attributes)
    out = layer(inputs[1][0], adjacency, inputs[1][1])
    assert th.allclose(out.flatten(0, 1), theirs, atol=1e-5)

    upstream = th.randn_like(theirs)
    (theirs * upstream).sum().backward()
    (out.flatten(0, 1) * upstream).sum().backward()
    for expected, got in zip(*inputs, strict=True):
        assert th.allclose(got.grad, expected.grad, atol=1e-5)
    gradients = dict(layer.named_parameters())
    for name, parameter in conv.named_parameters():
        got = gradients[NAMES[name]].grad
        assert th.allclose(got.view_as(parameter), parameter.grad, atol=3e-5, rtol=1e-5), name


def test_equals_pytorch_geometric_without_attributes(conv_class: Any) -> None:
    conv = scrambled(conv_class(5, 4, heads=3))
    layer = GATv2Layer(5, 4, 3)
    state = {NAMES[name]: value for name, value in conv.state_dict().items()}
    layer.load_state_dict({n: v.view_as(layer.state_dict()[n]) for n, v in state.items()})
    adjacency, edges = random_graph(2, 7, 1)
    nodes = th.randn(2, 7, 5)
    index, _ = as_edge_list(adjacency, edges)
    theirs, (index, alpha) = conv(nodes.flatten(0, 1), index, return_attention_weights=True)
    assert th.allclose(layer(nodes, adjacency).flatten(0, 1), theirs, atol=1e-5)
    weights = layer.weights(nodes, adjacency)
    (source, target), n = index, 7
    got = weights[target // n, :, target % n, source % n]
    assert th.allclose(got, alpha, atol=1e-6)
    assert th.isclose(weights.sum(), alpha.sum(), atol=1e-4)  # and 0 where there is no edge


@pytest.mark.parametrize("attributes", [True, False])
@pytest.mark.parametrize("chunk", [2**18, 40, 1])
def test_gradients_by_differences(
    attributes: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatv2, "_CHUNK", {"cpu": chunk})
    adjacency, edges = random_graph(2, 4, 2)
    keep = th.rand(2, 2, 4, 4) < 0.6
    shapes = [(2, 4, 2, 3), (2, 4, 2, 3), (2, 3)]
    inputs = [th.randn(shape, dtype=th.float64, requires_grad=True) for shape in shapes]
    if attributes:
        inputs += [edges.double().requires_grad_()]
        inputs += [th.randn(2, 6, dtype=th.float64, requires_grad=True)]

    def attend(*tensors: Tensor) -> Tensor:
        rest = tensors[3:] or (None, None)
        return gatv2._attend(*tensors[:3], adjacency, *rest, 0.2, keep, 1 / 0.6)

    assert th.autograd.gradcheck(attend, inputs)


def test_declared_to_the_compiler_as_it_is() -> None:
    adjacency, edges = random_graph(2, 4, 2)
    shapes = [(2, 4, 2, 3), (2, 4, 2, 3), (2, 3)]
    inputs = [th.randn(shape, requires_grad=True) for shape in shapes]
    weight = th.randn(2, 6, requires_grad=True)
    for rest in ((edges, weight), (edges.requires_grad_(), weight), (None, None)):
        th.library.opcheck(gatv2._attend, (*inputs, adjacency, *rest, 0.2, None, 1.0))


def test_dropout_has_the_right_mean() -> None:
    adjacency, edges = random_graph(1, 5, 2)
    layer = scrambled(GATv2Layer(3, 2, 2, 2, dropout=0.4))
    nodes = th.randn(1, 5, 3)
    many = 20_000
    expected = layer(nodes, adjacency, edges)
    layer.train()
    batch = [x.expand(many, *x.shape[1:]) for x in (nodes, adjacency, edges)]
    out = layer(*batch)
    error = (out.mean(0) - expected[0]).abs() / (out.std(0) / many**0.5 + 1e-6)
    assert error.max() < 5
    assert out.std(0).max() > 0.1


def test_the_layer_refuses_what_it_cannot_do() -> None:
    for options in (
        {"out_per_head": 0},
        {"dropout": 1.0},
        {"negative_slope": -0.1},
        {"fill": "max"},
        {"edge_dim": 0},
    ):
        with pytest.raises(ArgumentError):
            GATv2Layer(**{"in_channels": 3, "out_per_head": 2, **options})
    adjacency, edges = random_graph(1, 3, 2)
    with pytest.raises(ArgumentError, match="needs edges"):
        GATv2Layer(3, 2, edge_dim=2)(th.randn(1, 3, 3), adjacency)
    with pytest.raises(ArgumentError, match="without edges"):
        GATv2Layer(3, 2)(th.randn(1, 3, 3), adjacency, edges)


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
    size = correlations(returns).abs()
    for b in range(BATCH):
        for i in range(9):
            others = [j for j in range(9) if j != i and tradable[b, j] > 0]
            expected = {i, *sorted(others, key=(-size[b, i]).tolist().__getitem__)[:neighbours]}
            assert set(graph.adjacency[b, i].nonzero().flatten().tolist()) == expected


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
    assert list(attention) == [f"layer_{i}" for i in range(len(encoder.layers))]
    adjacency = encoder.graph(windows, tradable).adjacency
    for weights in attention.values():
        assert weights.shape == (BATCH, encoder.layers[0].heads, ASSETS, ASSETS)
        assert th.allclose(weights.sum(-1), th.ones(()), atol=1e-5)
        assert (weights.mean(1) > 0).eq(adjacency).all()
    nodes = encoder.summary(windows)
    for i, (norm, layer) in enumerate(zip(encoder.norms, encoder.layers, strict=True)):
        values = layer.source(norm(nodes)).unflatten(-1, (layer.heads, -1))
        read = th.einsum("bhij,bjhc->bihc", attention[f"layer_{i}"], values).flatten(2)
        nodes = nodes + th.nn.functional.elu(read + layer.bias)
    assert th.allclose(encoder.final_norm(nodes), encoder(windows, tradable), atol=1e-5)


@pytest.mark.parametrize("kind", ["large", "constant", "zero"])
@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_finite(kind: str, autocast: bool) -> None:
    encoder = GAT(FEATURES, WINDOW, dropout=0.1)
    windows, tradable = windows_of()
    windows = {
        "large": 10 * windows.sign(),
        "constant": windows[:, :1].expand_as(windows),
        "zero": th.zeros_like(windows),
    }[kind].clone()
    windows.requires_grad_()
    with th.autocast("cpu", th.bfloat16, enabled=autocast):
        out = encoder(windows, tradable)
    assert out.isfinite().all()
    out.float().square().sum().backward()
    assert windows.grad is not None and windows.grad.isfinite().all()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_bf16_is_near_single_precision() -> None:
    encoder = scrambled(GAT(FEATURES, WINDOW))
    windows, tradable = windows_of()
    expected = encoder(windows, tradable)
    with th.autocast("cpu", th.bfloat16):
        out = encoder(windows, tradable)
        attention = encoder.attention(windows, tradable)["layer_0"]
    assert (out - expected).abs().mean() < 0.05
    assert th.allclose(attention.sum(-1), th.ones(()), atol=1e-5)


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


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_compiles_in_one_graph(dropout: float) -> None:
    encoder = GAT(FEATURES, WINDOW, hidden=16, heads=2, layers=2, dropout=dropout)
    encoder.train(dropout > 0)
    windows, tradable = windows_of()
    compiled = th.compile(encoder, backend="aot_eager", fullgraph=True)
    gradients = []
    outs = []
    for run in (encoder, compiled):
        th.manual_seed(1)
        encoder.zero_grad()
        out = run(windows, tradable)
        out.square().mean().backward()
        outs.append(out.detach())
        gradients.append([parameter.grad.clone() for parameter in encoder.parameters()])
    assert th.allclose(*outs, atol=1e-5)
    for expected, got in zip(*gradients, strict=True):
        assert th.allclose(got, expected, atol=1e-5)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu() -> None:
    encoder = scrambled(GAT(FEATURES, WINDOW))
    windows, tradable = windows_of()
    expected = encoder(windows, tradable)
    out = encoder.cuda()(windows.cuda(), tradable.cuda())
    assert th.allclose(out.cpu(), expected, atol=1e-4)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
