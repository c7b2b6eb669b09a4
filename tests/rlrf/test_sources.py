"""Prompts read from files and datasets: what comes out, and what each error says."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlrf.errors import DataError
from rlrf.prompts import prompt_id_of
from rlrf.records import Prompt
from rlrf.sources import Source, read_prompts

DATA = Path(__file__).parents[1] / "data"
ROWS: list[dict[str, Any]] = [
    {"id": "a", "question": "What is 2 + 2?", "answer": "4"},
    {"id": "b", "question": 'Say "hi",\nthen stop. ½ 🙂', "answer": "hi"},
]
FILLED = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(lambda t: bool(t.strip()))


def make_source(path: Path | str, **columns: Any) -> Source:
    return Source.model_validate({"name": "mine", "path": str(path), "columns": {"prompt": "question", **columns}})


def read(path: Path | str, **columns: Any) -> list[Prompt]:
    return list(read_prompts(make_source(path, **columns)))


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_rows(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"rows.{suffix}"
    if suffix == "jsonl":
        write(path, "\n".join(json.dumps(row) for row in rows))
    elif suffix == "json":
        write(path, json.dumps(rows, indent=1))
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


# What comes out


def test_a_row_becomes_a_prompt() -> None:
    first, *_, last = read(DATA / "questions.jsonl", reference="answer", id="id", metadata=["topic"])
    assert first.messages == (
        {"role": "user", "content": "Anna has 3 apples and buys 4 more. How many apples has she?"},
    )
    assert (first.prompt_id, first.source, first.reference) == (prompt_id_of(first.messages), "mine", "7")
    assert first.metadata == {"id": "q1", "topic": "addition"}
    assert (last.reference, last.metadata["id"]) == (None, "q4")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_same_prompts(tmp_path: Path, suffix: str) -> None:
    prompts = read(write_rows(tmp_path, suffix, ROWS), reference="answer", id="id")
    assert [(p.messages[0]["content"], p.reference, p.metadata["id"]) for p in prompts] == [
        (row["question"], row["answer"], row["id"]) for row in ROWS
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(FILLED, min_size=1, max_size=5), st.sampled_from(["jsonl", "json", "csv", "parquet"]), st.booleans())
def test_any_text_survives_every_format_unchanged(texts: list[str], suffix: str, crlf: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder), suffix, [{"question": text} for text in texts])
        if crlf and suffix == "jsonl":
            write(path, path.read_bytes().replace(b"\n", b"\r\n"))
        assert [prompt.messages[0]["content"] for prompt in read(path)] == texts


def test_csv_cells_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question,answer,n\nWhat?,007,1.50\nWhy?,,\n")
    first, second = read(path, reference="answer", metadata=["n"])
    assert (first.reference, first.metadata) == ("007", {"n": "1.50"})
    assert (second.reference, second.metadata) == (None, {"n": ""})


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str) -> None:
    rows = {"a.jsonl": '{"question": "Hi"}\n', "a.json": '[{"question": "Hi"}]', "a.csv": "question\nHi\n"}
    assert len(read(write(tmp_path / name, b"\xef\xbb\xbf" + rows[name].encode()))) == 1


def test_blank_lines_are_skipped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(read(DATA / "questions.jsonl")) == 4
    assert f"{DATA / 'questions.jsonl'}: skipped 1 blank lines" in caplog.messages


def test_chats_keep_their_turns_in_every_nested_format(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    for suffix in ("jsonl", "json", "parquet"):
        (prompt,) = read(write_rows(tmp_path, suffix, [{"question": chat}]))
        assert prompt.messages == tuple(chat)


def test_the_row_s_own_system_turn_wins_over_the_default(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "In the chat."}, {"role": "user", "content": "Hi"}]
    rows: list[dict[str, Any]] = [
        {"question": "Hi", "sys": "In the column."},
        {"question": "Hi", "sys": None},
        {"question": chat, "sys": None},
    ]
    source = make_source(write_rows(tmp_path, "jsonl", rows), system="sys")
    turns = [prompt.messages[0]["content"] for prompt in read_prompts(source, system="By default.")]
    assert turns == ["In the column.", "By default.", "In the chat."]
    assert [len(prompt.messages) for prompt in read_prompts(source)] == [2, 1, 2]


def test_a_changed_reference_leaves_the_prompt_id(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "jsonl", [{"question": "Q", "answer": "4"}, {"question": "Q", "answer": 5}])
    first, second = read(path, reference="answer")
    assert first.prompt_id == second.prompt_id
    assert (first.reference, second.reference) == ("4", "5")


def test_folders_and_patterns_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "2.jsonl", '{"question": "second"}')
    write(tmp_path / "1.csv", "question\nfirst\n")
    write(tmp_path / "README.md", "not data")
    for path in (tmp_path, tmp_path / "[0-9].*"):
        assert [prompt.messages[0]["content"] for prompt in read(path)] == ["first", "second"]


def test_format_overrides_the_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.txt", '{"question": "Hi"}')
    source = Source.model_validate(
        {"name": "mine", "path": str(path), "format": "jsonl", "columns": {"prompt": "question"}}
    )
    assert len(list(read_prompts(source))) == 1


# What goes wrong in a file

JSONL_ERRORS: dict[str, tuple[str | bytes, str]] = {
    "broken": (
        '{"question": "Hi"}\n{"question": "Hi" "x"}\n',
        'bad.jsonl, line 2, column 19: broken JSON (Expecting \',\' delimiter) in \'{"question": "Hi" "x"}\'; mend the line',
    ),
    "cut off": (
        '{"question": "Hi"}\n{"question": "H',
        "bad.jsonl, line 2, column 14: broken JSON (Unterminated string",
    ),
    "long": ('{"question": "' + "x" * 999, f'in \'{{"question": "{"x" * 66}...\''),
    "blank before": ('\n\n{"question"}', "bad.jsonl, line 3, column 12: broken JSON"),
    "not UTF-8": (
        b'{"question": "Hi"}\n{"question": "caf\xe9"}\n',
        "bad.jsonl, line 2: byte 0xe9 at offset 36 is not UTF-8; save the file as UTF-8",
    ),
    "not UTF-8 after a mark": (b'\xef\xbb\xbf"\xff"', "bad.jsonl, line 1: byte 0xff at offset 4 is not UTF-8"),
    "UTF-16": ('{"question": "Hi"}'.encode("utf-16"), "bad.jsonl, line 1: byte 0xff at offset 0 is not UTF-8"),
    "no object": ('["Hi"]', "bad.jsonl, line 1: \"['Hi']\" is no JSON object; write {...} with one key per column"),
    "key twice": ('{"question": "a", "question": "b"}', "bad.jsonl, from line 1: the key 'question' occurs twice in"),
    "NaN": ('{"question": "a", "x": NaN}', "bad.jsonl, from line 1: NaN is no JSON number in"),
    "nested": ("[" * 200_000, "bad.jsonl, from line 1: maximum recursion depth exceeded"),
    "digits": ("1" * 5000, "bad.jsonl, from line 1: Exceeds the limit (4300 digits)"),
    "missing column": (
        '{"question": "Hi"}\n{"qestion": "Hi", "id": 1}',
        "bad.jsonl, line 2: there is no column 'question', only ['qestion', 'id']; did you mean 'qestion'?",
    ),
    "null": ('{"question": null}', "bad.jsonl, line 1, column 'question' is None; a prompt is text or a list"),
    "empty prompt": ('{"question": " "}', "bad.jsonl, line 1, column 'question' is empty (' '); fill it"),
    "number": ('{"question": 4}', "bad.jsonl, line 1, column 'question' is 4; a prompt is text or a list"),
    "surrogate": ('{"question": "\\ud83d"}', "line 1, column 'question' holds the lone surrogate '\\ud83d' at 0"),
    "nul": ('{"question": "a\\u0000"}', "bad.jsonl, line 1, column 'question' holds a NUL character at 1"),
    "empty": ("", "bad.jsonl holds no rows; fill it or remove it"),
    "blank": ("\n \n", "bad.jsonl holds no rows; fill it or remove it"),
}


@pytest.mark.parametrize("case", JSONL_ERRORS)
def test_jsonl_errors_name_line_value_and_remedy(tmp_path: Path, case: str) -> None:
    content, message = JSONL_ERRORS[case]
    with pytest.raises(DataError, match=re.escape(message)):
        read(write(tmp_path / "bad.jsonl", content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '[{"question": "Hi"},\n {"question" 1}]', "a.json, line 2, column 14: broken JSON"),
        ("a.json", '{"data": []}', "a.json: '{\"data\": []}' is no array; write [{...}, ...]"),
        ("a.json", '[{"question": "Hi"}, 3]', "a.json, row 2: '3' is no JSON object"),
        ("a.json", b'[\n{"question": "\xe9"}]', "a.json, line 2: byte 0xe9 at offset 16 is not UTF-8"),
        ("a.json", "[]", "a.json holds no rows"),
        ("a.json", " ", "a.json holds no rows"),
        ("a.csv", "question,n\nHi,1\nHo\n", "a.csv, line 3: 1 cells under 2 columns; quote cells with commas"),
        ("a.csv", 'question,n\n"two\nlines",1\na,b,c\n', "a.csv, line 4: 3 cells under 2 columns"),
        (
            "a.csv",
            'question\nHi\n"never closed\n',
            "a.csv, line 3: broken CSV (unexpected end of data); close every quote",
        ),
        ("a.csv", 'question\n"a"b\n', "a.csv, line 2: broken CSV"),
        ("a.csv", "question,question\na,b\n", "a.csv, line 1: a column name occurs twice in ['question', 'question']"),
        (
            "a.csv",
            "Question;n\na;b\n",
            "a.csv, line 1: there is no column 'question', only ['Question;n']; did you mean",
        ),
        ("a.csv", "question\n", "a.csv holds no rows"),
        ("a.csv", "", "a.csv holds no rows"),
        ("a.parquet", "PAR1 but not really", "a.parquet can't be read as Parquet ("),
        ("a.txt", "Hi", "a.txt: the suffix '.txt' names no format; set format to one of ['jsonl', 'json'"),
    ],
)
def test_errors_of_other_formats(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(write(tmp_path / name, content))


def test_a_missing_parquet_column_is_named(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "parquet", [{"questions": "Hi"}])
    with pytest.raises(DataError, match=r"no column 'question', only \['questions'\]; did you mean 'questions'\?"):
        read(path)


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"a": 1.5}, {"reference": "a"}, "line 1, column 'a' is 1.5 (float); write text"),
        ({"a": True}, {"reference": "a"}, "line 1, column 'a' is True (bool); write text"),
        ({"a": "4\0"}, {"reference": "a"}, "line 1, column 'a' holds a NUL character at 1"),
        ({"a": ["\ud83d"]}, {"metadata": ["a"]}, "line 1: metadata $.a[0] holds the lone surrogate"),
        ({"a": None}, {"id": "a"}, "line 1, column 'a' is None; an id is text or a whole number"),
        ({"a": 1}, {"metadata": ["b"]}, "line 1: there is no column 'b', only ['question', 'a']"),
    ],
)
def test_values_beside_the_prompt_are_checked(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read(write_rows(tmp_path, "jsonl", [{"question": "Hi", **row}]), **columns)


def test_metadata_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "parquet", [{"question": "Hi", "raw": b"x"}])
    with pytest.raises(DataError, match=r"row 1: metadata \$\.raw is b'x' \(bytes\)"):
        read(path, metadata=["raw"])


def test_two_system_turns_are_refused(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "A"}, {"role": "user", "content": "Hi"}]
    path = write_rows(tmp_path, "jsonl", [{"question": chat, "sys": "B"}])
    with pytest.raises(DataError, match="line 1, column 'sys' is 'B', but the chat has a system turn; empty one"):
        read(path, system="sys")


def test_one_id_over_two_prompts_names_both_rows(tmp_path: Path) -> None:
    rows = [{"question": "One", "id": 7}, {"question": "One", "id": 7}, {"question": "Two", "id": 7}]
    path = write_rows(tmp_path, "jsonl", rows)
    message = f"{path}, line 3: the id 7 is that of another prompt at {path}, line 1; make ids unique"
    with pytest.raises(DataError, match=re.escape(message)):
        read(path, id="id")


def test_a_path_without_files_says_where_it_was_looked_up(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nothing\.jsonl' is no file, no folder and no pattern that matches; .* from '/"
    ):
        read(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="is a folder without .jsonl, .json, .csv, .parquet files"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"question": "Hi"}')
    path.chmod(0)
    with pytest.raises(DataError, match="can't be read: Permission denied"):
        read(path)


# Datasets


def test_a_folder_of_files_is_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "test.jsonl", '{"question": "Hi", "answer": 4}\n{"question": "Ho", "answer": 5}\n')
    source = {"name": "mine", "dataset": str(folder), "split": "test"}
    columns = {"prompt": "question", "reference": "answer"}
    prompts = read_prompts(Source.model_validate({**source, "columns": columns}))
    assert [(p.messages[0]["content"], p.reference) for p in prompts] == [("Hi", "4"), ("Ho", "5")]
    with pytest.raises(DataError, match=r"\(test\): there is no column 'questoin', .* did you mean 'question'\?"):
        list(read_prompts(Source.model_validate({**source, "columns": {"prompt": "questoin"}})))
    with pytest.raises(DataError, match="split 'dev', revision None\\) can't be loaded: ValueError: Unknown split"):
        list(read_prompts(Source.model_validate({**source, "split": "dev", "columns": columns})))


def test_without_network_a_hub_name_is_a_data_error_with_a_remedy() -> None:
    program = (
        "from rlrf.sources import Source, read_prompts\n"
        "from rlrf.errors import DataError\n"
        "source = Source(name='hub', dataset='nobody/nothing', columns={'prompt': 'question'})\n"
        "try: list(read_prompts(source))\n"
        "except DataError as error: print(error)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "dataset 'nobody/nothing' (subset None, split 'train', revision None) can't be loaded"
    )
    assert done.stdout.endswith("check the names and the network, or download its files and set path\n")


# Configuration


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give exactly one of path, dataset and database"),
        ({"path": "a.csv", "dataset": "a/b"}, "give exactly one of path, dataset and database"),
        ({"path": "a.csv", "revision": "main"}, r"\['revision'\] belong to dataset: remove them"),
        ({"dataset": "a/b", "format": "csv"}, r"\['format'\] belong to path: remove them"),
        ({"path": "a.csv", "file": "b"}, "Extra inputs are not permitted"),
        ({"path": "a.csv", "format": "xml"}, "Input should be 'jsonl', 'json', 'csv' or 'parquet'"),
    ],
)
def test_a_source_is_one_place(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Source.model_validate({"name": "mine", "columns": {"prompt": "question"}, **values})


def test_a_source_survives_json() -> None:
    source = make_source("a.jsonl", id="id", metadata=["topic"])
    assert Source.model_validate_json(source.model_dump_json()) == source
