"""The graph attention layer: equal to PyTorch Geometric's, with exact gradients."""

import warnings
from typing import Any

import pytest
import torch as th
from helpers.encoder_checks import scrambled
from torch import Tensor

from agents.networks.gatv2 import attention
from agents.networks.gatv2.layer import GATv2Layer
from portfolio_env.errors import ArgumentError


def random_graph(batch: int, n: int, edge_dim: int, loops: bool = False) -> tuple[Tensor, Tensor]:
    adjacency = th.rand(batch, n, n) < 0.5
    adjacency[:, 0] = False  # a node that nothing comes into
    adjacency[:, 1] = True
    if not loops:
        adjacency &= ~th.eye(n, dtype=th.bool)
    return adjacency, th.randn(batch, n, n, edge_dim)


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
    monkeypatch.setattr(attention, "_CHUNK", {"cpu": chunk})
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
    monkeypatch.setattr(attention, "_CHUNK", {"cpu": chunk})
    adjacency, edges = random_graph(2, 4, 2)
    keep = th.rand(2, 2, 4, 4) < 0.6
    shapes = [(2, 4, 2, 3), (2, 4, 2, 3), (2, 3)]
    inputs = [th.randn(shape, dtype=th.float64, requires_grad=True) for shape in shapes]
    if attributes:
        inputs += [edges.double().requires_grad_()]
        inputs += [th.randn(2, 6, dtype=th.float64, requires_grad=True)]

    def attend(*tensors: Tensor) -> Tensor:
        rest = tensors[3:] or (None, None)
        return attention._attend(*tensors[:3], adjacency, *rest, 0.2, keep, 1 / 0.6)

    assert th.autograd.gradcheck(attend, inputs)
    assert th.autograd.gradgradcheck(attend, inputs)


def test_declared_to_the_compiler_as_it_is() -> None:
    adjacency, edges = random_graph(2, 4, 2)
    shapes = [(2, 4, 2, 3), (2, 4, 2, 3), (2, 3)]
    inputs = [th.randn(shape, requires_grad=True) for shape in shapes]
    weight = th.randn(2, 6, requires_grad=True)
    for rest in ((edges, weight), (edges.requires_grad_(), weight), (None, None)):
        th.library.opcheck(attention._attend, (*inputs, adjacency, *rest, 0.2, None, 1.0))


def test_listed_sources_are_those_of_the_whole_graph() -> None:
    adjacency, edges = random_graph(3, 6, 2)
    sources = th.rand(3, 6, 6).argsort(-1)  # all of them, in an order of each node's own
    listed = adjacency.gather(2, sources), edges.gather(2, sources[..., None].expand(edges.shape))
    layer = scrambled(GATv2Layer(5, 4, 3, 2, self_loops=False))
    nodes = th.randn(3, 6, 5)
    whole = layer(nodes, adjacency, edges)
    th.testing.assert_close(layer(nodes, *listed, sources), whole, rtol=1e-4, atol=1e-5)
    weights = layer.weights(nodes, adjacency, edges)
    th.testing.assert_close(layer.weights(nodes, *listed, sources), weights)
    with pytest.raises(ArgumentError, match="self_loops=False"):
        GATv2Layer(5, 4, 3, 2)(nodes, *listed, sources)


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
