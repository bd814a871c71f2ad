"""The command: a session on an exchange on this machine, or simulated at its public prices."""

import json
from decimal import Decimal

import numpy as np
import pytest
from helpers.exchange_dialects import SYMBOLS
from helpers.venue.book import Venue
from helpers.venue.dialects import rules
from test_exchange_day import HOUR, START, Served, market_of, walk

from baselines import make_baseline
from portfolio_env import PortfolioEnv
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json, write_json
from portfolio_env.live import AccountOptions, Predictor
from portfolio_env.paper import Ledger
from portfolio_env.paper.exchange.command import KEY, SECRET, PaperOptions, paper

ASSETS = SYMBOLS["binance"]
CAPITAL = AccountOptions(capital=10_000.0)


@pytest.fixture
def venue(server, tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "key")
    monkeypatch.setenv(SECRET, "c2VjcmV0")
    server.formula, server.now = walk, START
    funds = {"USDT": Decimal(10_000)}
    found = server.venues["binance"] = Venue(tmp_path / "v.db", server, rules("binance"), funds)
    yield found
    found.close()


def predictor():
    env = PortfolioEnv(market_of(ASSETS), observation="index", action="weights", window=1)
    return Predictor(make_baseline("inverse_volatility", env.market, every=1, lookback=6), env)


def called(server, tmp_path, clock, account=AccountOptions(), **options):  # noqa: B008
    given = {"session": tmp_path / "session", "exchange": "binance", "once": True}
    return paper(
        predictor(), account, PaperOptions(**(given | options)), name="inverse", clock=clock
    )


def test_once_an_hour_at_an_exchange_on_this_machine(server, venue, tmp_path):
    clock, address = Served(server), f"{server.base}/binance"
    assert called(server, tmp_path, clock, address=address).startswith("No bar has closed yet")
    for hour in range(1, 4):  # another process each time
        clock.set(np.datetime64(START + hour * HOUR + 12_000, "ms"))
        clock.sleep(np.timedelta64(0, "s"))
        told = called(server, tmp_path, clock, address=address)
        assert told.startswith("Bar 2024-01-05") and ": done; the account is worth" in told
    ledger = Ledger.of(tmp_path / "session", read_only=True)
    assert ledger.query("SELECT count(*) FROM decisions")[0][0] == 3
    assert ledger.all_units()[""] == venue.money()["USDT"]
    assert len(ledger.fills()) == len(venue.trades())
    assert "c2VjcmV0" not in (tmp_path / "session" / "ledger.db").read_bytes().decode("latin1")
    ledger.close()
    assert json.loads((tmp_path / "session" / "pulse.json").read_text())["at"]


def hourly(server, tmp_path, clock, hour):
    clock.set(np.datetime64(START + hour * HOUR + 12_000, "ms"))
    clock.sleep(np.timedelta64(0, "s"))
    return called(server, tmp_path, clock, address=f"{server.base}/binance")


def test_trades_by_hand_are_booked_and_money_from_nowhere_halts(server, venue, tmp_path):
    clock = Served(server)
    assert ": done;" in hourly(server, tmp_path, clock, 1)
    hand = {"client": "by-hand", "symbol": "BTC/USDT", "side": "sell", "units": "1", "price": None}
    venue.place(hand | {"keeps": False})
    assert ": done;" in hourly(server, tmp_path, clock, 2)
    venue.file.execute("UPDATE money SET units = units + 1 WHERE code = 'USDT'")
    assert "holdings differ and nothing explains it" in hourly(server, tmp_path, clock, 3)
    sent = len(server.orders_asked)
    assert "halted" in hourly(server, tmp_path, clock, 4) and len(server.orders_asked) == sent


def test_a_simulated_venue_at_public_prices(server, venue, tmp_path, redirected):
    clock = Served(server)
    for hour in range(1, 4):
        clock.set(np.datetime64(START + hour * HOUR + 12_000, "ms"))
        clock.sleep(np.timedelta64(0, "s"))
        told = called(server, tmp_path, clock, CAPITAL)
        assert ": done;" in told
    assert list(tmp_path.rglob("status.html"))
    assert not server.orders_asked and not venue.orders()  # no order left


@pytest.mark.parametrize(
    ("account", "options", "words"),
    [
        (CAPITAL, {"session": None}, "needs --session DIR"),
        (CAPITAL, {"address": "x"}, "leave out --capital"),
        (AccountOptions(), {}, "--capital 10000, in cash"),
        (CAPITAL, {"webhook": "https://example.com"}, "webhook"),
        (AccountOptions(), {"address": "https://api.binance.com"}, "there is no switch"),
        (CAPITAL, {"quorum": 0.0}, "quorum"),
    ],
)
def test_wrong_options_are_told(server, venue, tmp_path, redirected, account, options, words):
    with pytest.raises(ArgumentError, match=words):
        called(server, tmp_path, Served(server), account, **options)


def test_a_folder_of_another_session_is_refused(server, venue, tmp_path, redirected):
    called(server, tmp_path, Served(server), CAPITAL)
    identity = tmp_path / "session" / "session.json"
    write_json(identity, read_json(identity) | {"strategy": "other"})
    with pytest.raises(DataError, match="is of strategy 'other', and this is 'inverse'"):
        called(server, tmp_path, Served(server), CAPITAL)


def test_a_session_says_each_bar_at_its_end(server, venue, tmp_path):
    """A log is read while the session goes on; it is stopped here at the second bar."""
    heard = []

    def say(text):
        heard.append(text)
        if len(heard) == 3:
            raise KeyboardInterrupt

    options = PaperOptions(tmp_path / "session", "binance", address=f"{server.base}/binance")
    clock = Served(server)
    ended = paper(predictor(), AccountOptions(), options, name="inverse", clock=clock, say=say)
    assert ended == heard[2] != heard[1]
    assert heard[0].startswith(f"inverse trades {len(ASSETS)} assets at binance until Ctrl-C: ")
    assert all(": done; the account is worth" in text for text in heard[1:])
