"""Whatever bytes an endpoint answers, they become a response or a named failure."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.endpoint_answers import DETAIL_CHARS, MAX_ANSWER_BYTES, read_answer
from rlrf.records import Failure


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_a_failure(body: bytes) -> None:
    result = read_answer("id", body)
    assert isinstance(result, Failure)
    assert len(result.detail) <= DETAIL_CHARS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["choices", "usage", "message", "content", "finish_reason"]), inner, max_size=4
        )
    ),
)


@given(JSON)
def test_any_json_without_all_parts_is_a_failure(answer: object) -> None:
    assert isinstance(read_answer("id", json.dumps(answer).encode()), Failure)


def test_an_answer_without_end_is_a_failure() -> None:
    result = read_answer("id", b" " * (MAX_ANSWER_BYTES + 1))
    assert isinstance(result, Failure)
    assert result.reason == "answer_too_long"
