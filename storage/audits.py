"""Audits of pair sets as they are kept: measures, and the rows that offend."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlrf.auditing import Measure, Offence
from storage.store import Store, insert

_FIELDS = ("value", "low", "high", "n", "bound", "passed", "said")


def add_audit(store: Store, stage_key: str, pair_set: str, measures: Sequence[Measure]) -> None:
    """Write what one audit found, with its offences; may be repeated."""
    heads: list[dict[str, Any]] = [
        {"stage_key": stage_key, "pair_set": pair_set, "place": place, "measure": one.name}
        | {name: getattr(one, name) for name in _FIELDS}
        for place, one in enumerate(measures)
    ]
    told: list[dict[str, Any]] = [
        {"stage_key": stage_key, "measure": one.name, "place": place, "prompt_id": offence.prompt_id}
        | {"chosen_id": offence.chosen_id, "rejected_id": offence.rejected_id, "said": offence.said}
        for one in measures
        for place, offence in enumerate(one.offences)
    ]
    with store.connect() as connection:
        insert(connection, "pair_audits", heads)
        insert(connection, "audit_offences", told)


def audit_of(store: Store, pair_set: str) -> list[Measure]:
    """The latest measures of a pair set, or of one with equal pairs; empty where there was no audit."""
    sql = """SELECT a.stage_key FROM pair_audits a LEFT JOIN receipts r ON r.stage_key = a.pair_set
             WHERE a.pair_set = $set OR r.digest = (SELECT digest FROM receipts WHERE stage_key = $set)
             ORDER BY a.rowid DESC LIMIT 1"""
    found = store.value(sql, {"set": pair_set})
    return measures_of(store, str(found)) if found else []


def audits_of(store: Store, run_id: str) -> dict[str, list[Measure]]:
    """From the name of every iteration of a run to the measures that its pairs passed with, in order."""
    sql = """SELECT iteration, stage_keys ->> 'audit_pairs' AS stage_key FROM iterations
             WHERE run_id = ? AND arm = 'policy' AND (stage_keys ->> 'audit_pairs') IS NOT NULL ORDER BY iteration"""
    return {f"iteration {row['iteration']}": measures_of(store, row["stage_key"]) for row in store.query(sql, [run_id])}


def measures_of(store: Store, stage_key: str) -> list[Measure]:
    """The measures that one audit took, with their offences."""
    told = "SELECT * FROM audit_offences WHERE stage_key = ? ORDER BY measure, place"
    offences: dict[str, list[Offence]] = {}
    for row in store.query(told, [stage_key]):
        one = Offence(row["prompt_id"], row["said"], row["chosen_id"], row["rejected_id"])
        offences.setdefault(row["measure"], []).append(one)
    found = store.query("SELECT * FROM pair_audits WHERE stage_key = ? ORDER BY place", [stage_key])
    return [
        Measure(
            row["measure"], offences=tuple(offences.get(row["measure"], ())), **{name: row[name] for name in _FIELDS}
        )
        for row in found
    ]


def offending_rows(store: Store, stage_key: str, name: str) -> list[dict[str, Any]]:
    """A measure's offences with their texts, worst first: place, said, prompt_id, prompt (last turn), chosen, rejected."""
    sql = """SELECT o.place, o.said, o.prompt_id, p.messages, c.text AS chosen, r.text AS rejected
             FROM audit_offences o LEFT JOIN prompts p USING (prompt_id)
             LEFT JOIN responses c ON c.response_id = o.chosen_id LEFT JOIN responses r ON r.response_id = o.rejected_id
             WHERE o.stage_key = ? AND o.measure = ? ORDER BY o.place"""
    found = store.query(sql, [stage_key, name])
    for row in found:
        messages = json.loads(row.pop("messages") or "[]")
        row["prompt"] = messages[-1]["content"] if messages else ""
    return found
