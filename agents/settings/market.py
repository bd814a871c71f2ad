"""Settings of a market and of trading in it; light: errors come before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from agents.settings.data import DataOptions
from portfolio_env.checks import check_fields
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market import Market
from portfolio_env.market.samples import Range
from portfolio_env.simulation.constraints import PortfolioConstraints
from portfolio_env.simulation.costs import TransactionCosts
from portfolio_env.simulation.fills import Fills

SUPERVISED = "supervised.json"
"""Settings in the folder of a supervised run, where others have a ``config.json``."""


@dataclass(frozen=True)
class FillOptions:
    """Shares of orders that are executed, see ``Fills``: beside a run, None leaves the run's own.

    One that is given replaces all of the run's: ``failure=0`` alone fills every order.
    """

    participation: float | None = None
    """Largest share in (0, 1] of an asset's volume in a bar that an order is filled from; no limit
    by default. Needs a market with volumes."""
    failure: float | None = None
    """Probability in [0, 1] that an order fails: nothing of it is executed. 0 by default."""
    partial: float | None = None
    """Probability in [0, 1] that an order is executed in part: a share of it, uniform in (0, 1). At
    most 1 together with failure; 0 by default."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_fields(self, "fills.")
        self.fills  # noqa: B018 (checks them)

    @property
    def given(self) -> bool:
        """Return whether any is given."""
        return self != FillOptions()

    @property
    def fills(self) -> Fills:
        """Return the fills that these options say, whatever those of a run are."""
        return Fills(self.participation, self.failure or 0.0, self.partial or 0.0)


@dataclass(frozen=True)
class MarketConfig:
    """Market, its ranges and the rules of trading: of a training run, or of baselines alone."""

    market: str | None = None
    """Name of a market (sp500, synthetic, ...), default sp500; path of a CSV, Parquet or .npz file,
    or of a folder of CSV or Parquet files; or a source of your own, my_prices:load. Beside a run,
    another market to judge it on."""
    assets: str | None = None
    """Comma-separated symbols to trade; all of the market's by default."""
    start: str | None = None
    """First date of the data to use; all by default."""
    end: str | None = None
    """Date up to which the data are used, itself excluded; all by default."""
    features: str = "minimal"
    """Comma-separated features, groups or presets (minimal, technical, full, none, ...); scalers
    are fitted on the training range only."""
    data: DataOptions = field(default_factory=DataOptions)
    """Preparation of the data."""
    train: float | str = 0.6
    """Training range, in which agents and models are fitted: fraction of the bars, or the date at
    which it ends."""
    validation: float | str = 0.2
    """Validation range that follows it: fraction of the bars, or the date at which it ends."""
    test: float | str | None = None
    """Test range that follows: fraction or date likewise; all the rest by default."""
    execution: Literal["close", "next_open"] = "close"
    """When trades are filled: at the close that was observed, or at the next open."""
    initial_value: float = 10_000.0
    """Money at the start."""
    costs: TransactionCosts = field(default_factory=TransactionCosts)
    """Costs of trading and holding."""
    cost_model: str | None = None
    """Cost model of your own in place of these costs, e.g. my_costs:Tiered."""
    cost_options: str = "{}"
    """Options of the cost model as JSON."""
    fills: FillOptions = field(default_factory=FillOptions)
    """Shares of orders that are executed; all of every order by default. Beside a run, how it is
    judged in place of the run's own."""
    delay: int | None = None
    """Bars between what is observed and the trade: 0 by default, or those of the run."""
    constraints: PortfolioConstraints = field(default_factory=PortfolioConstraints)
    """Constraints on portfolios and trades."""


class RunConfig(Protocol):
    """Protocol of the settings that a run folder is made of."""

    @property
    def market(self) -> str:
        """Name or path of the market."""

    @property
    def runs(self) -> str:
        """Folder in which run folders are created."""

    @property
    def out(self) -> str | None:
        """Run folder itself, instead of one there."""

    def load_market(self) -> tuple[Market, dict[str, Range]]:
        """Return the market, scaled on its training range, and the rows of all ranges."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""


def refuse_no_strategy(run: Path | None, baseline: str | None) -> None:
    """Reject what names neither a run nor a baseline, or both, before torch is imported.

    Raises:
        ArgumentError: If it does.
        DataError: If the folder is of no run, see ``refuse_no_run``.
    """
    if (run is None) == (baseline is None):
        raise ArgumentError("give the folder of a run, or --baseline, and not both.")
    if baseline is not None and not baseline.strip(" ,"):
        raise ArgumentError(f"baseline={baseline!r} must be the name of one, e.g. hrp.")
    refuse_no_run(run)


def refuse_no_run(path: Path | None) -> None:
    """Reject a folder, if any, of neither a run nor a walk forward, before torch is imported.

    Raises:
        DataError: If it does not, or holds a supervised run.
    """
    if path is None:
        return
    if (path / SUPERVISED).is_file():
        raise DataError(
            f"{path} is a supervised run, which holds forecasts and no agent: its card.md has the "
            "scores and what they earn"
        )
    if not any((path / name).is_file() for name in ("config.json", "walk_forward.json")):
        raise DataError(
            f"{path} is not a run folder: it has neither config.json nor walk_forward.json; see "
            "python -m agents.store list"
        )
