"""What reflection was worth: refinements against their own parents, and against as many plain responses."""

from __future__ import annotations

from typing import Any

from rlrf.evaluating import mean_interval
from storage.store import Store

OVERALL = "score"
"""The name of the line over all aspects."""

_COUNTS = """
    SELECT iteration, count(*) AS refinements, count(DISTINCT prompt_id) AS prompts,
           count(*) FILTER (outcome = 'unrated') AS unrated,
           count(*) FILTER (outcome <> 'unrated' AND parent_positive) AS parents_positive,
           count(*) FILTER (outcome <> 'unrated' AND parent_positive AND NOT positive) AS positives_broken
    FROM reflection_lifts WHERE run_id = $run GROUP BY iteration ORDER BY iteration
"""
_BROKEN = """
    SELECT iteration, count(*) AS parents_top, count(*) FILTER (broken) AS tops_broken
    FROM (SELECT iteration, response_id, bool_or(broken) AS broken FROM reflection_aspects
          WHERE run_id = $run GROUP BY iteration, response_id HAVING bool_or(parent_top)) GROUP BY iteration
"""
_LIFTS = """
    WITH lines AS (
        SELECT iteration, prompt_id, $overall AS aspect, -1 AS place, lift, outcome FROM reflection_lifts
        WHERE run_id = $run AND outcome <> 'unrated'
        UNION ALL SELECT iteration, prompt_id, aspect, place, lift, outcome FROM reflection_aspects WHERE run_id = $run),
    prompts AS (
        SELECT iteration, aspect, min(place) AS place, avg(lift) AS lift, count(*) AS n,
               count(*) FILTER (outcome = 'win') AS win, count(*) FILTER (outcome = 'tie') AS tie,
               count(*) FILTER (outcome = 'loss') AS loss FROM lines GROUP BY iteration, aspect, prompt_id)
    SELECT iteration, aspect, min(place) AS place, sum(n)::BIGINT AS n, sum(win)::BIGINT AS win, sum(tie)::BIGINT AS tie,
           sum(loss)::BIGINT AS loss, list(lift ORDER BY lift) AS lifts
    FROM prompts GROUP BY iteration, aspect ORDER BY iteration, place, aspect
"""
_PLAIN = """
    SELECT iteration, count(*) FILTER (refinements > 0 AND plain > 0) AS prompts,
           count(*) FILTER (refinements = 0 OR plain = 0) AS prompts_left_out,
           sum(plain)::BIGINT AS plain, sum(plain_unrated)::BIGINT AS plain_unrated,
           sum(refinements)::BIGINT AS refinements, sum(refinements_unrated)::BIGINT AS refinements_unrated,
           list(refined_score - plain_score ORDER BY prompt_id) FILTER (refinements > 0 AND plain > 0) AS score,
           list(refined_positive - plain_positive ORDER BY prompt_id) FILTER (refinements > 0 AND plain > 0) AS positive,
           list(refined_best - plain_best ORDER BY prompt_id) FILTER (refinements > 0 AND plain > 0) AS best
    FROM reflection_against_plain WHERE run_id = $run GROUP BY iteration
"""


def reflection(store: Store, run_id: str) -> list[dict[str, Any]]:
    """One row per iteration of a run that refined something.

    iteration, prompts, refinements, unrated (they or their parents; they count nowhere else); parents_positive and
    positives_broken, parents_top and tops_broken: rated refinements whose parent was at the top of every, or of some aspect,
    and those that no longer are; `lifts`: a line over all aspects, named "score", then one per aspect: n, win, tie, loss,
    and mean, low, high of the lift; `plain`: the comparison with plain responses, None where there is none: prompts,
    prompts_left_out (nothing rated on one side), plain, plain_unrated, and mean, low, high of the differences `score`,
    `positive` and `best`.

    Intervals are 95 % over prompts: responses to one prompt are alike, so each prompt counts once, by its mean.
    """
    rows = store.query(_COUNTS, {"run": run_id})
    broken = {row["iteration"]: row for row in store.query(_BROKEN, {"run": run_id})}
    plain = {row["iteration"]: _with_intervals(row) for row in store.query(_PLAIN, {"run": run_id})}
    lifts: dict[int, list[dict[str, Any]]] = {}
    for line in store.query(_LIFTS, {"run": run_id, "overall": OVERALL}):
        lifts.setdefault(line.pop("iteration"), []).append(line | _interval(line.pop("lifts")))
    none = {"parents_top": 0, "tops_broken": 0}
    return [
        row
        | broken.get(row["iteration"], none)
        | {"lifts": lifts.get(row["iteration"], []), "plain": plain.get(row["iteration"])}
        for row in rows
    ]


def _with_intervals(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: _interval(row[name] or []) for name in ("score", "positive", "best")}


def _interval(values: list[float]) -> dict[str, float]:
    mean, low, high = mean_interval(values)
    return {"mean": mean, "low": low, "high": high}
