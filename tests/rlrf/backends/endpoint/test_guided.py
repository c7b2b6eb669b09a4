"""A guided answer is one, or it is no response."""

from __future__ import annotations

import json

import pytest

from rlrf.backends.endpoint.guided import PROOFS, schema_fault
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure
from tests.rlrf.backends.endpoint.endpoints import answers, ask, endpoint
from tests.rlrf.backends.endpoint.misbehaving_server import MisbehavingServer

SCHEMA = {
    "type": "object",
    "properties": {"comment": {"type": "string"}, "rating": {"enum": [-1, 0, 1]}},
    "required": ["comment", "rating"],
    "additionalProperties": False,
}


def test_a_guided_answer_is_asked_for_and_checked() -> None:
    with MisbehavingServer() as server:
        results = answers(endpoint(server), ask("ok: a", n=3, schema=SCHEMA))
        (body,) = server.bodies
    assert [json.loads(r.text) for r in results if isinstance(r, Completion)] == [
        {"comment": "some words", "rating": -1}
    ] * 3
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_a_server_that_ignores_the_wish_is_refused_before_the_first_request() -> None:
    with MisbehavingServer(guides=False) as server:
        with pytest.raises(
            BackendError, match=r"does not guide answers: .* says 'no JSON .*: answer 0 to Say hello\.'"
        ):
            answers(endpoint(server), ask("ok: a", schema=SCHEMA))
        assert server.asked == {}


def test_a_server_that_refuses_the_wish_is_refused() -> None:
    refused = pytest.raises(BackendError, match=r"does not guide answers: .* says 'n must be at most 0'")
    with MisbehavingServer(most_choices=0) as server, refused:
        answers(endpoint(server), ask("ok: a", schema=SCHEMA))


def test_a_server_that_guides_objects_alone_will_do() -> None:
    with MisbehavingServer(guides_objects_alone=True) as server:
        assert all(isinstance(result, Completion) for result in answers(endpoint(server), ask("ok: a", schema=SCHEMA)))
        assert len(server.probes) == 2


def test_guidance_is_looked_for_once_and_only_where_it_is_wanted() -> None:
    with MisbehavingServer() as server:
        generator = endpoint(server)
        answers(generator, ask("ok: a"))
        assert server.probes == []
        for _ in range(2):
            answers(generator, ask("ok: a", schema=SCHEMA))
        assert len(server.probes) == 1


def test_an_answer_that_is_no_instance_is_a_failure() -> None:
    with MisbehavingServer() as server:
        first, second = answers(endpoint(server), ask("unguided: a", n=2, schema=SCHEMA))
    assert isinstance(first, Failure)
    assert first.reason == "not_guided"
    assert isinstance(second, Completion)


def test_json_cut_by_max_tokens_is_a_truncated_response() -> None:
    with MisbehavingServer() as server:
        (result,) = answers(endpoint(server), ask("cut_json: a", schema=SCHEMA))
    assert isinstance(result, Completion)
    assert result.finish_reason == "length"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"comment": "x", "rating": 0}', None),
        (' {"rating": 1, "comment": ""}\n', None),
        ('{"comment": "x", "rating": 2}', "rating: 2 is not one of"),
        ('{"comment": "x", "rating": "0"}', "rating: '0' is not one of"),
        ('{"comment": "x", "rating": NaN}', "no JSON"),
        ('{"comment": "x"}', "'rating' is a required property"),
        ('{"comment": "x", "rating": 0, "more": 1}', "Additional properties"),
        ("rating: 0", "no JSON"),
        ("", "no JSON"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_instances(text: str, fault: str | None) -> None:
    found = schema_fault(text, json.dumps(SCHEMA))
    assert found is None if fault is None else found is not None and fault in found


@pytest.mark.parametrize("schema", PROOFS)
def test_a_proof_leaves_no_choice(schema: object) -> None:
    assert schema_fault("Hello!", json.dumps(schema)) is not None
    assert schema_fault("{}", json.dumps(schema)) is not None


@pytest.mark.parametrize("schema", ['{"type": "things"}', "{", '{"$ref": 1}'])
def test_a_schema_that_is_none(schema: str) -> None:
    with pytest.raises(BackendError, match="json_schema is"):
        schema_fault("{}", schema)


def test_a_schema_is_fetched_from_nowhere() -> None:
    with pytest.raises(BackendError, match="json_schema is .*Unresolvable"):
        schema_fault("{}", '{"$ref": "http://127.0.0.1:9/schema.json"}')
