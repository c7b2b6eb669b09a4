"""What a plan asks of the store: how much is there, how long texts are, and why a key is new."""

from __future__ import annotations

import json

from rlrf.explaining import nearest_change
from rlrf.stages import Key
from storage.store import Store


def judged(store: Store, set_key: str, judge_key: str) -> int:
    """How many members of a set this judge has seen."""
    sql = """SELECT count(*) FROM members m JOIN judgements j ON j.response_id = m.member_id
             WHERE m.set_key = ? AND j.judge_key = ?"""
    return int(store.value(sql, [set_key, judge_key]))


def mean_tokens(store: Store, max_tokens: int) -> float:
    """Mean length of the store's own responses so far, at most `max_tokens`; `max_tokens` when there are none."""
    sql = "SELECT avg(completion_tokens) FROM responses WHERE backend <> 'external'"
    return min(float(store.value(sql) or max_tokens), float(max_tokens))


def why_missing(store: Store, stage: str, key: Key) -> str:
    """Why a stage has no receipt under this key: never run, unfinished, or which ingredient changed."""
    if store.value("SELECT count(*) FROM keys WHERE key = ?", [key.key]):
        return "started, not finished"
    sql = """SELECT ingredients FROM keys k JOIN receipts r ON r.stage_key = k.key
             WHERE k.kind = ? AND r.stage = ? ORDER BY r.rowid DESC LIMIT 50"""
    known = [json.loads(row["ingredients"]) for row in store.query(sql, [key.kind, stage])]
    changes = nearest_change(key.ingredients, known)
    return "; ".join(changes[:3]) if changes else "never run"
