"""Whatever bytes an endpoint answers, they become a response or a named failure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint.answers import DETAIL_CHARS, MAX_ANSWER_BYTES, Spoilt, read_answer
from rlrf.records import Completion, Failure, Request, Sampling

SAMPLING = Sampling(max_tokens=32, stop=("END",))


def read(body: bytes, n: int = 1) -> list[Completion | Failure] | Spoilt:
    return read_answer([Request(f"id {i}", (), seed=i) for i in range(n)], SAMPLING, body)


def answer(texts: list[str], tokens: list[int], **usage: int) -> dict[str, Any]:
    """A well-formed answer, as vLLM gives it."""
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"content": text}, "token_ids": [7] * count}
        for i, (text, count) in enumerate(zip(texts, tokens, strict=True))
    ]
    return {"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": sum(tokens), **usage}}


@given(st.binary(max_size=200), st.integers(1, 3))
def test_any_bytes_are_read_as_nothing(body: bytes, n: int) -> None:
    result = read(body, n)
    assert isinstance(result, Spoilt)
    assert len(result.detail) <= DETAIL_CHARS


PARTS = ["choices", "usage", "message", "content", "finish_reason", "index", "token_ids"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(PARTS), inner, max_size=4),
)


@given(JSON, st.integers(1, 3))
def test_any_json_without_all_parts_is_nothing(content: object, n: int) -> None:
    assert isinstance(read(json.dumps(content).encode(), n), Spoilt)


@given(JSON, JSON)
def test_any_choice_is_read_by_itself(one: Any, usage_extra: Any) -> None:
    good = answer(["a", "b"], [1, 2])
    good["choices"][0] |= {"message": one, "finish_reason": usage_extra}
    result = read(json.dumps(good).encode(), 2)
    assert not isinstance(result, Spoilt)
    assert isinstance(result[0], Failure)
    assert result[1] == Completion("id 1", "b", "stop", 5, 2)


@given(st.permutations(range(4)))
def test_choices_are_matched_by_their_index(order: list[int]) -> None:
    shuffled = answer(list("abcd"), [1, 2, 3, 4])
    shuffled["choices"] = [shuffled["choices"][i] for i in order]
    expected = [Completion(f"id {i}", text, "stop", 5, i + 1) for i, text in enumerate("abcd")]
    assert read(json.dumps(shuffled).encode(), 4) == expected


@pytest.mark.parametrize("indexes", [[0, 0], [1, 2], [0, True], [0, None], ["0", "1"], [[0], 1], [0, 1.0]])
def test_indexes_that_are_none(indexes: list[Any]) -> None:
    bent = answer(["a", "b"], [1, 2])
    for choice, index in zip(bent["choices"], indexes, strict=True):
        choice["index"] = index
    result = read(json.dumps(bent).encode(), 2)
    assert isinstance(result, Spoilt)
    assert result.reason == "wrong_choice_count"


def test_token_counts_are_never_made_up() -> None:
    without = answer(["a", "b"], [1, 2])
    del without["choices"][1]["token_ids"]
    for bent in (without, answer(["a", "b"], [1, 2], completion_tokens=4)):
        result = read(json.dumps(bent).encode(), 2)
        assert isinstance(result, Spoilt)
        assert result.reason == "missing_usage"


@pytest.mark.parametrize(
    ("text", "tokens", "reason"),
    [
        ("", 0, "empty_choice"),
        ("a", 33, "ignored_max_tokens"),
        ("a END b", 3, "ignored_stop"),
        ("\ud800", 1, "lone_surrogate"),
    ],
)
def test_a_text_that_was_not_asked_for(text: str, tokens: int, reason: str) -> None:
    for texts, counts in (([text], [tokens]), ([text, "b"], [tokens, 2])):
        result = read(json.dumps(answer(texts, counts)).encode(), len(texts))
        assert not isinstance(result, Spoilt)
        assert isinstance(result[0], Failure)
        assert result[0].reason == reason
        assert all(isinstance(other, Completion) for other in result[1:])


def test_a_response_may_end_before_its_first_word() -> None:
    assert read(json.dumps(answer([""], [1])).encode()) == [Completion("id 0", "", "stop", 5, 1)]


def test_an_answer_without_end_is_nothing() -> None:
    result = read(b" " * (MAX_ANSWER_BYTES + 1))
    assert isinstance(result, Spoilt)
    assert result.reason == "answer_too_long"
