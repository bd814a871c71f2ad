"""Graph attention, forward and backward: ours against PyTorch Geometric, one core; JSON.

    pip install torch-geometric
    python benchmarks/speed/gat.py --out runs/gat.json

Three GATv2 layers of 8 heads of 8 channels with three edge attributes, equal weights and equal
graphs, each in the form that the library asks for, made before the clock starts: ours dense,
PyTorch Geometric's as one list of edges of all samples side by side. Returns follow one factor, and
edges are correlations over 60 bars above a threshold; the table states the share of pairs that are
edges (at the default threshold, half of them on daily prices of large American companies). The two
take turns, two at least and ten seconds of them, and the median is reported, in processor seconds
of one thread, which other load disturbs least. Beside it stands how far the gradients of the nodes
differ, as a share of their norm: the outputs agree to rounding, but a sum that rounding moves over
the kink of the rectifier changes its slope.

`encoder` is the whole of `agents.networks.gat.GAT` on the same batch: windows of 60 bars of 8
features, correlations and graph included.
"""

import argparse
import json
import os
import platform
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch as th
from torch import Tensor, nn

from agents.networks.gat import GAT
from agents.networks.gatv2.layer import GATv2Layer
from agents.networks.graph import EDGE_DIM, Graph, correlation_graph
from portfolio_env.files.atomic import replacing

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
    from torch_geometric.nn import GATv2Conv

HEADS, PER_HEAD, LAYERS = 8, 8, 3
BARS, FEATURES = 60, 8
TURNS, SECONDS = 2, 10.0  # of each case, at least
NAMES = {
    "lin_l.weight": "source.weight",
    "lin_l.bias": "source.bias",
    "lin_r.weight": "target.weight",
    "lin_r.bias": "target.bias",
    "lin_edge.weight": "edge.weight",
    "att": "attention",
    "bias": "bias",
}


class Case(NamedTuple):
    """A batch of markets: correlations of about rho, edges above the threshold."""

    assets: int
    batch: int
    rho: float
    threshold: float


CASES = (
    Case(100, 256, 0.3, 0.0),
    Case(100, 256, 0.3, 0.3),
    Case(100, 256, 0.2, 0.3),
    Case(30, 64, 0.3, 0.0),
    Case(30, 64, 0.3, 0.3),
    Case(30, 64, 0.2, 0.3),
)


def market(case: Case) -> tuple[Tensor, Graph]:
    """Return windows of features, the first of which is the return, and their graph."""
    th.manual_seed(0)
    windows = th.randn(case.batch, BARS, case.assets, FEATURES)
    factor = th.randn(case.batch, BARS, 1)
    own = windows[..., 0]
    windows[..., 0] = case.rho**0.5 * factor + (1 - case.rho) ** 0.5 * own
    tradable = th.ones(case.batch, case.assets)
    return windows, correlation_graph(windows[..., 0], tradable, case.threshold)


def stacks() -> tuple[nn.ModuleList, nn.ModuleList]:
    """Return our layers and PyTorch Geometric's, with equal weights."""
    width = HEADS * PER_HEAD
    theirs = nn.ModuleList(
        GATv2Conv(width, PER_HEAD, HEADS, edge_dim=EDGE_DIM, add_self_loops=False)
        for _ in range(LAYERS)
    )
    ours = nn.ModuleList(
        GATv2Layer(width, PER_HEAD, HEADS, EDGE_DIM, self_loops=False) for _ in range(LAYERS)
    )
    for layer, conv in zip(ours, theirs, strict=True):
        shapes = layer.state_dict()
        state = {NAMES[name]: value for name, value in conv.state_dict().items()}
        layer.load_state_dict({name: v.view_as(shapes[name]) for name, v in state.items()})
    return ours, theirs


def edge_list(graph: Graph) -> tuple[Tensor, Tensor]:
    """Return the samples' graphs side by side, as PyTorch Geometric batches them."""
    n = graph.adjacency.shape[1]
    sample, target, source = graph.adjacency.nonzero(as_tuple=True)
    return th.stack([sample * n + source, sample * n + target]), graph.edges[graph.adjacency]


def timed(run: Callable[[], Tensor], upstream: Tensor) -> tuple[float, float]:
    """Return the seconds of the forward and of the backward pass."""
    start = process_time()
    out = run()
    middle = process_time()
    out.backward(upstream.view_as(out))
    return middle - start, process_time() - middle


def through(layers: nn.ModuleList, nodes: Tensor, *graph: Tensor) -> Tensor:
    """Return the nodes after all layers."""
    for layer in layers:
        nodes = layer(nodes, *graph)
    return nodes


def measure(case: Case, turns: int, least: float) -> dict[str, Any]:
    """Return one row of the table, of so many turns and processor seconds at least."""
    windows, graph = market(case)
    nodes = th.randn(case.batch, case.assets, HEADS * PER_HEAD)
    upstream = th.randn_like(nodes)
    ours, theirs = stacks()
    listed = edge_list(graph)
    encoder = GAT(FEATURES, BARS, threshold=case.threshold)
    own, flat = nodes.clone().requires_grad_(), nodes.flatten(0, 1).requires_grad_()
    runs: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: through(ours, own, *graph),
        "geometric": lambda: through(theirs, flat, *listed),
        "encoder": lambda: encoder(windows, th.ones(case.batch, case.assets)),
    }
    with th.no_grad():
        difference = (runs["ours"]().flatten(0, 1) - runs["geometric"]()).abs().max()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    start = process_time()
    while len(seconds["ours"]) < turns or process_time() - start < least:
        own.grad = flat.grad = None
        for name, run in runs.items():
            seconds[name].append(timed(run, upstream))
    assert own.grad is not None and flat.grad is not None
    apart = (own.grad.flatten(0, 1) - flat.grad).norm() / flat.grad.norm()
    row: dict[str, Any] = {
        **case._asdict(),
        "density": float(graph.adjacency.float().mean()),
        "difference": float(difference),
        "difference_of_gradients": float(apart),
    }
    for name, passes in seconds.items():
        row[f"{name}_forward"] = median(forward for forward, _ in passes)
        row[f"{name}_backward"] = median(backward for _, backward in passes)
        row[name] = median(map(sum, passes))
    pairs = zip(seconds["geometric"], seconds["ours"], strict=True)
    ratios = [sum(theirs) / sum(ours) for theirs, ours in pairs]
    row["turns"], row["ratio"] = len(ratios), median(ratios)
    row["ratio_range"] = [min(ratios), max(ratios)]
    return row


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gat.json"))
    args = parser.parse_args()
    th.set_num_threads(1)
    titles = ("ours", "PyG", "ratio", "encoder", "outputs", "gradients")
    print("assets  batch  edges" + "".join(f"{title:>12}" for title in titles))
    rows = []
    measure(CASES[-1], turns=1, least=0.0)  # warms up
    for case in CASES:
        row = measure(case, TURNS, SECONDS)
        rows.append(row)
        times = (row["ours"], row["geometric"], row["ratio"], row["encoder"])
        print(
            f"{case.assets:>6}{case.batch:>7}{row['density']:>7.0%}"
            f"{times[0]:>10.3f} s{times[1]:>10.3f} s{times[2]:>11.1f}x{times[3]:>10.3f} s"
            f"{row['difference']:>12.1e}{row['difference_of_gradients']:>12.1e}",
            flush=True,
        )
    facts = {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "torch-geometric")},
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "threads": 1,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    with replacing(args.out) as path:
        path.write_text(json.dumps({**facts, "seconds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
