"""What users get wrong: each told in one message with place, value and remedy, exit code 1, and a store that is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from storage import reading
from storage.store import open_store
from tests import builders
from tests.builders import NEVER, Said, rlrf
from tests.rlrf.backends.tiny_model import CHAT_TEMPLATE, build_tiny_model

Spoil = Callable[[Path], object]


def refused(said: Said, *words: str) -> None:
    """An explained error with these words and nothing else."""
    assert said.code == 1, (said.out, said.err)
    message = said.err.split("error: ", 1)[1]
    for word in words:
        assert word in message
    assert "Traceback" not in said.err
    assert "pydantic" not in message


class TestConfig:
    """Found before anything is opened."""

    def test_missing_file(self, tmp_path: Path) -> None:
        for command in ("run", "plan"):
            refused(rlrf(command, tmp_path / "none.toml"), str(tmp_path / "none.toml"), "No such file", "give the path")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_is_no_config(self, tmp_path: Path) -> None:
        refused(rlrf("run", tmp_path), str(tmp_path), "directory")

    @pytest.mark.parametrize("text", [b"name = ", b'{"name": "json"}', b"name = '\xff'"])
    def test_no_toml(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "run.toml").write_bytes(text)
        refused(rlrf("run", tmp_path / "run.toml"), "run.toml", "is not TOML")

    def test_unknown_keys_are_named_by_their_dotted_path(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model, explore__temprature=0.7, train__lora={"rank": 8}, nonsense=1)
        refused(
            rlrf("run", path),
            "explore.temprature: unknown key (value 0.7)",
            "train.lora.rank: unknown key (value 8)",
            "nonsense: unknown key (value 1)",
            "check its spelling",
        )
        assert not (tmp_path / "home").exists()

    def test_impossible_values(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model, explore__n=-1, pairs__min_pairs="many", name="../up")
        refused(rlrf("run", path), "explore.n = -1", "pairs.min_pairs = 'many'", "name = '../up'")

    def test_nothing_to_evaluate_on(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model, prompts__held_out=None)
        refused(rlrf("run", path), "prompts.held_out", "fraction")

    def test_an_aspect_that_the_judge_has_not(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model, evaluate__aspect="charm")
        refused(rlrf("run", path), "evaluate.aspect = 'charm'", "arithmetic")


class TestModel:
    """Found before the first stage."""

    def test_missing_folder(self, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, tmp_path / "nowhere")
        refused(rlrf("run", path), str(tmp_path / "nowhere"))

    def test_without_tokenizer(self, model: Path, tmp_path: Path) -> None:
        shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
        refused(rlrf("run", builders.write_config(tmp_path, tmp_path / "model")), "tokenizer", str(tmp_path / "model"))

    def test_a_chat_template_that_loses_the_prompt(self, tmp_path: Path) -> None:
        model = build_tiny_model(
            tmp_path / "model", chat_template=CHAT_TEMPLATE.replace("message['content']", "'hello'")
        )
        refused(rlrf("run", builders.write_config(tmp_path, model)), "chat template", "0 times, not once", "mend")

    def test_no_room_for_a_prompt(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model, explore__max_tokens=256)
        refused(rlrf("run", path), "max_tokens = 256", "256 tokens", "lower it")

    def test_an_engine_function_that_is_not_there(self, prefect_server: str, model: Path, tmp_path: Path) -> None:
        refused(
            rlrf("run", builders.write_config(tmp_path, model, "nothing")),
            "engine.reply",
            "tests.flows.replies:nothing",
        )


class TestStore:
    """The store that can't be used is left as it is."""

    def test_of_a_newer_version(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model)
        file = open_store(tmp_path / "home" / "store.duckdb").path
        with duckdb.connect(str(file)) as connection:
            connection.execute("UPDATE meta SET value = '999' WHERE name = 'version'")
        before = file.read_bytes()
        for command in (["run", path], ["plan", path], ["status", tmp_path / "home"]):
            refused(rlrf(*command), "version 999", "upgrade rlrf", str(file))
        assert file.read_bytes() == before

    def test_that_is_none(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model)
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "store.duckdb").write_bytes(b"not a database" * 1000)
        refused(rlrf("run", path), "store.duckdb", "damaged or is no DuckDB file")
        assert (tmp_path / "home" / "store.duckdb").read_bytes() == b"not a database" * 1000

    @pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
    def test_in_a_home_that_is_read_only(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model)
        (tmp_path / "home").mkdir(mode=0o555)
        refused(rlrf("run", path), "home", "can't be written")

    def test_under_a_file(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        refused(rlrf("run", builders.write_config(tmp_path, model, home=str(tmp_path / "file" / "home"))), "writable")


def write(name: str, *rows: object) -> Spoil:
    """Replace a prompt file by these rows."""
    return lambda folder: builders.write_lines(folder / name, rows)


def append(name: str, line: bytes) -> Spoil:
    """Add a line to a prompt file."""

    def spoil(folder: Path) -> None:
        with open(folder / name, "ab") as file:
            file.write(line)

    return spoil


ROWS, EXAM = builders.prompt_rows("prompts"), builders.prompt_rows("held_out")
AFTER = builders.PROMPTS + 1
SPOILED: dict[str, tuple[Spoil, list[str]]] = {
    "missing file": (lambda folder: (folder / "prompts.jsonl").unlink(), ["prompts.jsonl", "no file"]),
    "empty file": (write("prompts.jsonl"), ["prompts.jsonl", "holds no rows", "fill it or remove it"]),
    "missing column": (
        write("prompts.jsonl", {"questions": "1 + 1?", "answer": "2"}),
        ["line 1", "no column 'question'", "did you mean 'questions'"],
    ),
    "broken JSON": (append("prompts.jsonl", b'{"question" "?"}\n'), [f"line {AFTER}", "broken JSON", "mend the line"]),
    "no UTF-8": (
        append("prompts.jsonl", b'{"question": "\xe9", "answer": "1"}\n'),
        [f"line {AFTER}", "0xe9", "save the file as UTF-8"],
    ),
    "empty prompt": (append("prompts.jsonl", b'{"question": " ", "answer": "1"}\n'), [f"line {AFTER}", "is empty"]),
    "two references": (
        write("prompts.jsonl", ROWS[0], ROWS[0] | {"answer": "-5"}),
        ["has the reference", "'-5'", "make them one"],
    ),
    "held-out overlap": (
        write("prompts.jsonl", *ROWS, EXAM[3]),
        ["1 of 25 training prompts", "held-out set", EXAM[3]["question"][:60], "remove them from one side"],
    ),
}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("kind", SPOILED)
def test_prompt_files(kind: str, model: Path, tmp_path: Path) -> None:
    path, (spoil, words) = builders.write_config(tmp_path, model), SPOILED[kind]
    spoil(tmp_path)
    refused(rlrf("run", path), *words)
    store = open_store(tmp_path / "home" / "store.duckdb")
    counts = reading.counts(store)
    assert counts.pop("runs") <= 1
    assert set(counts.values()) == {0}
    assert {run["status"] for run in reading.runs(store)} <= {"failed"}


@pytest.mark.usefixtures("prefect_server")
def test_one_id_over_two_prompts(model: Path, tmp_path: Path) -> None:
    rows = [row | {"id": min(number, 3)} for number, row in enumerate(ROWS)]
    sources = [builders.source(tmp_path / "prompts.jsonl") | {"columns": {"prompt": "question", "id": "id"}}]
    path = builders.write_config(tmp_path, model, prompts__sources=sources)
    builders.write_lines(tmp_path / "prompts.jsonl", rows)
    refused(rlrf("run", path), "line 5", "the id 3", "line 4", "make ids unique")


@pytest.mark.usefixtures("prefect_server")
def test_a_mistake_mended_goes_on_in_the_same_store(model: Path, tmp_path: Path) -> None:
    path = builders.write_config(tmp_path, model, pairs__min_pairs=NEVER)
    whole = (tmp_path / "prompts.jsonl").read_bytes()
    append("prompts.jsonl", b"{\n")(tmp_path)
    refused(rlrf("run", path), "broken JSON")
    (tmp_path / "prompts.jsonl").write_bytes(whole)
    ran = builders.run(path)
    assert ran.said.code == 3, ran.said.err
    assert ran.made("responses") == 50


@pytest.mark.usefixtures("prefect_server")
def test_a_prompt_longer_than_the_context_is_a_counted_failure(model: Path, tmp_path: Path) -> None:
    changes = {"prompts__per_iteration": None, "engine": {"type": "transformers", "device": "cpu"}, "explore__n": 1}
    changes |= {"explore__max_tokens": 8, "refine__m": 0, "evaluate__max_tokens": 8, "limits__unrated": 1.0}
    for limit, words in (
        (0.05, "1 of 10 requests failed"),
        (0.2, "explore        1 of 10 requests yielded no response"),
    ):
        path = builders.write_config(tmp_path, model, **changes, limits__failed=limit, pairs__min_pairs=NEVER)
        long = {"question": "how many apples are there? " * 100, "answer": "1"}
        builders.write_lines(tmp_path / "prompts.jsonl", [*ROWS[:9], long])
        ran = builders.run(path)
        assert ran.said.code == 3, ran.said.err
        assert words in ran.said.err
        failures = ran.store.query("SELECT reason, detail FROM failures")
        assert len(failures) == 1
        assert "256" in json.dumps(failures[0])
        assert ran.store.value("SELECT count(*) FROM responses") == 9
