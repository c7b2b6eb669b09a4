"""A clock that goes back decides nothing: the newest is what was written last."""

from __future__ import annotations

from collections.abc import Callable

from rlrf.auditing import Measure
from rlrf.handles import Handle
from rlrf.stages import Key
from rlrf.tracing import Tracer
from storage import audits, health, ledger, planning, reading, runs
from storage.ledger import Counts
from storage.store import Store
from tests.storage.builders import JUDGE, RUN, policy, uid

HOURS = ("12:00", "11:00", "09:30")


def at_falling_hours(store: Store, table: str, column: str, write: Callable[[int], None]) -> None:
    """Write three rows; each is stamped earlier than the one before."""
    for number, hour in enumerate(HOURS):
        write(number)
        with store.connect() as connection:
            sql = f"UPDATE {table} SET {column} = '2026-11-25 {hour}:00+00' WHERE rowid = (SELECT max(rowid) FROM {table})"
            connection.execute(sql)
    stamps = store.query(f"SELECT {column} AS stamp FROM {table} ORDER BY rowid")
    assert [row["stamp"] for row in stamps] == sorted((row["stamp"] for row in stamps), reverse=True)


def receipt(store: Store, stage: str, name: str) -> None:
    ledger.write_receipt(store, Handle(stage=stage, key=uid(name), rows=1, digest=uid("d")), Counts(), 1.0, RUN)


def test_the_latest_run_is_the_one_that_began_last(store: Store) -> None:
    def begin(number: int) -> None:
        runs.start_run(store, uid(f"run {number}"), "demo", "{}")
        runs.end_run(store, uid("run 0"), "completed")

    at_falling_hours(store, "runs", "started_at", begin)
    assert reading.latest_run(store) == reading.latest_run(store, "demo") == uid("run 2")
    assert [row["run_id"] for row in reading.runs(store)] == [uid(f"run {number}") for number in (2, 1, 0)]


def test_the_newest_pair_set_is_the_one_made_last(store: Store) -> None:
    at_falling_hours(store, "receipts", "created_at", lambda number: receipt(store, "select_pairs", f"pairs {number}"))
    assert reading.pair_set(store, None) == uid("pairs 2")


def test_a_stage_is_compared_with_the_one_done_last(store: Store) -> None:
    keys = [Key("explore", uid(f"key {n}"), {"n": n}) for n in (4, 6, 8)]

    def finish(number: int) -> None:
        ledger.record_keys(store, keys[number])
        receipt(store, "explore", f"key {keys[number].ingredients['n']}")

    at_falling_hours(store, "receipts", "created_at", finish)
    tracer = Tracer(planning.past(store), {}, lambda old, new: "")
    assert tracer.nearest("explore", Key("explore", uid("new"), {"n": 9}), 1) == keys[2]


def test_the_audit_of_a_pair_set_is_the_one_made_last(store: Store) -> None:
    def audit(number: int) -> None:
        measure = Measure("pairs", float(number), None, None, 1, None, True, "said", ())
        audits.add_audit(store, uid(f"audit {number}"), uid("pairs"), [measure])

    at_falling_hours(store, "pair_audits", "created_at", audit)
    assert [measure.value for measure in audits.audit_of(store, uid("pairs"))] == [2.0]


def test_a_check_that_is_repeated_is_the_newest(store: Store) -> None:
    def check(number: int) -> None:
        found = {"aspect": "answer", "n": number, "unrated": 0, "agreement": 1.0, "interval": (0.5, 1.0), "alpha": None}
        health.add_check(store, JUDGE, uid("new" if number == 1 else "again"), found | {"confusion": {}})

    for number in range(3):
        check(number)
    with store.connect() as connection:
        connection.execute("UPDATE judge_checks SET created_at = '2020-01-01' WHERE n = 2")
    assert [row["n"] for row in health.checks_of(store, JUDGE)] == [2, 1]


def test_the_champion_is_whom_the_last_decision_left(store: Store) -> None:
    made = [policy(name) for name in "abc"]
    for one in made:
        ledger.add_policy(store, one, "trained")
    at_falling_hours(
        store,
        "decisions",
        "created_at",
        lambda number: ledger.decide(store, "promote", made[number], made[number], "", ""),
    )
    assert ledger.champion(store) == made[2]
    assert ledger.champion_before(store) == made[1]
