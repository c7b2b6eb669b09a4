"""Several servers, servers that push back, servers that come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.backends.endpoint.server import Limit
from rlrf.engine_config import Client
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure
from tests.rlrf.backends.endpoint.endpoints import SAMPLING, answers, ask, collect, endpoint
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL, MisbehavingServer


@pytest.fixture
def servers() -> Iterator[tuple[MisbehavingServer, MisbehavingServer]]:
    with MisbehavingServer() as one, MisbehavingServer() as other:
        yield one, other


Two = tuple[MisbehavingServer, MisbehavingServer]


@given(st.integers(1, 100), st.lists(st.booleans(), max_size=300))
def test_a_limit_stays_between_one_and_its_most(most: int, pushed_back: list[bool]) -> None:
    limit, clock = Limit(most), count()
    for push_back in pushed_back:
        before, now = limit.value, float(next(clock))
        if push_back:
            assert limit.cut(now, now)
            assert limit.value < before or limit.value == 1
        else:
            limit.grow()
            assert limit.value > before or limit.value == most
        assert 1 <= limit.value <= most


def test_a_limit_is_cut_once_per_round_trip() -> None:
    limit = Limit(64)
    assert limit.cut(sent_at=1.0, now=2.0)
    once = limit.value
    assert not any(limit.cut(sent_at=sent_at, now=3.0) for sent_at in (0.5, 1.5, 1.9))
    assert limit.value == once
    assert limit.cut(sent_at=2.5, now=4.0)


def test_a_limit_grows_by_one_per_round_trip() -> None:
    limit = Limit(64)
    limit.cut(0.0, 0.0)
    before = limit.value
    for _ in range(int(before)):
        limit.grow()
    assert before + 0.9 < limit.value <= before + 1


def test_a_limit_soon_has_half_of_what_it_had() -> None:
    limit = Limit(64)
    limit.restart()
    assert limit.value == 1
    for _ in range(31):
        limit.grow()
    assert limit.value == 32
    limit.grow()
    assert limit.value < 32.1


def test_requests_are_spread_over_the_servers(servers: Two) -> None:
    results = answers(endpoint(*servers, concurrency=4), ask(*(f"slow: {i}" for i in range(24))))
    assert all(isinstance(result, Completion) for result in results)
    assert [server.asked.total() for server in servers] == [12, 12]
    assert [server.most_in_flight for server in servers] == [4, 4]


@pytest.mark.parametrize("which", [0, 1])
def test_the_others_take_over_from_one_that_dies(servers: Two, which: int) -> None:
    servers[which].die_after_answers = 10
    results = answers(endpoint(*servers, request_timeout=10.0), ask(*(f"ok: {i}" for i in range(300)), n=2))
    assert all(isinstance(result, Completion) for result in results)
    assert servers[1 - which].asked.total() >= 280


def test_one_that_comes_back_is_asked_again(servers: Two) -> None:
    one, other = servers
    one.die()
    timer = threading.Timer(0.5, one.listen)
    timer.start()
    results = answers(endpoint(*servers, concurrency=2), ask(*(f"slow: {i}" for i in range(24))))
    timer.join()
    assert all(isinstance(result, Completion) for result in results)
    assert one.asked.total() > 0 < other.asked.total()


def test_one_that_is_not_there_at_first_holds_nobody_up(servers: Two) -> None:
    servers[0].die()
    started = time.monotonic()
    results = answers(endpoint(*servers, retries=5), ask("ok: a", "ok: b"))
    assert all(isinstance(result, Completion) for result in results)
    assert time.monotonic() - started < 2.0


def test_only_when_all_are_gone_is_it_an_error(servers: Two) -> None:
    for server in servers:
        server.die_after_answers = 20
    seen: list[Completion | Failure] = []
    with pytest.raises(BackendError, match=r"endpoints 'http.*', 'http.*' unreachable for \d s after \d+ answers"):
        collect(
            endpoint(*servers, request_timeout=0.6).generate(ask(*(f"ok: {i}" for i in range(200))), SAMPLING), seen
        )
    assert len({row.request_id for row in seen}) == len(seen) >= 40 - 16


def test_all_that_were_never_there(servers: Two) -> None:
    for server in servers:
        server.die()
    with pytest.raises(BackendError, match="endpoints .* unreachable in 2 tries"):
        answers(endpoint(*servers), ask("ok: a"))


def test_one_that_serves_another_model_is_an_error_at_once(servers: Two) -> None:
    servers[1].models = ("other",)
    with pytest.raises(BackendError, match=f"{servers[1].base_url}' does not serve"):
        answers(endpoint(*servers), ask("slow: a"))


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_one_that_comes_back_with_another_model_is_left_out(servers: Two, seconds: float) -> None:
    one, other = servers

    def come_back() -> None:
        one.die()
        one.models = ("other",)
        time.sleep(seconds)
        one.listen()

    timer = threading.Timer(0.5, come_back)
    timer.start()
    results = answers(endpoint(*servers, concurrency=1), ask(*(f"slow: {i}" for i in range(8))))
    timer.join()
    assert all(isinstance(result, Completion) for result in results)
    assert 0 < one.asked.total() < 5 < other.asked.total()


def test_one_that_refuses_the_key_later_is_left_out(servers: Two) -> None:
    """A configuration error in the middle ends the run only where nobody else is left."""
    one, other = servers
    one.always = "401"
    results = answers(endpoint(*servers), ask(*(f"ok: {i}" for i in range(30))))
    assert all(isinstance(result, Completion) for result in results)
    assert one.asked.total() <= 8
    other.always = "403"
    with pytest.raises(BackendError, match="status 40[13]"):
        answers(endpoint(*servers), ask(*(f"ok: {i}" for i in range(30))))


def test_a_server_that_fails_everything_is_no_black_hole(servers: Two) -> None:
    """It is free all the time, and would draw every request."""
    servers[0].always = "500"
    results = answers(endpoint(*servers, concurrency=4, retries=4), ask(*(f"ok: {i}" for i in range(60))))
    assert all(isinstance(result, Completion) for result in results)
    assert servers[0].asked.total() < 60


def test_a_server_that_cannot_group_spoils_no_groups_of_another() -> None:
    with MisbehavingServer(tells_tokens=False) as one, MisbehavingServer() as other:
        results = answers(endpoint(one, other, concurrency=2), ask(*(f"slow: {i}" for i in range(8)), n=4))
        assert all(isinstance(result, Completion) for result in results)
        assert {body["n"] for body in one.bodies} == {1}
        assert max(body["n"] for body in other.bodies) == 4


def test_retry_after_holds_the_whole_server() -> None:
    with MisbehavingServer() as server:
        server.retry_after = "0.7"
        messages = ["429,ok: first", *(f"ok: {i}" for i in range(20))]
        started = time.monotonic()
        with closing(endpoint(server, concurrency=1, batch_rows=1).generate(ask(*messages), SAMPLING)) as batches:
            next(batches)
            assert time.monotonic() - started >= 0.7
        assert server.asked.total() <= 4


def test_fewer_at_once_for_a_server_that_pushes_back() -> None:
    """It refuses the seventh of eight: soon fewer are in flight, and nobody is refused any more."""
    with MisbehavingServer() as server:
        server.most_at_once, server.retry_after = 4, "0.05"
        results = answers(endpoint(server, concurrency=16, retries=0), ask(*(f"slow: {i}" for i in range(40))))
        assert all(isinstance(result, Completion) for result in results)
        assert server.asked.total() < 40 + 30


def test_a_stage_that_takes_too_long_says_how_far_it_came() -> None:
    with MisbehavingServer() as server:
        seen: list[Completion | Failure] = []
        generator = endpoint(server, concurrency=2, stage_timeout=1.0, request_timeout=60.0, flush_seconds=60.0)
        messages = ["ok: a", "ok: b", "hang: c", "hang: d", "ok: e"]
        with pytest.raises(BackendError, match=r"answered 2 of 5 requests in 1 s; stage_timeout is 1.0 s: raise it"):
            collect(generator.generate(ask(*messages), SAMPLING), seen)
    assert [row.request_id for row in seen] == ["id 0", "id 1"]


def test_a_process_known_to_be_dead_is_an_error_at_once() -> None:
    dead = threading.Event()
    with MisbehavingServer() as server:
        generator = EndpointGenerator(
            server.base_url,
            MODEL,
            Client(),
            batch_rows=1,
            gone=lambda: "vLLM ended with code 9" if dead.is_set() else None,
        )
        batches = generator.generate(ask("ok: a", "hang: b"), SAMPLING)
        assert len(next(batches)) == 1
        dead.set()
        started = time.monotonic()
        with pytest.raises(BackendError, match="^vLLM ended with code 9$"):
            next(batches)
        assert time.monotonic() - started < 2.0


def test_idle_workers_wait_for_nobody() -> None:
    """When every request is answered the run is over, though the server died with the last one."""
    with MisbehavingServer() as server:
        server.most_at_once, server.retry_after, server.die_after_answers = 1, "0.05", 12
        generator = endpoint(server, concurrency=6, request_timeout=5.0)
        results = answers(generator, ask(*(f"ok: {i}" for i in range(12))))
    assert all(isinstance(result, Completion) for result in results)
