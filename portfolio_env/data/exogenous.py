"""Channels with their own times: sentiment, fundamentals, on-chain figures."""

from __future__ import annotations

import os

import pandas as pd

from portfolio_env.panel import PricePanel


def join(panel: PricePanel, source: str | os.PathLike[str] | pd.DataFrame) -> PricePanel:
    raise NotImplementedError
