"""Responses of other models: joined, checked, counted, never left out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rlrf.errors import DataError
from rlrf.external import ExternalResponse, ExternalSource, read_responses

DATA = Path(__file__).parents[1] / "data"
COLUMNS = {"prompt": "question", "response": "text", "policy": "model"}
ROW = {"question": "What is 2 + 2?", "text": "4", "model": "m"}


def joined(**columns: Any) -> ExternalSource:
    prompts = {
        "name": "questions",
        "path": str(DATA / "questions.jsonl"),
        "columns": {"prompt": "question", "reference": "answer", "id": "id"},
    }
    names = {"prompt_key": "question_id", "response": "text", "policy": "writer", "metadata": ["label"], **columns}
    path = str(DATA / "answers.csv")
    return ExternalSource.model_validate({"name": "answers", "path": path, "columns": names, "prompts": prompts})


def read(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> list[ExternalResponse]:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    source = {"name": "theirs", "path": str(path), "columns": COLUMNS, **settings}
    return list(read_responses(ExternalSource.model_validate(source)))


def test_responses_find_their_prompts_by_id() -> None:
    responses = list(read_responses(joined()))
    assert [(r.prompt.metadata["id"], r.policy, r.metadata["label"]) for r in responses] == [
        ("q1", "model-a", "true"),
        ("q1", "model-a", "true"),
        ("q1", "model-b", "false"),
        ("q2", "model-a", "true"),
        ("q3", "model-b", "false"),
        ("q4", "model-b", ""),
    ]
    assert responses[3].text == "At 10:05,\nin the morning."
    assert (responses[3].prompt.reference, responses[3].prompt.source) == ("10:05", "questions")


def test_the_default_system_turn_reaches_joined_and_own_prompts(tmp_path: Path) -> None:
    first = next(read_responses(joined(), system="Be brief."))
    assert first.prompt.messages[0] == {"role": "system", "content": "Be brief."}
    read(tmp_path, [ROW])
    source = {"name": "theirs", "path": str(tmp_path / "rows.jsonl"), "columns": COLUMNS}
    own = next(read_responses(ExternalSource.model_validate(source), system="Be brief."))
    assert own.prompt.messages[0] == {"role": "system", "content": "Be brief."}


def test_rows_without_usable_text_come_with_their_reason(tmp_path: Path) -> None:
    texts = ["4", "", " \n", None, "a\0", "\ud83d"]
    responses = read(tmp_path, [{**ROW, "text": text} for text in texts])
    assert [(r.text, r.reason, r.detail) for r in responses] == [
        ("4", None, ""),
        (None, "empty", ""),
        (None, "empty", ""),
        (None, "empty", ""),
        (None, "unstorable", "a NUL character at 1"),
        (None, "unstorable", "the lone surrogate '\\ud83d' at 0"),
    ]
    assert responses[4].place.endswith("rows.jsonl, line 5")
    assert len({r.response_id for r in responses}) == len(responses)


def test_ids_keep_equal_rows_apart_and_do_not_hang_on_the_order(tmp_path: Path) -> None:
    rows = [ROW, ROW, {**ROW, "text": "5"}, {**ROW, "model": "n"}, {**ROW, "question": "Why?"}]
    forward = [r.response_id for r in read(tmp_path, rows)]
    assert len(set(forward)) == len(rows)
    assert {r.response_id for r in read(tmp_path, rows[::-1])} == set(forward)


def test_one_policy_name_can_stand_for_all_rows(tmp_path: Path) -> None:
    responses = read(tmp_path, [ROW], policy="gpt", columns={"prompt": "question", "response": "text"})
    assert [r.policy for r in responses] == ["gpt"]


def test_references_and_metadata_are_read_beside_the_response(tmp_path: Path) -> None:
    columns = {**COLUMNS, "reference": "gold", "metadata": ["ok"]}
    (response,) = read(tmp_path, [{**ROW, "gold": 4, "ok": True}], columns=columns)
    assert (response.prompt.reference, response.metadata) == ("4", {"ok": True})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": 4}, "rows.jsonl, line 1, column 'text' is 4 (int); a response is text, or null for none"),
        ({"model": None}, "rows.jsonl, line 1, column 'model' is None (NoneType); write text"),
        ({"model": " "}, "rows.jsonl, line 1, column 'model' is empty (' '); fill it"),
        ({"question": ""}, "rows.jsonl, line 1, column 'question' is empty ('')"),
    ],
)
def test_a_row_that_is_not_what_the_columns_say(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(tmp_path, [{**ROW, **row}])


def test_an_id_that_no_prompt_has_is_named_with_its_type() -> None:
    message = (
        "answers.csv, line 2, column 'writer': no prompt has the id 'model-a' (str); ids in 'questions' are like 'q1'"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        list(read_responses(joined(prompt_key="writer")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "gpt"}, "give exactly one of policy"),
        ({"columns": {"prompt": "q", "response": "r"}}, "give exactly one of policy"),
        ({"columns": {"response": "r", "policy": "m"}}, "give exactly one of columns.prompt and columns.prompt_key"),
        (
            {"columns": {"prompt_key": "id", "response": "r", "policy": "m"}},
            "columns.prompt_key and prompts belong together",
        ),
        (
            {
                "columns": {"prompt_key": "id", "response": "r", "policy": "m"},
                "prompts": {"name": "q", "path": "q.jsonl", "columns": {"prompt": "q"}},
            },
            "with prompts, set prompts.columns.id",
        ),
        ({"labels": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_incomplete_configurations_say_what_is_missing(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ExternalSource.model_validate({"name": "theirs", "path": "a.jsonl", "columns": COLUMNS, **values})


def test_a_source_survives_json() -> None:
    source = joined()
    assert ExternalSource.model_validate_json(source.model_dump_json()) == source
