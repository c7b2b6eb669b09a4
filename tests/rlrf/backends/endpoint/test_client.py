"""How long a client waits before it asks again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint.client import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, pause_seconds, wait_seconds


@given(st.integers(0, 10_000))
def test_pauses_are_bounded(tries: int) -> None:
    assert FIRST_PAUSE_SECONDS / 2 <= pause_seconds(tries) <= LONGEST_PAUSE_SECONDS


@given(st.integers(0, 10_000), st.floats(0, 1e9))
def test_a_server_is_left_alone_for_as_long_as_it_asks(tries: int, retry_after: float) -> None:
    assert retry_after <= pause_seconds(tries, retry_after) <= 1.1 * retry_after


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
