"""When a row arrived: the many ways in which logs and tables write a moment."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from rlrf.errors import DataError

_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3), (0, 1))
"""From which size on a number counts nano-, micro- and milliseconds since 1970; smaller ones count seconds. The bounds lie in
the year 5138 of the coarser unit and in 1973 of the finer one."""


def moment(value: Any, place: str) -> datetime:
    """A moment in UTC: ISO 8601 text, seconds to nanoseconds since 1970 (numbers or digits), or a date; without a zone: UTC.

    Raises DataError that names the place and the value.
    """
    try:
        found = _moment(value)
    except (ValueError, OverflowError, OSError) as error:
        raise DataError(
            f"{place} is {value!r}, which is no time ({error}); write ISO 8601 or seconds since 1970"
        ) from None
    if not datetime(1970, 1, 1, tzinfo=UTC) <= found < datetime(2262, 1, 1, tzinfo=UTC):
        raise DataError(f"{place} is {value!r}, which is {found:%Y-%m-%d}; a time of arrival is from 1970 to 2261")
    return found


def _moment(value: Any) -> datetime:
    if isinstance(value, str) and value.strip().replace(".", "", 1).isdecimal():
        value = float(value) if "." in value else int(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError("not a number of seconds")
        unit = next(unit for least, unit in _UNITS if abs(value) >= least)
        microseconds = value * 10**6 // unit if isinstance(value, int) else round(value * 10**6 / unit)
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        raise ValueError(f"{type(value).__name__}")
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
