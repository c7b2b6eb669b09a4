"""Prompts, responses and failures: written in micro-batches, read as records."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from rlrf.errors import StoreError
from rlrf.records import Completion, Failure, Prompt
from storage.store import Store, fetch, insert


def add_prompts(store: Store, prompts: Iterable[Prompt]) -> int:
    """Store prompts of this scope; returns how many were new. Raises StoreError for one of the other split.

    A prompt that comes with another reference than before takes the new one, and the judgements that rest on the old
    one go: they would be wrong.
    """
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": prompt.prompt_id,
            "source": prompt.source,
            "messages": json.dumps(prompt.messages, ensure_ascii=False),
            "reference": prompt.reference,
            "metadata": json.dumps(prompt.metadata, ensure_ascii=False, default=str),
        }
        for prompt in prompts
    ]
    with store.connect() as connection:
        _refuse_other_split(connection, store, [row["prompt_id"] for row in rows])
        _forget_old_references(connection, rows)
        return insert(connection, "prompts", rows)


def prompts_of(store: Store, set_key: str) -> list[Prompt]:
    """The prompts of a set, by id."""
    sql = """SELECT p.* FROM members m JOIN prompts p ON p.prompt_id = m.member_id
             WHERE m.set_key = ? ORDER BY p.prompt_id"""
    return [read_prompt(row) for row in store.query(sql, [set_key])]


def add_results(
    store: Store, results: Sequence[Completion | Failure], planned: dict[str, dict[str, Any]], common: dict[str, Any]
) -> int:
    """One micro-batch of a generator: responses and failures, in one transaction; returns how many responses were new.

    `planned` maps a response id to its prompt_id, parent_id, position and seed; `common` holds gen_key, policy_id,
    backend, run_id and metadata (JSON) of all.
    """
    responses, failures = [], []
    for result in results:
        plan = planned[result.request_id]
        if isinstance(result, Failure):
            where = {name: plan[name] for name in ("prompt_id", "parent_id")} | common
            where.pop("policy_id")
            where.pop("metadata", None)
            failures.append(
                where | {"response_id": result.request_id, "reason": result.reason, "detail": result.detail}
            )
        else:
            made = {name: getattr(result, name) for name in _COMPLETION_COLUMNS}
            responses.append({"response_id": result.request_id, **plan, **made, **common})
    with store.connect() as connection:
        _refuse_other_split(connection, store, [row["prompt_id"] for row in (*responses, *failures)])
        insert(connection, "failures", failures)
        return insert(connection, "responses", responses)


_COMPLETION_COLUMNS = ("text", "finish_reason", "prompt_tokens", "completion_tokens")


def add_external(store: Store, rows: Sequence[dict[str, Any]]) -> int:
    """Responses written elsewhere, as explored responses of a named external policy; returns how many were new."""
    with store.connect() as connection:
        _refuse_other_split(connection, store, [row["prompt_id"] for row in rows])
        return insert(connection, "responses", rows)


def responses_within(store: Store, set_key: str, prompts_key: str) -> list[str]:
    """The members of a set of responses whose prompts are in a set of prompts, sorted."""
    sql = """SELECT r.response_id FROM members m JOIN responses r ON r.response_id = m.member_id
             JOIN members p ON p.member_id = r.prompt_id AND p.set_key = $prompts
             WHERE m.set_key = $set ORDER BY r.response_id"""
    return [row["response_id"] for row in store.query(sql, {"set": set_key, "prompts": prompts_key})]


def existing(store: Store, response_ids: Sequence[str]) -> set[str]:
    """Which of these responses the store has."""
    asked = pa.table({"response_id": pa.array(response_ids, pa.string())})
    sql = """SELECT DISTINCT response_id::VARCHAR AS id FROM responses
             WHERE response_id IN (SELECT response_id::UUID FROM asked)"""
    with store.connect() as connection:
        connection.register("asked", asked)
        found = connection.execute(sql).to_arrow_table()
        connection.unregister("asked")
    return set(found["id"].to_pylist())


def read_prompt(row: dict[str, Any]) -> Prompt:
    """A row of `prompts` as a record."""
    return Prompt(
        row["prompt_id"],
        row["source"],
        tuple(json.loads(row["messages"])),
        row["reference"],
        json.loads(row["metadata"]),
    )


def _refuse_other_split(connection: duckdb.DuckDBPyConnection, store: Store, prompt_ids: Sequence[str]) -> None:
    """The last guard of the split: no row may name a prompt of the other side."""
    other = "held_out" if store.scope == "main" else "main"
    sql = f"SELECT prompt_id FROM {other}.prompts WHERE prompt_id IN (SELECT unnest($ids::UUID[])) LIMIT 1"
    found = fetch(connection, sql, {"ids": list(dict.fromkeys(prompt_ids))})
    if found:
        raise StoreError(
            f"prompt {found[0]['prompt_id']!r} belongs to the split {other!r}: a row of {store.scope!r} may not name "
            "it; keep training and held-out files apart"
        )


def _forget_old_references(connection: duckdb.DuckDBPyConnection, prompts: Sequence[dict[str, Any]]) -> None:
    incoming = [{"prompt_id": row["prompt_id"], "reference": row["reference"]} for row in prompts]
    connection.execute("CREATE TEMP TABLE given (prompt_id UUID PRIMARY KEY, reference VARCHAR)")
    insert(connection, "given", incoming)
    connection.execute(
        "CREATE TEMP TABLE changed AS SELECT g.* FROM given g JOIN prompts p USING (prompt_id) "
        "WHERE g.reference IS DISTINCT FROM p.reference"
    )
    stale = "response_id IN (SELECT response_id FROM responses JOIN changed USING (prompt_id))"
    connection.execute(f"DELETE FROM ratings WHERE {stale}")
    connection.execute(f"DELETE FROM judgements WHERE {stale}")
    connection.execute(
        "UPDATE prompts SET reference = c.reference FROM changed c WHERE c.prompt_id = prompts.prompt_id"
    )
    connection.execute("DROP TABLE given; DROP TABLE changed")
