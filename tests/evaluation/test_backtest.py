"""Backtests keep exactly what happened: against plain arithmetic, lane by lane, and in files."""

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

import portfolio_env as pe
from baselines import make_baseline
from portfolio_env.errors import ArgumentError
from portfolio_env.evaluation import backtest
from portfolio_env.evaluation.left_out import remark_sentences

MARKET = pe.load_market("synthetic?assets=3&bars=90")
COSTS = {"commission_bps": 20, "sell_commission_bps": 50, "cash_rate_annual": 0.03}


class RandomWeights:
    """A policy that remembers which step it is at, and so exercises the policy's state."""

    action = "weights"

    def __init__(self, lanes=1, assets=3, seed=0):
        self.targets = np.random.default_rng(seed).dirichlet(np.ones(assets + 1), (200, lanes))
        self.starts = []

    def predict(self, observation, state=None, episode_start=None, deterministic=True):
        assert deterministic
        self.starts.append(episode_start.copy())
        step = 0 if state is None else state
        return self.targets[step], step + 1


def options(**others):
    return {"observation": "index", "window": 1, "action": "weights", "costs": COSTS} | others


def delisting_market():
    """Asset B is delisted halfway; opens differ from closes."""
    generator = np.random.default_rng(5)
    close = pd.DataFrame(
        100 * np.exp(np.cumsum(generator.normal(0, 0.02, (60, 3)), axis=0)),
        index=pd.date_range("2020-01-01", periods=60, name="date"),
        columns=list("ABC"),
    )
    frame = close.stack().rename("close").rename_axis(["date", "symbol"]).reset_index()
    frame["open"] = frame["close"] * np.exp(generator.normal(0, 0.01, len(frame)))
    frame["high"] = frame[["open", "close"]].max(axis=1) * 1.001
    frame["low"] = frame[["open", "close"]].min(axis=1) * 0.999
    frame["volume"] = 1000.0
    gone = (frame["symbol"] == "B") & (frame["date"] >= "2020-02-10")
    return pe.load_market(frame[~gone])


@pytest.mark.parametrize("execution", ["close", "next_open"])
def test_account_adds_up(execution):
    """Trades, weights, costs and values agree with each other, through a delisting too."""
    market = delisting_market()
    costs = COSTS | {"delisting_haircut": 0.3}
    env = pe.PortfolioEnv(market, **options(costs=costs, execution=execution))
    result = backtest(RandomWeights(), env)
    assert len(result.costs) == (result.timestamps[-1] - result.timestamps[0]).astype(
        "m8[D]"
    ).astype(int)
    assert result.trades.sum(axis=1) == pytest.approx(-result.costs)
    assert (result.costs > 0).all()
    traded = np.abs(result.trades[:, 1:]).sum(axis=1)
    rate = np.where(result.trades[:, 1:] > 0, 0.002, 0.005)
    assert (rate * np.abs(result.trades[:, 1:])).sum(axis=1) == pytest.approx(result.costs)
    wealth = traded / result.turnovers  # what the env says it traded, as a fraction of this
    if execution == "close":
        assert wealth == pytest.approx(result.values[:-1])
        money = result.values[:-1, None] * result.drifted
        assert money + result.trades == pytest.approx(
            (wealth - result.costs)[:, None] * result.held
        )
    gone = np.flatnonzero(result.timestamps == np.datetime64("2020-02-09"))[0]
    assert (result.drifted[gone + 1 :, 2] == 0).all()
    assert (result.trades[gone + 1 :, 2] == 0).all()


def test_values_follow_from_the_holdings():
    """Plain arithmetic over the recorded holdings gives the recorded values."""
    result = backtest(RandomWeights(), pe.PortfolioEnv(MARKET, **options()))
    prices = MARKET.close[[MARKET.row(when) for when in result.timestamps]]
    value = 10_000.0
    years = np.diff(result.timestamps) / np.timedelta64(36_525 * 864, "s")
    for k, held in enumerate(result.held):
        invested = value - result.costs[k]
        interest = invested * held[0] * 0.03 * years[k]
        assert result.carries[k] == pytest.approx(interest)
        value = invested * (held[0] + held[1:] @ (prices[k + 1] / prices[k])) + interest
        assert result.values[k + 1] == pytest.approx(value, rel=1e-12)
    assert result.log_returns.sum() == pytest.approx(np.log(value / 10_000), abs=1e-12)


def test_lanes_equal_single_environments():
    shared = options(random_start=True, universe=2)  # episodes of different assets and lengths
    lanes = pe.PortfolioVectorEnv(4, MARKET, autoreset_mode="Disabled", **shared)
    policy = RandomWeights(lanes=4, assets=2)
    results = backtest(policy, lanes, seed=11)
    assert len({len(result.costs) for result in results}) > 1
    assert policy.starts[0].all()
    assert not np.any(policy.starts[1:])
    for lane, result in enumerate(results):
        alone = RandomWeights(assets=2)
        alone.targets = policy.targets[:, lane : lane + 1]
        single = backtest(alone, pe.PortfolioEnv(MARKET, **shared), seed=11 + lane)
        assert result.assets == single.assets
        for name in ("timestamps", "values", "drifted", "held", "trades", "turnovers", "costs"):
            assert (getattr(result, name) == getattr(single, name)).all(), name


def test_through_gym_make_and_on_flat_observations():
    env = gym.make("portfolio_env:Portfolio-v0", market=MARKET, **options(observation="flat"))
    bare = pe.PortfolioEnv(MARKET, **options())
    assert (backtest(RandomWeights(), env).values == backtest(RandomWeights(), bare).values).all()


def test_refuses_what_would_mix_episodes_or_actions():
    with pytest.raises(ArgumentError, match='autoreset_mode="Disabled"'):
        backtest(RandomWeights(2), pe.PortfolioVectorEnv(2, MARKET, **options()))
    with pytest.raises(ArgumentError, match='action="weights"'):
        env = pe.PortfolioEnv(MARKET, **options(action="logits"))
        backtest(make_baseline("cash", MARKET), env)


def test_csv_round_trip(tmp_path):
    result = backtest(RandomWeights(), pe.PortfolioEnv(MARKET, **options()))
    result.to_csv(tmp_path / "new")
    account = pd.read_csv(tmp_path / "new" / "account.csv", parse_dates=["date"])
    assert (account["value"] == result.values).all()
    assert (account["date"] == result.timestamps).all()
    assert account["cost"][1:].to_numpy() == pytest.approx(result.costs)
    assert account["drawdown"].max() == pytest.approx(result.metrics()["max_drawdown"])
    holdings = pd.read_csv(tmp_path / "new" / "holdings.csv", parse_dates=["date"])
    wide = holdings.pivot(index="date", columns="asset", values="weight")
    assert (wide[["cash", *MARKET.assets]].to_numpy() == result.held).all()
    assert (holdings.groupby("date")["trade"].sum().to_numpy() <= 0).all()


def test_last_weights_are_what_a_longer_backtest_finds():
    rows = {"start": 30, "end": 60}
    short = backtest(RandomWeights(), pe.PortfolioEnv(MARKET, **options(**rows)))
    longer = backtest(RandomWeights(), pe.PortfolioEnv(MARKET, **options(**rows | {"end": 61})))
    assert (short.last_weights == longer.drifted[-1]).all()
    assert short.last_weights.sum() == pytest.approx(1)


def test_lanes_keep_the_last_weights_of_their_own_ends():
    shared = options(random_start=True, universe=2)
    lanes = pe.PortfolioVectorEnv(4, MARKET, autoreset_mode="Disabled", **shared)
    policy = RandomWeights(lanes=4, assets=2)
    for lane, result in enumerate(backtest(policy, lanes, seed=11)):
        alone = RandomWeights(assets=2)
        alone.targets = policy.targets[:, lane : lane + 1]
        single = backtest(alone, pe.PortfolioEnv(MARKET, **shared), seed=11 + lane)
        assert (result.last_weights == single.last_weights).all()


def test_parquet_round_trip(tmp_path):
    result = backtest(RandomWeights(), pe.PortfolioEnv(MARKET, **options()))
    result.to_parquet(tmp_path / "new")
    frames = {"account": result.account().reset_index(), "holdings": result.holdings()}
    for name, frame in frames.items():
        read = pd.read_parquet(tmp_path / "new" / f"{name}.parquet")
        pd.testing.assert_frame_equal(read, frame)


def test_frames_of_an_account_agree_with_its_arrays():
    rule = make_baseline("momentum", MARKET, lookback=10, every=7)
    result = backtest(rule, pe.PortfolioEnv(MARKET, **options()))
    account, log = result.account(), result.trade_log()
    assert account.index.equals(pd.DatetimeIndex(result.timestamps))
    np.testing.assert_allclose(account["value"].pct_change()[1:], account["return"][1:])
    dates = pd.DatetimeIndex(log["date"].unique())
    # rounding of what is held on is no trade
    assert dates.equals(account.index[:-1][result.turnovers > 0]) and len(dates) < len(account) / 5
    traded = np.zeros_like(result.trades)
    columns = [result.assets.index(name) + 1 for name in log["asset"]]
    traded[account.index.get_indexer(log["date"]), columns] = log["trade"]
    assert (traded[:, 1:] == result.trades[:, 1:]).all()


@pytest.mark.parametrize(
    ("limits", "refused"),
    [({}, True), ({"long_only": False}, True), ({"long_only": False, "max_leverage": 1.6}, False)],
)
@pytest.mark.parametrize("by", ["account", "model"])
def test_short_positions_and_leverage_that_are_refused_are_recorded(limits, refused, by):
    def spread(past):
        return {MARKET.assets[0]: 0.8, MARKET.assets[1]: -0.7}

    # the account cuts what the model may do, or the model itself what its function asks for
    own = {"long_only": False, "max_leverage": 1.6} if by == "account" else limits
    rule = make_baseline(spread, MARKET, constraints=pe.PortfolioConstraints(**own), every=5)
    result = backtest(rule, pe.PortfolioEnv(MARKET, **options(constraints=limits)))
    due = np.arange(MARKET.row(result.timestamps[0]), MARKET.row(result.timestamps[-1])) % 5 == 0
    due[0] = True  # out of cash at once
    assert (result.refused == (due & refused)).all()
    said = " ".join(remark_sentences(result))
    assert ("long_only=False, max_leverage=..." in said) == refused


def test_accounts_with_short_positions_are_not_called_cash():
    limits = {"long_only": False, "max_leverage": 2.0}
    rule = make_baseline(
        lambda past: {MARKET.assets[0]: 0.04, MARKET.assets[1]: -0.04},
        MARKET,
        constraints=pe.PortfolioConstraints(**limits),
    )
    result = backtest(rule, pe.PortfolioEnv(MARKET, **options(constraints=limits)))
    assert result.held[:, 0].mean() > 0.99
    assert "It was only 8 % invested on average." in remark_sentences(result)


def test_short_positions_alone_that_are_refused_are_said_of_an_account_of_cash():
    rule = make_baseline(
        lambda past: {MARKET.assets[0]: -0.5},
        MARKET,
        constraints=pe.PortfolioConstraints(long_only=False),
    )
    said = remark_sentences(backtest(rule, pe.PortfolioEnv(MARKET, **options())))
    assert said[0] == "It never invested." and "long_only=False" in said[1]


def test_orders_that_are_not_filled_are_no_refusals():
    limits = {"long_only": False}
    rule = make_baseline(
        "momentum", MARKET, lookback=10, constraints=pe.PortfolioConstraints(**limits)
    )
    trading = options(constraints=limits, fills={"failure": 0.6})
    assert not backtest(rule, pe.PortfolioEnv(MARKET, **trading)).refused.any()
