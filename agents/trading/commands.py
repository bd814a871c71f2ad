"""Commands on paper accounts: replay a past range, show, check and export a session's ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
import tyro

from agents.settings.market import MarketConfig, refuse_no_strategy
from agents.trading.paper import Paper
from portfolio_env.checks import check_seconds
from portfolio_env.errors import MALFORMED, ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import is_writable, locked
from portfolio_env.files.safe_names import printable
from portfolio_env.live.instruments import uniform
from portfolio_env.market.timeline import named_row, time_text
from portfolio_env.paper.broker import SystemClock
from portfolio_env.paper.exchange.command import PULSE
from portfolio_env.paper.execution import accept, write_off
from portfolio_env.paper.ledger import ACTIVE, FLAT, HALTED, LEDGER, REDUCING, Ledger
from portfolio_env.paper.session import LOCK
from portfolio_env.paper.status import PAGE, SessionStatus, session_status, write_status

if TYPE_CHECKING:
    from portfolio_env.evaluation.task import EvaluationFold

Name = Literal["none", "flaky", "crash", "liquidity", "outage", "gap"]


@dataclass(frozen=True)
class Replay:
    """Trade a past range on paper, beside its backtest; nothing is sent anywhere."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of a run; none with --baseline."""
    baseline: str | None = None
    """Baseline that decides in place of a run, e.g. hrp or "momentum(lookback=120)"."""
    since: str | None = None
    """Date of the first decision; the start of the test range by default."""
    until: str | None = None
    """Date after the last bar; the end of the test range by default."""
    scenario: Name = "none"
    """none is the backtest; flaky loses requests and answers; crash is a fall of all prices;
    liquidity is dear to trade; outage is a venue that does not answer; gap moves prices between
    decision and fill."""
    seed: int = 0
    """Seed of what the scenario draws."""
    latency: float = 0.0
    """Seconds from acceptance to execution of an order."""
    participation: float | None = None
    """Share of a bar's volume that orders are filled from; any by default."""
    lot: float = 0.0
    """Smallest number of units that can be traded; any fraction by default."""
    out: Path | None = None
    """Folder of the ledger; default evaluation/replay of the run."""
    model: Literal["final", "best"] = "final"
    """The model at the end of the training, or the best one by validation."""
    device: str = "auto"
    """Torch device of the agent."""
    task: Annotated[MarketConfig, tyro.conf.arg(name="")] = field(default_factory=MarketConfig)
    """Market and rules of trading of a baseline."""

    def __call__(self) -> int:
        """Replay, print the account beside that of the backtest, write the ledger."""
        found = replayed(self)
        for name, value in found.items():
            print(f"{name:<26} {value}")
        return 0


@dataclass(frozen=True)
class Verify:
    """Check a ledger: the file, the chain of its events, and the tables made of them."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a session."""

    def __call__(self) -> int:
        """Print number and digest of the last event."""
        ledger = _opened(self.folder)
        events, digest = ledger.verify()
        print(f"{self.folder / LEDGER} is whole: {events} events, the last one {digest}")
        return 0


@dataclass(frozen=True)
class Export:
    """Write the tables of a ledger as CSV."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a session."""
    out: Path | None = None
    """Folder of the tables; default export in that of the session."""

    def __call__(self) -> int:
        """Write the tables and print their folder."""
        ledger, folder = _opened(self.folder), self.out or self.folder / "export"
        ledger.verify()
        print(f"{len(ledger.export(folder))} tables in {folder}")
        return 0


@dataclass(frozen=True)
class Status:
    """Say how a session stands, and write it as a page."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a session."""

    def __call__(self) -> int:
        """Print the trading state, the account and what is open; write ``status.html``."""
        runs = (self.folder / PULSE).exists()  # by the clock of the machine
        try:
            status = session_status(_opened(self.folder), SystemClock().now() if runs else None)
        except PortfolioError:
            raise
        except MALFORMED as error:
            raise DataError(
                f"{self.folder / LEDGER} is damaged ({error!r}): see trade.py verify {self.folder}"
            ) from error
        for name, value in told(status).items():
            print(f"{name:<26} {printable(value)}")
        page = "not written: the folder is read-only"
        if is_writable(self.folder):
            write_status(status, self.folder)
            page = str(self.folder / PAGE)
        print(f"{'page':<26} {page}")
        return 0


@dataclass(frozen=True)
class _Steering:
    """Change of the trading state of a session that no process has."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a session."""
    reason: str = "by hand"
    """Words that are kept in the ledger."""

    @property
    def state(self) -> str:
        """Return the new state."""
        raise NotImplementedError

    def __call__(self) -> int:
        """Write the new state."""
        with _written(self.folder) as ledger:
            ledger.steer(SystemClock().now(), self.state, self.reason)
        print(f"{self.folder} is {self.state}: {printable(self.reason)}")
        return 0


@dataclass(frozen=True)
class Halt(_Steering):
    """Let a session that was stopped send no orders when it goes on, until resume."""

    state = HALTED


@dataclass(frozen=True)
class Resume(_Steering):
    """Let a session that was halted send orders again when it goes on."""

    reducing: bool = False
    """Send only orders that lower a position."""

    @property
    def state(self) -> str:
        """Return the new state."""
        return REDUCING if self.reducing else ACTIVE


@dataclass(frozen=True)
class Flatten(_Steering):
    """Let a session sell all that it holds when it goes on; it then stays in cash."""

    state = FLAT


@dataclass(frozen=True)
class Reconcile:
    """Show the differences from the venue that halted a session, or accept them."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a session."""
    accept: str | None = None
    """Why the venue is right, e.g. "sold by hand": the differences are booked as external flows."""

    def __call__(self) -> int:
        """Print the last comparison that found a difference, or book what it found."""
        if self.accept is None:
            notes = list(_opened(self.folder).events("note"))
            print(printable(notes[-1].body["reason"]) if notes else "no difference was found")
            return 0
        with _written(self.folder) as ledger:
            changes = accept(ledger, SystemClock().now(), self.accept)
        for name, change in changes.items():
            print(f"{printable(name) or 'cash':<26} {change:+f}")
        return 0


@dataclass(frozen=True)
class Resolve:
    """Say that an order that nobody could look up has ended at the venue.

    It is not sent again; fills are booked by the venue's records alone.
    """

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a session."""
    order: Annotated[str, tyro.conf.Positional]
    """Id of the order, as trade.py status shows it."""
    reason: str = "by hand"
    """Words that are kept in the ledger."""

    def __call__(self) -> int:
        """Write the end of the order."""
        with _written(self.folder) as ledger:
            write_off(ledger, self.order, SystemClock().now(), self.reason)
        print(f"order {self.order} has ended: {printable(self.reason)}")
        return 0


COMMANDS = {
    "paper": Paper,
    "replay": Replay,
    "verify": Verify,
    "export": Export,
    "status": Status,
    "halt": Halt,
    "resume": Resume,
    "flatten": Flatten,
    "reconcile": Reconcile,
    "resolve": Resolve,
}


@contextmanager
def _written(folder: Path) -> Iterator[Ledger]:
    """Open the ledger of a session that no process has, to write what a person says."""
    _opened(folder).close()
    with locked(folder / LOCK, busy=f"{folder} is used by another process: stop it first"):
        ledger = Ledger.of(folder)
        try:
            yield ledger
        finally:
            ledger.close()


def _opened(folder: Path) -> Ledger:
    if not (folder / LEDGER).is_file():
        raise DataError(f"{folder} has no {LEDGER}: give the folder of a session")
    return Ledger.of(folder, read_only=True)


def told(status: SessionStatus) -> dict[str, Any]:
    """Return how a session stands, as lines of text by name."""

    def listed(parts: Mapping[str, int]) -> str:
        return ", ".join(f"{number} {name}" for name, number in parts.items()) or "none"

    found = {
        **({"strategy": status.strategy} if status.strategy != status.session else {}),
        "session": status.session,
        "trading": f"{status.state}: {status.reason}" if status.reason else status.state,
        "bars": listed(status.bars),
        "orders": listed(status.orders),
        "last bar": "none" if np.isnat(status.bar) else time_text(status.bar),
        "value": f"{status.value:,.2f}",
        "cash": f"{status.cash:,.2f}",
        "held": ", ".join(own.asset for own in status.positions if own.units) or "nothing",
        "ideal account": f"{status.ideal:,.2f}",
        **{f"of that by {name}": money for name, money in status.causes.items()},
        "open alerts": str(len(status.alerts)),
    }
    return found | ({"last alert": status.alerts[0].text} if status.alerts else {})


def _shocked(fold: EvaluationFold, config: Replay, start: int, end: int) -> EvaluationFold:
    """Return the fold with the market and the costs of a scenario that changes prices."""
    from agents.sb3.algorithms import bind_market
    from portfolio_env.evaluation.diagnostics.scenarios import PriceGap, Scenario, ThinLiquidity
    from portfolio_env.evaluation.diagnostics.stress import stressed
    from portfolio_env.simulation.cost_models import made_costs

    shocks: dict[str, Scenario] = {
        "crash": PriceGap(start=start + 1, end=end),
        "liquidity": ThinLiquidity(start=start + 1, end=end),
    }
    shock = shocks.get(config.scenario)
    if shock is None:
        return fold
    market = stressed(fold.market, shock, seed=config.seed)
    for agent in fold.agents.values():
        bind_market(cast(Any, agent.policy), market)
    costs = shock.costs(made_costs(fold.options["costs"]))
    return replace(fold, market=market, options={**fold.options, "costs": costs})


def replayed(config: Replay) -> dict[str, Any]:
    """Replay a range, write its ledger, and return what there is to say of it.

    Raises:
        ArgumentError: If neither a run nor a baseline is given, or the range is none.
        DataError: If the run or its data cannot be read.
    """
    from agents.training.run_folder import evaluating
    from agents.training.tasks import open_task
    from baselines.strategies import baseline_strategies
    from portfolio_env.env import PortfolioEnv
    from portfolio_env.evaluation.backtest import backtest
    from portfolio_env.evaluation.orders import predictor_of
    from portfolio_env.evaluation.runner import agent_strategies
    from portfolio_env.paper.faults import SCENARIOS, with_seed
    from portfolio_env.paper.replay import replay

    refuse_no_strategy(config.run, config.baseline)
    latency = check_seconds("latency", config.latency)
    if config.run is not None and config.out is None and not is_writable(config.run):
        raise ArgumentError(f"{config.run} is read-only: give --out, a folder for the ledger.")
    how: dict[str, Any] = {"model": config.model, "device": config.device}
    task = open_task(config.run, config.task, **how)
    if config.run is not None:
        strategy = agent_strategies(task)[0]
    else:
        strategy = baseline_strategies(config.baseline or "")[-1]
    fold = task.folds[-1]
    start, end = fold.rows("test")
    times = fold.market.timestamps
    start = start if config.since is None else named_row("since", times, config.since)
    end = end if config.until is None else named_row("until", times, config.until, end=True)
    if end - start < 2:
        raise ArgumentError(
            f"the range holds {max(end - start, 0)} bars, and a replay needs 2: "
            "give an earlier --since or a later --until"
        )
    fold = _shocked(fold, config, start, end)
    faults = with_seed(config.scenario if config.scenario in SCENARIOS else "none", config.seed)
    folder = config.out or task.folder / "evaluation" / "replay"
    shock = "" if config.scenario == "none" else f", scenario {config.scenario}, seed {config.seed}"
    session = replay(
        predictor_of(strategy, fold, "test"),
        start,
        end,
        faults=faults,
        delay=latency,
        participation=config.participation,
        instruments=uniform(config.lot),
        name=f"replay of {strategy.name}{shock}",
    )
    ledger = session.ledger
    options = {**strategy.options(fold, "test"), "start": start, "end": end}
    ideal = backtest(strategy.build(fold, "test"), PortfolioEnv(**options))
    with evaluating(config.run) if config.run else nullcontext():
        ledger.copy_to(folder / LEDGER)
        Ledger.of(folder).close()  # sealed
    rows = ledger.query("SELECT value FROM valuations ORDER BY bar")
    values = np.array([float(row[0]) for row in rows])
    same = len(values) == len(ideal.values)
    apart = float(np.abs(values / ideal.values - 1).max()) if same else np.nan
    status = session_status(ledger)
    write_status(status, folder)
    return told(status) | {
        "value of the backtest": f"{ideal.values[-1]:,.2f}",
        "largest difference": f"{apart:.2g} of the value at a bar",
        "digest": ledger.head()[1],
        "ledger": folder,
    }
