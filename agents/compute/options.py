"""Options of how a training is computed: precision, compilation, recomputation, parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from portfolio_env.checks import check_fields, check_integer, check_number
from portfolio_env.errors import ArgumentError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ComputeOptions:
    """Options of computing networks in training; what is learned is the same up to rounding."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder while it learns: bfloat16, by autocast, has 8 significant bits;
    weights stay in float32, and trained models are evaluated in it."""
    compiled: bool = False
    """Compile the encoder's forward and backward pass by torch.compile, which takes from 10 seconds
    to minutes and a C++ compiler."""
    checkpointed: int | None = None
    """Windows, or blocks of bars, whose activations the encoder keeps at a time; those of others
    are computed again in the backward pass. Default: as many as a quarter of the memory holds."""
    accumulation: int | Literal["auto"] = 1
    """Parts that a batch is computed in, one after another, whose gradients add up to that of the
    whole; each is computed twice. auto takes the fewest that fit the memory. For PPO, A2C and
    direct."""
    memory_limit: float | None = None
    """Most memory that a run may take, in GiB, by an estimate before it starts; default that of the
    machine."""

    def __post_init__(self) -> None:
        """Check every number."""
        check_fields(self, "compute.")
        for name in ("checkpointed", "accumulation"):
            if isinstance(value := getattr(self, name), int):
                check_integer(f"compute.{name}", value)
        if self.memory_limit is not None:
            check_number("compute.memory_limit", self.memory_limit, above=0)

    @property
    def parts(self) -> int:
        """Return the parts of a batch; 1 while ``"auto"`` is not settled."""
        return 1 if self.accumulation == "auto" else self.accumulation


def set_up(options: ComputeOptions, network: nn.Module) -> None:
    """Make a network compute as the options say, in training; none of it is saved with an agent.

    Args:
        options: The options.
        network: A policy of SB3, or any network with a ``MarketEncoder``.

    Raises:
        ArgumentError: If the processor has no LSTM in bfloat16, and the network asks for one.
    """
    from agents.encoding.market_encoder import MarketEncoder  # options alone need no torch
    from agents.policies import PerAssetActorCriticPolicy

    kept: Any = "auto" if options.checkpointed is None else options.checkpointed
    for embeddings in network.modules():
        if not isinstance(embeddings, MarketEncoder):
            continue
        embeddings.lower = options.precision == "bfloat16"
        if embeddings.lower and _lacks_low_lstm(embeddings):
            raise ArgumentError(
                "compute.precision is 'bfloat16', in which this processor computes no LSTM: leave "
                "it out, or choose an encoder without one, e.g. gat"
            )
        embeddings.compiled = options.compiled
        embeddings.checkpointed = kept
    if isinstance(network, PerAssetActorCriticPolicy):
        network.parts = options.parts


def _lacks_low_lstm(network: nn.Module) -> bool:
    """Return whether a network on the CPU has an LSTM that cannot be computed in bfloat16 there."""
    import torch as th

    on_cpu = all(weight.device.type == "cpu" for weight in network.parameters())
    has_lstm = any(isinstance(module, th.nn.LSTM) for module in network.modules())
    # oneDNN has no such layer for processors without AVX-512, and torch does not fall back.
    is_there = th.backends.mkldnn.is_available()  # type: ignore[no-untyped-call] # torch
    return on_cpu and has_lstm and is_there and not th.ops.mkldnn._is_mkldnn_bf16_supported()
