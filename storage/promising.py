"""What reflection starts from: each prompt's promising response with its feedback, and which prompts are left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlrf.config import Budget
from rlrf.records import Rating
from storage.store import Store

_JUDGED = """
    judged AS (
        SELECT r.response_id, r.prompt_id, r.text, r.finish_reason, j.score, j.positive, j.reason
        FROM members m JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id)
        WHERE m.set_key = $set AND j.judge_key = $judge),
    worth AS (
        SELECT prompt_id, count(*) FILTER (reason IS NULL) AS rated,
               count(*) FILTER (reason IS NULL AND finish_reason = 'stop' AND ($pick <> 'best_imperfect' OR NOT positive))
                   AS candidates,
               CASE WHEN rated = 0 THEN NULL
                    WHEN avg(positive::INTEGER) FILTER (reason IS NULL) >= $solved THEN 'solved'
                    WHEN max(score) FILTER (reason IS NULL) <= $hopeless THEN 'hopeless' END AS left_out
        FROM judged GROUP BY prompt_id)
"""
"""$solved and $hopeless are null where their rule is off; nothing is known to be at least null."""


def promising(
    store: Store,
    set_key: str,
    judge_key: str,
    pick: str,
    seed: int,
    *,
    reward_key: str | None = None,
    budget: Budget | None = None,
) -> list[dict[str, Any]]:
    """Per prompt that the budget doesn't leave out, the response to refine: the rated, complete one with the highest score,
    ties broken by seed.

    `pick` "best_imperfect" passes over responses at the top on every aspect; "reward" orders by the score that the judge
    `reward_key` gave, those without one last. Rows: prompt_id, messages, reference, response_id, text, ratings.
    """
    sql = f"""WITH {_JUDGED},
             ranked AS (
               SELECT r.*, row_number() OVER (PARTITION BY r.prompt_id ORDER BY w.score DESC NULLS LAST, r.score DESC,
                      md5($seed || r.response_id::VARCHAR), r.response_id) AS place
               FROM judged r JOIN worth USING (prompt_id)
               LEFT JOIN judgements w ON w.response_id = r.response_id AND w.judge_key = $reward AND w.reason IS NULL
               WHERE worth.left_out IS NULL AND r.reason IS NULL AND r.finish_reason = 'stop'
                 AND ($pick <> 'best_imperfect' OR NOT r.positive)),
             feedback AS (
               SELECT t.response_id,
                      list({{'aspect': t.aspect, 'rating': t.level, 'critique': t.critique}} ORDER BY t.place) AS ratings
               FROM ratings t JOIN ranked USING (response_id)
               WHERE t.judge_key = $judge AND ranked.place = 1 GROUP BY t.response_id)
             SELECT prompt_id, messages, reference, ranked.response_id, ranked.text, ratings
             FROM ranked JOIN feedback USING (response_id) JOIN prompts USING (prompt_id)
             WHERE ranked.place = 1 ORDER BY ranked.response_id"""
    values = _values(set_key, judge_key, pick, budget) | {"reward": reward_key, "seed": f"{seed}:"}
    rows = store.query(sql, values)
    for row in rows:
        row["messages"] = tuple(json.loads(row["messages"]))
        row["ratings"] = _ratings(row["ratings"])
    return rows


def left_out(store: Store, set_key: str, judge_key: str, pick: str, budget: Budget | None = None) -> dict[str, int]:
    """How many prompts of a judged set get no refinements, by reason: solved or hopeless (the budget), nothing_rated (no
    response is), none_promising (none that ended by itself and, for "best_imperfect", isn't at the top)."""
    sql = f"""WITH {_JUDGED}
             SELECT coalesce(left_out, CASE WHEN rated = 0 THEN 'nothing_rated' WHEN candidates = 0 THEN 'none_promising' END)
                    AS why, count(*) AS n FROM worth GROUP BY why HAVING why IS NOT NULL ORDER BY why"""
    return {row["why"]: row["n"] for row in store.query(sql, _values(set_key, judge_key, pick, budget))}


def verdicts(
    store: Store, response_ids: Sequence[str], judge_keys: Sequence[str]
) -> dict[str, list[tuple[Rating, ...]]]:
    """Per response the ratings that each of these judges gave it, in the judges' order; without those that left it unrated."""
    sql = """SELECT j.response_id, j.judge_key,
                    list({'aspect': t.aspect, 'rating': t.level, 'critique': t.critique} ORDER BY t.place) AS ratings
             FROM judgements j JOIN ratings t USING (response_id, judge_key)
             WHERE j.reason IS NULL AND j.response_id IN (SELECT unnest($ids::UUID[]))
               AND j.judge_key IN (SELECT unnest($judges::UUID[])) GROUP BY j.response_id, j.judge_key"""
    found: dict[str, dict[str, tuple[Rating, ...]]] = {}
    for row in store.query(sql, {"ids": list(response_ids), "judges": list(judge_keys)}):
        found.setdefault(row["response_id"], {})[row["judge_key"]] = _ratings(row["ratings"])
    return {one: [by[key] for key in dict.fromkeys(judge_keys) if key in by] for one, by in found.items()}


def sample_behind(store: Store, set_key: str, count: int, seed: int) -> list[str]:
    """Ids of `count` of the prompts that a set of responses answers, all where there are fewer, in seeded order."""
    sql = """SELECT prompt_id FROM (SELECT DISTINCT r.prompt_id FROM members m JOIN responses r ON r.response_id = m.member_id
             WHERE m.set_key = $set) ORDER BY md5($seed || prompt_id::VARCHAR), prompt_id LIMIT $count"""
    values = {"set": set_key, "seed": f"compare:{seed}:", "count": count}
    return [row["prompt_id"] for row in store.query(sql, values)]


def _values(set_key: str, judge_key: str, pick: str, budget: Budget | None) -> dict[str, Any]:
    rules = {"solved": budget.solved if budget else None, "hopeless": budget.hopeless if budget else None}
    return {"set": set_key, "judge": judge_key, "pick": pick} | rules


def _ratings(rows: list[dict[str, Any]]) -> tuple[Rating, ...]:
    return tuple(Rating(**row) for row in rows)
