"""Rows between two threads: in batches, in time, and never more than the caller can take."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from rlrf.backends.endpoint.results import Results
from rlrf.records import Failure
from tests.rlrf.backends.endpoint.endpoints import SAMPLING, ask, endpoint
from tests.rlrf.backends.endpoint.misbehaving_server import MisbehavingServer


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield running
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


def rows(count: int) -> list[Failure]:
    return [Failure(str(i), "", "") for i in range(count)]


def test_every_row_comes_out_once_and_in_order(loop: asyncio.AbstractEventLoop) -> None:
    results, given = Results(loop, 7, 60.0), rows(50)
    for row in given:
        loop.call_soon_threadsafe(results.add, [row])
    loop.call_soon_threadsafe(results.close)
    batches = list(results.batches())
    assert [row for batch in batches for row in batch] == given
    assert all(len(batch) == 7 for batch in batches[:-1])


def test_a_row_waits_for_the_flush_time_at_most(loop: asyncio.AbstractEventLoop) -> None:
    results, started = Results(loop, 1000, 0.2), time.monotonic()
    loop.call_soon_threadsafe(results.add, rows(3))
    assert len(next(results.batches())) == 3
    assert 0.19 <= time.monotonic() - started < 2.0


def test_no_rows_end_at_once(loop: asyncio.AbstractEventLoop) -> None:
    results = Results(loop, 7, 60.0)
    loop.call_soon_threadsafe(results.close)
    assert list(results.batches()) == []


def test_the_asking_side_waits_for_a_slow_caller(loop: asyncio.AbstractEventLoop) -> None:
    results = Results(loop, 2, 60.0)
    loop.call_soon_threadsafe(results.add, rows(4))
    waiting = asyncio.run_coroutine_threadsafe(results.taken(), loop)
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()  # it waits by then
    batches = results.batches()
    assert len(next(batches)) == 2
    with pytest.raises(TimeoutError):  # it has the rows, and may not have stored them
        waiting.result(0.05)
    assert results.pending == 4
    assert len(next(batches)) == 2
    waiting.result(2)
    assert results.pending == 2


def test_a_slow_caller_lets_no_more_than_a_window_be_lost() -> None:
    """No more than a window of responses is asked for beyond what the caller has stored; a kill costs no more."""
    with MisbehavingServer() as server:
        generator = endpoint(
            server, concurrency=4, choices_per_request=8, batch_rows=16, backlog=0, request_timeout=5.0
        )
        stored, most = 0, 0
        for batch in generator.generate(ask(*(f"ok: {i}" for i in range(50)), n=8), SAMPLING):
            time.sleep(0.01)
            most = max(most, sum(body["n"] for body in server.bodies[1:]) - stored)  # the first asked whether it can
            stored += len(batch)
        assert stored == 400
        assert 16 < most <= 4 * 8


@pytest.mark.parametrize("n", [1, 3, 10])
def test_one_at_a_time_waits_for_no_flush(n: int) -> None:
    """What is under way may be a single group; then nothing comes before the caller has taken what there is."""
    with MisbehavingServer() as server:
        generator = endpoint(server, concurrency=1, choices_per_request=8, backlog=0, flush_seconds=60.0)
        started = time.monotonic()
        batches = list(generator.generate(ask(*(f"ok: {i}" for i in range(5)), n=n), SAMPLING))
    assert sum(map(len, batches)) == 5 * n
    assert time.monotonic() - started < 30.0


def test_a_slow_caller_is_no_silent_endpoint() -> None:
    """While nobody may ask, nobody answers: that is not the server's fault."""
    with MisbehavingServer() as server:
        messages = [f"{'429,' * (i == 0)}ok: {i}" for i in range(12)]
        generator = endpoint(server, concurrency=1, batch_rows=1, request_timeout=0.4)
        seen = []
        for batch in generator.generate(ask(*messages), SAMPLING):
            time.sleep(0.7 if len(seen) == 2 else 0.0)
            seen += batch
    assert len(seen) == 12
