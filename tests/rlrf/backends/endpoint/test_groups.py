"""Requests for the same chat go out together, and come back as they would alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint.groups import Todo, any_group, goes_on
from rlrf.records import Completion, Failure, Request, Sampling
from tests.rlrf.backends.endpoint.bent_answers import answer_text, token_count
from tests.rlrf.backends.endpoint.endpoints import SAMPLING, answers, ask, endpoint
from tests.rlrf.backends.endpoint.misbehaving_server import MisbehavingServer


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def sizes(server: MisbehavingServer) -> list[int]:
    return [body["n"] for body in server.bodies]


requests = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.sampled_from([None, "{}"])), max_size=12
).map(
    lambda rows: [
        Request(str(i), ({"role": "user", "content": text},), seed, schema)
        for i, (text, seed, schema) in enumerate(rows)
    ]
)


@given(requests, st.integers(1, 4))
def test_groups_are_the_requests_in_order(some: list[Request], most: int) -> None:
    todo, groups = Todo(some), []
    while group := todo.take(most):
        groups.append(group)
    assert [request for group in groups for request in group] == some
    assert all(len(group) <= most and all(goes_on(*two) for two in pairwise(group)) for group in groups)
    assert all(len(one) == most or not goes_on(one[-1], other[0]) for one, other in pairwise(groups))
    assert any_group(some) == any(goes_on(*two) for two in pairwise(some))


def test_one_request_for_the_responses_to_one_chat(server: MisbehavingServer) -> None:
    results = answers(endpoint(server, choices_per_request=4), ask("ok: a", "ok: b", n=6))
    texts = [(message, 100 + i) for i, message in enumerate(["ok: a"] * 6 + ["ok: b"] * 6)]
    assert results == [
        Completion(f"id {i}", answer_text(message, seed), "stop", len(message), token_count(seed))
        for i, (message, seed) in enumerate(texts)
    ]
    assert sorted(sizes(server)) == [2, 2, 4, 4]
    assert sorted(body["seed"] for body in server.bodies) == [100, 104, 106, 110]


def test_texts_and_counts_are_those_of_requests_alone(server: MisbehavingServer) -> None:
    some = ask("ok: a", "ok: b", n=5)
    assert answers(endpoint(server), some) == answers(endpoint(server, choices_per_request=1), some)
    assert sizes(server) == [5, 5] + [1] * 10


def test_a_greedy_response_is_asked_for_alone(server: MisbehavingServer) -> None:
    some = ask("ok: a", n=3)
    batches = list(endpoint(server).generate(some, Sampling(temperature=0.0)))
    assert sum(map(len, batches)) == 3
    assert sizes(server) == [1, 1, 1]
    assert server.probes == []


def test_what_goes_with_no_other_is_not_probed_for(server: MisbehavingServer) -> None:
    answers(endpoint(server), [*ask("ok: a", "ok: b"), *(Request("c", ask("ok: a")[0].messages, 200),)])
    assert sizes(server) == [1, 1, 1]
    assert server.probes == []


def test_a_server_is_probed_once(server: MisbehavingServer) -> None:
    generator = endpoint(server)
    for _ in range(2):
        answers(generator, ask("ok: a", n=2))
    assert [probe["n"] for probe in server.probes] == [2]
    assert sizes(server) == [2, 2]


@pytest.mark.parametrize("options", [{"tells_tokens": False}, {"most_choices": 1}])
def test_a_server_that_cannot_tell_choices_apart_is_asked_for_one(options: dict[str, bool]) -> None:
    with MisbehavingServer(**options) as server:
        results = answers(endpoint(server), ask("ok: a", n=4))
    assert all(isinstance(result, Completion) for result in results)
    assert sizes(server) == [1] * 4


@pytest.mark.parametrize("behaviour", ["wrong_n", "same_index", "no_choices", "no_usage", "400", "invalid_json"])
def test_a_group_that_is_not_answered_is_asked_for_singly(server: MisbehavingServer, behaviour: str) -> None:
    results = answers(endpoint(server), ask(f"{behaviour},ok: a", n=4))
    assert [r.text for r in results if isinstance(r, Completion)] == [
        answer_text(f"{behaviour},ok: a", 100 + i) for i in range(4)
    ]
    assert sizes(server) == [4, 1, 1, 1, 1]


def test_a_server_that_works_singly_is_remembered() -> None:
    with MisbehavingServer(most_choices=2) as server:
        results = answers(endpoint(server, concurrency=1), ask("ok: a", "ok: b", "ok: c", n=3))
    assert all(isinstance(result, Completion) for result in results)
    assert sizes(server) == [3] + [1] * 9


def test_a_chat_that_is_refused_in_any_way_spoils_no_other(server: MisbehavingServer) -> None:
    results = answers(endpoint(server, concurrency=1), ask("400: a", "ok: b", n=3))
    assert [type(result) for result in results] == [Failure] * 3 + [Completion] * 3
    assert sizes(server) == [3, 1, 1, 1, 3]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("abort", "abort"),
        ("content_filter", "content_filter"),
        ("repetition", "unknown_finish_reason"),
        ("null_content", "null_content"),
        ("empty", "empty_choice"),
        ("surrogate", "lone_surrogate"),
        ("too_many_tokens", "ignored_max_tokens"),
    ],
)
def test_a_bad_choice_spares_its_siblings(server: MisbehavingServer, behaviour: str, reason: str) -> None:
    first, *others = answers(endpoint(server), ask(f"{behaviour}: a", n=3))
    assert isinstance(first, Failure)
    assert first.reason == reason
    assert all(isinstance(other, Completion) for other in others)
    assert sizes(server) == [3]


def test_choices_may_come_in_any_order(server: MisbehavingServer) -> None:
    results = answers(endpoint(server), ask("shuffled: a", n=3))
    assert [r.text for r in results if isinstance(r, Completion)] == [
        answer_text("shuffled: a", 100 + i) for i in range(3)
    ]


def test_a_lasting_fault_fails_the_whole_group(server: MisbehavingServer) -> None:
    results = answers(endpoint(server, retries=0), ask("500: a", "ok: b", n=2))
    assert [r.reason for r in results if isinstance(r, Failure)] == ["server_error"] * 2
    assert SAMPLING.temperature > 0
