"""Times on the clocks of exchanges: days stamped with midnight there, hours that come twice."""

from __future__ import annotations

import numpy as np
import pandas as pd

from portfolio_env.market.timeline import Timestamps

_ZONES = (
    "America/New_York", "America/Chicago", "America/Sao_Paulo", "America/Mexico_City",
    "America/Santiago", "America/Halifax", "Europe/London", "Europe/Berlin", "Europe/Helsinki",
    "Europe/Moscow", "Africa/Johannesburg", "Asia/Jerusalem", "Asia/Dubai", "Asia/Kolkata",
    "Asia/Bangkok", "Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney", "Australia/Brisbane",
    "Pacific/Auckland",
)  # fmt: skip
"""The clocks of the world's larger exchanges."""


def exchange_days(times: Timestamps) -> tuple[Timestamps, bool]:
    """Return the dates of one asset's days, if its instants are midnight on an exchange's clock.

    That is believed of daily bars at 00:00 in one of ``_ZONES``, if their time in UTC changes with
    the clocks, or if their dates there are business days or first days of months only.

    Args:
        times: (T,) sorted, in UTC.

    Returns:
        The dates and True; the times as they are and False where they are something else.
    """
    of_day = times - times.astype("datetime64[D]")
    if len(times) < 2 or not of_day.any() or len(np.unique(of_day)) > 2:
        return times, False
    if (np.diff(times) < np.timedelta64(23, "h")).any():
        return times, False
    instants = pd.DatetimeIndex(times, tz="UTC")
    found = None
    for zone in _ZONES:
        local = instants.tz_convert(zone).tz_localize(None)
        if (local == local.normalize()).all():
            days: Timestamps = local.to_numpy("datetime64[ns]")
            if found is not None and (found != days).any():
                return times, False
            found = days
    if found is None:
        return times, False
    weekdays_only = bool(np.is_busday(found.astype("datetime64[D]")).all()) and len(found) >= 5
    months = len(found) > 2 and begin_months(found)
    if len(np.unique(of_day)) == 1 and not weekdays_only and not months:
        return times, False
    return found, True


def begin_months(times: Timestamps) -> bool:
    """Return whether all times are first instants of months."""
    return bool((times == times.astype("datetime64[M]")).all())


def utc_hint(times: Timestamps) -> str:
    """Return the end of a fix for times that are there twice, if clocks may be the reason.

    Args:
        times: (T,) without a zone; an hour that comes twice where clocks go back, in one of
            ``_ZONES``, is seen.
    """
    naive = pd.DatetimeIndex(times)
    for zone in _ZONES:
        local = naive.tz_localize(zone, ambiguous="NaT", nonexistent="shift_forward")
        if local.isna().any():
            return f", or write times in UTC if this is the hour that comes twice in {zone}"
    return ""
