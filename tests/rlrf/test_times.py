from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.errors import DataError
from rlrf.times import moment

MOMENT = datetime(2026, 11, 24, 2, 0, 5, tzinfo=UTC)

moments = st.datetimes(datetime(1973, 6, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-24T02:00:05Z",
        "2026-11-24T03:00:05+01:00",
        " 2026-11-24 02:00:05 ",
        MOMENT,
        MOMENT.replace(tzinfo=None),
        MOMENT.astimezone(timezone(timedelta(hours=-8))),
        MOMENT.timestamp(),
        int(MOMENT.timestamp() * 1000),
        int(MOMENT.timestamp()) * 10**9,
        str(int(MOMENT.timestamp())),
    ],
)
def test_one_moment_in_many_ways(value: Any) -> None:
    assert moment(value, "here") == MOMENT
    assert moment(value, "here").tzinfo is UTC


@given(moments)
def test_every_unit_of_a_number_is_told_by_its_size(when: datetime) -> None:
    when = when.replace(microsecond=0)
    seconds = int(when.timestamp())
    assert {moment(seconds * unit, "here") for unit in (1, 10**3, 10**6, 10**9)} == {when}


@given(moments, st.integers(-12 * 60, 12 * 60))
def test_iso_text_comes_back_as_it_was_written(when: datetime, minutes: int) -> None:
    assert moment(when.astimezone(timezone(timedelta(minutes=minutes))).isoformat(), "here") == when


def test_a_date_is_its_first_moment() -> None:
    assert moment(date(2026, 11, 24), "here") == moment("2026-11-24", "here") == datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    "value", [None, True, "", "yesterday", [], float("nan"), float("inf"), -5, "9999-01-01", 1e300]
)
def test_what_is_no_time_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(DataError, match=r"line 3, column 't' is .*"):
        moment(value, "log.jsonl, line 3, column 't'")
