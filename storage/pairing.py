"""The paper's pair rule, set-based (section 3.3): D+ = top on every aspect, D- = the rest, chosen = top-k of D+ by
score, rejected = as many drawn uniformly from D-.

Unrated and truncated responses are in neither. Equal texts count once. Ties and draws are ordered by a hash of seed and
id, so that the same seed gives the same pairs however the rows lie in the file.
"""

from __future__ import annotations

from storage.store import Store

_PAIRS = """
CREATE TEMP TABLE candidates AS
    SELECT r.prompt_id, r.response_id, j.score, j.positive, md5($seed || r.response_id::VARCHAR) AS draw
    FROM (SELECT DISTINCT member_id FROM members WHERE set_key IN (SELECT unnest($sets::UUID[]))) m
    JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id)
    WHERE j.judge_key = $judge AND j.reason IS NULL AND r.finish_reason = 'stop'
    QUALIFY row_number() OVER (PARTITION BY r.prompt_id, r.text ORDER BY r.parent_id NULLS FIRST, r.response_id) = 1;
CREATE TEMP TABLE ranked AS
    SELECT *, row_number() OVER (PARTITION BY prompt_id, positive
                                 ORDER BY CASE WHEN positive THEN score END DESC, draw, response_id) AS place
    FROM candidates;
INSERT INTO pairs
    SELECT $pair_set::UUID, c.prompt_id, c.place - 1, c.response_id, r.response_id
    FROM ranked c JOIN ranked r USING (prompt_id, place)
    WHERE c.positive AND NOT r.positive AND place <= $k AND NOT EXISTS (FROM pairs WHERE pair_set = $pair_set);
INSERT INTO unpaired
    SELECT $pair_set::UUID, p.member_id, CASE WHEN count(c.response_id) = 0 THEN 'nothing_rated'
           WHEN count(*) FILTER (c.positive) = 0 THEN 'no_positive' ELSE 'no_negative' END
    FROM members p LEFT JOIN candidates c ON c.prompt_id = p.member_id
    WHERE p.set_key = $prompts AND p.member_id NOT IN (SELECT prompt_id FROM pairs WHERE pair_set = $pair_set)
          AND NOT EXISTS (FROM unpaired WHERE pair_set = $pair_set)
    GROUP BY p.member_id;
DROP TABLE candidates; DROP TABLE ranked;
"""


def select_pairs(
    store: Store, pair_set: str, *, prompts: str, responses: list[str], judge_key: str, k: int, seed: int
) -> tuple[int, dict[str, int]]:
    """Write the pairs of these response sets; returns their number and the dropped prompts by reason."""
    values = {
        "pair_set": pair_set,
        "prompts": prompts,
        "sets": responses,
        "judge": judge_key,
        "k": k,
        "seed": f"{seed}:",
    }
    with store.connect() as connection:
        for statement in _PAIRS.split(";\n"):
            if statement.strip():
                used = {name: value for name, value in values.items() if f"${name}" in statement}
                connection.execute(statement, used)
    pairs = store.value("SELECT count(*) FROM pairs WHERE pair_set = ?", [pair_set])
    dropped = store.query("SELECT reason, count(*) AS n FROM unpaired WHERE pair_set = ? GROUP BY ALL", [pair_set])
    return pairs, {row["reason"]: row["n"] for row in dropped}
