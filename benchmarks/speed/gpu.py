"""Training on a GPU: what each part takes there; prints lines and writes them as JSON.

    python benchmarks/speed/gpu.py --out runs/gpu.json
    python benchmarks/speed/gpu.py --device cpu --small

The second command is a dry run, whose figures say nothing. What fails is reported as a line, and
the next part follows. Times are of the wall clock, medians, after the device has finished.

**tests**: those of `tests/agents` that need a GPU.

**encoders**: milliseconds per bar, forward and backward, of distinct bars of a market, by windows
and by streams, as in a minibatch.

**ways**: the full preset on windows as it is, and with TF32, bfloat16, `torch.compile` and CUDA
graphs.

**ppo**: rollouts and updates of the full preset in streams, 1,024 lanes; the share of the
environment, of the network in the rollout and of the update; use of the GPU where nvidia-ml-py is
installed.

**direct**: gradient steps on net growth, and how often one waits for the GPU.

**gat**: graph attention against PyTorch Geometric, where that is installed.
"""

import argparse
import json
import platform
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import torch as th
from encoders import BARS, FEATURES, FULL, SMALL, STREAM, WINDOW, Row, market, ppo
from torch import Tensor, nn

from agents.direct.agent import DirectAgent
from agents.direct.training import DirectTrainer
from agents.encoding.market_encoder import MarketEncoder, market_tensors
from agents.networks import make_encoder
from portfolio_env import Market
from portfolio_env.files.atomic import replacing

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("test_gpu.py", "test_memory.py", "direct/test_direct.py")
TEST_SECONDS = 150
ENCODERS = ("lstm", SMALL, FULL, "gat")
ASSETS = 20


class Bench:
    """Device, market and clock that all parts share.

    Args:
        device: Where to run.
        small: A dry run of a few lanes and bars.
    """

    def __init__(self, device: th.device, small: bool) -> None:
        self.device, self.small = device, small
        self.cuda = device.type == "cuda"
        self.market: Market = market(3 if small else ASSETS)
        self.turns = 1 if small else 5

    def wait(self) -> None:
        """Wait until the device has done all that it was asked."""
        if self.cuda:
            th.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], Any], turns: int | None = None) -> float:
        """Return the median seconds of a call, after two that warm up."""
        times = []
        for turn in range((turns or self.turns) + 2):
            self.wait()
            start = perf_counter()
            run()
            self.wait()
            if turn >= 2:
                times.append(perf_counter() - start)
        return median(times)


def tests(bench: Bench) -> Row:
    """Return how the tests that need a GPU ended."""
    if not bench.cuda:
        return {"result": "skipped: there is no GPU"}
    files = [f"tests/agents/{name}" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-k", "real or cuda", *files]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=TEST_SECONDS, check=False
    )
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {"result": done.stdout.strip().rpartition("\n")[2], "failed": failed}


def encoders(bench: Bench) -> Row:
    """Return the milliseconds per bar of every encoder, by windows and by streams."""
    rows: Row = {}
    bars = 16 if bench.small else 768
    last = bench.market.n_bars
    t = th.arange(last - bars, last)
    for name in ENCODERS:
        for history in ("window", "stream") if name != "gat" else ("window",):
            options = _stream(name) if history == "stream" else {}
            encoder = make_encoder(name, FEATURES, WINDOW, **options)
            embeddings = MarketEncoder(encoder).to(bench.device)
            embeddings.bind(*market_tensors(bench.market, bench.device))

            def learn(embeddings: MarketEncoder = embeddings) -> None:
                embeddings(t).square().mean().backward()  # type: ignore[no-untyped-call] # torch

            rows[f"{name}, {history}"] = {"ms_per_bar": 1e3 * bench.seconds(learn) / bars}
    return rows


def _stream(name: str) -> Row:
    return STREAM if name.startswith("tcn") else {"history": "stream"}


def ways(bench: Bench) -> Row:
    """Return the milliseconds per window of the full preset, run in several ways."""
    batch = 2 if bench.small else 256
    device, assets = bench.device, bench.market.n_assets
    windows = th.randn(batch, WINDOW, assets, FEATURES, device=device)
    tradable = th.ones(batch, assets, device=device)
    encoder = make_encoder(SMALL if bench.small else FULL, FEATURES, WINDOW).to(device)

    def plain() -> Callable[..., Tensor]:
        return encoder

    def compiled() -> Callable[..., Tensor]:
        found: Callable[..., Tensor] = th.compile(encoder)
        return found

    def graphed() -> Callable[..., Tensor]:
        if not bench.cuda:
            raise RuntimeError("CUDA graphs need a GPU")
        found: Callable[..., Tensor] = th.cuda.make_graphed_callables(  # type: ignore[no-untyped-call] # torch
            encoder, (windows, tradable)
        )
        return found

    def run(build: Callable[[], Callable[..., Tensor]], bf16: bool = False) -> Row:
        encode = build()
        autocast = th.autocast(device.type, th.bfloat16) if bf16 else nullcontext()

        def learn() -> None:
            with autocast:
                out = encode(windows, tradable)
            out.float().square().mean().backward()  # type: ignore[no-untyped-call] # torch

        return {"ms_per_window": 1e3 * bench.seconds(learn) / batch}

    rows = {"plain": attempt(lambda: run(plain))}
    before = th.get_float32_matmul_precision()
    th.set_float32_matmul_precision("high")
    rows["TF32"] = attempt(lambda: run(plain))
    th.set_float32_matmul_precision(before)
    rows["bfloat16"] = attempt(lambda: run(plain, bf16=True))
    if not bench.small:  # the compiler takes a minute
        rows["torch.compile"] = attempt(lambda: run(compiled))
    rows["CUDA graph"] = attempt(lambda: run(graphed))  # last: it binds the encoder
    return rows


def training(bench: Bench) -> Row:
    """Return steps per second of PPO, shares of its parts and use of the device."""
    lanes, steps = (4, 8) if bench.small else (1024, 32)
    kind = SMALL if bench.small else FULL
    agent = ppo(bench.market, lanes, steps, device=str(bench.device), encoder=kind, **_network())
    agent.batch_size = lanes * steps // 4
    spent = {"environment": 0.0, "update": 0.0, "rollout": 0.0}

    def timed(owner: Any, name: str, part: str) -> None:
        run = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            bench.wait()
            start = perf_counter()
            out = run(*args, **kwargs)
            bench.wait()
            spent[part] += perf_counter() - start
            return out

        setattr(owner, name, measured)

    timed(agent.env, "step", "environment")
    timed(agent, "train", "update")
    timed(agent, "collect_rollouts", "rollout")
    used: list[float] = []
    with _sampled(used) if bench.cuda else nullcontext():
        start = perf_counter()
        agent.learn(2 * lanes * steps)
        bench.wait()
        passed = perf_counter() - start
    network = spent["rollout"] - spent["environment"]
    return {
        "lanes": lanes,
        "steps_per_second": 2 * lanes * steps / passed,
        "share_of_environment": spent["environment"] / passed,
        "share_of_network_in_rollout": network / passed,
        "share_of_update": spent["update"] / passed,
        "utilisation_percent": mean(used) if used else None,
    }


def _network() -> Row:
    return {"encoder_kwargs": STREAM}


def direct(bench: Bench) -> Row:
    """Return account steps per second of the direct agent, and what one iteration waits for."""
    lanes, steps = (4, 5) if bench.small else (1024, 30)
    kind = SMALL if bench.small else FULL
    agent = DirectAgent(
        FEATURES, WINDOW, encoder=kind, encoder_kwargs=STREAM, device=str(bench.device)
    )
    end = bench.market.n_bars
    trainer = DirectTrainer(agent, bench.market, end - BARS, end, lanes=lanes, steps=steps)
    row: Row = {"steps_per_second": lanes * steps / bench.seconds(trainer.advance)}
    if bench.cuda:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            th.cuda.set_sync_debug_mode("warn")
            try:
                trainer.advance()
            finally:
                th.cuda.set_sync_debug_mode("default")
        row["waits_per_iteration"] = sum("synchroniz" in str(one.message) for one in found)
    return row


def gat(bench: Bench) -> Row:
    """Return the milliseconds of three layers of graph attention, ours and PyTorch Geometric's."""
    import gat as side  # not above: it needs PyTorch Geometric

    rows: Row = {}
    for case in [side.Case(5, 4, 0.3, 0.3)] if bench.small else side.CASES[:3]:
        _, graph = side.market(case)
        ours, theirs = (layers.to(bench.device) for layers in side.stacks())
        listed = [part.to(bench.device) for part in side.edge_list(graph)]
        dense = [part.to(bench.device) for part in graph]
        nodes = th.randn(case.batch, case.assets, side.HEADS * side.PER_HEAD, device=bench.device)

        def learn(layers: nn.ModuleList, rows: Tensor, *edges: Tensor) -> None:
            side.through(layers, rows, *edges).square().mean().backward()

        own = bench.seconds(lambda: learn(ours, nodes, *dense))  # noqa: B023  # called at once
        flat = nodes.flatten(0, 1)
        other = bench.seconds(lambda: learn(theirs, flat, *listed))  # noqa: B023
        share = f"{graph.adjacency.float().mean():.0%} of edges"
        rows[f"{case.assets} assets, {share}"] = {
            "ms": 1e3 * own,
            "geometric_ms": 1e3 * other,
            "ratio": other / own,
        }
    return rows


def attempt(run: Callable[[], Row]) -> Row:
    """Return what a part found, or the first line of its error: the others are still measured."""
    try:
        return run()
    except Exception as error:  # any: a compiler, a driver or a missing package
        line = str(error).strip().partition("\n")[0][:200]
        return {"error": f"{type(error).__name__}: {line}"}


@contextmanager
def _sampled(into: list[float]) -> Iterator[None]:
    """Within this context, sample the GPU's utilisation in percent five times a second."""
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.2):
            try:
                into.append(float(th.cuda.utilization()))
            except (ModuleNotFoundError, RuntimeError):  # no nvidia-ml-py, or no driver for it
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        done.set()
        reader.join()


PARTS: dict[str, Callable[[Bench], Row]] = {
    "encoders": encoders,
    "ppo": training,
    "direct": direct,
    "gat": gat,
    "ways": ways,
    "tests": tests,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"))
    parser.add_argument("--device", default="cuda", help="cpu for a dry run")
    parser.add_argument("--small", action="store_true", help="few lanes and bars, for a dry run")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"--parts {','.join(sorted(unknown))} must be among {', '.join(PARTS)}")
    device = th.device(arguments.device)
    if device.type == "cuda" and not th.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu --small is a dry run")
    bench = Bench(device, arguments.small)
    report: Row = {
        "device": th.cuda.get_device_name(device) if bench.cuda else str(device),
        "dry_run": arguments.small or not bench.cuda,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "stable-baselines3")},
    }
    for name in parts:
        start = perf_counter()
        if bench.cuda:
            th.cuda.empty_cache()
            th.cuda.reset_peak_memory_stats(device)
        row = attempt(lambda name=name: PARTS[name](bench))
        peak = th.cuda.max_memory_allocated(device) if bench.cuda else None
        report[name] = row | {"seconds": perf_counter() - start, "peak_bytes": peak}
        print(name, json.dumps(report[name]), flush=True)
        with replacing(arguments.out) as beside:  # what is measured stays if a later part is killed
            beside.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
