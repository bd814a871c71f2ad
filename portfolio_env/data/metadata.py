"""What does not change about an asset: sector, region, currency and the like, from a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from portfolio_env.panel import PricePanel


def with_categories(
    panel: PricePanel,
    source: str | os.PathLike[str] | Mapping[str, Mapping[str, str]],
    *,
    columns: Sequence[str] | None = None,
) -> PricePanel:
    raise NotImplementedError
