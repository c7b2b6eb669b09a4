"""What people ask a store: its state, one prompt with all that came of it, the results of a run."""

from __future__ import annotations

import json
from typing import Any

from rlrf.errors import StoreError
from storage.store import Store

_COUNTS = ("prompts", "responses", "judgements", "ratings", "failures", "pairs", "policies", "receipts", "runs")


def counts(store: Store) -> dict[str, int]:
    """Rows per table, learning side; held-out prompts and answers apart."""
    found = {name: int(store.value(f"SELECT count(*) FROM {name}")) for name in _COUNTS}
    found["held_out.prompts"] = int(store.value("SELECT count(*) FROM held_out.prompts"))
    found["held_out.responses"] = int(store.value("SELECT count(*) FROM held_out.responses"))
    return found


def runs(store: Store, limit: int = 10) -> list[dict[str, Any]]:
    """The latest runs, newest first."""
    sql = "SELECT run_id, name, status, reason, started_at, ended_at FROM runs ORDER BY rowid DESC LIMIT ?"
    return store.query(sql, [limit])


def results(store: Store, run_id: str) -> list[dict[str, Any]]:
    """One row per arm and iteration of a run, with the aspect means of its evaluation."""
    rows = store.query(
        "SELECT * FROM iteration_summary WHERE run_id = ? ORDER BY arm = 'control', iteration, arm", [run_id]
    )
    for row in rows:
        sql = "SELECT aspect, mean, low, high FROM evaluation_aspects WHERE stage_key = ? ORDER BY place"
        row["aspects"] = store.query(sql, [row["evaluation"]])
    return rows


def same_results(store: Store, run_id: str, other_id: str) -> bool:
    """Whether two runs have the same iterations: the same stages, down to their keys, and decisions."""
    sql = "SELECT arm, iteration, evaluation, decision, stage_keys FROM iterations WHERE run_id = ? ORDER BY arm, iteration"
    one, other = (store.query(sql, [run]) for run in (run_id, other_id))
    return bool(one) and one == other


def latest_run(store: Store, name: str | None = None) -> str | None:
    """The id of the newest run, of this name if one is given."""
    sql = "SELECT run_id FROM runs WHERE $name IS NULL OR name = $name ORDER BY rowid DESC LIMIT 1"
    found: str | None = store.value(sql, {"name": name})
    return found


def reason(store: Store, run_id: str) -> str:
    """Why a run ended as it did, where that was recorded."""
    return str(store.value("SELECT reason FROM runs WHERE run_id = ?", [run_id]) or "nothing was done")


def produced(store: Store, run_id: str) -> dict[str, int]:
    """What one run added: responses (held-out answers included), their tokens, judgements, trainings."""
    both = "(FROM {0} UNION ALL FROM held_out.{0})"
    sql = f"""SELECT
        (SELECT count(*) FROM {both.format("responses")} WHERE run_id = $run AND backend <> 'external') AS responses,
        (SELECT coalesce(sum(completion_tokens), 0) FROM {both.format("responses")} WHERE run_id = $run) AS tokens,
        (SELECT count(*) FROM {both.format("judgements")} WHERE run_id = $run) AS judgements,
        (SELECT count(*) FROM receipts WHERE run_id = $run AND stage IN ('train_policy', 'train_control', 'bootstrap'))
            AS trainings"""
    return {name: int(value) for name, value in store.query(sql, {"run": run_id})[0].items()}


def find_prompt(store: Store, prefix: str) -> dict[str, Any]:
    """The prompt whose id starts with this, or whose text holds it. Raises StoreError for none or several."""
    sql = """SELECT prompt_id, source, messages, reference FROM prompts
             WHERE starts_with(prompt_id::VARCHAR, lower($what))
                OR contains(array_to_string(json_extract_string(messages, '$[*].content'), chr(10)), $what)
             ORDER BY prompt_id LIMIT 6"""
    rows = store.query(sql, {"what": prefix})
    if len(rows) != 1:
        near = ", ".join(row["prompt_id"] for row in rows[:5]) or "none"
        many = len(rows) if len(rows) < 6 else "more than 5"
        raise StoreError(f"{prefix!r} is the start of an id, or part of the text, of {many} prompts ({near}); be exact")
    return rows[0] | {"messages": json.loads(rows[0]["messages"])}


def responses_to(store: Store, prompt_id: str) -> list[dict[str, Any]]:
    """Every response to a prompt with its judgements, ratings and places in pairs, refinements after their parents."""
    sql = """SELECT r.response_id, r.parent_id, r.position, r.text, r.finish_reason, r.completion_tokens,
                    p.name AS policy, j.score, j.reason,
                    (SELECT list({'aspect': t.aspect, 'rating': t.rating, 'critique': t.critique} ORDER BY t.place)
                     FROM ratings t WHERE t.response_id = r.response_id AND t.judge_key = j.judge_key) AS ratings,
                    (SELECT count(*) FROM pairs a WHERE a.chosen_id = r.response_id) AS chosen,
                    (SELECT count(*) FROM pairs a WHERE a.rejected_id = r.response_id) AS rejected
             FROM responses r LEFT JOIN policies p USING (policy_id) LEFT JOIN judgements j USING (response_id)
             WHERE r.prompt_id = ?
             ORDER BY coalesce(r.parent_id, r.response_id), r.parent_id IS NOT NULL, r.rowid"""
    return store.query(sql, [prompt_id])


def pair_set(store: Store, prefix: str | None) -> str:
    """The pair set whose key starts with this, or the newest one. Raises StoreError when there is none."""
    sql = """SELECT stage_key FROM receipts WHERE stage = 'select_pairs' AND starts_with(stage_key::VARCHAR, $prefix)
             ORDER BY rowid DESC LIMIT 1"""
    found = store.value(sql, {"prefix": prefix or ""})
    if found is None:
        what = "no pair set yet" if prefix is None else f"no pair set {prefix!r}"
        raise StoreError(f"{what} in {str(store.path)!r}; `rlrf status` says what there is")
    return str(found)
