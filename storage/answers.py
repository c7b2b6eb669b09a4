"""Held-out answers in numbers: what evaluation and the gate read."""

from __future__ import annotations

from typing import Any

from rlrf.evaluating import mean_interval, wilson
from storage.store import Store

_ANSWERS = """
    SELECT r.prompt_id,
           coalesce(bool_or(t.aspect = $aspect AND t.level = 1) FILTER (j.reason IS NULL), false) AS correct,
           any_value(r.completion_tokens) AS tokens, any_value(j.reason) IS NOT NULL AS unrated
    FROM members m JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id)
    LEFT JOIN ratings t ON t.response_id = r.response_id AND t.judge_key = j.judge_key
    WHERE m.set_key = $set AND j.judge_key = $judge GROUP BY r.prompt_id ORDER BY r.prompt_id
"""


def answers(store: Store, set_key: str, judge_key: str, aspect: str) -> list[dict[str, Any]]:
    """Per held-out prompt: prompt_id, correct, tokens, unrated. An unrated answer (cut off, say) is not correct."""
    return store.query(_ANSWERS, {"set": set_key, "judge": judge_key, "aspect": aspect})


def accuracy(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Questions, accuracy with its 95 % Wilson interval, mean answer length in tokens."""
    correct, questions = sum(row["correct"] for row in rows), len(rows)
    low, high = wilson(correct, questions)
    tokens = [row["tokens"] or 0 for row in rows]
    return {
        "questions": questions,
        "accuracy": correct / max(questions, 1),
        "low": low,
        "high": high,
        "tokens_mean": sum(tokens) / max(questions, 1),
    }


def aspects(store: Store, set_key: str, judge_key: str) -> list[dict[str, Any]]:
    """Per aspect over the rated answers: mean rating in [-1, 1] with its 95 % interval."""
    rows = store.query(
        """SELECT t.aspect, min(t.place) AS place, list(t.level) AS ratings
           FROM members m JOIN judgements j ON j.response_id = m.member_id
           JOIN ratings t ON t.response_id = j.response_id AND t.judge_key = j.judge_key
           WHERE m.set_key = ? AND j.judge_key = ? AND j.reason IS NULL GROUP BY t.aspect ORDER BY place""",
        [set_key, judge_key],
    )
    found = []
    for row in rows:
        mean, low, high = mean_interval(row["ratings"])
        found.append(
            {
                "aspect": row["aspect"],
                "place": row["place"],
                "mean": mean,
                "low": low,
                "high": high,
                "rated": len(row["ratings"]),
            }
        )
    return found
