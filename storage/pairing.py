"""The pairs of a pair set by the configured rule, set-based and in one transaction.

Candidates are the complete, rated responses of the given sets to the given prompts. Equal texts of a prompt count once: as the
explored response with the least id, else as the refinement with the least ids of parent and its own. (The rule `own_parent`
counts equal texts once among the better refinements, for a parent must be met as it is.) Ties and draws are ordered by a hash
of seed and id, so that the same seed gives the same pairs however the rows lie in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import duckdb

from rlrf.errors import StoreError
from rlrf.pair_config import Pairs
from storage.aspect_bits import pack_aspects
from storage.pair_rules import dominance_sql, rule_sql
from storage.store import Store, fetch

_CANDIDATES = """
CREATE TEMP TABLE candidates AS
    SELECT r.prompt_id, response_id, r.parent_id, round(j.score, 9) AS score, j.positive, {rank} AS rank,
           r.text_hash, r.tokens, r.characters, md5($seed || response_id::VARCHAR) AS draw
    FROM (SELECT response_id, prompt_id, parent_id, hash(text) AS text_hash, completion_tokens AS tokens,
                 length(text) AS characters
          FROM responses WHERE finish_reason = 'stop'
               AND response_id IN (SELECT member_id FROM members WHERE set_key IN (SELECT unnest($sets::UUID[])))
               AND prompt_id IN (SELECT member_id FROM members WHERE set_key = $prompts)) r
    JOIN (SELECT response_id, score, positive FROM judgements WHERE judge_key = $judge AND reason IS NULL) j
         USING (response_id) {reward} {distinct}
"""
"""The texts themselves stay out of all joins and orders: those would hold every one of them in memory."""
_REWARD = """
    LEFT JOIN (SELECT response_id, round(score, 9) AS reward FROM judgements WHERE judge_key = $reward AND reason IS NULL)
         USING (response_id)"""
_DISTINCT = """
    QUALIFY row_number() OVER (PARTITION BY prompt_id, text_hash ORDER BY parent_id NULLS FIRST, response_id) = 1"""

_FOUND = """
INSERT INTO pairs SELECT $pair_set::UUID, prompt_id, place - 1, chosen_id, rejected_id FROM found
"""
_UNPAIRED = """
INSERT INTO unpaired
    SELECT $pair_set::UUID, p.member_id, CASE WHEN count(c.response_id) = 0 THEN 'nothing_rated' {reasons} END
    FROM members p LEFT JOIN candidates c ON c.prompt_id = p.member_id
    WHERE p.set_key = $prompts AND NOT EXISTS (FROM found f WHERE f.prompt_id = p.member_id)
    GROUP BY p.member_id
"""
_COUNTS = """
SELECT reason, count(*) AS n
FROM (SELECT NULL AS reason FROM pairs WHERE pair_set = $pair_set
      UNION ALL SELECT reason FROM unpaired WHERE pair_set = $pair_set) GROUP BY reason
"""


def select_pairs(
    store: Store,
    pair_set: str,
    *,
    prompts: str,
    responses: Sequence[str],
    judge_key: str,
    rule: Pairs,
    seed: int,
    reward_key: str | None = None,
) -> tuple[int, dict[str, int]]:
    """Write the pairs of these response sets; returns their number, and the prompts without a pair by reason.

    With `reward_key` responses rank by that judge's score, a reward; responses without one rank last. A pair set that is
    there already is left as it is. Raises StoreError for a store that sees the held-out split.
    """
    if store.scope != "main":
        raise StoreError(
            f"pairs of {store.scope!r} responses: evaluation alone may read them; pass the store of 'main'"
        )
    values: dict[str, Any] = {"pair_set": pair_set, "prompts": prompts, "sets": list(responses), "judge": judge_key}
    values |= {"reward": reward_key, "k": rule.k, "seed": f"{seed}:"}
    with store.connect() as connection:

        def run(sql: str) -> None:
            connection.execute(sql, {name: values[name] for name in re.findall(r"\$(\w+)", sql)})

        if not _counts(connection, pair_set):
            _write(connection, run, rule, judge_key, reward_key is not None)
        counts = _counts(connection, pair_set)
    return counts.pop(None, 0), {reason: n for reason, n in counts.items() if reason}


def _write(
    connection: duckdb.DuckDBPyConnection, run: Callable[[str], None], rule: Pairs, judge_key: str, rewarded: bool
) -> None:
    distinct = "" if rule.type == "own_parent" else _DISTINCT
    rank, reward = ("reward", _REWARD) if rewarded else ("round(j.score, 9)", "")
    run(_CANDIDATES.format(rank=rank, reward=reward, distinct=distinct))
    packed = rule.type == "dominance"
    sql = dominance_sql(pack_aspects(connection, judge_key)) if packed else rule_sql(rule)
    run(f"CREATE TEMP TABLE found AS {sql.pairs}")
    run(_FOUND)
    run(_UNPAIRED.format(reasons=sql.reasons))


def _counts(connection: duckdb.DuckDBPyConnection, pair_set: str) -> dict[str | None, int]:
    """Prompts without a pair by reason, and pairs under None; empty where the pair set isn't there."""
    return {row["reason"]: row["n"] for row in fetch(connection, _COUNTS, {"pair_set": pair_set})}
