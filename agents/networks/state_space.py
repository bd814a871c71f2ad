"""State-space encoder with memory: stable linear dynamics, modulated by attention to the past."""

import math

import torch as th
from torch import Tensor, nn
from torch.nn import functional as F

from agents.networks.base import (
    BLOCK,
    BRANCH,
    Encoder,
    History,
    check_heads,
    check_share,
    check_sizes,
)
from portfolio_env.errors import ArgumentError

_SLOWEST = 0.1  # least decay per unit of time
_GATE_BIAS = -2.0  # gates start one eighth open, or a bar would wipe out most of what went before
_NORM_EPS = 0.01  # a state that has hardly moved yet is not amplified


class Dynamics(nn.Module):
    """One exact step of ``dh/dt = A(m) h + u`` with u held over the step (zero-order hold).

    ``A(m)`` is a diagonal that decays at least at ``_SLOWEST`` and a skew-symmetric part that turns
    pairs of states; both come from the memory. In such pairs, z = h_k + i h_(k + S/2), the step is
    ``z' = e^(p dt) z + (e^(p dt) - 1) / p u``, ``p = -decay + i turn``. Whatever the memory holds,
    h shrinks without input: ``|z'| <= e^(-decay dt) |z| + |u| (1 - e^(-decay dt)) / decay``.

    Before training the pairs forget within 1 to 50 steps of 0.1 and turn with periods from 6 steps.
    """

    def __init__(self, state: int, memory: int, dt: float) -> None:
        super().__init__()
        self.dt = dt
        self.poles = nn.Linear(memory, state)
        decays = th.logspace(math.log10(0.2), 1.0, state // 2) - _SLOWEST
        with th.no_grad():
            self.poles.bias[: state // 2] = decays + th.log(-th.expm1(-decays))
            self.poles.bias[state // 2 :] = th.linspace(0.0, 10.0, state // 2)

    def forward(self, hidden: Tensor, memory: Tensor, drive: Tensor) -> Tensor:
        """Return h after a step: (rows, state), (rows, memory), (rows, state) -> (rows, state)."""
        raw, turn = self.poles(memory).to(hidden.dtype).chunk(2, dim=-1)
        decay = _SLOWEST + F.softplus(raw)
        shrink = th.exp(-decay * self.dt)
        cos, sin = shrink * th.cos(turn * self.dt), shrink * th.sin(turn * self.dt)
        scale = decay.square() + turn.square()
        along = (decay * (1.0 - cos) + turn * sin) / scale
        across = (turn * (1.0 - cos) - decay * sin) / scale
        (x, y), (u, v) = hidden.chunk(2, dim=-1), drive.chunk(2, dim=-1)
        return th.cat(
            [
                cos * x - sin * y + along * u - across * v,
                sin * x + cos * y + across * u + along * v,
            ],
            dim=-1,
        )


class Recall(nn.Module):
    """Attention of the current state over past states, in several heads.

    Keys and values are linear in the past states, so the maps are moved to the other side: queries
    are taken to the space of states, and what was recalled is mapped to values. Only the states are
    kept, and nothing is computed for each of them again at every bar.
    """

    def __init__(self, state: int, memory: int, heads: int, dropout: float) -> None:
        super().__init__()
        check_heads(memory, heads)
        self.query = nn.Linear(state, memory)
        # A bias would add the same to every score, which the softmax takes out.
        self.key = nn.Linear(state, memory, bias=False)
        self.value = nn.Linear(state, memory)
        self.dropout = nn.Dropout(dropout)
        self.heads = heads

    def forward(self, state: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is recalled (rows, memory) and the weights (rows, heads, kept).

        Args:
            state: (rows, state).
            past: (rows, kept, state).
        """
        split = (self.heads, -1, state.shape[-1])
        asked = self.query(state).view(len(state), self.heads, -1).transpose(0, 1)
        asked = (asked @ self.key.weight.view(split)).transpose(0, 1)
        width = self.key.out_features // self.heads
        weights = (asked @ past.transpose(1, 2) / math.sqrt(width)).softmax(-1)
        recalled = (self.dropout(weights) @ past).transpose(0, 1)
        values = recalled @ self.value.weight.view(split).transpose(1, 2)
        return values.transpose(0, 1).flatten(1) + self.value.bias, weights


class StateSpace(Encoder):
    """Hidden state h with dynamics set by a memory m, which is written by attention over past h.

    At each bar x, from zeros before the first:

    1. h takes an exact step of ``dh/dt = A(m) h + B x``, see ``Dynamics``;
    2. h asks the states before this bar, see ``Recall``; m moves by a gate towards what it recalls
       and what it projects from h;
    3. h moves by a gate towards a projection of m.

    Attention sees normalised states, so that gates and scores stay in range whatever h is. Each
    output, ``LayerNorm(skip(x) + gain * [h, m])``, depends on its asset's window alone: the states
    add to a linear map of the last bar's features, with a gain per channel that starts at
    ``BRANCH``, so that what this bar says by itself is learned first.

    Args:
        n_features: Features per asset and bar.
        window: Bars it looks back.
        state: Width of h, even.
        memory: Width of m.
        heads: Attention heads, a divisor of ``memory``.
        dt: Time that a bar takes.
        dropout: Share of the attention weights, and of what is written, dropped in training.
        buffer: Past states kept; None keeps those of the window.
        history: ``"window"``, or ``"stream"`` to encode a market in blocks, see ``Encoder``.
        block: Bars of a block, on average.

    Attributes:
        channels: ``state + memory``.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        state: int = 32,
        memory: int = 64,
        heads: int = 4,
        dt: float = 0.1,
        dropout: float = 0.0,
        buffer: int | None = None,
        history: History = "window",
        block: int = BLOCK,
    ) -> None:
        super().__init__(n_features, window)
        self._set_history(history, block)
        check_sizes(state=state, memory=memory, buffer=window if buffer is None else buffer)
        check_share("dropout", dropout)
        if state % 2:
            raise ArgumentError(f"state is {state}: give an even number, states turn in pairs")
        if not 0 < dt < math.inf:
            raise ArgumentError(f"dt is {dt}: give a positive, finite time per bar")
        self.state, self.memory, self.buffer = state, memory, buffer or window
        self.channels = state + memory
        self.drive = nn.Linear(n_features, state)
        self.dynamics = Dynamics(state, memory, dt)
        self.norm = nn.LayerNorm(state, eps=_NORM_EPS)
        self.recall = Recall(state, memory, heads, dropout)
        self.write = _projection(state, memory)
        self.write_gate = nn.Linear(self.channels, memory)
        self.read = _projection(memory, state)
        self.read_gate = nn.Linear(self.channels, state)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Linear(n_features, self.channels)
        self.gain = nn.Parameter(th.full((self.channels,), BRANCH))
        self.out_norm = nn.LayerNorm(self.channels)
        for gate in (self.write_gate, self.read_gate):
            nn.init.constant_(gate.bias, _GATE_BIAS)

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Return (batch, assets, state + memory)."""
        states, _ = self.run(windows)
        out: Tensor = self.out_norm(self.skip(windows[:, -1]) + self.gain * states[-1])
        return out

    def stream(self, series: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode every bar of a series from its ``window``-th on, see ``Encoder.stream``."""
        states = th.stack(self.run(series)[0][self.window - 1 :], 1)
        out: Tensor = self.out_norm(self.skip(series[:, self.window - 1 :]) + self.gain * states)
        return out

    def attention(
        self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return ``"time"``: (batch, assets, heads, window, window).

        [t, s], s <= t, is what bar t recalls of the state before bar s.
        """
        bars = windows.shape[1]
        rows = [
            F.pad(weights, (t + 1 - weights.shape[-1], bars - 1 - t))
            for t, weights in enumerate(self.run(windows)[1])
        ]
        return {"time": th.stack(rows, -2)}

    def run(self, windows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return h and m side by side after every bar, and the attention of every bar.

        Returns:
            Lists of (batch, assets, state + memory) and of (batch, assets, heads, kept).
        """
        batch, _, assets, _ = windows.shape
        drives = self.drive(windows).transpose(1, 2).flatten(0, 1).unbind(1)
        hidden = windows.new_zeros(batch * assets, self.state)
        memory = windows.new_zeros(batch * assets, self.memory)
        past = hidden.unsqueeze(1)  # normalised states before the next bar, the oldest first
        states: list[Tensor] = []
        maps: list[Tensor] = []
        for drive in drives:
            if maps:  # state of the bar before; that of the last bar is not recalled
                past = th.cat([past, self.norm(hidden).unsqueeze(1)], 1)[:, -self.buffer :]
            hidden = self.dynamics(hidden, memory, drive)
            seen = self.norm(hidden)
            recalled, weights = self.recall(seen, past)
            gate = th.sigmoid(self.write_gate(th.cat([seen, memory], -1)))
            memory = memory + gate * (self.dropout(self.write(seen) + recalled) - memory)
            gate = th.sigmoid(self.read_gate(th.cat([seen, memory], -1)))
            hidden = hidden + gate * (self.read(memory) - hidden)
            states.append(th.cat([hidden, memory], -1).view(batch, assets, -1))
            maps.append(weights.view(batch, assets, *weights.shape[1:]))
        return states, maps


def _projection(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, 2 * width),
        nn.LayerNorm(2 * width),
        nn.ReLU(),
        nn.Linear(2 * width, out),
        nn.LayerNorm(out),
    )
