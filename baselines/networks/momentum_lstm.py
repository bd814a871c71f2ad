"""LSTM over features of trends that gives a signal for a position.

A module of its own, since ``deep_momentum`` loads torch only where a network is made.
"""

import torch as th
from torch import Tensor, nn


class MomentumLstm(nn.Module):
    """Signals of positions from sequences of features of single assets.

    Args:
        n_features: Features of a bar.
        hidden: Units of the LSTM.
        dropout: Share of its outputs that are dropped in training.
        shorts: Signals are in (-1, 1), by tanh; else in (0, 1), by the logistic function.
    """

    def __init__(self, n_features: int, hidden: int, *, dropout: float, shorts: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n_features, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.signal = nn.Linear(hidden, 1)
        self.shorts = shorts

    def forward(self, sequences: Tensor) -> Tensor:
        """Return signals (batch, bars) of sequences (batch, bars, features), each causal."""
        out, _ = self.lstm(sequences)
        score = self.signal(self.dropout(out)).squeeze(-1)
        return th.tanh(score) if self.shorts else th.sigmoid(score)
