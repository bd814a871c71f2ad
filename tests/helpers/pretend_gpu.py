"""A device called "cuda" that computes on the CPU and refuses what a GPU would refuse.

Code that mixes devices fails only on machines that have two. Here tensors of the second device are
wrappers around tensors of the first: an operation runs on what they hold, once all its inputs are
on one device, every copy between the two is counted, and so is what the CPU would wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch as th
from torch import Tensor, nn
from torch.__future__ import (
    get_swap_module_params_on_conversion,
    set_swap_module_params_on_conversion,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = th.device("cuda", 0)
aten = th.ops.aten
_COPIES = (aten.copy_.default, aten._to_copy.default)
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_ASKING = (  # operations whose result, or its size, the CPU must know
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
)


class OnGpu(Tensor):
    """A tensor of the second device; `held` is where its numbers are."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        tensor: OnGpu = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",  # to the C++ side, which would ask the driver
        )
        tensor.held = held
        return tensor

    @property
    def device(self) -> th.device:  # type: ignore[override]
        return CUDA

    def __repr__(self, **kwargs: Any) -> str:
        return f"OnGpu({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} outside of pretend_gpu()")


class PretendGpu(TorchDispatchMode):
    """Runs every operation where its tensors are.

    Attributes:
        uploads: numbers in each copy from the first device to the second.
        waits: operations that would wait until the second has done all that was asked of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[int] = []
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        here = [t for t in tensors if not isinstance(t, OnGpu) and t.ndim]
        wrapped = bool(there)
        if (device := kwargs.get("device")) is not None:
            wrapped = th.device(device).type in ("cuda", "meta")
            kwargs["device"] = th.device("cpu")
        if func in _COPIES:
            wrapped = wrapped if func is aten._to_copy.default else isinstance(args[0], OnGpu)
            source = args[1] if func is aten.copy_.default else args[0]
            if wrapped and not isinstance(source, OnGpu):
                self.uploads.append(source.numel())
            queued = kwargs.get("non_blocking", len(args) > 2 and args[2])
            if wrapped != isinstance(source, OnGpu) and not queued:
                self.waits.append(str(func))
        elif func in _INDEXED and isinstance(args[0], OnGpu):
            pass  # PyTorch takes indices from the CPU
        elif there and here:
            raise RuntimeError(f"{func}: tensors on cuda and on the CPU")
        masks = func in _INDEXED and any(
            index is not None and index.dtype == th.bool for index in args[1]
        )
        if there and (func in _ASKING or masks):
            self.waits.append(str(func))
        owners = {id(tensor.held): tensor for tensor in there}
        out = func(*tree_map(_held, args), **tree_map(_held, kwargs))

        def back(value: Any) -> Any:
            if not wrapped or not isinstance(value, Tensor):
                return value
            own = owners.get(id(value))  # an operation in place returns the tensor it was given
            return OnGpu(value) if own is None else own

        return tree_map(back, out)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


@contextmanager
def pretend_gpu() -> Iterator[PretendGpu]:
    """Within it, "cuda:0" is a device."""
    moved = nn.Module._apply

    def move(module: nn.Module, *args: Any) -> nn.Module:
        swapping = get_swap_module_params_on_conversion()
        set_swap_module_params_on_conversion(True)  # weights stay those of the optimiser
        try:
            return moved(module, *args)
        finally:
            set_swap_module_params_on_conversion(swapping)

    lifting = th._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(th.cuda, "_lazy_init", lambda: None)
        patch.setattr(th.cuda, "is_available", lambda: True)
        patch.setattr(th.cuda, "current_device", lambda: 0)
        patch.setattr(th.cuda, "is_bf16_supported", lambda: True)
        patch.setattr(th.cuda, "get_rng_state", lambda device: th.get_rng_state())
        patch.setattr(th.cuda, "set_rng_state", lambda state, device: th.set_rng_state(state))
        patch.setattr(th.cuda, "mem_get_info", lambda device: (2**27, 2**27))
        patch.setattr(th.cuda, "memory_allocated", lambda device: 0)
        patch.setattr(th.cuda, "max_memory_allocated", lambda device: 2**20)
        patch.setattr(th.cuda, "reset_peak_memory_stats", lambda device: None)
        patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        patch.setattr(nn.Module, "_apply", move)
        th._C._set_only_lift_cpu_tensors(True)  # then th.tensor() copies by an operation
        try:
            with PretendGpu() as mode:
                yield mode
        finally:
            th._C._set_only_lift_cpu_tensors(lifting)
