"""A target for the volatility of the account, around any policies."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.base import Weights
from baselines.ensemble import Accounts, Ensemble, starting
from baselines.plugins import found_baseline, make_baseline
from baselines.selection import within_selection
from baselines.windows import own_returns
from portfolio_env.checks import check_integer, check_number
from portfolio_env.evaluation.backtest import Policy
from portfolio_env.market import Market
from portfolio_env.simulation.constraints import PortfolioConstraints


class VolatilityTarget(Ensemble):
    """The mixture of policies, scaled so that its ex-ante volatility is a target.

    With w the weights of the mixture's assets (see ``Ensemble``; by default of one member) and R
    the returns of the last bars, the account holds ``k w`` and cash for the rest::

        k = min(target / (std(R w) * sqrt(bars per year)), cap)

    The present weights stand for all bars of the window. Without borrowing the cap is full
    investment, so the rule goes into cash; with ``max_leverage`` above 1 it borrows up to that at
    the rates of the environment. Members see unscaled accounts of their own, with the constraints
    without leverage. Risk parity at a target volatility and its kin are
    ``members=["risk_parity"]``. Harvey, Hoyle, Korgaonkar, Rattray, Sargaison & Van Hemert (2018),
    "The Impact of Volatility Targeting", J. of Portfolio Management 45.

    Args:
        market: See ``Ensemble``.
        members: See ``Ensemble``.
        target: Volatility per year.
        lookback: Simple returns of which the volatility is taken; all cash before there are so
            many.
        cap: Largest k; None is what the constraints allow.
        band: Share of the wanted exposure within which the present one is left alone, while no
            member trades.
        shares: See ``Ensemble``.
        paces: See ``Ensemble``.
        logits_scale: See ``Ensemble``.
        constraints: Constraints of the account; None is a long-only portfolio without leverage.

    Raises:
        ArgumentError: If an option is none.
    """

    def __init__(
        self,
        market: Market,
        *,
        members: Mapping[str, Policy] | Sequence[str] = ("equal_weight",),
        target: float = 0.1,
        lookback: int = 60,
        cap: float | None = None,
        band: float = 0.1,
        shares: Mapping[str, float] | None = None,
        paces: Mapping[str, float] | None = None,
        logits_scale: float = 5.0,
        constraints: PortfolioConstraints | None = None,
    ) -> None:
        constraints = constraints or PortfolioConstraints()
        if not isinstance(members, Mapping):
            members = {name: _member(name, market, constraints) for name in members}
        super().__init__(
            market,
            members=members,
            shares=shares,
            paces=paces,
            logits_scale=logits_scale,
            constraints=constraints,
        )
        self.target = check_number("target", target, above=0)
        self.lookback = check_integer("lookback", lookback, 2)
        self.cap = None if cap is None else check_number("cap", cap, above=0)
        self.band = check_number("band", band, 0, below=1)
        self._limits = constraints
        bounds = constraints.bounds(market.n_assets, self._labels)[0]
        self._gross, self._net = float(bounds["max_leverage"]), 1 - float(bounds["min_cash"])
        self._windows: dict[int, NDArray[np.float64]] = {}

    def _answer(
        self,
        observation: Mapping[str, NDArray[Any]],
        state: Accounts | None = None,
        starts: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[Weights, Accounts]:
        t = self._rows(observation)
        observed = np.asarray(observation["weights"], np.float64)
        fresh = starting(state, t, starts)
        # members begin in cash: what the account holds is scaled already
        seen = np.where(fresh[:, None], np.eye(1, observed.shape[1]), observed)
        mixed, accounts = super()._answer(
            {**observation, "weights": seen}, state, starts, deterministic
        )
        traded = fresh | (mixed != seen).any(axis=1)
        out = observed.copy()
        stuck = np.asarray(observation["tradable"]) == 0
        for lane, mixture in enumerate(self._mixture(accounts.held)):
            scale = self._scale(int(t[lane]), mixture[1:])
            wanted, held = scale * abs(mixture[1:]).sum(), abs(observed[lane, 1:]).sum()
            if traded[lane] or abs(wanted - held) > self.band * wanted:
                scaled = scale * mixture
                scaled[0] = 1 - scaled[1:].sum()
                out[lane] = within_selection(self._limits, scaled, stuck[lane], self._labels)
        return out, accounts

    def _scale(self, row: int, weights: NDArray[np.float64]) -> float:
        """Return k at a bar for the weights (N,) of the mixture's assets."""
        gross = abs(weights).sum()
        if row < self.lookback or gross == 0:
            return 0.0
        most = self._gross / gross
        if weights.sum() > 0:
            most = min(most, self._net / weights.sum())
        most = most if self.cap is None else min(most, self.cap)
        if row not in self._windows:
            past = self.market.panel.past(row)
            per_year = past.bars_per_year(-self.lookback - 1)
            self._windows[row] = np.nan_to_num(own_returns(past, self.lookback)) * per_year**0.5
        volatility = float((self._windows[row] * weights).sum(axis=1).std(ddof=1))
        return min(self.target / volatility, most) if volatility > 0 else 0.0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_windows": {}}


def unlevered(constraints: PortfolioConstraints) -> PortfolioConstraints:
    """Return the constraints without leverage and borrowed cash."""
    cash = None if constraints.min_cash is None else max(constraints.min_cash, 0.0)
    leverage = min(constraints.max_leverage, 1.0)
    return replace(constraints, max_leverage=leverage, min_cash=cash)


def _member(name: str, market: Market, constraints: PortfolioConstraints) -> Policy:
    """Return a baseline by name, within the constraints without leverage where it takes any."""
    takes = "constraints" in getattr(found_baseline(name), "_options", list)()
    own = {"constraints": unlevered(constraints)} if takes else {}
    return make_baseline(name, market, **own)
