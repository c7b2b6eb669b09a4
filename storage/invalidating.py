"""What goes when a stage's result is invalidated: its rows with everything that rests on them, counted or done.

Both are the same statements in one transaction; a count takes them back. Facts about what happened stay: runs, iterations,
decisions and policies, which lose only the mark that a stage made them.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from storage.store import Store, back_up

ASIDE = ".invalidated-"
"""Between the name of a model folder that was set aside and its number."""


@dataclass(frozen=True)
class Target:
    """A stage's result, and what tells its rows from others'.

    made: the key of the responses that it makes, `asked`: the set of their prompts or parents, `positions`: first and last.
    judges, choosers: the keys of everyone who judges in it. sets: further sets that it writes.
    """

    stage: str
    key: str
    made: str | None = None
    asked: str | None = None
    positions: tuple[int, int] = (0, 2**31 - 1)
    judges: tuple[str, ...] = ()
    choosers: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gone:
    """What goes with one target: rows by table, tokens and seconds that they took, model folders that are set aside.

    Rows that several targets share count under the first of them. Rows of `policies` and `decisions` stay, without stage.
    """

    target: Target
    rows: dict[str, int]
    tokens: int
    seconds: float
    folders: dict[Path, Path] = field(default_factory=dict)


def count(store: Store, targets: Sequence[Target]) -> list[Gone]:
    """What `invalidate` would do to these targets; changes nothing."""
    with store.connect() as connection:
        gone = _all(connection, store, targets)
        connection.execute("ROLLBACK; BEGIN")
    return gone


def invalidate(store: Store, targets: Sequence[Target]) -> tuple[list[Gone], Path | None]:
    """Remove it all in one transaction, after a copy of the store; returns what went and the copy, None where nothing did.

    The store gets a new id, so that no answer of Prefect's cache outlives its rows. May be repeated, also after a kill.
    Raises StoreError as every write does.
    """
    _rename_aside(store)
    if not any(one.rows for one in count(store, targets)):
        return [Gone(one, {}, 0, 0.0) for one in targets], None
    backup = _free_name(store.path.parent / "backups")
    back_up(store, backup)
    with store.connect() as connection:
        gone = _all(connection, store, targets)
        renew_id(connection)
    _rename_aside(store)
    return gone, backup


def renew_id(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the store's contents a new name: every hit in Prefect's cache is then a miss."""
    connection.execute("UPDATE meta SET value = ? WHERE name = 'store_id'", [str(uuid.uuid4())])


def _free_name(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stem, number = f"before-invalidate-{datetime.now():%Y%m%d-%H%M%S}", 1
    while (path := folder / f"{stem}{f'-{number}' if number > 1 else ''}.duckdb").exists():
        number += 1
    return path


def _rename_aside(store: Store) -> None:
    """Move the model folders to where the store says that they are.

    After the commit: a kill before it leaves folder and row as they were, a kill after it is made good by the next call.
    """
    known = {row["folder"] for row in store.query("SELECT folder FROM policies WHERE folder <> ''")}
    for name in sorted(known):
        before, mark, _ = name.rpartition(ASIDE)
        if mark and before not in known and Path(before).is_dir() and not Path(name).exists():
            Path(before).rename(name)
            os.utime(name)  # its age is now that of its setting aside


def _all(connection: duckdb.DuckDBPyConnection, store: Store, targets: Sequence[Target]) -> list[Gone]:
    return [_BY_STAGE[target.stage](_Eraser(connection, target), store) for target in targets]


class _Eraser:
    """Deletes for one target and counts what it deletes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, target: Target) -> None:
        self.connection, self.target = connection, target
        self.rows: dict[str, int] = {}
        self.tokens, self.seconds = 0, 0.0
        self._values = vars(target) | {"first": target.positions[0], "last": target.positions[1]}

    def run(self, sql: str) -> int:
        """Execute with the target's values as `$name`; returns the number of rows that changed."""
        values = {name: self._value(name) for name in re.findall(r"\$(\w+)", sql)}
        done = self.connection.execute(sql, values).fetchone()
        return int(done[0]) if done else 0

    def delete(self, table: str, where: str) -> None:
        """Delete and count; tokens and seconds that the rows took are added up."""
        values = {name: self._value(name) for name in re.findall(r"\$(\w+)", where)}
        cost = {"responses": "completion_tokens", "judgements": "completion_tokens", "receipts": "seconds"}
        column = cost.get(table.rpartition(".")[2])
        if column:
            sql = f"SELECT coalesce(sum({column}), 0) FROM {table} WHERE {where}"
            found = (self.connection.execute(sql, values).fetchone() or [0])[0]
            self.tokens += int(found) if column != "seconds" else 0
            self.seconds += float(found) if column == "seconds" else 0.0
        self.add(table.removeprefix("main."), self.run(f"DELETE FROM {table} WHERE {where}"))

    def add(self, table: str, number: int) -> None:
        """Count rows."""
        if number:
            self.rows[table] = self.rows.get(table, 0) + number

    def gone(self) -> Gone:
        """What went."""
        return Gone(self.target, self.rows, self.tokens, self.seconds)

    def _value(self, name: str) -> Any:
        value = self._values[name]
        return list(value) if isinstance(value, tuple) else value


_OWN_SETS = "set_key = $key OR set_key IN (SELECT unnest($sets::UUID[]))"


def _responses(eraser: _Eraser, store: Store, scope: str = "main") -> Gone:
    """The responses that the stage made, their refinements, and every set, pair set and judgement that they are part of."""
    asked = f"coalesce(parent_id, prompt_id) IN (SELECT member_id FROM {scope}.members WHERE set_key = $asked)"
    eraser.run(
        f"""CREATE OR REPLACE TEMP TABLE gone AS SELECT response_id FROM {scope}.responses
            WHERE backend <> 'external' AND (response_id IN (SELECT member_id FROM {scope}.members WHERE set_key = $key)
                  OR (gen_key = $made AND position BETWEEN $first AND $last AND {asked}))"""
    )
    more = f"""INSERT INTO gone SELECT response_id FROM {scope}.responses
               WHERE parent_id IN (FROM gone) AND response_id NOT IN (FROM gone)"""
    while eraser.run(more):
        pass
    eraser.run(
        f"""CREATE OR REPLACE TEMP TABLE touched AS SELECT $key::UUID AS stage_key
            UNION SELECT set_key FROM {scope}.members WHERE member_id IN (FROM gone)
            UNION SELECT pair_set FROM pairs WHERE chosen_id IN (FROM gone) OR rejected_id IN (FROM gone)"""
    )
    eraser.run(
        """INSERT INTO touched SELECT stage_key FROM pair_audits WHERE pair_set IN (FROM touched)
           UNION SELECT stage_key FROM audit_offences WHERE chosen_id IN (FROM gone) OR rejected_id IN (FROM gone)"""
    )
    for table in ("ratings", "judgements", "responses"):
        eraser.delete(f"{scope}.{table}", "response_id IN (FROM gone)")
    eraser.delete(f"{scope}.failures", f"parent_id IN (FROM gone) OR (gen_key = $made AND {asked})")
    eraser.delete(f"{scope}.members", f"member_id IN (FROM gone) OR {_OWN_SETS}")
    for table in ("pairs", "unpaired"):
        eraser.delete(table, "pair_set IN (FROM touched)")
    for table in ("audit_offences", "pair_audits", "evaluation_aspects", "evaluations", "receipts"):
        eraser.delete(table, "stage_key IN (FROM touched)")
    return eraser.gone()


def _evaluation(eraser: _Eraser, store: Store) -> Gone:
    """An evaluation with the held-out answers that it rests on, and every other evaluation that rests on them."""
    for table in ("evaluation_aspects", "evaluations"):
        eraser.delete(table, "stage_key = $key")
    return _responses(eraser, store, "held_out")


def _judgements(eraser: _Eraser, store: Store) -> Gone:
    """What these judges said of the set, and the receipts of every judging that counted on it."""
    eraser.run("CREATE OR REPLACE TEMP TABLE gone AS SELECT member_id FROM members WHERE set_key = $key")
    eraser.run(
        """CREATE OR REPLACE TEMP TABLE touched AS SELECT $key::UUID AS stage_key UNION
           SELECT r.stage_key FROM receipts r JOIN keys k ON k.key = r.stage_key
           WHERE r.stage = 'judge' AND list_has_any($judges::VARCHAR[], list_append(
                 coalesce(TRY_CAST(k.ingredients -> 'beside' AS VARCHAR[]), []), k.ingredients ->> 'judge'))
           AND EXISTS (FROM members m WHERE m.set_key = r.stage_key AND m.member_id IN (FROM gone))"""
    )
    for table in ("ratings", "judgements"):
        eraser.delete(table, "response_id IN (FROM gone) AND judge_key IN (SELECT unnest($judges::UUID[]))")
    eraser.delete(
        "chosen_aspects",
        """judge_key IN (SELECT unnest($choosers::UUID[]))
           AND prompt_id IN (SELECT prompt_id FROM responses WHERE response_id IN (FROM gone))""",
    )
    eraser.delete("members", _OWN_SETS)
    eraser.delete("receipts", "stage_key IN (FROM touched)")
    return eraser.gone()


def _pair_set(eraser: _Eraser, store: Store) -> Gone:
    for table in ("pairs", "unpaired"):
        eraser.delete(table, "pair_set = $key")
    eraser.delete("receipts", "stage_key = $key")
    return eraser.gone()


def _audit(eraser: _Eraser, store: Store) -> Gone:
    for table in ("audit_offences", "pair_audits", "receipts"):
        eraser.delete(table, "stage_key = $key")
    return eraser.gone()


def _sets(eraser: _Eraser, store: Store) -> Gone:
    """Which prompts belong to it; the prompts and external responses themselves stay."""
    for scope in ("main", "held_out"):
        eraser.delete(f"{scope}.members", _OWN_SETS)
    for table in ("corpora", "receipts"):
        eraser.delete(table, "stage_key = $key")
    return eraser.gone()


def _decision(eraser: _Eraser, store: Store) -> Gone:
    """The decision stays as history; the stage decides again, and asks again where people are asked."""
    for table in ("approvals", "proposal_forms", "proposals"):
        eraser.delete(table, "stage_key = $key")
    eraser.delete("receipts", "stage_key = $key")
    eraser.add("decisions", eraser.run("UPDATE decisions SET stage_key = NULL WHERE stage_key = $key"))
    return eraser.gone()


def _training(eraser: _Eraser, store: Store) -> Gone:
    """The training; its policy stays, in a folder that makes room for another."""
    sql = """SELECT policy_id, folder FROM policies WHERE stage_key = $key
             OR policy_id IN (SELECT policy_id FROM trainings WHERE stage_key = $key)"""
    made = eraser.connection.execute(sql, {"key": eraser.target.key}).fetchall()
    folders = {Path(folder): _aside(Path(folder)) for _, folder in made if _ours(store, folder)}
    for policy_id, folder in made:
        where = str(folders.get(Path(folder), folder))
        change = "UPDATE policies SET stage_key = NULL, folder = $folder WHERE policy_id = $id"
        eraser.connection.execute(change, {"folder": where, "id": policy_id})
    eraser.add("policies", len(made))
    for table in ("training_metrics", "trainings", "receipts"):
        eraser.delete(table, "stage_key = $key")
    return replace(eraser.gone(), folders=folders)


def _ours(store: Store, folder: str) -> bool:
    """Whether a model folder is one of this home's, and where a training would put it again."""
    models = (store.path.parent / "models").resolve()
    return Path(folder).is_dir() and Path(folder).resolve().parent == models and ASIDE not in folder


def _aside(folder: Path) -> Path:
    number = 1
    while (path := folder.with_name(f"{folder.name}{ASIDE}{number}")).exists():
        number += 1
    return path


_BY_STAGE: dict[str, Callable[[_Eraser, Store], Gone]] = {
    "ingest": _sets,
    "sample_prompts": _sets,
    "explore": _responses,
    "refine": _responses,
    "compare": _responses,
    "judge": _judgements,
    "select_pairs": _pair_set,
    "audit_pairs": _audit,
    "bootstrap": _training,
    "train_policy": _training,
    "train_control": _training,
    "evaluate": _evaluation,
    "decide": _decision,
}
