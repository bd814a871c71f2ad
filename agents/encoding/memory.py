"""Memory of training an encoder, the largest batch that fits a budget, and copies to a device."""

from __future__ import annotations

import os
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from torch import Tensor

from agents.networks import Encoder
from portfolio_env.errors import ArgumentError


def max_batch_size(
    encoder: Encoder,
    n_assets: int,
    budget: int,
    device: th.device | str = "cpu",
    codes: Tensor | None = None,
) -> int:
    """Return the largest power of two of windows whose training fits a memory budget.

    It is reckoned from ``training_bytes`` of one window. Weights that are counted with it make that
    too much for many, never too little. On a GPU the answer is tried, and halved while the device
    has no such memory.

    Args:
        encoder: It stays as it is.
        n_assets: Number of assets of the market.
        budget: Bytes.
        device: Device of the training.
        codes: (assets, K) static categories, for an encoder that reads them.

    Raises:
        ArgumentError: If not even one window fits, or nothing is kept for a backward pass.
    """
    device = th.device(device)
    one = training_bytes(encoder, n_assets, 1, device, codes)
    if not one:
        raise ArgumentError("this encoder keeps nothing for a backward pass: any batch fits")
    if one > budget:
        raise ArgumentError(
            f"one window of {n_assets} assets needs {one:,} bytes, the budget is {budget:,}: give "
            "more, a smaller encoder, a shorter window or fewer assets"
        )
    windows: int = 1 << ((budget // one).bit_length() - 1)
    while (
        device.type == "cuda"
        and windows > 1
        and not _runs(encoder, n_assets, windows, device, codes)
    ):
        windows //= 2
    return windows


def training_bytes(
    encoder: Encoder,
    n_assets: int,
    windows: int,
    device: th.device,
    codes: Tensor | None = None,
) -> int:
    """Return the bytes that training a copy of an encoder on so many windows takes, in float32.

    With ``history="stream"`` it is that of series of so many blocks.

    On a GPU the peak of forward and backward pass, beyond the weights. Elsewhere what the forward
    pass keeps for the backward pass, windows included, each piece of memory counted once; beside it
    the backward pass holds the gradients of a layer or two, and frees as it goes.
    """
    with th.random.fork_rng(devices=[device] if device.type == "cuda" else []), th.enable_grad():
        network = deepcopy(encoder).to(device).train().requires_grad_()
        bars = encoder.bars + max(encoder.block - 1, 0)
        batch = th.randn(windows, bars, n_assets, encoder.n_features, device=device)
        tradable = th.ones(windows, *((bars,) if encoder.block else ()), n_assets, device=device)
        if codes is not None:
            codes = codes.expand(windows, *codes.shape)
        return (_peak if device.type == "cuda" else _kept)(network, batch, tradable, codes)


def memory_of(device: th.device) -> int:
    """Return the bytes that are free on a GPU; elsewhere all that the machine has."""
    if device.type == "cuda":
        return int(th.cuda.mem_get_info(device)[0])
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:  # a container may have less
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no such limit, or "max"
        return whole


def resident_bytes() -> int:
    """Return the memory that this process holds, in bytes; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """Return the memory that new pages may take, in bytes; all of the machine's if it is silent."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux
        return memory_of(th.device("cpu"))
    kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable"))
    return 1024 * int(kilobytes)


def copied_to(array: NDArray[Any], device: th.device | str) -> Tensor:
    """Return an array as a tensor on a device, on the CPU in the same memory.

    A GPU is not waited for: the copy joins its queue, which memory that may be paged out could not.
    """
    tensor = th.from_numpy(np.ascontiguousarray(array))
    if th.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def shared_with(array: NDArray[Any], device: th.device | str) -> Tensor:
    """Return an array as a tensor for reading: on the CPU its own memory, read-only or mapped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return th.as_tensor(np.ascontiguousarray(array), device=device)


def _encode(network: Encoder, batch: Tensor, tradable: Tensor, codes: Tensor | None) -> Tensor:
    encode = network.stream if network.block else network
    out: Tensor = encode(batch, tradable, codes)
    return out


def _kept(network: Encoder, batch: Tensor, tradable: Tensor, codes: Tensor | None) -> int:
    own = {part.untyped_storage().data_ptr() for part in network.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        # The same memory without its graph: a node that held its own output would never be freed.
        return tensor.detach()

    with th.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = _encode(network, batch, tradable, codes)
    del out  # not before: memory that is free again would be counted twice, or not at all
    return sum(kept.values())


def _peak(network: Encoder, batch: Tensor, tradable: Tensor, codes: Tensor | None) -> int:
    before = th.cuda.memory_allocated(batch.device) - batch.nbytes - tradable.nbytes
    th.cuda.reset_peak_memory_stats(batch.device)
    _encode(network, batch, tradable, codes).sum().backward()  # type: ignore[no-untyped-call] # torch
    return th.cuda.max_memory_allocated(batch.device) - before


def _runs(
    encoder: Encoder, n_assets: int, windows: int, device: th.device, codes: Tensor | None
) -> bool:
    try:
        training_bytes(encoder, n_assets, windows, device, codes)
    except th.cuda.OutOfMemoryError:
        th.cuda.empty_cache()
        return False
    return True
