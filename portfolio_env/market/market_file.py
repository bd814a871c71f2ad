"""Markets in files: their arrays by name and a header, and the hash over both."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from portfolio_env.errors import ArgumentError
from portfolio_env.files.archive import read_arrays, write_arrays
from portfolio_env.market.panel import BAR_FIELDS, PricePanel

if TYPE_CHECKING:
    from portfolio_env.market.market import Market

_HASHED = 2**24  # bytes at a time


def header_of(market: Market) -> dict[str, Any]:
    """Return all of a market but its arrays and its provenance, JSON-able."""
    stated = market.panel.stated_periods_per_year
    return {
        "assets": market.assets,
        "feature_names": market.feature_names,
        "feature_bound": market.feature_bound,
        "warmup": market.warmup,
        "periods_per_year": market.panel.periods_per_year,
        "exogenous": list(market.panel.exogenous),
        "categories": market.panel.categories,
        "vocabularies": market.vocabularies,
        **({} if math.isnan(stated) else {"stated_periods_per_year": stated}),
    }


def arrays_of(market: Market) -> dict[str, Any]:
    """Return the arrays of a market by name."""
    bars = {name: getattr(market.panel, name) for name in BAR_FIELDS}
    arrays = {"timestamps": market.timestamps, "features": market.features}
    arrays |= {name: values for name, values in bars.items() if values is not None}
    return arrays | {f"exogenous {k}": v for k, v in enumerate(market.panel.exogenous.values())}


def hash_of(market: Market) -> str:
    """Return the SHA-256 of a market's header and arrays, hexadecimal."""
    arrays = arrays_of(market)
    digest = hashlib.sha256(json.dumps([header_of(market), list(arrays)]).encode())
    for array in arrays.values():  # by rows: a whole copy would double the memory of features
        rows = max(1, _HASHED // max(1, array.nbytes // max(1, len(array))))
        for first in range(0, len(array), rows):
            digest.update(array[first : first + rows].tobytes())
    return digest.hexdigest()


def write_market(path: Path, market: Market) -> None:
    """Write a market to one ``.npz`` file, see ``Market.save``."""
    if path.suffix != ".npz":
        raise ArgumentError(f"{path} does not end in .npz: give a name that does")
    header = json.dumps(header_of(market) | {"provenance": market.panel.provenance})
    write_arrays(path, {"header": np.array(header), **arrays_of(market)})


def read_fields(path: Path, *, verify: bool) -> dict[str, Any]:
    """Return the fields of the ``Market`` that ``write_market`` wrote, see ``Market.load``."""
    arrays = read_arrays(path, mapped="features", verify=verify)
    header = json.loads(str(arrays["header"]))
    exogenous = {name: arrays[f"exogenous {k}"] for k, name in enumerate(header["exogenous"])}
    panel = PricePanel(
        timestamps=arrays["timestamps"],
        assets=header["assets"],
        exogenous=exogenous,
        categories=header.get("categories", {}),
        periods_per_year=header["periods_per_year"],
        stated_periods_per_year=header.get("stated_periods_per_year", math.nan),
        provenance=header["provenance"],
        **{name: arrays[name] for name in BAR_FIELDS if name in arrays},
    )
    names = ("feature_names", "warmup", "feature_bound", "vocabularies")
    own = {name: header[name] for name in names if name in header}
    return {"panel": panel, "features": arrays["features"], **own}
