from __future__ import annotations

import threading
import time

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.outbox import REQUEST_SECONDS, WAITING, Outbox, is_watched


def test_what_is_put_in_is_sent_in_order_by_another_thread() -> None:
    box, sent = Outbox(), list[tuple[int, int]]()
    for number in range(5):
        box.put(number, lambda number=number: sent.append((number, threading.get_ident())))
    assert box.flush()
    assert [number for number, _ in sent] == list(range(5))
    assert threading.get_ident() not in {thread for _, thread in sent}


def test_nobody_waits_for_a_server_that_hangs_and_the_latest_counts() -> None:
    box, release, sent = Outbox(), threading.Event(), list[str]()
    box.put("hangs", release.wait)
    began = time.monotonic()
    for number in range(3 * WAITING):
        box.put("progress", lambda number=number: sent.append(f"progress {number}"))
        box.put(number, lambda: None)
    assert time.monotonic() - began < 1
    assert not box.flush(0.1), "it hangs still"
    box.put("progress", lambda: sent.append("the last"))
    release.set()
    assert box.flush()
    assert sent == ["the last"], "what could not be sent in time was left out"


def test_trouble_is_said_once_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ConnectionError("no\x1b[31m route")

    box = Outbox()
    for job in (fail, fail, lambda: None, fail):
        box.put(object(), job)
    assert box.flush()
    said = capsys.readouterr().err.splitlines()
    assert said == ["  Prefect's UI misses an artifact (ConnectionError: no\\x1b[31m route); the run goes on"] * 2


def test_a_job_has_its_callers_settings_and_little_patience() -> None:
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT

    box, seen = Outbox(), list[object]()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert is_watched()
        for setting in (PREFECT_API_URL, PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES):
            box.put(setting.name, lambda setting=setting: seen.append(setting.value()))
    assert box.flush()
    assert seen == ["http://127.0.0.1:9/api", REQUEST_SECONDS, 0]


def test_the_temporary_server_is_watched_by_nobody() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert not is_watched()
