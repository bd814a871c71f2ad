"""Backtest: run a policy through an environment to the end and record every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

import gymnasium as gym
import numpy as np
import pandas as pd
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from portfolio_env import metrics
from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.evaluation.carried_targets import CarriedTargets
from portfolio_env.files.csv_files import write_csv
from portfolio_env.files.parquet import write_parquet
from portfolio_env.html import card
from portfolio_env.market.panel import PricePanel
from portfolio_env.market.timeline import bars_per_year, time_text
from portfolio_env.metrics import TrackRecord
from portfolio_env.names import indices_of
from portfolio_env.simulation.executor import Account, Executor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FloatArray: TypeAlias = NDArray[np.float64]
ROUNDING = 1e-14
"""Share of the wealth up to which a difference of money is rounding and no trade."""
ASKED = 1e-4
"""Weight by which an action goes beyond a constraint before it is said; float32 rounds below."""


class Policy(Protocol):
    """Policy protocol: the ``predict`` of a trained SB3 model, which every baseline has too."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Return actions (B, N + 1) for a batch of observations, and the policy's memory."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class BacktestResult:
    """Account over K steps; step k decides at ``timestamps[k]`` and earns to the next one.

    Attributes:
        assets: N names, without cash.
        timestamps: (K + 1,) times of the closed bars.
        values: (K + 1,) account values, in money.
        drifted: (K, N + 1) weights before each trade, as the market left them; cash first.
        held: (K, N + 1) weights right after each trade.
        trades: (K, N + 1) money moved into each asset by trading, negative for sales; the cash slot
            is what trading took from cash, costs included.
        turnovers: (K,) traded notional of the assets over wealth.
        costs: (K,) money paid for trading.
        carries: (K,) money earned on cash less interest paid.
        last_weights: (N + 1,) weights at the last bar, as the market left them.
        stated_periods_per_year: Steps per year where they were stated; None counts them.
        cash_returns: (K,) what a unit of cash earned from one bar to the next.
        left_out: Assets that could be traded but that a model did not consider, by date of the
            decision and by name, with the reason; empty for policies that do not say.
        ends: (N + 1,) weights at the last bar of folds that were stitched, as the market left them,
            by the number of the step that ended there; the last fold has ``last_weights``.
        outside: Name of the prices outside of the market that the account follows; "" for accounts
            of the market's own assets.
        cut: (K,) whether a turnover limit cut the trade of a step, as far as the executor says.
        unfilled: (K,) orders of a step that were not filled, in sum over wealth, see
            ``simulation.fills.Fills``.
        refused: (K,) whether the policy asked for a short position or for leverage that the
            constraints of the account do not allow, as far as the executor says.
    """

    assets: tuple[str, ...]
    timestamps: NDArray[np.datetime64]
    values: FloatArray
    drifted: FloatArray
    held: FloatArray
    trades: FloatArray
    turnovers: FloatArray
    costs: FloatArray
    carries: FloatArray
    last_weights: FloatArray
    stated_periods_per_year: float | None = None
    cash_returns: FloatArray | float = 0.0
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ends: Mapping[int, FloatArray] = field(default_factory=dict)
    outside: str = ""
    cut: NDArray[np.bool_] | bool = False
    unfilled: FloatArray | float = 0.0
    refused: NDArray[np.bool_] | bool = False

    @property
    def arrived(self) -> FloatArray:
        """Return (K, N + 1) weights at the end of every step, as the market left them."""
        found = np.concatenate([self.drifted[1:], self.last_weights[None]])
        for step, weights in self.ends.items():
            found[step] = weights
        return found

    @property
    def periods_per_year(self) -> float:
        """Steps per year: stated, or those of this record over the years that it takes."""
        stated = self.stated_periods_per_year
        return bars_per_year(self.timestamps) if stated is None else stated

    @property
    def excess_returns(self) -> FloatArray:
        """Return (K,) simple returns of the account less those of cash, for ratios over risk."""
        return self.returns - self.cash_returns

    def __repr__(self) -> str:
        facts = self._facts()
        numbers = ", ".join(f"{name} {facts[name]}" for name in list(facts)[2:])
        count, _, dates = facts["decisions"].partition(" ")
        return f"BacktestResult({count} decisions {dates}; {facts['assets']} assets; {numbers})"

    def _repr_html_(self) -> str | None:
        return card("BacktestResult", self._facts())

    def _facts(self) -> dict[str, str]:
        """Return the main facts of the account by name."""
        first, last = (time_text(self.timestamps[place]) for place in (0, -1))
        found = {"decisions": f"{len(self.costs):,} from {first} to {last}"}
        found["assets"] = f"{len(self.assets)}"
        if len(self.costs):
            own = self.metrics()
            found |= {
                "growth": f"{100 * own['annual_log_growth']:+.1f} % a year",
                "Sharpe": f"{own['sharpe']:.2f}",
                "largest drawdown": f"{100 * own['max_drawdown']:.1f} %",
                "turnover": f"{own['annual_turnover']:.1f} a year",
                "cost": f"{100 * own['cost_drag']:.2f} % a year",
            }
        return found

    def plot(self, title: str = "Account value") -> Figure:
        """Plot value, drawdown and weights.

        Args:
            title: Title of the figure.

        Returns:
            A matplotlib figure, which needs no display: a notebook shows it, ``savefig`` writes it.

        Raises:
            PortfolioError: If matplotlib is not installed.
        """
        from portfolio_env.evaluation.report.plots import account_figure

        return account_figure(self, title)

    @property
    def returns(self) -> FloatArray:
        """Return (K,) simple returns of the account."""
        return metrics.simple_returns(self.values)

    @property
    def log_returns(self) -> FloatArray:
        """Return (K,) log returns of the account; minus infinity where it lost everything."""
        with np.errstate(divide="ignore"):
            return np.diff(np.log(np.maximum(self.values, 0)))

    @property
    def idle(self) -> bool:
        """Return whether only cash was ever held, as by a model whose history is too short."""
        return not self.outside and not self.held[:, 1:].any()

    @property
    def mean_exposure(self) -> float:
        """Return the mean gross exposure, sum of abs(w) over the assets; NaN without a step."""
        return float(np.abs(self.held[:, 1:]).sum(axis=1).mean()) if len(self.held) else np.nan

    @property
    def unfilled_share(self) -> float:
        """Return the share of all orders, in sum over wealth, that was not filled."""
        lacking = float(np.sum(np.broadcast_to(self.unfilled, self.costs.shape)))
        return lacking / (lacking + float(self.turnovers.sum())) if lacking else 0.0

    def metrics(self) -> dict[str, float]:
        """Return every performance measure by name, see ``portfolio_env.metrics``."""
        parts = (self.values, self.held, self.turnovers, self.costs)
        return metrics.summary(*parts, self.periods_per_year, self.cash_returns)

    def track_record(self) -> TrackRecord:
        """Return the input of the measures, see ``portfolio_env.metrics``."""
        parts = (self.values, self.held, self.turnovers, self.costs)
        return metrics.track_record(*parts, cash_returns=self.cash_returns)

    def account(self) -> pd.DataFrame:
        """Return one row per closed bar, by date, with records of the step ending there.

        Returns:
            Columns ``value`` and ``drawdown``, then ``return`` (simple), ``log_return``,
            ``turnover``, ``cost`` and ``carry`` of the step, 0 in the first row.
        """
        steps = {
            "return": self.returns,
            "log_return": self.log_returns,
            "turnover": self.turnovers,
            "cost": self.costs,
            "carry": self.carries,
        }
        columns = {"value": self.values, "drawdown": metrics.drawdowns(self.values)}
        columns |= {name: np.r_[0.0, record] for name, record in steps.items()}
        return pd.DataFrame(columns, pd.DatetimeIndex(self.timestamps, name="date"))

    def weights(self) -> pd.DataFrame:
        """Return weights right after trading: a row per decision, a column per slot, cash first."""
        columns = [self.outside or "cash", *self.assets]
        return pd.DataFrame(self.held, pd.DatetimeIndex(self.timestamps[:-1], name="date"), columns)

    def holdings(self) -> pd.DataFrame:
        """Return a row per decision and slot, long format, cash first: the trade and weights."""
        names = [self.outside or "cash", *self.assets]
        return pd.DataFrame(
            {
                "date": np.repeat(self.timestamps[:-1], len(names)),
                "asset": np.tile(names, len(self.costs)),
                "weight_before": self.drifted.ravel(),
                "trade": self.trades.ravel(),
                "weight": self.held.ravel(),
            }
        )

    def trade_log(self) -> pd.DataFrame:
        """Return a row per trade of an asset: the rows of ``holdings`` in which money moved."""
        found = self.holdings()
        assets = np.tile(np.arange(self.held.shape[1]) > 0, len(self.costs))
        return found[assets & (found["trade"] != 0)].reset_index(drop=True)

    def _records(self) -> tuple[tuple[str, pd.DataFrame], ...]:
        """Return the tables that files hold."""
        return ("account", self.account().reset_index()), ("holdings", self.holdings())

    def to_csv(self, folder: str | Path) -> None:
        """Write ``account.csv`` and ``holdings.csv`` into a folder, each in one piece.

        Args:
            folder: Created where it is missing; older files of these names are replaced.
        """
        for name, frame in self._records():
            write_csv(Path(folder) / f"{name}.csv", frame, index=False)

    def to_parquet(self, folder: str | Path) -> None:
        """Write ``account.parquet`` and ``holdings.parquet``: smaller and faster than CSV.

        Args:
            folder: Created where it is missing; older files of these names are replaced.

        Raises:
            PortfolioError: If pyarrow is not installed.
        """
        if find_spec("pyarrow") is None:
            raise PortfolioError("Parquet files need pyarrow; pip install pyarrow, or write CSV.")
        for name, frame in self._records():
            write_parquet(Path(folder) / f"{name}.parquet", frame)


@overload
def backtest(
    policy: Policy, env: VectorEnv[Any, Any, Any], *, seed: int | None = 0
) -> list[BacktestResult]: ...
@overload
def backtest(policy: Policy, env: gym.Env[Any, Any], *, seed: int | None = 0) -> BacktestResult: ...
def backtest(
    policy: Policy, env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any], *, seed: int | None = 0
) -> BacktestResult | list[BacktestResult]:
    """Run a policy, deterministically, from the reset of an environment to the end of every lane.

    Where a turnover limit, ``adjustment`` or incomplete fills keep a baseline from reaching its
    target at once, it trades towards it over the next bars, see ``carried_targets.CarriedTargets``.

    Args:
        policy: Answers ``predict``. It is always asked for a batch, so a single environment's
            observation reaches it with a leading axis of 1.
        env: A PortfolioEnv, or a PortfolioVectorEnv with ``autoreset_mode="Disabled"``, bare or
            inside wrappers that keep actions and observations; or any environment whose
            ``unwrapped.executor`` is an ``Executor``, e.g. of a broker.
        seed: Seed of the reset, which matters where the environment draws starts, assets or fills:
            all backtests with one seed draw the same. None goes on with the environment's own
            generator.

    Returns:
        One result for a PortfolioEnv, one per lane for a PortfolioVectorEnv.

    Raises:
        ArgumentError: If the vector environment resets by itself, the policy declares another kind
            of ``action`` than the environment takes, or does not answer with actions and a state.
    """
    if isinstance(env, VectorEnv):
        if env.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED:
            raise ArgumentError(
                f"autoreset_mode={env.metadata.get('autoreset_mode')} would mix episodes; "
                'build the environment with autoreset_mode="Disabled".'
            )
        return _run(policy, env, seed)
    return _run(policy, env, seed)[0]


def _run(
    policy: Policy, env: gym.Env[Any, Any] | VectorEnv[Any, Any, Any], seed: int | None
) -> list[BacktestResult]:
    single = isinstance(env, gym.Env)
    observation, _ = env.reset(seed=seed)
    executor: Executor = env.unwrapped.executor  # type: ignore[union-attr]  # by contract
    if not callable(getattr(policy, "predict", None)):
        raise ArgumentError(
            f"policy={shortened(policy)} must have a method predict, see evaluation.Policy."
        )
    wanted = getattr(policy, "action", executor.action)
    if wanted != executor.action:
        raise ArgumentError(
            f'the policy answers with {wanted}, but the environment takes action="'
            f'{executor.action}"; build it with action="{wanted}".'
        )
    recorder = _Recorder(executor)
    running = np.ones(executor.num_lanes, np.bool_)
    state, episode_start = None, running.copy()
    carried = CarriedTargets(executor) if getattr(policy, "carries_on", False) else None
    while running.any():
        batch = _with_lane_axis(observation) if single else observation
        answers, state = _answered(
            policy.predict(batch, state, episode_start, deterministic=True), executor.num_lanes
        )
        actions = answers if carried is None else carried.asked(answers)
        observation, _, terminated, truncated, _ = env.step(actions[0] if single else actions)
        recorder.after_step(running, np.asarray(answers))
        running &= ~np.asarray(terminated) & ~np.asarray(truncated)
        episode_start = np.zeros_like(running)
    left_out: Mapping[str, Mapping[str, str]] = getattr(policy, "left_out", None) or {}
    # a baseline places its weights within the constraints before the environment sees them
    refused = np.array([*(getattr(policy, "refused", None) or ())], "datetime64[ns]")
    return [
        replace(
            result,
            left_out=_within(left_out, result),
            refused=result.refused | np.isin(result.timestamps[:-1], refused),
        )
        for result in recorder.results()
    ]


def _answered(answer: Any, lanes: int) -> tuple[Any, Any]:
    """Return the actions and the state that a policy answered with."""
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise ArgumentError(
            f"predict of the policy returned a {type(answer).__name__}; it must return (actions, "
            "state), where a policy without memory returns the state that it was given."
        )
    if np.shape(answer[0])[:1] != (lanes,):
        raise ArgumentError(
            f"predict of the policy returned actions of the shape {np.shape(answer[0])}; it must "
            f"return one row for each of the {lanes} lanes."
        )
    return answer


def _within(
    left_out: Mapping[str, Mapping[str, str]], result: BacktestResult
) -> dict[str, Mapping[str, str]]:
    """Return what was left out at the decisions of a backtest."""
    dates = (
        [str(time) for time in result.timestamps[:-1].astype("datetime64[ns]")] if left_out else []
    )
    return {date: left_out[date] for date in dates if date in left_out}


def _with_lane_axis(observation: Any) -> Any:
    if isinstance(observation, Mapping):
        return {name: np.asarray(entry)[None] for name, entry in observation.items()}
    return np.asarray(observation)[None]


class _Recorder:
    """Recorder of the accounts around every step; rows after a lane's end are cut off last."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        self.assets = executor.asset_names
        self.steps = np.zeros(executor.num_lanes, np.int64)
        self.accounts = [executor.account()]
        self.trades: list[FloatArray] = []
        self.cut: list[NDArray[np.bool_]] = []
        self.refused: list[NDArray[np.bool_]] = []

    def after_step(self, running: NDArray[np.bool_], answers: NDArray[Any]) -> None:
        before, account = self.accounts[-1], self.executor.account()
        invested = before.money.sum(axis=1) - account.costs
        self.steps += running
        uncut = np.zeros(len(running), np.bool_)
        self.cut.append(np.array(getattr(self.executor, "cut", uncut)))
        trades = account.held * invested[:, None] - before.money
        # what is held on differs by rounding only
        trades[np.abs(trades) <= ROUNDING * np.abs(invested)[:, None]] = 0.0
        self.trades.append(trades)
        self.refused.append(self._refused(answers))
        self.accounts.append(account)

    def _refused(self, actions: NDArray[Any]) -> NDArray[np.bool_]:
        """Return the lanes that asked for short positions or leverage that they may not have."""
        limits = getattr(self.executor, "constraints", None)
        if limits is None or self.executor.action != "weights":
            return np.zeros(len(actions), np.bool_)
        asked = np.asarray(actions, np.float64)[:, 1:]
        drifted = self.accounts[-1].weights[:, 1:]  # what the market did, nobody asked for
        shorts = limits.long_only & (asked < np.minimum(drifted, 0) - ASKED).any(axis=1)
        most = np.maximum(limits.max_leverage, np.abs(drifted).sum(axis=1))
        found: NDArray[np.bool_] = shorts | (np.abs(asked).sum(axis=1) > most + ASKED)
        return found

    def results(self) -> list[BacktestResult]:
        whole = Account(*(np.array(parts) for parts in zip(*self.accounts, strict=True)))
        shape = whole.values.T.shape
        earned, unfilled = (
            np.broadcast_to(np.asarray(each).T, shape)
            for each in (whole.cash_returns, whole.unfilled)
        )
        trades, cut, refused = map(np.array, (self.trades, self.cut, self.refused))
        return [
            BacktestResult(
                assets=self.assets[lane],
                timestamps=whole.timestamps[: steps + 1, lane],
                values=whole.values[: steps + 1, lane],
                drifted=whole.weights[:steps, lane],
                held=whole.held[1 : steps + 1, lane],
                trades=trades[:steps, lane],
                cut=cut[:steps, lane],
                refused=refused[:steps, lane],
                turnovers=whole.turnovers[1 : steps + 1, lane],
                costs=whole.costs[1 : steps + 1, lane],
                carries=whole.carries[1 : steps + 1, lane],
                last_weights=whole.weights[-1, lane],  # lanes that have ended stand still
                stated_periods_per_year=self.executor.periods_per_year,
                cash_returns=earned[lane, 1 : steps + 1],
                unfilled=unfilled[lane, 1 : steps + 1],
            )
            for lane, steps in enumerate(self.steps)
        ]


def decision_rows(result: BacktestResult, panel: PricePanel) -> tuple[int, int]:
    """Return the half-open range of the panel's rows at which the backtest decided.

    Raises:
        ArgumentError: If the panel does not hold the bars of the backtest.
    """
    start = int(np.searchsorted(panel.timestamps, result.timestamps[0]))
    end = start + len(result.timestamps)
    if not np.array_equal(panel.timestamps[start:end], result.timestamps):
        raise ArgumentError(
            f"the prices are not those of the backtest from {time_text(result.timestamps[0])} to "
            f"{time_text(result.timestamps[-1])}; give the market that it ran on."
        )
    return start, end - 1


def realised_returns(result: BacktestResult, panel: PricePanel) -> FloatArray:
    """Return (K, N) simple returns of the account's assets from each decision to the next close.

    A bar that is missing takes the last price, as the account does; 0 before the first price.

    Args:
        result: The backtest.
        panel: Prices of the market that it ran on, all of its bars or those of the backtest.

    Raises:
        ArgumentError: If the panel does not hold its bars or its assets.
    """
    start, end = decision_rows(result, panel)
    columns = indices_of("asset", result.assets, panel.assets)
    close = pd.DataFrame(panel.close[: end + 1, columns]).ffill().to_numpy()[start:]
    return np.nan_to_num(close[1:] / close[:-1] - 1)
