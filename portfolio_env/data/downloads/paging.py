"""Paging: requests page after page of candles, until a range of time is complete.

Exchanges differ in what an answer to "candles since t, at most n" is: the next n there are
(Binance), those in the n candles' time after t, possibly none (Coinbase, KuCoin), or the last n
whatever t says (Kraken). What comes after an empty page is found with longer candles, of which few
cover years.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from portfolio_env.data.downloads.client import CandleBatch, Client
from portfolio_env.data.downloads.store import Range, Times, milliseconds, moment, uncovered
from portfolio_env.errors import DataError
from portfolio_env.market.panel import FloatArray
from portfolio_env.resampling import TIMEFRAMES

_DAY = 86_400_000
HORIZON = 30 * _DAY
"""For how long, in ms, what came without a number is asked for again."""


@dataclass(frozen=True)
class Page:
    """Some candles of the range, and the part of it that is now covered.

    Attributes:
        times: (n,) when candles open, ms, as they came.
        bars: (n, 5) open, high, low, close, volume.
        covered: The ranges of which nothing is left to download.
        reached: Everything before it has been asked for.
        withheld: A range in which there was trade, but no candle is given any more.
        disorder: Number of candles followed by one on the wrong side.
        incomplete: Candles left out because they lack a number.
        without_volume: Number of those that lack only their volume.
    """

    times: Times
    bars: FloatArray
    covered: tuple[Range, ...]
    reached: int
    withheld: Range | None = None
    disorder: int = 0
    incomplete: int = 0
    without_volume: int = 0


@dataclass(frozen=True)
class Pager:
    """Pages of the candles of one symbol.

    Attributes:
        client: The exchange.
        symbol: One of its symbols.
        timeframe: One of its timeframes.
    """

    client: Client
    symbol: str
    timeframe: str

    def pages(self, start: int, end: int) -> Iterator[Page]:
        """Yield the candles that open in [start, end), page by page.

        Absent candles are believed to be absent once a later one is there. An empty page is asked
        for twice, and once more when there are candles after it. Silence up to the end is not
        believed: it is left uncovered. So are candles that lack a number, if they open in the last
        ``HORIZON`` of the range: they may get it.

        Raises:
            DataError: If the exchange fails, or says that there was trade and gives no candles.
        """
        step = milliseconds(self.timeframe)
        cursor = since = start
        while cursor < end:
            answer, ahead = self._ask(cursor, end)
            if not len(ahead):
                self.client.wait(0)
                answer, ahead = self._ask(cursor, end)
            if not len(ahead):
                cursor = min(self._after_silence(cursor, end), end)
                yield Page(answer.times[:0], answer.bars[:0], (), cursor)
                continue
            first = int(ahead.min())
            if since < cursor and len(self._ask(since, first)[1]):
                cursor = since  # the empty page was wrong
                continue
            cursor = (int(ahead.max()) // step + 1) * step  # a few candles open off the clock
            seen = np.append(answer.times, answer.lacking)
            withheld = (since, first) if self._withholds(since, first, seen, end) else None
            inside = (answer.times >= start) & (answer.times < end)
            open_slots = answer.lacking[answer.lacking >= end - HORIZON]
            lacking = [(int(time), int(time) + step) for time in open_slots]
            yield Page(
                answer.times[inside],
                answer.bars[inside],
                tuple(uncovered(lacking, first if withheld else since, cursor)),
                cursor,
                withheld,
                answer.disorder,
                len(answer.lacking),
                answer.without_volume,
            )
            since = cursor

    def _ask(self, cursor: int, end: int) -> tuple[CandleBatch, Times]:
        """Return an answer, and the times of its candles in [cursor, end)."""
        count = -(-(end - cursor) // milliseconds(self.timeframe))
        answer = self.client.candles(self.symbol, self.timeframe, cursor, count)
        times = np.append(answer.times, answer.lacking)
        return answer, times[(times >= cursor) & (times < end)]

    def _after_silence(self, cursor: int, end: int) -> int:
        """Return where to continue after an empty page.

        Raises:
            DataError: If a longer candle at the cursor shows trade all the same.
        """
        position, candle = cursor, None
        for timeframe in self._sight():
            found = self._traded(timeframe, position, end)
            if found is None:
                break
            candle = found
            position = max(position, found[0])
        if candle is None:
            window = self.client.window(self.symbol) * milliseconds(self.timeframe)
            return cursor + window if not self._sight() else end
        if position > cursor:
            return position
        if candle[0] == cursor and candle[1] <= end:
            raise DataError(
                f"{self.client.name} gives no candles of {self.symbol} {self.timeframe} from "
                f"{moment(cursor)} to {moment(candle[1])}, but longer ones show trade: it may keep "
                "them for a limited time; ask for a later range or a longer timeframe"
            )
        return candle[1]

    def _sight(self) -> list[str]:
        """Return the longer timeframes, longest first, that show what follows an empty page."""
        wanted = ("1w",) if self.timeframe == "1d" else ("1d", "1h")
        return [name for name in self._longer() if name in wanted]

    def _longer(self) -> list[str]:
        """Return the exchange's timeframes that are longer than this one, longest first."""
        names = [name for name in reversed(TIMEFRAMES) if name != "1M"]
        longer = names[: names.index(self.timeframe)]
        return [name for name in longer if self.client.exchange.timeframes.get(name)]

    def _traded(self, timeframe: str, start: int, end: int) -> Range | None:
        """Return the span of the first candle with volume that ends after the start."""
        length = milliseconds(timeframe)
        cursor = start - start % min(length, _DAY) - max(0, length - _DAY)
        while cursor < end:
            answer = self.client.candles(self.symbol, timeframe, cursor)
            times = answer.times[(answer.times + length > start) & (answer.bars[:, 4] > 0)]
            if len(times):
                first = int(times.min())
                return (first, first + length) if first < end else None
            seen = int(answer.times.max()) if len(answer.times) else 0
            cursor = max(cursor + self.client.window(self.symbol) * length, seen + length)
        return None

    def _withholds(self, since: int, first: int, times: Times, end: int) -> bool:
        """Return whether candles before the first one given existed, but are no longer given.

        So it is with exchanges that give their newest candles whatever is asked for. Longer candles
        tell, if any fits twice; else an answer that is full and ends with the newest is taken for
        one of those.
        """
        gap, step = first - since, milliseconds(self.timeframe)
        if gap < step or int(times.max()) + step < end:
            return False
        fitting = [name for name in self._longer() if 2 * milliseconds(name) <= gap]
        if fitting:
            found = self._traded(fitting[0], since + milliseconds(fitting[0]) - 1, first)
            return found is not None and found[1] <= first
        return len(times) >= self.client.window(self.symbol) - 1
