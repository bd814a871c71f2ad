"""Clocks: the present and waiting, passed in wherever time matters."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

SECOND = np.timedelta64(1_000_000_000, "ns")


class Clock(Protocol):
    """Clock protocol: the present in UTC, and a way to wait."""

    def now(self) -> np.datetime64:
        """Return the present, datetime64[ns] in UTC."""
        ...

    def sleep(self, duration: np.timedelta64) -> None:
        """Wait."""
        ...


class SystemClock:
    """Clock of the machine."""

    def now(self) -> np.datetime64:
        """Return the present."""
        return np.datetime64(time.time_ns(), "ns")

    def sleep(self, duration: np.timedelta64) -> None:
        """Wait."""
        time.sleep(max(0.0, float(duration / SECOND)))


class SimulatedClock:
    """Clock that stands still until it is set or waited for: waiting takes no time.

    Args:
        start: Its first present.
    """

    def __init__(self, start: np.datetime64) -> None:
        self._now = start.astype("datetime64[ns]")

    def now(self) -> np.datetime64:
        """Return the present."""
        return self._now

    def sleep(self, duration: np.timedelta64) -> None:
        """Go on by a duration."""
        self._now = self._now + max(duration, np.timedelta64(0, "ns"))

    def set(self, moment: np.datetime64) -> None:
        """Go on to a moment; one that has passed changes nothing."""
        self._now = max(self._now, moment.astype("datetime64[ns]"))
