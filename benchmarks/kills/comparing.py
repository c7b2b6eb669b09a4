"""Two finished homes, row by row: is anything lost, doubled or different?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlrf.backends.weights import weights_digest
from storage.schema import IDENTITY
from storage.store import Store, open_store

OF_A_PROCESS = {"meta", "runs", "run_processes", "starts", "claims", "claimants"}
"""Tables that say who worked when; a kill is meant to show there."""
VOLATILE = {
    *("run_id", "created_at", "started_at", "ended_at", "seconds", "host", "pid", "kept", "produced", "tokens"),
    *("folder", "spec", "config", "number", "made_at", "excluded_at"),
}
"""Columns that say when, where, by which process, or how much of a stage one process did."""
TOKENS_COUNT_IN = {"receipts"}
"""`tokens` is what one process generated there, and part of the content elsewhere."""
KEYS = {
    "keys": ("key",),
    "receipts": ("stage_key",),
    "policies": ("policy_id",),
    "corpora": ("stage_key",),
    "trainings": ("stage_key",),
    "evaluations": ("stage_key",),
    "evaluation_aspects": ("stage_key", "aspect"),
    "decisions": ("stage_key",),
    "iterations": ("iteration", "arm"),
}
ORPHANS = {
    "responses without a prompt": "FROM {s}.responses r ANTI JOIN {s}.prompts p USING (prompt_id)",
    "refinements without a parent": "FROM {s}.responses r ANTI JOIN {s}.responses p ON p.response_id = r.parent_id"
    " WHERE r.parent_id IS NOT NULL",
    "judgements without a response": "FROM {s}.judgements j ANTI JOIN {s}.responses r USING (response_id)",
    "ratings without a judgement": "FROM {s}.ratings t ANTI JOIN {s}.judgements j USING (response_id, judge_key)",
    "pairs without a response": "FROM main.pairs a ANTI JOIN main.responses r ON r.response_id = a.chosen_id",
    "pairs without a rejected response": "FROM main.pairs a ANTI JOIN main.responses r ON r.response_id = a.rejected_id",
    "receipts without a key": "FROM main.receipts c ANTI JOIN main.keys k ON k.key = c.stage_key",
}

Rows = Counter[str]


@dataclass
class Home:
    """What a finished home holds, without the traces of processes and places."""

    tables: dict[str, tuple[dict[str, str], Rows]] = field(default_factory=dict)
    orphans: dict[str, int] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)


@dataclass
class Difference:
    """What a home lacks, has twice, or has otherwise than the reference; with examples."""

    lost: int = 0
    doubled: int = 0
    different: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def none(self) -> bool:
        """Whether both are the same."""
        return not (self.lost or self.doubled or self.different)


def read_home(home: Path) -> Home:
    """Every table, orphans, and the digests of the models on disk."""
    store, found = open_store(home / "store.duckdb"), Home()
    last = store.value("SELECT run_id FROM runs ORDER BY started_at DESC LIMIT 1")
    for schema, table, columns in _tables(store):
        name = table if schema == "main" else f"{schema}.{table}"
        identity = (
            tuple(IDENTITY.get(table, ())) or KEYS.get(table) or (("response_id",) if table == "failures" else ())
        )
        rows = store.query(
            f"SELECT * FROM {schema}.{table}" + (" WHERE run_id = ?" if table == "iterations" else ""),
            [last] if table == "iterations" else [],
        )
        found.tables[name] = _contents(table, rows, identity or tuple(columns))
    for schema in ("main", "held_out"):
        for what, sql in ORPHANS.items():
            found.orphans[f"{schema}: {what}"] = int(store.value(f"SELECT count(*) {sql.format(s=schema)}"))
    for row in store.query("SELECT policy_id, folder FROM policies WHERE folder IS NOT NULL"):
        found.models[row["policy_id"]] = weights_digest(row["folder"])
    return found


def compare(home: Home, reference: Home) -> Difference:
    """How a home that was killed differs from one that was not."""
    found = Difference()
    for name in sorted(home.tables.keys() | reference.tables.keys()):
        (ours, counts), (theirs, expected) = (
            home.tables.get(name, ({}, Rows())),
            reference.tables.get(name, ({}, Rows())),
        )
        lost, extra = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
        twice = [key for key in counts if counts[key] > max(1, expected[key])]
        other = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
        found.lost += len(lost)
        found.doubled += len(extra) + len(twice)
        found.different += len(other)
        for what, keys in (("lost", sorted(lost)), ("not in the reference", sorted(extra)), ("twice", twice)):
            found.said += [f"{name}: {len(keys)} {what}, such as {keys[0]}"] if keys else []
        found.said += [f"{name}: {len(other)} differ, such as {ours[other[0]]} for {theirs[other[0]]}"] if other else []
    for what, count in home.orphans.items():
        if count != reference.orphans[what]:
            found.doubled += count
            found.said.append(f"{count} {what}")
    for policy, digest in home.models.items():
        if digest != policy:
            found.different += 1
            found.said.append(f"the model of policy {policy} has the digest {digest}")
    return found


def _tables(store: Store) -> list[tuple[str, str, list[str]]]:
    rows = store.query(
        """SELECT c.schema_name, c.table_name, list(c.column_name ORDER BY c.column_index) AS columns
           FROM duckdb_columns() c JOIN duckdb_tables() t USING (schema_name, table_name)
           WHERE NOT t.internal AND NOT t.temporary GROUP BY ALL ORDER BY ALL"""
    )
    return [
        (row["schema_name"], row["table_name"], row["columns"]) for row in rows if row["table_name"] not in OF_A_PROCESS
    ]


def _contents(table: str, rows: list[dict[str, Any]], identity: tuple[str, ...]) -> tuple[dict[str, str], Rows]:
    left_out = VOLATILE if table in TOKENS_COUNT_IN else VOLATILE - {"tokens"}
    names = [name for name in identity if name not in left_out]
    contents: dict[str, str] = {}
    counts = Rows()
    for row in rows:
        key = " ".join(str(row[name]) for name in names)
        counts[key] += 1
        contents[key] = json.dumps({k: v for k, v in sorted(row.items()) if k not in left_out}, default=str)
    return contents, counts
