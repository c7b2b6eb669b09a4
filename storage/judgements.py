"""Judgements and ratings, and the aspects that a judge named for prompts: written in micro-batches, read as records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import duckdb

from rlrf.records import Case, Choice, Judgement, Prompt, Rating
from rlrf.scoring import is_positive, score
from storage.reuse import known_ratings
from storage.rows import read_prompt
from storage.store import Store, insert

_NO_REPLY = """coalesce(regexp_matches(j.reason, '^(judge|reward)_failed:'), false)"""
"""A judgement that says only that no reply came: an endpoint was down, say. It is asked for again."""


def add_judgements(
    store: Store,
    judge_key: str,
    judgements: Sequence[Judgement],
    weights: Mapping[str, float],
    run_id: str,
    *,
    over_unrated: bool = False,
) -> int:
    """One micro-batch of a judge, with its ratings, in one transaction; returns how many judgements were new.

    A judgement takes the place of one for which no reply had come, with `over_unrated` of any unrated one; others stay.
    """
    heads: list[dict[str, Any]] = []
    ratings: list[dict[str, Any]] = []
    for judgement in judgements:
        identity = {"response_id": judgement.response_id, "judge_key": judge_key}
        heads.append(
            identity
            | {
                "score": score(judgement.ratings, weights) if judgement.rated else None,
                "positive": judgement.rated and is_positive(judgement.ratings),
                "reason": judgement.reason,
                "raw_reply": judgement.raw_reply,
                "prompt_tokens": judgement.prompt_tokens,
                "completion_tokens": judgement.completion_tokens,
                "attempts": judgement.attempts,
                "run_id": run_id,
            }
        )
        ratings += [
            identity
            | {"aspect": r.aspect, "place": place, "rating": r.rating, "level": r.level, "critique": r.critique}
            for place, r in enumerate(judgement.ratings)
        ]
    with store.connect() as connection:
        ids = [judgement.response_id for judgement in judgements]
        _forget(connection, judge_key, ids, "true" if over_unrated else _NO_REPLY)
        there = _judged(connection, judge_key, ids)  # ratings come and go with their judgement: one search for both
        insert(connection, "ratings", [row for row in ratings if row["response_id"] not in there], looked_up=True)
        new = [row for row in heads if row["response_id"] not in there]
        return insert(connection, "judgements", new, looked_up=True)


def unjudged(store: Store, set_key: str, judge_key: str, chooser: str | None = None) -> list[Case]:
    """The responses of a set that this judge hasn't seen, or for which no reply came, as cases, by id.

    Their aspects are those of the parent's judgement by the same judge, or those that `chooser` named for the prompt; none
    where the judge is to decide. What judges that differ in other aspects only said of them is known (`storage.reuse`).
    """
    sql = f"""SELECT r.response_id, r.prompt_id, p.messages, p.reference, p.metadata, r.text, r.finish_reason,
                    coalesce((SELECT list(t.aspect ORDER BY t.place) FROM ratings t
                              WHERE t.response_id = r.parent_id AND t.judge_key = $judge),
                             (SELECT any_value(c.aspects) FROM chosen_aspects c
                              WHERE c.prompt_id = r.prompt_id AND c.judge_key = $chooser)) AS aspects
             FROM members m JOIN responses r ON r.response_id = m.member_id JOIN prompts p USING (prompt_id)
             WHERE m.set_key = $set AND NOT EXISTS (FROM judgements j
                   WHERE j.response_id = r.response_id AND j.judge_key = $judge AND NOT {_NO_REPLY}) ORDER BY r.response_id"""
    rows = store.query(sql, {"set": set_key, "judge": judge_key, "chooser": chooser})
    known = known_ratings(store, set_key, judge_key) if rows else {}
    return [
        Case(
            row["response_id"],
            tuple(json.loads(row["messages"])),
            row["reference"],
            row["text"],
            row["finish_reason"],
            json.loads(row["metadata"]),
            row["prompt_id"],
            tuple(row["aspects"] or ()),
            known.get(row["response_id"], ()),
        )
        for row in rows
    ]


def unjudged_ids(store: Store, set_key: str, judge_key: str) -> set[str]:
    """The responses of a set that this judge hasn't seen, or for which no reply came."""
    sql = f"""SELECT m.member_id FROM members m JOIN responses r ON r.response_id = m.member_id
              WHERE m.set_key = $set AND NOT EXISTS (FROM judgements j
                    WHERE j.response_id = m.member_id AND j.judge_key = $judge AND NOT {_NO_REPLY})"""
    return {row["member_id"] for row in store.query(sql, {"set": set_key, "judge": judge_key})}


def unchosen(store: Store, set_key: str, chooser: str) -> list[Prompt]:
    """The prompts of a set of responses for which this judge has named no aspects yet, by id."""
    sql = """SELECT p.* FROM prompts p WHERE p.prompt_id IN
               (SELECT r.prompt_id FROM members m JOIN responses r ON r.response_id = m.member_id WHERE m.set_key = $set)
             AND NOT EXISTS (FROM chosen_aspects c WHERE c.prompt_id = p.prompt_id AND c.judge_key = $chooser)
             ORDER BY p.prompt_id"""
    return [read_prompt(row) for row in store.query(sql, {"set": set_key, "chooser": chooser})]


def add_choices(store: Store, chooser: str, choices: Sequence[Choice], run_id: str) -> int:
    """One micro-batch of the aspects that a judge named for prompts; returns how many were new."""
    found = [{"judge_key": chooser, "run_id": run_id} | asdict(choice) for choice in choices]
    with store.connect() as connection:
        return insert(connection, "chosen_aspects", found)


def unmerged(store: Store, set_key: str, panel_key: str) -> set[str]:
    """The responses of a set for which a panel has no verdict, or an unrated one that its members may have mended."""
    sql = """SELECT m.member_id FROM members m WHERE m.set_key = $set AND NOT EXISTS (FROM judgements j
             WHERE j.response_id = m.member_id AND j.judge_key = $judge AND j.reason IS NULL)"""
    return {row["member_id"] for row in store.query(sql, {"set": set_key, "judge": panel_key})}


def judgements_of(store: Store, set_key: str, judge_keys: Sequence[str]) -> dict[str, list[Judgement]]:
    """What these judges said of a set's responses: per response, one judgement per judge, in the judges' order.

    A rating comes with its place on the scale from -1 to 1.
    """
    sql = """SELECT j.response_id, j.judge_key, j.reason, coalesce((SELECT list({'aspect': t.aspect, 'rating': t.level,
                    'critique': t.critique} ORDER BY t.place) FROM ratings t
                    WHERE t.response_id = j.response_id AND t.judge_key = j.judge_key), []) AS ratings
             FROM members m JOIN judgements j ON j.response_id = m.member_id
             WHERE m.set_key = $set AND j.judge_key IN (SELECT unnest($judges::UUID[]))
             ORDER BY j.response_id, list_position($judges::UUID[], j.judge_key)"""
    found: dict[str, list[Judgement]] = {}
    for row in store.query(sql, {"set": set_key, "judges": list(judge_keys)}):
        ratings = tuple(Rating(**rating) for rating in row["ratings"])
        found.setdefault(row["response_id"], []).append(Judgement(row["response_id"], ratings, row["reason"]))
    return found


def unread(store: Store, set_key: str, judge_key: str) -> dict[str, int]:
    """How many responses of a set this judge left unrated, by reason, the most frequent first; `truncated` included."""
    sql = """SELECT reason, count(*) AS n FROM members m JOIN judgements j ON j.response_id = m.member_id
             WHERE m.set_key = ? AND j.judge_key = ? AND reason IS NOT NULL GROUP BY ALL ORDER BY n DESC, reason"""
    return {row["reason"]: row["n"] for row in store.query(sql, [set_key, judge_key])}


def _forget(connection: duckdb.DuckDBPyConnection, judge_key: str, response_ids: Sequence[str], which: str) -> None:
    # DuckDB passes over whole row groups without a reason, so this search is short where all is well.
    failed = list(_judged(connection, judge_key, response_ids, f"j.reason IS NOT NULL AND {which}"))
    if failed:
        for table in ("ratings", "judgements"):
            gone = f"DELETE FROM {table} WHERE judge_key = $judge AND response_id IN (SELECT unnest($ids::UUID[]))"
            connection.execute(gone, {"judge": judge_key, "ids": failed})


def _judged(
    connection: duckdb.DuckDBPyConnection, judge_key: str, response_ids: Sequence[str], which: str = "true"
) -> set[str]:
    sql = f"""SELECT response_id::VARCHAR FROM judgements j WHERE judge_key = $judge AND {which}
              AND response_id IN (SELECT unnest($ids::UUID[]))"""
    return {row[0] for row in connection.execute(sql, {"judge": judge_key, "ids": list(response_ids)}).fetchall()}
