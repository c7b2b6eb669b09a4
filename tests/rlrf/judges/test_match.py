from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id
from rlrf.judges.match import MatchJudge
from rlrf.judges.patterns import MAX_EXPANSION, BadPattern, compiled
from rlrf.judges.protocol import Judge
from rlrf.records import Case, Judgement

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def judged(text: str, reference: str | None = None, **settings: Any) -> Judgement:
    judge: Judge = MatchJudge(**settings)
    [[judgement]] = judge.judge([Case("r1", (), reference, text)])
    return judgement


def rating(text: str, reference: str | None = None, **settings: Any) -> float | None:
    [only] = judged(text, reference, **settings).ratings
    return only.rating


@pytest.mark.parametrize(
    ("text", "reference", "settings", "expected"),
    [
        (" Paris\n", "Paris", {}, 1),
        ("paris", "Paris", {}, -1),
        ("paris", "Paris", {"ignore_case": True}, 1),
        ("STRASSE", "straße", {"ignore_case": True}, 1),
        ("I think so.\n\nParis ", "Paris", {"part": "last_line"}, 1),
        ("I think so.\n\nParis ", "Paris", {}, -1),
        ("2024-05-01", None, {"rule": "regex", "pattern": r"\d{4}-\d\d-\d\d"}, 1),
        ("On 2024-05-01", None, {"rule": "regex", "pattern": r"\d{4}-\d\d-\d\d"}, -1),
        ("Yes", "yes|no", {"rule": "regex", "ignore_case": True}, 1),
        ("Yes", "yes|no", {"rule": "regex"}, -1),
        ("yes", None, {"pattern": "yes"}, 1),
    ],
)
def test_texts_and_expressions(text: str, reference: str | None, settings: dict[str, Any], expected: int) -> None:
    assert rating(text, reference, **settings) == expected


def test_the_aspect_is_the_answer_where_the_reference_holds_it_and_else_the_format() -> None:
    assert MatchJudge().aspects == MatchJudge("regex").aspects == ("answer",)
    assert MatchJudge("regex", "x").aspects == MatchJudge("json_schema").aspects == ("format",)


@pytest.mark.parametrize("settings", [{}, {"rule": "regex"}, {"rule": "json_schema"}])
def test_without_a_reference_it_is_unrated(settings: dict[str, Any]) -> None:
    assert judged("x", None, **settings).reason == judged("x", " \n", **settings).reason == "no_reference"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rule": "regex", "pattern": "(a"}, "missing ) at position 2"),
        ({"rule": "regex", "pattern": "((((a{1000}){1000}){1000}))"}, "nested repeats"),
        ({"rule": "regex", "pattern": "(" * 3000 + ")" * 3000}, "can't be compiled"),
        ({"rule": "regex", "pattern": "a" * 20_000}, "20,000 characters"),
        ({"pattern": " "}, "nothing to match"),
        ({"rule": "json_schema", "pattern": "{"}, "no JSON"),
        ({"rule": "json_schema", "pattern": '{"type": "integr"}'}, "no JSON schema: at $.type"),
        ({"rule": "json_schema", "pattern": '{"pattern": "(a"}'}, "missing )"),
        ({"rule": "json_schema", "pattern": '{"$ref": "http://localhost:1/x.json"}'}, "nothing is fetched"),
        ({"rule": "json_schema", "pattern": "nowhere/schema.json"}, "No such file"),
        ({"rule": "json_schema", "pattern": '{"patternProperties": {"a": {}}, "unevaluatedProperties": false}'}, "not supported"),
    ],
)  # fmt: skip
def test_a_bad_pattern_in_the_settings_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="judge.pattern") as caught:
        MatchJudge(**settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        ("regex", "(a"),
        ("regex", "(((((((a{99}){99}){99}){99}){99}))"),
        ("json_schema", "[1"),
        ("json_schema", '{"type": 3}'),
        ("json_schema", '{"$id": "http://localhost:1/", "$ref": "http://localhost:1/other"}'),
        ("json_schema", "[" * 100_000),
    ],
)
def test_a_bad_pattern_of_a_prompt_leaves_it_unrated(rule: str, reference: str) -> None:
    judgement = judged("1", reference, rule=rule)
    assert (judgement.reason or "").startswith("bad_pattern: "), judgement
    assert len(judgement.reason or "") < 250 and judgement.ratings == ()


@pytest.mark.parametrize(
    ("rule", "pattern", "text"),
    [
        ("regex", r"(.*?,){40}P", "1," * 3000),
        ("json_schema", r'{"pattern": "^(.*?,){40}P"}', json.dumps("1," * 3000)),
        ("json_schema", r'{"patternProperties": {"^(.*?,){40}P": {}}}', json.dumps({"1," * 3000: 1})),
        (
            "json_schema",
            r'{"additionalProperties": false, "patternProperties": {"^(.*?,){40}P": {}}}',
            json.dumps({"1," * 3000: 1}),
        ),
    ],
)
def test_a_pattern_that_would_take_for_ever_is_given_up(rule: str, pattern: str, text: str) -> None:
    start = time.perf_counter()
    assert judged(text, rule=rule, pattern=pattern).reason == "pattern_too_slow"
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("text", "critique"),
    [
        ('{"name": "Ann", "age": 3}', None),
        ('```json\n{"name": "Ann", "age": 3}\n```', None),
        ('```\n{"name": "Ann", "age": 3}\n```\n', None),
        ('Sure: {"name": "Ann", "age": 3}', "not one JSON value"),
        ('{"name": "Ann", "age": 3} {}', "not one JSON value"),
        ('{"name": "Ann", "age": 3, "age": 4}', "a key stands twice"),
        ('{"name": "Ann", "age": NaN}', "not JSON"),
        ('{"name": "Ann"}', "at $: 'age' is a required property"),
        ('{"name": "Ann", "age": -1}', "at $.age: -1 is less than the minimum of 0"),
        ('{"name": "Ann", "age": 1, "sex": "f"}', "at $: the property 'sex' is not allowed"),
        ("", "not one JSON value"),
    ],
)
def test_schemas(text: str, critique: str | None) -> None:
    [only] = judged(text, rule="json_schema", pattern=json.dumps(SCHEMA)).ratings
    assert only.rating == (-1 if critique else 1)
    assert (critique or "Correct.") in only.critique


def test_a_critique_does_not_quote_a_huge_value() -> None:
    [only] = judged(json.dumps(["x" * 100_000]), rule="json_schema", pattern='{"items": {"type": "integer"}}').ratings
    assert only.critique == "The response is not in the form that was asked for: at $[0]: does not satisfy `type`."


def test_a_schema_can_be_a_file_and_is_identified_by_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "person.json"
    path.write_text(json.dumps(SCHEMA), encoding="utf-8")
    from_file, from_text = MatchJudge("json_schema", str(path)), MatchJudge("json_schema", json.dumps(SCHEMA))
    assert content_id("judge", from_file.ingredients()) == content_id("judge", from_text.ingredients())


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ('{"const": "Rumpelstilzchen"}', '"Ann"'),
        ('{"enum": ["Rumpelstilzchen"]}', '"Ann"'),
        ('{"pattern": "Rumpelstilzchen"}', '"Ann"'),
        ('{"required": ["Rumpelstilzchen"]}', "{}"),
    ],
)
def test_a_prompts_own_schema_is_not_given_away(schema: str, text: str) -> None:
    [only] = judged(text, schema, rule="json_schema").ratings
    assert only.rating == -1 and "Rumpelstilzchen" not in only.critique


@given(st.text(min_size=1, max_size=50), st.sampled_from(["exact", "regex"]), st.booleans())
def test_no_critique_depends_on_the_reference(reference: str, rule: str, ignore_case: bool) -> None:
    judgement = judged("something else entirely", reference, rule=rule, ignore_case=ignore_case)
    assert {r.critique for r in judgement.ratings} <= {"Correct.", "The response is not what was asked for."}


@given(st.text(max_size=100), st.text(max_size=60), st.sampled_from(["exact", "regex", "json_schema"]))
def test_any_text_and_any_reference_get_a_verdict(text: str, reference: str, rule: str) -> None:
    judgement = judged(text, reference, rule=rule)
    assert (judgement.reason is None) == (len(judgement.ratings) == 1)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, "[" * 400 + "]" * 400, "9" * 10_000, "1e999", '"\\ud800"', "{" * 10**6, "```" * 10**5]
)
def test_hostile_json(text: str) -> None:
    recursive = '{"type": ["array", "number", "string"], "items": {"$ref": "#"}, "multipleOf": 2}'
    judgement = judged(text, rule="json_schema", pattern=recursive)
    assert (judgement.reason or "not_checkable").startswith("not_checkable")


def test_a_schema_that_refers_to_itself_for_ever_is_no_hang() -> None:
    assert judged("1", rule="json_schema", pattern='{"$ref": "#"}').reason == "not_checkable: RecursionError"


@given(st.lists(st.integers(1, 2000), max_size=5))
def test_nested_repeats_are_refused_before_they_are_compiled(counts: list[int]) -> None:
    pattern, size = "a", 1
    for count in counts:
        pattern, size = f"({pattern}b){{{count}}}", size * count
    if size > MAX_EXPANSION:
        with pytest.raises(BadPattern):
            compiled(pattern)
    elif size < MAX_EXPANSION / 20:
        assert compiled(pattern)


def test_a_cut_off_response_is_unrated_and_every_case_comes_once() -> None:
    cases = [Case(str(at), (), "x", "x", "length" if at % 2 else "stop") for at in range(600)]
    batches = list(MatchJudge().judge(cases))
    assert [len(batch) for batch in batches] == [512, 88]
    found = [one for batch in batches for one in batch]
    assert [one.response_id for one in found] == [case.response_id for case in cases]
    assert [one.reason for one in found[:2]] == [None, "truncated"]
