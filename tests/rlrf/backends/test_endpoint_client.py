"""How long a client waits before it asks again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint_client import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, pause_seconds, wait_seconds


@given(st.integers(0, 10_000), st.none() | st.floats(0, 1e9))
def test_pauses_are_bounded(tries: int, retry_after: float | None) -> None:
    pause = pause_seconds(tries, retry_after)
    shortest = FIRST_PAUSE_SECONDS / 2 if retry_after is None else min(retry_after, LONGEST_PAUSE_SECONDS)
    assert shortest <= pause <= LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0.5", 0.5), (" 2 ", 2.0), ("-3", 0.0), ("soon", None), ("inf", None), ("nan", None), ("", None)],
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert wait_seconds(value) == seconds


def test_retry_after_as_a_date() -> None:
    wait = wait_seconds(formatdate(time.time() + 30, usegmt=True))
    assert wait is not None
    assert 28 < wait <= 30
