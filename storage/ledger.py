"""What happened: keys with their ingredients, stage receipts, policies, trainings, decisions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rlrf.backends.weights import is_whole
from rlrf.errors import StoreError
from rlrf.handles import Decision, Evaluation, Handle, Outcome, Policy, Trained
from rlrf.stages import Key
from storage.store import Store, insert


@dataclass(frozen=True)
class Counts:
    """What a stage did: rows kept from before, rows produced, rows failed, tokens produced."""

    kept: int = 0
    produced: int = 0
    failed: int = 0
    tokens: int = 0


def record_start(store: Store, stage: str, key: Key, run_id: str) -> None:
    """Record that a run begins to work on a stage, with the ingredients of its key."""
    with store.connect() as connection:
        insert(connection, "keys", _whole(key))
        sql = "INSERT INTO starts (stage_key, stage, run_id) VALUES (?, ?, ?)"
        connection.execute(sql, [key.key, stage, run_id])


def record_keys(store: Store, *keys: Key) -> None:
    """Keep the ingredients of keys and of all their parts, so that a later miss can be explained."""
    with store.connect() as connection:
        insert(connection, "keys", _whole(*keys))


def _whole(*keys: Key) -> list[dict[str, Any]]:
    whole = {one.key: one for key in keys for one in key.whole()}
    return [
        {"key": one.key, "kind": one.kind, "ingredients": json.dumps(one.ingredients, ensure_ascii=False)}
        for one in whole.values()
    ]


def receipt(store: Store, stage_key: str) -> Handle | None:
    """The handle of a finished stage, or None."""
    rows = store.query("SELECT stage, stage_key AS key, rows, digest FROM receipts WHERE stage_key = ?", [stage_key])
    return Handle(**rows[0]) if rows else None


def write_receipt(store: Store, handle: Handle, counts: Counts, seconds: float, run_id: str) -> None:
    """Mark a stage as finished. Written last: a stage without a receipt is done again from the rows that exist."""
    row = {
        "stage_key": handle.key,
        "stage": handle.stage,
        "rows": handle.rows,
        "digest": handle.digest,
        **vars(counts),
        "seconds": seconds,
        "run_id": run_id,
    }
    with store.connect() as connection:
        insert(connection, "receipts", [row])


def add_policy(
    store: Store, policy: Policy, kind: str, parent_id: str | None = None, stage_key: str | None = None
) -> None:
    """Record a policy (kind: model, bootstrap, trained, control or external), that its folder moved, or that a stage made
    it again. Whatever policy was in that folder before is there no longer."""
    row = policy.model_dump(exclude={"served_as"}) | {"kind": kind, "parent_id": parent_id, "stage_key": stage_key}
    with store.connect() as connection:
        insert(connection, "policies", [row])
        connection.execute(
            """UPDATE policies SET folder = $folder, stage_key = coalesce(stage_key, $stage) WHERE policy_id = $id
               AND (folder IS DISTINCT FROM $folder OR stage_key IS DISTINCT FROM coalesce(stage_key, $stage))""",
            {"folder": policy.folder, "stage": stage_key, "id": policy.policy_id},
        )
        connection.execute(
            "UPDATE policies SET folder = folder || '.replaced' WHERE folder = $folder AND folder <> '' AND policy_id <> $id",
            {"folder": policy.folder, "id": policy.policy_id},
        )


def policy(store: Store, policy_id: str) -> Policy:
    """A recorded policy. Raises StoreError for an unknown id."""
    rows = store.query("SELECT policy_id, name, folder FROM policies WHERE policy_id = ?", [policy_id])
    if not rows:
        raise StoreError(f"policy {policy_id!r} is not in the store; see `SELECT * FROM policies`")
    return Policy(**rows[0])


def policies_like(store: Store, prefix: str) -> list[str]:
    """Ids of the policies of ours that start so, five at most."""
    sql = "SELECT policy_id FROM policies WHERE starts_with(policy_id::VARCHAR, ?) AND kind <> 'external' LIMIT 5"
    return [row["policy_id"] for row in store.query(sql, [prefix])]


def policies_called(store: Store, name: str) -> list[str]:
    """Ids of the policies of ours of this name or whose ids start so, five at most; of equal names the newest alone."""
    named = "SELECT policy_id FROM policies WHERE name = ? AND kind <> 'external' ORDER BY created_at DESC LIMIT 1"
    return [row["policy_id"] for row in store.query(named, [name])] or policies_like(store, name)


def made_policy(store: Store, stage_key: str) -> Policy | None:
    """The policy that a stage made, or None, also where its folder is there no longer."""
    rows = store.query("SELECT policy_id, name, folder FROM policies WHERE stage_key = ?", [stage_key])
    return Policy(**rows[0]) if rows and is_whole(rows[0]["folder"]) else None


def add_training(
    store: Store, trained: Trained, record: dict[str, Any], metrics: list[dict[str, Any]], seconds: float
) -> None:
    """Record a finished training with its metrics, one row per step and name.

    `record`: pair_set (None for the control), spec, rows trained on, rows excluded by reason.
    """
    row = {
        "stage_key": trained.key,
        "policy_id": trained.policy.policy_id,
        "base_id": trained.base.policy_id,
        "pair_set": record["pair_set"],
        "spec": json.dumps(record["spec"]),
        "rows": record["rows"],
        "excluded": json.dumps(record["excluded"]),
        "steps": trained.steps,
        "seconds": seconds,
    }
    values = [
        {"stage_key": trained.key, "step": int(entry["step"]), "name": name, "value": float(value)}
        for entry in metrics
        for name, value in entry.items()
        if name != "step"
    ]
    with store.connect() as connection:
        insert(connection, "trainings", [row])
        insert(connection, "training_metrics", values)


def training(store: Store, stage_key: str) -> Trained | None:
    """A recorded training, or None, also where the folder of its policy is there no longer."""
    rows = store.query("SELECT policy_id, base_id, steps FROM trainings WHERE stage_key = ?", [stage_key])
    if not rows:
        return None
    row = rows[0]
    base, made = policy(store, row["base_id"]), policy(store, row["policy_id"])
    if not is_whole(made.folder):
        return None
    return Trained(policy=made, base=base, key=stage_key, steps=row["steps"])


def forget_stage(store: Store, stage_key: str) -> None:
    """Take back that a stage is finished, where its result is there no longer; a policy that it made stays known."""
    with store.connect() as connection:
        for table in ("training_metrics", "trainings", "receipts"):
            connection.execute(f"DELETE FROM {table} WHERE stage_key = ?", [stage_key])
        connection.execute("UPDATE policies SET stage_key = NULL WHERE stage_key = ?", [stage_key])


def add_iteration(
    store: Store, run_id: str, arm: str, outcome: Outcome, judge_key: str, decision_key: str | None = None
) -> None:
    """Record one iteration of one arm (base, policy or control)."""
    stages = outcome.stages
    row = {
        "run_id": run_id,
        "iteration": outcome.iteration,
        "arm": arm,
        "base_id": outcome.base.policy_id if outcome.base else None,
        "policy_id": outcome.evaluation.policy.policy_id,
        "evaluation": outcome.evaluation.key,
        "decision": decision_key,
        "prompts_key": stages.get("sample_prompts"),
        "responses_key": stages.get("explore"),
        "refinements_key": stages.get("refine"),
        "pair_set": stages.get("select_pairs"),
        "judge_key": judge_key,
        "stage_keys": json.dumps(stages),
        "seconds": _seconds(store, list(stages.values())),
    }
    with store.connect() as connection:
        insert(connection, "iterations", [row])


def _seconds(store: Store, stage_keys: list[str]) -> float:
    """What the stages took when they were done, whichever run did them."""
    sql = "SELECT coalesce(sum(seconds), 0) FROM receipts WHERE stage_key IN (SELECT unnest($keys::UUID[]))"
    return float(store.value(sql, {"keys": stage_keys}))


def champion(store: Store) -> Policy | None:
    """The policy that the last decision left in office, or None in a store that has decided nothing."""
    rows = store.query("SELECT policy_id, name, folder FROM champion")
    return Policy(**rows[0]) if rows else None


def champion_before(store: Store) -> Policy | None:
    """The champion that the present one replaced, or None. Rolling back again goes one further back."""
    rows = store.query("SELECT champion_id, verdict FROM decisions ORDER BY number")
    terms: list[str] = []  # champions in office, the present one last; a rollback ends a term for good
    for row in rows:
        if row["verdict"] == "rollback":
            terms.pop()
        elif not terms or terms[-1] != row["champion_id"]:
            terms.append(row["champion_id"])
    return policy(store, terms[-2]) if len(terms) > 1 else None


def decide(
    store: Store,
    verdict: str,
    about: Policy,
    champion: Policy,
    reason: str,
    by: str,
    **evidence: float | int | str | None,
) -> None:
    """Append a decision (verdict: start, promote, keep or rollback); the last row's champion is in office.

    `evidence` fills the columns stage_key, run_id, iteration, gain, low, high and length_ratio where there are any. A
    stage that decided before doesn't decide again, and nothing starts where there are decisions.
    """
    row: dict[str, Any] = {"verdict": verdict, "policy_id": about.policy_id, "champion_id": champion.policy_id}
    row |= {"reason": reason, "decided_by": by} | evidence
    names, marks = ", ".join(row), ", ".join(f"${name}" for name in row)
    before = "" if verdict == "start" else "WHERE stage_key = $stage_key"
    undecided = f" WHERE NOT EXISTS (FROM decisions {before})" if verdict == "start" or "stage_key" in row else ""
    with store.connect() as connection:
        connection.execute(f"INSERT INTO decisions ({names}) SELECT {marks}{undecided}", row)


def decision(store: Store, stage_key: str) -> Decision | None:
    """A recorded decision of the gate, or None."""
    rows = store.query("SELECT verdict, champion_id, reason FROM decisions WHERE stage_key = ?", [stage_key])
    if not rows:
        return None
    row = rows[0]
    return Decision(
        key=stage_key, verdict=row["verdict"], champion=policy(store, row["champion_id"]), reason=row["reason"]
    )


def add_evaluation(store: Store, evaluation: Evaluation, unrated: int, aspects: list[dict[str, Any]]) -> None:
    """Record one policy's evaluation with its aspect means."""
    row = evaluation.model_dump(exclude={"key", "policy"})
    row |= {"stage_key": evaluation.key, "policy_id": evaluation.policy.policy_id, "unrated": unrated}
    with store.connect() as connection:
        insert(connection, "evaluations", [row])
        insert(connection, "evaluation_aspects", [{"stage_key": evaluation.key, **aspect} for aspect in aspects])


def evaluation(store: Store, stage_key: str) -> Evaluation | None:
    """A recorded evaluation, or None."""
    rows = store.query("SELECT * FROM evaluations WHERE stage_key = ?", [stage_key])
    if not rows:
        return None
    row = rows[0]
    kept = {name: row[name] for name in ("judge_key", "digest", "questions", "accuracy", "low", "high", "tokens_mean")}
    return Evaluation(key=stage_key, policy=policy(store, row["policy_id"]), **kept)
