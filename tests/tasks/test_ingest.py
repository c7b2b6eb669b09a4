"""Ingestion as a habit: logs, watched folders and tables that grow, read again and again, with a date."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlrf.config import RunConfig, parse_config
from rlrf.errors import ConfigError, DataError
from rlrf.handles import Corpus, Run
from storage import intervals, rows
from storage.store import Store, open_store
from tasks.ingest import ingest

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)


def day(number: float) -> datetime:
    return MIDNIGHT + timedelta(days=number)


def request(text: str, number: float, **turn: Any) -> str:
    """A line of a gateway's log: what was asked and answered, and when."""
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}]
    logged = {"request": {"model": "prod", "messages": [*messages, *([turn] if turn else [])]}}
    return json.dumps(logged | {"time": day(number).isoformat(), "status": 200}) + "\n"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def config_of(folder: Path, source: dict[str, Any] | None = None, **prompts: Any) -> RunConfig:
    columns = {"prompt": "request.messages", "time": "time"}
    log = {"name": "prod", "path": str(folder / "logs" / "*.jsonl"), "log": True, "columns": columns}
    data = {
        "name": "nightly",
        "home": str(folder / "home"),
        "policy": {"model": "none"},
        "prompts": {"window": "since_last", "sources": [source or log], "held_out": {"fraction": 0.001}} | prompts,
    }
    return parse_config(data, "test")


def night(config: RunConfig, number: float, *, finish: bool = True) -> Corpus:
    """The ingestion of one date."""
    store = open_store(config.store_path)
    interval = intervals.settle(store, config.name, day(number), None)
    run = Run(run_id=str(uid_of(number)), store_id=store.store_id, config=config, interval=interval)
    corpus = ingest.fn(run)
    if finish:
        intervals.finish(store, config.name, day(number))
    return corpus


def uid_of(number: float) -> str:
    from tests.storage.builders import uid

    return uid(f"night {number}")


def texts(config: RunConfig, corpus: Corpus, part: str = "prompts") -> set[str]:
    store = Store(config.store_path)
    store = store.held_out() if part == "held_out" else store
    return {one.messages[-1]["content"] for one in rows.prompts_of(store, getattr(corpus, part).key)}


def test_yesterdays_production_prompts_are_in_tonights_iteration(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write(tmp_path / "logs" / "20.jsonl", request("How do I reset it?", 0.3), request("Where is my parcel?", 0.6))
    assert texts(config, night(config, 1)) == {"How do I reset it?", "Where is my parcel?"}
    write(tmp_path / "logs" / "21.jsonl", request("Can I pay later?", 1.4), request("Where is my parcel?", 1.5))
    write(tmp_path / "logs" / "22.jsonl", request("Do you ship to Malta?", 2.1))
    assert texts(config, night(config, 2)) == {"Can I pay later?"}, (
        "once asked is old, and what is asked later isn't known yet"
    )
    assert texts(config, night(config, 3)) == {"Do you ship to Malta?"}


def test_a_date_again_is_the_same_whatever_has_come_since(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write(tmp_path / "logs" / "a.jsonl", request("one", 0.5))
    first = night(config, 1)
    write(tmp_path / "logs" / "a.jsonl", request("late, of the day before", 0.7), request("two", 1.5))
    second = night(config, 2)
    assert night(config, 2) == second
    again = night(config, 1)
    assert again.prompts.digest != first.prompts.digest, "a row that says it arrived then belongs there"
    assert texts(config, again) == {"one", "late, of the day before"}
    os.unlink(tmp_path / "logs" / "a.jsonl")
    assert night(config, 1).prompts.digest == again.prompts.digest, "a rotated log takes nothing away"
    assert night(config, 2).prompts.digest == second.prompts.digest


def test_without_times_rows_count_for_the_date_that_saw_them_first(tmp_path: Path) -> None:
    source = {"name": "folder", "path": str(tmp_path / "in"), "columns": {"prompt": "question"}}
    config = config_of(tmp_path, source)
    write(tmp_path / "in" / "a.jsonl", '{"question": "one"}\n')
    first = night(config, 1)
    write(tmp_path / "in" / "b.jsonl", '{"question": "two"}\n', '{"question": "one"}\n')
    assert night(config, 1).prompts.digest == first.prompts.digest, "new files belong to no earlier date"
    assert texts(config, night(config, 100_000 / 24)) == {"two"}


def test_an_unfinished_date_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    write(tmp_path / "logs" / "a.jsonl", request("one", 0.5), request("two", 1.5))
    night(config, 1, finish=False)
    assert texts(config, night(config, 2)) == {"one", "two"}


def test_a_reference_that_was_mended_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    source = {"name": "f", "path": str(tmp_path / "in"), "columns": {"prompt": "q", "reference": "a"}}
    config = config_of(tmp_path, source)
    write(tmp_path / "in" / "a.jsonl", '{"q": "one", "a": "1"}\n')
    night(config, 1)
    (tmp_path / "in" / "a.jsonl").write_text('{"q": "one", "a": "2"}\n{"q": "two", "a": "3"}\n')
    assert texts(config, night(config, 100_000 / 24)) == {"two"}
    assert Store(config.store_path).value("SELECT reference FROM prompts WHERE messages->0->>'content' = 'one'") == "1"


def test_a_line_that_is_still_being_written_is_read_the_next_time(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    whole = request("cut in the mïddle", 0.4)
    raw = whole.encode()
    for at in range(1, len(raw), 37):
        (tmp_path / "logs").mkdir(exist_ok=True)
        (tmp_path / "logs" / "a.jsonl").write_bytes(request("before", 0.3).encode() + raw[:at])
        assert texts(config, night(config, 1, finish=False)) == {"before"}
    (tmp_path / "logs" / "a.jsonl").write_bytes(request("before", 0.3).encode() + raw)
    assert texts(config, night(config, 1)) == {"before", "cut in the mïddle"}
    assert Store(config.store_path).value("SELECT count(*) FROM dropped_rows") == 0


def test_rows_of_a_log_that_cannot_be_used_are_kept_with_their_reasons(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    tool = {"role": "tool", "content": "42"}
    write(
        tmp_path / "logs" / "a.jsonl",
        request("fine", 0.1, role="assistant", content="an answer that was given"),
        "{broken\n",
        request("a tool had the last word", 0.2, **tool),
        json.dumps({"request": {"messages": [{"role": "user", "content": "no time"}]}, "time": None}) + "\n",
        json.dumps({"status": 500}) + "\n",
    )
    for _ in range(2):
        assert texts(config, night(config, 1)) == {"fine"}
    dropped = Store(config.store_path).query("SELECT * FROM dropped_rows ORDER BY place")
    assert [row["place"].rpartition(" ")[2] for row in dropped] == ["2", "3", "4", "5"]
    assert [
        word
        for row, word in zip(dropped, ("broken JSON", "tool", "no time", "no column"), strict=True)
        if word in row["reason"]
    ] == ["broken JSON", "tool", "no time", "no column"]


def test_other_sources_still_stop_at_a_row_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", '{"question": "one"}\n', "{broken")
    config = config_of(tmp_path, {"name": "x", "path": str(tmp_path / "in"), "columns": {"prompt": "question"}})
    with pytest.raises(DataError, match=r"a\.jsonl, line 2.*broken JSON"):
        night(config, 1)


def test_texts_in_parts_are_put_together_and_pictures_are_refused(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "this?"}]
    write(
        tmp_path / "logs" / "a.jsonl",
        json.dumps({"request": {"messages": [{"role": "user", "content": parts}]}, "time": 1_790_000_000}) + "\n",
        json.dumps(
            {
                "request": {"messages": [{"role": "user", "content": [*parts, {"type": "image_url"}]}]},
                "time": 1_790_000_000,
            }
        )
        + "\n",
    )
    config = config_of(tmp_path)
    assert texts(config, night(config, 1000)) == {"What is\nthis?"}
    assert Store(config.store_path).value("SELECT count(*) FROM dropped_rows") == 1


def test_a_table_of_a_database_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "prod.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute('CREATE SCHEMA "a b"; CREATE TABLE "a b".asked (text VARCHAR, came TIMESTAMPTZ)')
        connection.execute('INSERT INTO "a b".asked VALUES (?, ?), (?, ?)', ["one", day(0.5), "two", day(1.5)])
    source = {"name": "db", "database": str(path), "table": "a b.asked", "columns": {"prompt": "text", "time": "came"}}
    config = config_of(tmp_path, source)
    assert texts(config, night(config, 1)) == {"one"}
    assert texts(config, night(config, 2)) == {"two"}
    for table in ("asked", 'asked"; DROP TABLE asked; --'):
        with pytest.raises(DataError, match="has no table"):
            night(config_of(tmp_path, source | {"table": table}), 3)


def test_a_database_that_a_writer_holds_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    import subprocess

    from tests.storage.processes import HOLD, start

    path = tmp_path / "prod.duckdb"
    holder: subprocess.Popen[str] = start(HOLD, path, 60)
    assert holder.stdout is not None
    holder.stdout.readline()
    source = {"name": "db", "database": str(path), "table": "asked", "columns": {"prompt": "text"}}
    try:
        with pytest.raises(DataError, match="close it there"):
            night(config_of(tmp_path, source), 1)
    finally:
        holder.kill()
        holder.communicate()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 39)), min_size=1, max_size=25), st.integers(1, 3))
def test_every_prompt_is_in_the_window_of_its_first_arrival_and_in_no_other(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, int]], nights: int
) -> None:
    folder = tmp_path_factory.mktemp("nights")
    config = config_of(folder, near_duplicate=1.0, held_out={"fraction": 0.3})
    write(folder / "logs" / "a.jsonl", *(request(f"question number {text}", at / 10 + 0.01) for text, at in asked))
    first: dict[str, float] = {}
    for text, at in asked:
        name = f"question number {text}"
        first[name] = min(at / 10 + 0.01, first.get(name, 100.0))
    for number in range(1, nights + 1):
        corpus = night(config, number)
        learned, held_out = texts(config, corpus), texts(config, corpus, "held_out")
        assert learned | held_out >= {name for name, at in first.items() if number - 1 < at <= number}
        assert all(number - 1 < first[name] <= number for name in learned)
        assert all(first[name] <= number for name in held_out)
        assert not learned & held_out


# What must not be kept

SECRETS = ("ada@example.org", "+44 20 7946 0958")


def redacting(text: str) -> str:
    """Takes two secrets out; fails on a third."""
    for secret in SECRETS:
        text = text.replace(secret, "[gone]")
    if "fails" in text:
        raise ValueError(text)
    return text


def no_text(text: str) -> str:
    return None  # type: ignore[return-value]


HOOK = "tests.tasks.test_ingest:redacting"


def test_the_hook_sees_every_text_before_the_store_does(tmp_path: Path) -> None:
    line = json.dumps(
        {
            "q": [
                {"role": "system", "content": f"You serve {SECRETS[0]}."},
                {"role": "user", "content": f"Call {SECRETS[1]}"},
            ],
            "ref": f"It is {SECRETS[0]}",
            "who": {"mail": [SECRETS[0]]},
        }
    )
    write(tmp_path / "in" / "a.jsonl", line + "\n")
    columns = {"prompt": "q", "reference": "ref", "metadata": ["who"]}
    source = {"name": "x", "path": str(tmp_path / "in"), "columns": columns}
    config = config_of(tmp_path, source, redact=HOOK)
    corpus = night(config, 1)
    assert texts(config, corpus) == {"Call [gone]"}
    (kept,) = rows.prompts_of(Store(config.store_path), corpus.prompts.key)
    assert (kept.messages[0]["content"], kept.reference) == ("You serve [gone].", "It is [gone]")
    assert kept.metadata == {"who": {"mail": ["[gone]"]}}
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path


def test_an_error_under_the_hook_never_shows_the_text(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.jsonl", json.dumps({"q": f"fails for {SECRETS[0]}"}) + "\n")
    source = {"name": "x", "path": str(tmp_path / "in"), "columns": {"prompt": "q"}}
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: prompts.redact = .* failed with ValueError") as failed:
        night(config_of(tmp_path, source, redact=HOOK), 1)
    assert "ada" not in str(failed.value)
    write(tmp_path / "in" / "a.jsonl", json.dumps({"q": {"mail": SECRETS[0]}}) + "\n")
    with pytest.raises(DataError) as wrong:
        night(config_of(tmp_path, source, redact="tests.tasks.test_ingest:no_text"), 1)
    assert "returned NoneType" in str(wrong.value)
    (tmp_path / "in" / "a.jsonl").write_text(json.dumps({"q": {"mail": SECRETS[0]}}) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 1 can't be used; its text isn't shown") as shape:
        night(config_of(tmp_path, source, redact=HOOK), 1)
    assert "ada" not in str(shape.value)
    assert "ada" not in str(shape.value.__cause__)


def test_rows_of_a_log_are_dropped_without_their_text_under_the_hook(tmp_path: Path) -> None:
    write(
        tmp_path / "logs" / "a.jsonl",
        request("fine", 0.2),
        '{"' + SECRETS[0] + "\n",
        request("x", 0.3, role="tool", content=SECRETS[0]),
    )
    config = config_of(tmp_path, redact=HOOK)
    assert texts(config, night(config, 1)) == {"fine"}
    dropped = Store(config.store_path).query("SELECT reason FROM dropped_rows")
    assert len(dropped) == 2
    assert not any("ada" in row["reason"] for row in dropped)


def test_a_hook_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "logs" / "a.jsonl", request("fine", 0.2))
    with pytest.raises(ConfigError, match=r"prompts\.redact = 'tests\.tasks:nothing'"):
        night(config_of(tmp_path, redact="tests.tasks:nothing"), 1)


def test_the_example_with_a_real_library_takes_personal_data_out() -> None:
    pytest.importorskip(
        "presidio_analyzer", reason="presidio is not installed: pip install presidio-analyzer presidio-anonymizer"
    )
    from rlrf.redacting import Redactor

    hook = Redactor(str(Path(__file__).parents[2] / "docs" / "examples" / "redact.py") + ":redact")
    said = hook.text("Write to ada@example.org, card 4111 1111 1111 1111. What is 3 + 4?", "here")
    assert said == "Write to <EMAIL_ADDRESS>, card <CREDIT_CARD>. What is 3 + 4?"
