"""Records of a session in its ledger as JSON: exact money as text, floats as hexadecimal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portfolio_env.errors import DataError
from portfolio_env.live.holdings import Holdings
from portfolio_env.live.money import decimal_of
from portfolio_env.live.orders import Orders
from portfolio_env.live.planning import last_prices
from portfolio_env.live.predictor import Decision, Predictor
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import time_text
from portfolio_env.paper.ledger import Ledger


def closes(predictor: Predictor, bars: PricePanel) -> tuple[Decimal, ...]:
    """Return the last closes of each asset, those of new bars where there are any."""
    market = predictor.market
    known = int(np.searchsorted(market.timestamps, bars.timestamps[-1], side="right"))
    prices = last_prices(market, known - 1)
    for close in bars.close[bars.timestamps > market.timestamps[-1]]:
        prices = np.where(np.isfinite(close), close, prices)
    return tuple(map(decimal_of, prices))


def valued(account: Holdings, prices: Sequence[Decimal]) -> dict[str, Any]:
    """Return an account as JSON."""
    named = list(zip(account.assets, account.units, prices, strict=True))
    return {
        "value": f"{account.value(prices):f}",
        "cash": f"{account.cash:f}",
        "units": {name: f"{units:f}" for name, units, _ in named if units},
        "prices": {name: f"{price:f}" for name, _, price in named if price.is_finite()},
    }


def account_of(body: Mapping[str, Any], assets: Sequence[str]) -> Holdings:
    """Return the account that ``valued`` described."""
    units = tuple(Decimal(body["units"].get(name, "0")) for name in assets)
    return Holdings(tuple(assets), units, Decimal(body["cash"]))


def described(sized: Orders, row: int) -> dict[str, Any]:
    """Return what orders were made of, as JSON: exact money as text, floats as hexadecimal."""
    own = sized.plan
    return {
        "row": row,
        "turnover": own.turnover.hex(),
        "planned_cost": own.cost.hex(),
        "weights": hexadecimal(own.weights),
        "target": hexadecimal(own.held),
        "prices": {
            name: f"{price:f}"
            for name, price in zip(own.assets, sized.prices, strict=True)
            if price.is_finite()
        },
        "tradable": own.tradable.tolist(),
        "costs": {
            name: f"{cost:f}" for name, cost in zip(own.assets, sized.costs, strict=True) if cost
        },
        "fee": f"{sized.fee:f}",
        "reasons": {
            name: text for name, text in zip(own.assets, sized.reasons, strict=True) if text
        },
        "risk": [] if own.risk is None else list(own.risk.bound),
        **valued(sized.before, sized.prices),
    }


def hexadecimal(numbers: NDArray[np.floating[Any]]) -> list[str]:
    """Return floats as text that gives them back to the bit."""
    return [float(number).hex() for number in numbers]


def decision_of(ledger: Ledger, bar: np.datetime64) -> Decision:
    """Return the decision that was taken at a bar."""
    body = ledger.body("decisions", bar)
    if body is None:
        raise DataError(f"there is no decision at {time_text(bar)}")
    action, weights = (
        np.array([float.fromhex(text) for text in body[name]]) for name in ("action", "weights")
    )
    return Decision(body["row"], bar, weights, action.astype(body["dtype"]))
