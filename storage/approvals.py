"""Promotions that wait for a person: what was proposed, where the forms for an answer are, and the first answer, which counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rlrf.errors import StoreError
from rlrf.handles import Evaluation
from storage.store import Store, fetch

NOBODY = "gate"
"""By whom a proposal is turned down that nobody answered in time."""


@dataclass(frozen=True)
class Answer:
    """What was decided of a proposal: by whom, and the note as reason."""

    approved: bool
    decided_by: str
    reason: str


@dataclass(frozen=True)
class Proposal:
    """A promotion that waits: both evaluations, the new policy, what the gate said, until when it waits, for which run."""

    stage_key: str
    run_id: str
    iteration: int
    evaluation: str
    against: str
    policy_id: str
    policy: str
    reason: str
    until: datetime


def propose(
    store: Store,
    stage_key: str,
    run_id: str,
    iteration: int,
    new: Evaluation,
    old: Evaluation,
    hours: float,
    reason: str,
) -> None:
    """Record that this decision waits for an answer. Asked again, it still waits from the first time on, by the hours of now."""
    values = [stage_key, run_id, iteration, new.key, old.key, hours, reason]
    columns = "stage_key, run_id, iteration, evaluation, against, hours, reason"
    with store.connect() as connection:
        connection.execute(
            f"""INSERT INTO proposals ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET hours = excluded.hours, run_id = excluded.run_id""",
            values,
        )


def add_form(store: Store, stage_key: str, flow_run_id: str, response: str) -> None:
    """Remember where in Prefect an answer may be, before anybody can give it."""
    with store.connect() as connection:
        sql = "INSERT INTO proposal_forms (stage_key, flow_run_id, response) VALUES (?, ?, ?)"
        connection.execute(sql, [stage_key, flow_run_id, response])


def forms(store: Store, stage_key: str) -> list[dict[str, Any]]:
    """Every place where Prefect may have an answer: flow_run_id and response (the name of the input), oldest first."""
    sql = "SELECT flow_run_id, response FROM proposal_forms WHERE stage_key = ? ORDER BY rowid"
    return store.query(sql, [stage_key])


def settle(store: Store, stage_key: str, answer: Answer | None = None) -> Answer | None:
    """The answer to a proposal; None while it waits. `answer` is taken where there is none yet and its time isn't up.

    A proposal whose time is up without an answer is turned down here, once and for all.
    """
    with store.connect() as connection:
        late = "now() >= asked_at + to_microseconds((hours * 3.6e9)::BIGINT)"
        connection.execute(
            f"""INSERT INTO approvals (stage_key, approved, decided_by, reason)
                SELECT stage_key, false, $by, 'nobody approved it within ' || format('{{:g}}', hours) || ' hours'
                FROM proposals WHERE stage_key = $key AND {late} ON CONFLICT DO NOTHING""",
            {"key": stage_key, "by": NOBODY},
        )
        if answer is not None:
            connection.execute(
                """INSERT INTO approvals (stage_key, approved, decided_by, reason)
                   SELECT stage_key, $approved, $by, $reason FROM proposals WHERE stage_key = $key ON CONFLICT DO NOTHING""",
                {"key": stage_key, "approved": answer.approved, "by": answer.decided_by, "reason": answer.reason},
            )
        sql = "SELECT approved, decided_by, reason FROM approvals WHERE stage_key = ?"
        rows = fetch(connection, sql, [stage_key])
    return Answer(**rows[0]) if rows else None


def waiting(store: Store, prefix: str = "") -> Proposal:
    """The one proposal without an answer whose policy's id starts so. Raises StoreError for none or several."""
    found = [one for one in proposals(store) if one.policy_id.startswith(prefix)]
    if len(found) != 1:
        there = "; ".join(f"{one.policy} ({one.policy_id[:8]})" for one in found) or "none"
        said = (
            "give the start of one policy's id with --policy" if found else "`SELECT * FROM approvals` has the answers"
        )
        raise StoreError(f"{len(found)} promotions wait for approval in {str(store.path)!r} ({there}): {said}")
    return found[0]


def awaits(store: Store, stage_key: str) -> bool:
    """Whether this decision waits for a person."""
    return any(one.stage_key == stage_key for one in proposals(store))


def proposals(store: Store) -> list[Proposal]:
    """Every promotion that nobody has answered yet, oldest first; also those whose time is up since the last run."""
    sql = """SELECT s.stage_key, s.run_id, s.iteration, s.evaluation, s.against, p.policy_id, p.name AS policy, s.reason,
                    s.asked_at + to_microseconds((s.hours * 3.6e9)::BIGINT) AS until
             FROM proposals s JOIN evaluations e ON e.stage_key = s.evaluation JOIN policies p USING (policy_id)
             WHERE s.stage_key NOT IN (SELECT stage_key FROM approvals) ORDER BY s.asked_at, s.stage_key"""
    return [Proposal(**row) for row in store.query(sql)]


def pairs_behind(store: Store, policy_id: str) -> str | None:
    """The pair set that a policy learned from; None where it learned from none."""
    found = store.value("SELECT pair_set FROM trainings WHERE policy_id = ? ORDER BY rowid DESC LIMIT 1", [policy_id])
    return None if found is None else str(found)
