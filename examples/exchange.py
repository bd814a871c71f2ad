"""Run an exchange on this machine, at whose drawn prices paper trading can be tried out.

python examples/exchange.py --folder runs/exchange

It speaks as Binance does, has an account of 10,000 USDT, and answers until Ctrl-C. It writes a file
of minute bars, and says what to type in another terminal. Nothing leaves this machine.
"""

import argparse
import math
import random
import shlex
import sys
import time
import zlib
from contextlib import suppress
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the exchange that the tests trade at

from helpers.exchange_dialects import SYMBOLS
from helpers.exchange_server import ExchangeServer
from helpers.venue.book import Venue
from helpers.venue.dialects import rules

MINUTE = 60_000  # milliseconds
BARS = 300  # of the file
FIELDS = ["open", "high", "low", "close", "volume"]


class Exchange(ExchangeServer):
    """Exchange that goes by the clock of this machine."""

    @property
    def now(self) -> int:
        """Return the time in milliseconds."""
        return time.time_ns() // 1_000_000

    @now.setter
    def now(self, value: int) -> None:  # by a reset, which the clock ignores
        pass


def price(symbol: str, minute: int) -> float:
    """Return the price when a minute begins: slow waves and noise, the same whenever asked."""
    seed = zlib.crc32(symbol.encode())
    waves = sum(0.02 * math.sin(minute / long + seed % 97) for long in (19.0, 71.0, 310.0))
    noise = random.Random(seed ^ minute).gauss(0, 0.001)
    return round(100 * math.exp(waves + noise), 2)


def candle(symbol: str, timeframe: str, opens: int) -> tuple[float, float, float, float, float]:
    """Return open, high, low, close and volume of the minute that opens at some milliseconds."""
    first, last = price(symbol, opens // MINUTE), price(symbol, opens // MINUTE + 1)
    return first, max(first, last), min(first, last), last, 1000.0


def bars(symbols: list[str], now: int) -> pd.DataFrame:
    """Return the minutes before a moment in milliseconds as a table."""
    last = now // MINUTE * MINUTE
    rows = [
        (np.datetime64(opens, "ms"), symbol, *candle(symbol, "1m", opens))
        for opens in range(last - BARS * MINUTE, last, MINUTE)
        for symbol in symbols
    ]
    return pd.DataFrame(rows, columns=["date", "symbol", *FIELDS])


def main() -> None:
    """Serve until Ctrl-C."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--folder", type=Path, default=Path("runs/exchange"), help="its files")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    symbols, data = list(SYMBOLS["binance"]), folder / "minutes.csv"
    with Exchange() as server, suppress(KeyboardInterrupt):
        server.formula = candle
        bars(symbols, server.now).to_csv(data, index=False)
        funds = {"USDT": Decimal(10_000)}
        server.venues["binance"] = Venue(
            folder / "venue.db", server, rules("binance"), funds, timeframe="1m"
        )
        trade = ["python", "trade.py", "paper", "--baseline", "inverse_volatility(every=1)"]
        trade += ["--data", str(data), "--exchange", "binance"]
        trade += ["--address", f"{server.base}/binance", "--session", str(folder / "session")]
        print(f"An exchange answers at {server.base}/binance until Ctrl-C. In another terminal:\n")
        print("export PORTFOLIO_ENV_API_KEY=key PORTFOLIO_ENV_API_SECRET=secret")
        print(shlex.join(trade), flush=True)
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
