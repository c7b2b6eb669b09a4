"""What one finished stage came to, in numbers: for the artifacts in Prefect's UI, from the same rows as every other report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from storage.store import Store

Rows = list[dict[str, Any]]


def receipt_row(store: Store, stage_key: str) -> dict[str, Any] | None:
    """What a finished stage counted: rows, kept, produced, failed, tokens, seconds; None where it isn't finished."""
    sql = "SELECT rows, kept, produced, failed, tokens, seconds FROM receipts WHERE stage_key = ?"
    return next(iter(store.query(sql, [stage_key])), None)


def failures(store: Store, gen_keys: Sequence[str], inputs: Sequence[str], run_id: str) -> Rows:
    """Requests of this run that yielded no response, by reason: n and one example. `inputs`: sets of their prompts or parents."""
    sql = """SELECT reason, count(*) AS n, min(detail) AS example FROM failures
             WHERE gen_key IN (SELECT unnest($keys::UUID[])) AND run_id = $run AND coalesce(parent_id, prompt_id) IN
                   (SELECT member_id FROM members WHERE set_key IN (SELECT unnest($sets::UUID[])))
             GROUP BY reason ORDER BY n DESC, reason"""
    return store.query(sql, {"keys": list(gen_keys), "run": run_id, "sets": list(inputs)})


def unrated(store: Store, set_key: str, judge_key: str) -> Rows:
    """Responses of a set that a judge left unrated, by reason: n."""
    sql = """SELECT reason, count(*) AS n FROM members m JOIN judgements j ON j.response_id = m.member_id
             WHERE m.set_key = ? AND j.judge_key = ? AND reason IS NOT NULL GROUP BY reason ORDER BY n DESC, reason"""
    return store.query(sql, [set_key, judge_key])


def scores(store: Store, set_key: str, judge_key: str, width: float = 0.1) -> dict[float, int]:
    """Rated responses of a set by their score, in steps of `width`: from a step's middle to how many there are."""
    sql = """SELECT round(j.score / $width) AS step, count(*) AS n
             FROM members m JOIN judgements j ON j.response_id = m.member_id
             WHERE m.set_key = $set AND j.judge_key = $judge AND j.reason IS NULL GROUP BY step ORDER BY step"""
    rows = store.query(sql, {"set": set_key, "judge": judge_key, "width": width})
    return {width * row["step"]: row["n"] for row in rows}


def lifts(store: Store, set_key: str, judge_key: str) -> Rows:
    """Refinements of a set against their own parents, by outcome (win, tie, loss, unrated): n and mean lift."""
    sql = """SELECT v.outcome, count(*) AS n, avg(v.lift) AS lift
             FROM refinement_against_parent v JOIN members m ON m.member_id = v.response_id
             WHERE m.set_key = ? AND v.judge_key = ? GROUP BY v.outcome ORDER BY v.outcome DESC"""
    return store.query(sql, [set_key, judge_key])


def lift_steps(store: Store, set_key: str, judge_key: str, width: float = 0.1) -> dict[float, int]:
    """Rated refinements of a set by their lift, in steps of `width`: from a step's middle to how many there are."""
    sql = """SELECT round(v.lift / $width) AS step, count(*) AS n
             FROM refinement_against_parent v JOIN members m ON m.member_id = v.response_id
             WHERE m.set_key = $set AND v.judge_key = $judge AND v.lift IS NOT NULL GROUP BY step ORDER BY step"""
    rows = store.query(sql, {"set": set_key, "judge": judge_key, "width": width})
    return {width * row["step"]: row["n"] for row in rows}


def pair_lengths(store: Store, pair_set: str) -> tuple[str, list[int], list[int]]:
    """The unit, and lengths of chosen and rejected responses; characters where a response has no count of tokens."""
    sql = """SELECT chosen_tokens, rejected_tokens, length(chosen) AS chosen, length(rejected) AS rejected
             FROM pair_texts WHERE pair_set = ? ORDER BY prompt_id, position"""
    rows = store.query(sql, [pair_set])
    if all(row["chosen_tokens"] is not None and row["rejected_tokens"] is not None for row in rows):
        return "tokens", [row["chosen_tokens"] for row in rows], [row["rejected_tokens"] for row in rows]
    return "characters", [row["chosen"] for row in rows], [row["rejected"] for row in rows]


def unpaired(store: Store, pair_set: str) -> Rows:
    """Prompts that got no pair, by reason: n."""
    sql = "SELECT reason, count(*) AS n FROM unpaired WHERE pair_set = ? GROUP BY reason ORDER BY n DESC, reason"
    return store.query(sql, [pair_set])


def dropped(store: Store) -> Rows:
    """Rows of prompt and response files that could not be used, by reason: n."""
    sql = """SELECT reason, count(*) AS n FROM (SELECT reason FROM dropped_prompts UNION ALL SELECT reason FROM dropped_responses)
             GROUP BY reason ORDER BY n DESC, reason"""
    return store.query(sql)


def training_curve(store: Store, stage_key: str, names: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Metrics of a training by name: step and value; those that it doesn't have are left out."""
    sql = """SELECT name, step, value FROM training_metrics WHERE stage_key = $key AND name IN (SELECT unnest($names))
             ORDER BY name, step"""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in store.query(sql, {"key": stage_key, "names": list(names)}):
        found.setdefault(row["name"], []).append((row["step"], row["value"]))
    return found


def excluded(store: Store, stage_key: str) -> Rows:
    """Pairs that a training could not use, by reason: n."""
    found = store.value("SELECT excluded FROM trainings WHERE stage_key = ?", [stage_key])
    return [{"reason": reason, "n": n} for reason, n in json.loads(found or "{}").items()]


def policy_kind(store: Store, policy_id: str) -> str:
    """How a policy came about: model, bootstrap, trained or control."""
    return str(store.value("SELECT kind FROM policies WHERE policy_id = ?", [policy_id]))


def evaluations_like(store: Store, stage_key: str, most: int = 12) -> Rows:
    """The latest evaluations by the same judge on as many questions, oldest first: policy, accuracy, low, high."""
    sql = """SELECT * FROM (
               SELECT e.rowid AS place, p.name AS policy, e.accuracy, e.low, e.high
               FROM evaluations e JOIN policies p USING (policy_id), (FROM evaluations WHERE stage_key = $key) this
               WHERE e.judge_key = this.judge_key AND e.questions = this.questions ORDER BY e.rowid DESC LIMIT $most)
             ORDER BY place"""
    return store.query(sql, {"key": stage_key, "most": most})


def evaluation_aspects(store: Store, stage_key: str) -> Rows:
    """Aspect means of one evaluation: aspect, mean, low, high, rated."""
    sql = "SELECT aspect, mean, low, high, rated FROM evaluation_aspects WHERE stage_key = ? ORDER BY place"
    return store.query(sql, [stage_key])


def examples(store: Store, pair_set: str, judge_key: str, most: int = 3) -> Rows:
    """Pairs to look at, those first whose chosen response is the refinement that gained most.

    messages, chosen, rejected; and for a refinement: parent (its text), lift, critiques (aspect, level, critique of the
    parent). None of these where the chosen response is the policy's own.
    """
    sql = """SELECT a.prompt_id, a.messages, a.chosen, a.rejected, p.text AS parent, j.score - pj.score AS lift,
                    (SELECT list({'aspect': t.aspect, 'level': t.level, 'critique': t.critique} ORDER BY t.place)
                     FROM ratings t WHERE t.response_id = p.response_id AND t.judge_key = $judge) AS critiques
             FROM pair_texts a JOIN responses c ON c.response_id = a.chosen_id
             LEFT JOIN responses p ON p.response_id = c.parent_id
             LEFT JOIN judgements j ON j.response_id = c.response_id AND j.judge_key = $judge
             LEFT JOIN judgements pj ON pj.response_id = p.response_id AND pj.judge_key = $judge
             WHERE a.pair_set = $pairs
             QUALIFY row_number() OVER (PARTITION BY a.prompt_id ORDER BY p.text IS NULL, lift DESC NULLS LAST, a.position) = 1
             ORDER BY p.text IS NULL, lift DESC NULLS LAST, a.prompt_id LIMIT $most"""
    rows = store.query(sql, {"pairs": pair_set, "judge": judge_key, "most": most})
    return [row | {"messages": json.loads(row["messages"]), "critiques": row["critiques"] or []} for row in rows]
