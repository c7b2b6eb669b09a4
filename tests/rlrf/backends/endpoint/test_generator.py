"""The endpoint generator against a real server on loopback that misbehaves on command."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from rlrf.backends.endpoint.answers import DETAIL_CHARS
from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.backends.endpoint.suspects import SUSPECTS
from rlrf.engine_config import Client
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Sampling
from tests.rlrf.backends.endpoint.bent_answers import answer_text, token_count
from tests.rlrf.backends.endpoint.endpoints import SAMPLING, answers, ask, collect, endpoint
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL, SLOW_SECONDS, STRAY_SECONDS, MisbehavingServer

KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


def rlrf_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "rlrf-endpoint"]


def test_each_request_gets_its_own_answer_once(server: MisbehavingServer) -> None:
    messages = [f"ok: question {i}" for i in range(200)]
    results = answers(endpoint(server, batch_rows=16), ask(*messages))
    assert [r.text for r in results if isinstance(r, Completion)] == [
        answer_text(m, 100 + i) for i, m in enumerate(messages)
    ]
    assert set(server.asked.values()) == {1}
    assert len(server.asked) == 200
    assert server.most_in_flight <= 8


@pytest.mark.parametrize("behaviour", ["chunked", "closes", "doubled"])
def test_answers_stay_with_their_requests(server: MisbehavingServer, behaviour: str) -> None:
    messages = [f"{behaviour}: question {i}" for i in range(20)]
    results = answers(endpoint(server, concurrency=1), ask(*messages))
    assert [r.text for r in results if isinstance(r, Completion)] == [
        answer_text(m, 100 + i) for i, m in enumerate(messages)
    ]
    assert set(server.asked.values()) == {1}


def test_bytes_that_nobody_asked_for_are_no_answer(server: MisbehavingServer) -> None:
    server.retry_after = str(4 * STRAY_SECONDS)
    (result,) = answers(endpoint(server), ask("stray,ok: question"))
    assert isinstance(result, Completion)
    assert result.text == answer_text("stray,ok: question", 100)


def test_sends_the_sampling_and_the_requests_own_seed(server: MisbehavingServer) -> None:
    requests = ask("ok: first", "ok: second")
    list(endpoint(server, concurrency=1).generate(requests, Sampling(0.5, 0.8, 7, stop=("\n\n",))))
    shared = {"model": MODEL, "temperature": 0.5, "top_p": 0.8, "max_tokens": 7, "stop": ["\n\n"], "n": 1}
    assert server.bodies == [{**shared, "messages": list(r.messages), "seed": r.seed} for r in requests]


def test_no_stop_strings_are_not_an_empty_list(server: MisbehavingServer) -> None:
    answers(endpoint(server), ask("ok: q"))
    assert "stop" not in server.bodies[0]


def test_no_requests_send_nothing(server: MisbehavingServer) -> None:
    assert list(endpoint(server).generate([], SAMPLING)) == []
    assert server.most_in_flight == 0


@pytest.mark.parametrize("behaviours", ["429", "503", "500", "cut", "hang", "not_http", "429,503,429,500"])
def test_a_passing_fault_is_tried_again(server: MisbehavingServer, behaviours: str) -> None:
    message = f"{behaviours},ok: question"
    results = answers(endpoint(server, request_timeout=1.0), ask(message, "ok: other"))
    assert results[0] == Completion("id 0", answer_text(message, 100), "stop", len(message), token_count(100))
    assert server.asked == {message: behaviours.count(",") + 2, "ok: other": 1}


@pytest.mark.parametrize(("behaviour", "reason"), [("500", "server_error"), ("cut", "cut_off"), ("hang", "timeout")])
def test_a_lasting_fault_fails_the_one_request(server: MisbehavingServer, behaviour: str, reason: str) -> None:
    message = f"{behaviour}: question"
    first, second = answers(endpoint(server, request_timeout=0.5), ask(message, "ok: other"))
    assert isinstance(first, Failure)
    assert first.reason == reason
    assert first.detail
    assert isinstance(second, Completion)
    assert server.asked == {message: 2, "ok: other": 1}


def test_a_failure_comes_out_once_however_many_answers_follow(server: MisbehavingServer) -> None:
    messages = ("500: question", "ok: second", "ok: third")
    kinds = [type(result) for result in answers(endpoint(server, concurrency=1, retries=0), ask(*messages))]
    assert kinds == [Failure, Completion, Completion]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("400", "rejected"),
        ("abort", "abort"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("repetition", "unknown_finish_reason"),
        ("no_finish", "no_finish_reason"),
        ("no_choices", "no_choices"),
        ("two_choices", "wrong_choice_count"),
        ("no_usage", "missing_usage"),
        ("null_content", "null_content"),
        ("surrogate", "lone_surrogate"),
        ("invalid_json", "invalid_json"),
        ("deep_json", "invalid_json"),
        ("endless", "answer_too_long"),
        ("not_an_object", "no_choices"),
    ],
)
def test_a_bad_answer_is_a_named_failure_at_once(server: MisbehavingServer, behaviour: str, reason: str) -> None:
    message = f"{behaviour}: question"
    first, second = answers(endpoint(server, request_timeout=20.0), ask(message, "ok: other"))
    assert isinstance(first, Failure)
    assert first.reason == reason
    assert 0 < len(first.detail) <= DETAIL_CHARS
    assert isinstance(second, Completion)
    assert server.asked[message] == 1


def test_a_response_cut_by_max_tokens_is_one(server: MisbehavingServer) -> None:
    (result,) = answers(endpoint(server), ask("length: question"))
    assert isinstance(result, Completion)
    assert result.finish_reason == "length"


def test_a_slow_first_byte_is_waited_for(server: MisbehavingServer) -> None:
    started = time.monotonic()
    (result,) = answers(endpoint(server), ask("slow: question"))
    assert isinstance(result, Completion)
    assert time.monotonic() - started >= SLOW_SECONDS


def test_retry_after_is_honoured(server: MisbehavingServer) -> None:
    server.retry_after = "1"
    started = time.monotonic()
    answers(endpoint(server), ask("429,ok: question"))
    assert 1.0 <= time.monotonic() - started < 2.0


def test_a_busy_endpoint_is_waited_for_while_it_answers_others(server: MisbehavingServer) -> None:
    server.retry_after = "0.2"
    patient = "429," * 6 + "ok: patient"
    others = [f"slow: question {i}" for i in range(12)]
    results = answers(endpoint(server, concurrency=3, request_timeout=1.0, retries=0), ask(patient, *others))
    assert all(isinstance(result, Completion) for result in results)
    assert server.asked[patient] == 7


def test_an_endpoint_that_only_refuses_ends_the_stage(server: MisbehavingServer) -> None:
    with pytest.raises(BackendError, match=r"unreachable for 1 s after 0 answers \(status 429: .*rerun to go on"):
        answers(endpoint(server, request_timeout=0.6), ask(*(f"429: question {i}" for i in range(20))))


@pytest.mark.parametrize("behaviour", ["401", "403", "404", "302"])
def test_a_wrong_configuration_ends_the_stage_at_once(server: MisbehavingServer, behaviour: str) -> None:
    with pytest.raises(BackendError, match=f"status {behaviour}"):
        answers(endpoint(server), ask(*(f"{behaviour}: question {i}" for i in range(500))))
    assert len(server.asked) <= 8


def test_death_in_the_middle_yields_before_it_raises(server: MisbehavingServer) -> None:
    server.die_after_answers = 25
    seen: list[Completion | Failure] = []
    requests = ask(*(f"ok: question {i}" for i in range(100)))
    with pytest.raises(BackendError, match=r"unreachable for \d s after 2\d answers .*rerun to go on from there"):
        collect(endpoint(server, request_timeout=0.5, flush_seconds=60.0).generate(requests, SAMPLING), seen)
    assert len({r.request_id for r in seen}) == len(seen) >= 25 - 8
    assert all(isinstance(r, Completion) for r in seen)
    assert rlrf_threads() == []


def test_a_server_that_comes_back_costs_no_row(server: MisbehavingServer) -> None:
    server.die_after_answers = 25
    timer = threading.Timer(1.0, server.listen)
    timer.start()
    results = answers(endpoint(server, request_timeout=5.0, retries=2), ask(*(f"ok: q {i}" for i in range(60))))
    timer.join()
    assert all(isinstance(result, Completion) for result in results)


def test_an_endpoint_that_fails_everything_spoils_no_rows(server: MisbehavingServer) -> None:
    requests = ask("ok: first", *(f"500: question {i}" for i in range(SUSPECTS + 10)))
    seen: list[Completion | Failure] = []
    with pytest.raises(BackendError, match=rf"failed {SUSPECTS + 1} requests in a row after 1 answers \(server_error"):
        collect(endpoint(server, concurrency=1, retries=0).generate(requests, SAMPLING), seen)
    assert [r.request_id for r in seen] == ["id 0"]
    assert len(server.asked) == 1 + SUSPECTS + 1


def test_a_model_that_is_not_served(server: MisbehavingServer) -> None:
    generator = EndpointGenerator(server.base_url, "other-model", Client())
    with pytest.raises(BackendError, match=r"does not serve 'other-model'; it serves \['tiny-chat'\]"):
        answers(generator, ask("ok: question"))
    assert server.asked == {}


def test_a_base_url_without_its_version(server: MisbehavingServer) -> None:
    generator = EndpointGenerator(server.base_url.removesuffix("/v1"), MODEL, Client())
    with pytest.raises(BackendError, match="ends in /v1"):
        answers(generator, ask("ok: question"))


def test_an_endpoint_that_was_never_there(server: MisbehavingServer) -> None:
    server.die()
    with pytest.raises(BackendError, match="unreachable in 2 tries"):
        answers(endpoint(server), ask("ok: question"))


def test_rows_are_handed_over_within_the_flush_time(server: MisbehavingServer) -> None:
    generator = endpoint(server, batch_rows=1000, flush_seconds=0.1, request_timeout=5.0)
    with closing(generator.generate(ask("ok: quick", "hang: never"), SAMPLING)) as batches:
        started = time.monotonic()
        assert [r.request_id for r in next(batches)] == ["id 0"]
        assert time.monotonic() - started < 1.0


def test_closing_the_iterator_hangs_up(server: MisbehavingServer) -> None:
    messages = ("ok: quick", *(f"hang: never {i}" for i in range(50)))
    batches = endpoint(server, batch_rows=1, request_timeout=60.0).generate(ask(*messages), SAMPLING)
    next(batches)
    assert len(rlrf_threads()) == 1
    started = time.monotonic()
    batches.close()
    assert time.monotonic() - started < 0.5
    assert rlrf_threads() == []
    deadline = time.monotonic() + 2
    while server.in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.in_flight == 0
    assert len(server.asked) <= 9


def test_a_consumer_that_raises_hangs_up(server: MisbehavingServer) -> None:
    def consume() -> None:
        for _ in endpoint(server, batch_rows=1, request_timeout=60.0).generate(ask("ok: q", "hang: q"), SAMPLING):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert rlrf_threads() == []


def test_two_runs_at_once(server: MisbehavingServer) -> None:
    generator = endpoint(server, batch_rows=1)
    first, second = (generator.generate(ask("slow: a", "slow: b"), SAMPLING) for _ in range(2))
    pairs = list(zip(first, second, strict=True))
    assert len(pairs) == 2
    assert list(first) == []


def test_the_key_is_sent_and_shown_nowhere() -> None:
    with MisbehavingServer(api_key=KEY) as server:
        generator = endpoint(server, key=KEY)
        (result,) = answers(generator, ask("ok: question"))
    assert isinstance(result, Completion)
    assert KEY not in repr(generator)


def test_a_wrong_key_ends_the_stage_and_is_not_repeated() -> None:
    with MisbehavingServer(api_key="another") as server:
        with pytest.raises(BackendError, match=r"status 401: wrong key.*\[API key\]") as caught:
            answers(endpoint(server, key=KEY), ask("ok: question"))
        assert server.asked == {}
    assert KEY not in str(caught.getrepr(style="long", showlocals=False))


def test_no_error_holds_the_key() -> None:
    """What the HTTP library raises holds the request's headers; none of that may be kept."""
    with MisbehavingServer(api_key=KEY) as server, pytest.raises(BackendError, match="cut_off") as caught:
        messages = [f"not_http: question {i}" for i in range(SUSPECTS + 1)]
        answers(endpoint(server, key=KEY, retries=0), ask(*messages))
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error) + repr(error.args)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("behaviour", ["abort", "two_choices", "null_content"])
def test_no_failure_holds_a_key_that_the_server_repeats(behaviour: str) -> None:
    with MisbehavingServer(api_key=KEY) as server:
        results = answers(endpoint(server, key=KEY), ask(f"{behaviour}: {KEY}", n=2))
    assert any(isinstance(result, Failure) for result in results)
    assert KEY not in "".join(result.detail for result in results if isinstance(result, Failure))


def test_a_proxy_in_the_environment_is_not_told_the_key(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    (result,) = answers(endpoint(server), ask("ok: question"))
    assert isinstance(result, Completion)


def test_counts_tokens_where_the_endpoint_can(server: MisbehavingServer) -> None:
    assert endpoint(server).count_tokens([{"role": "user", "content": "seven77"}]) == 7


def test_does_not_guess_token_counts() -> None:
    with MisbehavingServer(can_tokenize=False) as server, pytest.raises(BackendError, match="no token counts"):
        endpoint(server).count_tokens([{"role": "user", "content": "hello"}])
