"""The endpoint's scorer against a real HTTP server that misbehaves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint.answers import Spoilt
from rlrf.backends.opening import open_scorer
from rlrf.backends.protocols import Reward
from rlrf.backends.reward.endpoint import EndpointScorer, read_reward
from rlrf.engine_config import Client
from rlrf.errors import BackendError
from rlrf.judge_config import RewardJudge
from rlrf.judging import no_secret
from rlrf.records import Failure
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL
from tests.rlrf.backends.reward.reward_server import CONTEXT, RewardServer, reward_of
from tests.rlrf.backends.reward.tiny_reward import chat

KEY = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[RewardServer]:
    with RewardServer() as one:
        yield one


def scorer(*servers: RewardServer, key: str | None = None, **asking: Any) -> EndpointScorer:
    """One that soon gives up."""
    client = Client(**{"concurrency": 8, "request_timeout": 1.0, "retries": 1} | asking)
    return EndpointScorer([one.base_url for one in servers], MODEL, client, key=key, flush_seconds=0.1)


def scored(one: EndpointScorer, *texts: str, max_length: int | None = None) -> list[Reward | Failure]:
    """All results in the texts' order; fails unless each came out exactly once."""
    found = [
        row for batch in one.score([chat(str(at), text) for at, text in enumerate(texts)], max_length) for row in batch
    ]
    assert sorted(int(row.request_id) for row in found) == list(range(len(texts)))
    return sorted(found, key=lambda row: int(row.request_id))


def reason(row: Reward | Failure) -> str:
    assert isinstance(row, Failure), row
    return row.reason


def value(row: Reward | Failure) -> float:
    assert isinstance(row, Reward), row
    return row.value


def test_raw_rewards_of_chats_each_once_and_no_more_at_once_than_allowed(server: RewardServer) -> None:
    texts = ["a" * count for count in range(60)]
    found = scored(scorer(server, concurrency=4), *texts)
    assert [value(row) for row in found] == [reward_of(text) for text in texts]
    assert [row.prompt_tokens for row in found if isinstance(row, Reward)] == [14 + len(text) for text in texts]
    assert server.most_in_flight <= 4
    assert {body["use_activation"] for body in server.bodies} == {False}
    assert [message["role"] for message in server.bodies[0]["messages"]] == ["user", "assistant"]


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        ("nan", "not_finite"),
        ("inf", "not_finite"),
        ("vast", "not_finite"),
        ("text", "not_one_reward"),
        ("true", "not_one_reward"),
        ("null", "not_one_reward"),
        ("pair", "not_one_reward"),
        ("number", "not_one_reward"),
        ("two_rows", "not_one_reward"),
        ("no_rows", "not_one_reward"),
        ("no_data", "not_one_reward"),
        ("list", "not_one_reward"),
        ("no_usage", "missing_usage"),
        ("minus_usage", "missing_usage"),
        ("garbage", "invalid_json"),
        ("not_utf8", "invalid_json"),
        ("nested", "invalid_json"),
        ("400", "rejected"),
        ("500", "server_error"),
        ("cut", "cut_off"),
        ("not_http", "cut_off"),
        ("hang", "timeout"),
    ],
)
def test_an_answer_that_is_no_reward_fails_alone(server: RewardServer, behaviour: str, why: str) -> None:
    bad, good = scored(scorer(server, request_timeout=0.4), f"{behaviour}: text", "fine")
    assert (reason(bad), value(good)) == (why, reward_of("fine"))


@pytest.mark.parametrize("behaviour", ["500", "429", "503", "cut", "hang", "chunked", "closes"])
def test_what_may_pass_is_tried_again(server: RewardServer, behaviour: str) -> None:
    text = f"{behaviour},ok: text"
    assert value(scored(scorer(server, request_timeout=0.4), text)[0]) == reward_of(text)


def test_what_is_too_long_is_named_by_the_server_or_by_us(server: RewardServer) -> None:
    long, fine = scored(scorer(server), "a" * CONTEXT, "fine")
    assert (reason(long), value(fine)) == ("too_long", reward_of("fine"))
    assert isinstance(long, Failure)
    assert str(CONTEXT) in long.detail
    over, exact = scored(scorer(server), "a" * 6, "a" * 5, max_length=19)
    assert (reason(over), value(exact)) == ("too_long", reward_of("a" * 5))


def test_replicas_share_the_work_and_stand_in_for_each_other(server: RewardServer) -> None:
    with RewardServer() as other:
        texts = ["a" * count for count in range(40)]
        assert [value(row) for row in scored(scorer(server, other), *texts)] == [reward_of(text) for text in texts]
        assert min(len(server.bodies), len(other.bodies)) > 0
        other.die()
        assert [value(row) for row in scored(scorer(server, other), *texts)] == [reward_of(text) for text in texts]


def test_nobody_there_is_an_error_that_says_where(server: RewardServer) -> None:
    server.die()
    with pytest.raises(BackendError, match=f"{server.base_url}.*unreachable"):
        scored(scorer(server), "a")


def test_a_server_that_answers_nothing_but_errors_ends_the_run(server: RewardServer) -> None:
    with pytest.raises(BackendError, match="in a row after 0 answers"):
        scored(scorer(server, retries=0), *(f"500: {at}" for at in range(60)))


def test_a_stage_that_takes_too_long_keeps_what_was_answered(server: RewardServer) -> None:
    one, started, seen = scorer(server, request_timeout=60.0, stage_timeout=0.6), time.monotonic(), []
    with pytest.raises(BackendError, match="stage_timeout"):
        for batch in one.score([chat("a", "fine"), chat("b", "hang: on")], None):
            seen += batch
    assert [row.request_id for row in seen] == ["a"]
    assert time.monotonic() - started < 10


def test_a_server_without_classify_is_refused_with_the_remedy(server: RewardServer) -> None:
    server.classifies = False
    with pytest.raises(BackendError, match="--runner pooling"):
        scored(scorer(server), "a")


def test_another_model_or_one_with_two_outputs_is_refused(server: RewardServer) -> None:
    server.outputs = 2
    with pytest.raises(BackendError, match=r"not_one_reward.*one output \(num_labels 1\)"):
        scored(scorer(server), "a")
    with RewardServer(models=("other",)) as other, pytest.raises(BackendError, match="does not serve"):
        scored(scorer(other), "a")
    assert server.bodies == []


def test_a_server_that_ignores_the_switch_of_the_sigmoid_is_refused(server: RewardServer) -> None:
    server.knows_activation = False
    with pytest.raises(BackendError, match="ignores use_activation"):
        scored(scorer(server), "a")
    assert server.bodies == []


def test_the_key_is_sent_and_in_no_text() -> None:
    with RewardServer(api_key=KEY) as server:
        good = scorer(server, key=KEY)
        assert value(scored(good, "fine")[0]) == reward_of("fine")
        assert KEY not in repr(good)
        wrong = "sk-another-secret"
        with pytest.raises(BackendError) as error:
            scored(scorer(server, key=wrong), "a")
        assert "401" in str(error.value)
        assert wrong not in str(error.value)
    with pytest.raises(BackendError, match="unencrypted"):
        EndpointScorer("http://reward.example/v1", MODEL, Client(), key=KEY)


def test_the_key_comes_from_the_variable_that_the_configuration_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with RewardServer(api_key=KEY) as server:
        place = {"type": "endpoint", "base_url": server.base_url, "model": MODEL, "api_key_env": "REWARD_KEY"}
        judge = RewardJudge.model_validate({"type": "reward", "endpoint": place})
        monkeypatch.setenv("REWARD_KEY", KEY)
        [[row]] = open_scorer(judge, no_secret).score([chat("a", "fine")], None)
        assert value(row) == reward_of("fine")
        monkeypatch.delenv("REWARD_KEY")
        with pytest.raises(BackendError, match="REWARD_KEY"):
            open_scorer(judge, no_secret)


def test_closing_the_iterator_hangs_up(server: RewardServer) -> None:
    rows = scorer(server, request_timeout=60.0).score([chat("a", "fine"), chat("b", "hang: on")], None)
    assert [row.request_id for row in next(rows)] == ["a"]
    started = time.monotonic()
    rows.close()
    assert time.monotonic() - started < 5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda some: (
        st.lists(some, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "probs", "usage", "prompt_tokens", "x"]), some, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON | st.fixed_dictionaries({"data": JSON, "usage": JSON}))
def test_any_json_is_a_finite_reward_or_named(answer: Any) -> None:
    found = read_reward("a", json.dumps(answer).encode(), None)
    assert isinstance(found, Spoilt) or math.isfinite(value(found[0]))


@given(st.binary(max_size=200))
def test_any_bytes_are_read(body: bytes) -> None:
    assert isinstance(read_reward("a", body, None), Spoilt)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 10**9))
def test_a_reward_comes_through_as_it_is(number: float, tokens: int) -> None:
    body = json.dumps({"data": [{"probs": [number]}], "usage": {"prompt_tokens": tokens}}).encode()
    assert read_reward("a", body, None) == [Reward("a", number, tokens)]
    over = read_reward("a", body, tokens - 1)
    assert isinstance(over, Spoilt)
    assert over.reason == "too_long"
