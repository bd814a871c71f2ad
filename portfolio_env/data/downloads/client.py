"""Client of one exchange that retries failed requests for candles."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from portfolio_env.checks import check_integer
from portfolio_env.data.downloads.store import Times
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.market.panel import FloatArray
from portfolio_env.names import unknown

T = TypeVar("T")

_LONGEST_WAIT = 600.0  # seconds; longer waits end the download
_USUAL_LIMIT = 100  # candles per answer if ccxt does not state them


@dataclass(frozen=True)
class Retry:
    """Number and delays of the repetitions of a failed request.

    The k-th repetition waits ``base * 2**k`` seconds, at most ``cap``, times a random factor in
    [0.5, 1); longer if the exchange says so (Retry-After).

    Attributes:
        attempts: Requests in all before giving up.
        base: Seconds.
        cap: Seconds.
        sleep: Waits for some seconds.
        random: Gives a number in [0, 1).

    Raises:
        ArgumentError: For values out of range.
    """

    attempts: int = 6
    base: float = 1.0
    cap: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        """Check the values."""
        check_integer("attempts", self.attempts)
        if not 0 <= self.base <= self.cap:
            raise ArgumentError(f"base {self.base} is not within [0, cap={self.cap}]: lower it")

    def seconds(self, repetition: int, asked: float = 0.0) -> float:
        """Return the seconds to wait before a repetition, counted from 0."""
        backoff = min(self.cap, self.base * 2.0 ** min(repetition, 60))
        return max(backoff * (0.5 + 0.5 * self.random()), asked)


@dataclass(frozen=True)
class CandleBatch:
    """Candles as the exchange sent them: in its order, with repetitions.

    Attributes:
        times: (n,) when candles open, ms.
        bars: (n, 5) open, high, low, close, volume.
        lacking: When candles open that are left out because they lack a number, ms.
        without_volume: Number of those that lack only their volume.
    """

    times: Times
    bars: FloatArray
    lacking: Times
    without_volume: int = 0

    @property
    def disorder(self) -> int:
        """Return how many candles follow one on the wrong side; newest first is an order."""
        steps = np.diff(self.times)
        return int(min((steps < 0).sum(), (steps > 0).sum()))


class Client:
    """Client that downloads candles from one exchange.

    Args:
        exchange: An exchange of ccxt; its rate limiter keeps to the exchange's limits.
        retry: Repetition of failed requests.

    Attributes:
        retries: Requests that were repeated so far.
    """

    def __init__(self, exchange: Any, retry: Retry) -> None:
        self.exchange = exchange
        self.retry = retry
        self.retries = 0
        self.name = str(exchange.id)

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Within this context the markets are loaded, and broken answers raise an error.

        Raises:
            DataError: If the exchange does not answer.
        """
        with candid(self.exchange):
            self.ask(self.exchange.load_markets)
            yield

    def check(self, symbol: str) -> None:
        """Reject a symbol that the exchange does not have.

        Raises:
            ArgumentError: With its near matches.
        """
        if symbol not in self.exchange.markets:
            raise unknown(f"symbol of {self.name}", symbol, sorted(self.exchange.markets))

    def now(self) -> int:
        """Return the exchange's time where it states it, else this computer's; ms."""
        if self.exchange.has.get("fetchTime"):
            served = self.ask(self.exchange.fetch_time)
            if served is not None:
                return int(served)
        return int(time.time() * 1000)

    def limit(self, symbol: str) -> int | None:
        """Return the most candles that one answer holds, if known."""
        found = self.exchange.feature_value(symbol, "fetchOHLCV", "limit")
        return None if found is None else int(found)

    def window(self, symbol: str) -> int:
        """Return the number of candles that an empty answer can cover."""
        return self.limit(symbol) or _USUAL_LIMIT

    def candles(
        self, symbol: str, timeframe: str, since: int, count: int | None = None
    ) -> CandleBatch:
        """Return one page of candles.

        Args:
            symbol: One of the exchange's.
            timeframe: One of the exchange's.
            since: When the first one opens, ms.
            count: Number of candles wanted; more may come, or fewer.
        """
        limit = self.limit(symbol)
        if limit is not None and count is not None:
            limit = min(limit, count)
        rows = self.ask(lambda: self.exchange.fetch_ohlcv(symbol, timeframe, since, limit))
        dated = [row[:6] for row in rows if row[0] is not None]
        table = np.array(dated, np.float64).reshape(-1, 6)  # None becomes NaN
        finite = np.isfinite(table)
        whole = finite.all(axis=1)
        times = np.array([row[0] for row in dated], np.int64)
        idle = int((~whole & finite[:, :5].all(axis=1)).sum())
        return CandleBatch(times[whole], table[whole, 1:], times[~whole], idle)

    def wait(self, repetition: int, asked: float = 0.0) -> None:
        """Wait before a request is made again."""
        self.retries += 1
        self.retry.sleep(self.retry.seconds(repetition, asked))

    def ask(self, request: Callable[[], T]) -> T:
        """Make a request, repeated after failures.

        Raises:
            DataError: If the exchange refuses it, or does not answer.
        """
        import ccxt

        for repetition in range(self.retry.attempts):
            try:
                return request()
            except ccxt.OperationFailed as error:
                failure = error
                asked = self._asked_to_wait(error)
                if repetition + 1 < self.retry.attempts and asked <= _LONGEST_WAIT:
                    self.wait(repetition, asked)
                    continue
            except ccxt.BaseError as error:
                raise DataError(f"{self.name} refuses: {_text(error)}") from error
            break
        raise DataError(
            f"{self.name} gave no good answer to {repetition + 1} requests; the last time: "
            f"{_text(failure)}; what came before is kept, run again later to continue"
        ) from failure

    def _asked_to_wait(self, error: Exception) -> float:
        """Return the seconds of Retry-After, if the exchange complains about too many requests."""
        import ccxt

        headers = self.exchange.last_response_headers or {}
        if not isinstance(error, ccxt.RateLimitExceeded | ccxt.DDoSProtection):
            return 0.0
        text = str(headers.get("Retry-After", "")).strip()
        return float(text) if text.isdecimal() else 0.0


def _text(error: Exception) -> str:
    """Return an error of ccxt in one line, without a whole page of HTML."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:300]}..."


@contextmanager
def candid(exchange: Any) -> Iterator[None]:
    """Stop a ccxt exchange from tidying candles, and from taking a broken answer for an empty one.

    ccxt gives the text of an answer that is not JSON in place of its content, in which most
    exchanges' classes then find no candles; and it sorts and cuts the candles, which hides that
    they came in disorder.
    """
    import ccxt

    own_check = exchange.handle_errors

    def handle_errors(code: int, reason: str, url: str, method: str, *rest: Any) -> Any:
        _, body, content, *_ = rest
        asked = f"{exchange.id} {method} {url}"
        said = f"{asked} {code} {reason} {body}"
        if code == 429:
            raise ccxt.RateLimitExceeded(said)
        if code == 451:
            raise ccxt.RestrictedLocation(f"{said}; it does not serve this place: use another one")
        if code >= 500:
            raise ccxt.ExchangeNotAvailable(said)
        if code < 400 and content is None:
            raise ccxt.BadResponse(f"{asked}: the answer is cut off or no JSON")
        return own_check(code, reason, url, method, *rest)

    def parse_ohlcvs(candles: Any, market: Any = None, *_: Any, **__: Any) -> list[Any]:
        return [exchange.parse_ohlcv(candle, market) for candle in candles or ()]

    replaced: dict[str, Any] = {"handle_errors": handle_errors}
    if type(exchange).parse_ohlcvs is ccxt.Exchange.parse_ohlcvs:
        replaced["parse_ohlcvs"] = parse_ohlcvs
    before = {name: vars(exchange)[name] for name in replaced if name in vars(exchange)}
    vars(exchange).update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del vars(exchange)[name]
        vars(exchange).update(before)
