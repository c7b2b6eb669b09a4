"""Rows that serve on under another key: complete responses of another token limit, ratings of aspects that stayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from rlrf.exploring import Planned
from rlrf.records import Known, Rating
from rlrf.reusing import Sibling, is_sibling, limit_of, shared_aspects
from rlrf.stages import Key
from storage.store import Store, fetch

PlanOf = Callable[[str], Sequence[Planned]]
"""What a stage wants under a key of responses: the same slots in the same order under every key."""


@dataclass(frozen=True)
class Reuse:
    """What the store has of a plan. `there` maps planned ids to the ids of the rows that serve, `own` of them their own.

    `missing` is what is left to generate; a text that another limit cut short is asked for with the seed that it had.
    """

    plan: Sequence[Planned]
    there: dict[str, str]
    own: int
    missing: list[Planned]

    @property
    def borrowed(self) -> int:
        """How many slots are filled by rows of other keys."""
        return len(self.there) - self.own


def reusable(store: Store, key: Key, plan_of: PlanOf) -> Reuse:
    """What serves of a plan under this key and what is left to generate.

    A row of its own comes first. Else a row in the same slot under a key that differs in `max_tokens` only: a complete one
    within this key's limit becomes a member as it is. Of several, the one of the largest limit; nothing is copied.
    """
    plan = plan_of(key.key)
    there = {plan[slot].response_id: plan[slot].response_id for slot in _own(store, plan)}
    own, seeds = len(there), {}
    siblings = _siblings(store, key) if own < len(plan) else []
    if siblings:
        open_slots = [slot for slot, one in enumerate(plan) if one.response_id not in there]
        for slot, row_id, serves, seed in _of_siblings(store, plan_of, siblings, open_slots, limit_of(key.ingredients)):
            if serves:
                there[plan[slot].response_id] = row_id
            elif seed is not None:
                seeds[plan[slot].response_id] = seed
    missing = [
        replace(one, seed=seeds[one.response_id]) if one.response_id in seeds else one
        for one in plan
        if one.response_id not in there
    ]
    return Reuse(plan, there, own, missing)


def has_siblings(store: Store, key: Key) -> bool:
    """Whether rows of other keys may serve under this one at all."""
    return bool(_siblings(store, key))


def known_ratings(store: Store, set_key: str, judge_key: str) -> dict[str, tuple[Known, ...]]:
    """Per response of a set, the ratings that judges with the same aspects gave it on them, in this judge's order.

    Of several judges the one that shares most aspects counts, then the one whose key is lower. Unrated ones aren't known.
    """
    rubric, judges = _judges_that_share(store, judge_key)
    if not judges:
        return {}
    asked = [(key, aspect, rank) for rank, (key, aspects) in enumerate(judges) for aspect in aspects]
    sql = """SELECT t.response_id, t.judge_key, t.aspect, t.rating, t.critique
             FROM members m JOIN ratings t ON t.response_id = m.member_id
             JOIN asked a ON a.judge_key = t.judge_key AND a.aspect = t.aspect
             WHERE m.set_key = $set AND t.rating IS NOT NULL
             QUALIFY row_number() OVER (PARTITION BY t.response_id, t.aspect ORDER BY a.rank) = 1"""
    with store.connect() as connection:
        connection.execute("CREATE TEMP TABLE asked (judge_key UUID, aspect VARCHAR, rank INTEGER)")
        connection.executemany("INSERT INTO asked VALUES (?, ?, ?)", asked)
        rows = fetch(connection, sql, {"set": set_key})
        connection.execute("DROP TABLE asked")
    scale = tuple(rubric["scale"])
    places = {aspect["name"]: place for place, aspect in enumerate(rubric["aspects"])}
    found: dict[str, list[Known]] = {}
    for row in sorted(rows, key=lambda row: places[row["aspect"]]):
        rating = Rating(row["aspect"], row["rating"], row["critique"], scale)
        found.setdefault(row["response_id"], []).append(Known(rating, row["judge_key"]))
    return {response_id: tuple(ratings) for response_id, ratings in found.items()}


def _judges_that_share(store: Store, judge_key: str) -> tuple[dict[str, Any], list[tuple[str, tuple[str, ...]]]]:
    """The judge's rubric, and the keys of the judges that asked for some of its aspects, with those."""
    by_key = _ingredients(store, "judge")
    mine = by_key.pop(judge_key, {})
    shared = [(key, aspects) for key, theirs in by_key.items() if (aspects := shared_aspects(mine, theirs))]
    return mine.get("rubric", {}), sorted(shared, key=lambda one: (-len(one[1]), one[0]))


def _siblings(store: Store, key: Key) -> list[Sibling]:
    """Keys whose rows may serve under this one, the largest limit first."""
    mine = json.loads(json.dumps(key.ingredients))
    found = [
        Sibling(other, limit_of(theirs))
        for other, theirs in _ingredients(store, key.kind).items()
        if other != key.key and is_sibling(key.kind, mine, theirs)
    ]
    return sorted(found, key=lambda one: (-one.max_tokens, one.key))


def _ingredients(store: Store, kind: str) -> dict[str, dict[str, Any]]:
    rows = store.query("SELECT key, ingredients FROM keys WHERE kind = ?", [kind])
    return {row["key"]: json.loads(row["ingredients"]) for row in rows}


def _own(store: Store, plan: Sequence[Planned]) -> list[int]:
    asked = pa.table({"slot": pa.array(range(len(plan)), pa.int32()), "id": [one.response_id for one in plan]})
    with store.connect() as connection:
        rows = _asked(connection, asked, "SELECT DISTINCT slot FROM asked JOIN responses ON response_id = id::UUID")
    return [row[0] for row in rows]


def _of_siblings(
    store: Store, plan_of: PlanOf, siblings: Sequence[Sibling], slots: Sequence[int], limit: int
) -> list[tuple[int, str, bool, int | None]]:
    """Per slot that another key has a row for: the slot, the best row's id, whether it serves as it is, and its seed."""
    ids: list[str] = []
    for sibling in siblings:
        plan = plan_of(sibling.key)
        ids += [plan[slot].response_id for slot in slots]
    asked = pa.table(
        {
            "slot": pa.array(list(slots) * len(siblings), pa.int32()),
            "rank": pa.array([rank for rank in range(len(siblings)) for _ in slots], pa.int32()),
            "limited": pa.array([one.max_tokens for one in siblings for _ in slots], pa.int32()),
            "id": ids,
        }
    )
    serves = f"(r.finish_reason = 'stop' AND r.completion_tokens <= {limit}) OR a.limited = {limit}"
    sql = f"""SELECT slot, id, serves, seed FROM (
                SELECT a.slot, a.id, a.rank, r.seed, coalesce({serves}, false) AS serves
                FROM asked a JOIN responses r ON r.response_id = a.id::UUID)
              QUALIFY row_number() OVER (PARTITION BY slot ORDER BY serves DESC, rank) = 1 ORDER BY slot"""
    with store.connect() as connection:
        return _asked(connection, asked, sql)


def _asked(connection: duckdb.DuckDBPyConnection, asked: pa.Table, sql: str) -> list[Any]:
    connection.register("asked", asked)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.unregister("asked")
