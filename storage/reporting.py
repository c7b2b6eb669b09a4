"""What the report page says of one run, in rows; every number is one of the views of `storage.report_views` or a table's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rlrf.errors import StoreError
from storage.store import Store

Rows = list[dict[str, Any]]

SEED = "report:"
"""Which prompts are drawn where not all are shown: those whose hash with this comes first, the same at every call."""


def find_run(store: Store, prefix: str | None) -> dict[str, Any]:
    """The run whose id starts with this, or the newest. Raises StoreError for none or several.

    run_id, name, config (as text), status, reason, host, started_at, ended_at.
    """
    sql = """SELECT run_id, name, config::VARCHAR AS config, status, reason, host, started_at, ended_at FROM runs
             WHERE starts_with(run_id::VARCHAR, lower($prefix)) ORDER BY rowid DESC"""
    rows = store.query(sql, {"prefix": prefix or ""})
    if not rows:
        what = f"no run whose id starts with {prefix!r}" if prefix else "no run yet"
        raise StoreError(f"{what} in {str(store.path)!r}; `rlrf status` lists runs")
    if prefix and len(rows) > 1:
        known = ", ".join(row["run_id"] for row in rows[:5])
        raise StoreError(f"{prefix!r} is the start of {len(rows)} runs' ids ({known}); give more of it")
    return rows[0]


def decisions(store: Store) -> Rows:
    """Every decision about a champion, oldest first, with the names of the policies."""
    return store.query("""SELECT d.number, d.run_id, d.iteration, d.verdict, p.name AS policy, c.name AS champion, d.gain, d.low,
        d.high, d.length_ratio, d.decided_by, d.reason, d.created_at FROM decisions d
        LEFT JOIN policies p USING (policy_id) LEFT JOIN policies c ON c.policy_id = d.champion_id ORDER BY d.number""")


def funnel(store: Store, run_id: str) -> Rows:
    """`report_funnel` of a run, by iteration, each with its `pair_set` and `losses`: step, reason, rows."""
    sql = """SELECT f.*, i.pair_set FROM report_funnel f JOIN report_iterations i USING (run_id, iteration)
             WHERE run_id = ? ORDER BY iteration"""
    rows = store.query(sql, [run_id])
    sql = "SELECT iteration, step, reason, rows FROM report_losses WHERE run_id = ? ORDER BY step, rows DESC, reason"
    losses = store.query(sql, [run_id])
    return [row | {"losses": [one for one in losses if one["iteration"] == row["iteration"]]} for row in rows]


def dropped_at_ingestion(store: Store) -> Rows:
    """Rows of sources that became no prompt or no response, with why: source, reason, rows. All runs of the store."""
    return store.query("""SELECT source, reason, count(*) AS rows FROM (
            SELECT source, reason FROM dropped_prompts UNION ALL SELECT source, reason FROM dropped_responses)
        GROUP BY ALL ORDER BY source, rows DESC, reason""")


def stages(store: Store, run_id: str) -> Rows:
    """`report_stages` of a run."""
    return store.query("FROM report_stages WHERE run_id = ? ORDER BY iteration, arm, number, stage", [run_id])


def aspects(store: Store, run_id: str) -> Rows:
    """Mean level and interval of every aspect of what a run's iterations learned from, refinements apart, as one list:
    iteration, refinement, aspect, mean, standard_error, rated, unrated."""
    return store.query(
        """SELECT r.iteration, r.refinement, t.aspect, avg(t.level) AS mean,
            stddev_samp(t.level) / sqrt(count(t.level)) AS standard_error, count(t.level) AS rated,
            count(*) - count(t.level) AS unrated
        FROM report_responses r JOIN ratings t ON t.response_id = r.response_id AND t.judge_key = r.judge_key
        WHERE r.run_id = ? GROUP BY ALL ORDER BY min(t.place), t.aspect, r.iteration, r.refinement""",
        [run_id],
    )


def scores(store: Store, run_id: str) -> Rows:
    """How often each score occurs: score, responses, refinements, chosen, rejected (those two count pairs)."""
    return store.query(
        """SELECT score, count(*) FILTER (NOT refinement) AS responses, count(*) FILTER (refinement) AS refinements,
            sum(chosen)::BIGINT AS chosen, sum(rejected)::BIGINT AS rejected
        FROM report_responses WHERE run_id = ? AND score IS NOT NULL GROUP BY score ORDER BY score""",
        [run_id],
    )


def lengths(store: Store, run_id: str) -> Rows:
    """How often each length in tokens occurs: tokens, responses, refinements, chosen, rejected (those two count pairs)."""
    return store.query(
        """SELECT completion_tokens AS tokens, count(*) FILTER (NOT refinement) AS responses,
            count(*) FILTER (refinement) AS refinements, sum(chosen)::BIGINT AS chosen, sum(rejected)::BIGINT AS rejected
        FROM report_responses WHERE run_id = ? AND completion_tokens IS NOT NULL GROUP BY tokens ORDER BY tokens""",
        [run_id],
    )


def judge_keys(store: Store, run_id: str) -> list[str]:
    """The judges that decided in a run's iterations."""
    sql = """SELECT DISTINCT judge_key FROM report_iterations WHERE run_id = ? AND judge_key IS NOT NULL
             AND judge_key IN (SELECT judge_key FROM judgements) ORDER BY judge_key"""
    return [row["judge_key"] for row in store.query(sql, [run_id])]


def policies(store: Store, run_id: str) -> Rows:
    """The policies that a run evaluated or sampled, oldest first, with what each was trained from and with."""
    return store.query(
        """SELECT p.policy_id, p.name, p.kind, p.folder, b.name AS parent, p.stage_key, t.rows, t.steps, t.seconds
        FROM policies p LEFT JOIN policies b ON b.policy_id = p.parent_id LEFT JOIN trainings t ON t.stage_key = p.stage_key
        WHERE p.policy_id IN (SELECT policy_id FROM iterations WHERE run_id = $run
                              UNION SELECT policy_id FROM report_responses WHERE run_id = $run)
        ORDER BY p.rowid""",
        {"run": run_id},
    )


def engines(store: Store, run_id: str) -> Rows:
    """How the engines were set that made a run's responses: engine (key), settings, responses."""
    return store.query(
        """SELECT k.key AS engine, k.ingredients::VARCHAR AS settings, count(*) AS responses
        FROM report_responses w JOIN responses r USING (response_id)
        JOIN keys k ON k.key = TRY_CAST(r.metadata ->> 'engine' AS UUID)
        WHERE w.run_id = ? GROUP BY ALL ORDER BY responses DESC, engine""",
        [run_id],
    )


def sizes(store: Store, run_id: str) -> tuple[int, int]:
    """How many prompts (once per iteration) and responses a run has to show."""
    sql = "SELECT count(DISTINCT (iteration, prompt_id)), count(*) FROM report_responses WHERE run_id = ?"
    prompts, responses = store.query(sql, [run_id])[0].values()
    return int(prompts), int(responses)


_SAMPLES = """
    WITH asked AS (
        SELECT iteration, prompt_id, count(*) AS n, md5($seed || prompt_id::VARCHAR) AS place FROM report_responses
        WHERE run_id = $run GROUP BY iteration, prompt_id),
    drawn AS (
        SELECT *, sum(n) OVER (ORDER BY place, iteration) AS total FROM asked QUALIFY total <= $most OR total = n),
    rated AS (
        SELECT w.iteration, t.response_id, list({'aspect': t.aspect, 'rating': t.rating, 'critique': t.critique}
                                                ORDER BY t.place, t.aspect) AS ratings
        FROM report_responses w JOIN drawn d ON d.prompt_id = w.prompt_id AND d.iteration = w.iteration
        JOIN ratings t ON t.response_id = w.response_id AND t.judge_key = w.judge_key WHERE w.run_id = $run GROUP BY ALL),
    answers AS (
        SELECT w.iteration, w.prompt_id, list({'id': w.response_id::VARCHAR, 'parent': w.parent_id::VARCHAR, 'policy': p.name,
                   'text': r.text, 'tokens': w.completion_tokens, 'finish': w.finish_reason, 'judged': w.judged,
                   'score': w.score, 'positive': w.positive, 'unrated': w.unrated_because, 'chosen': w.chosen,
                   'rejected': w.rejected, 'ratings': t.ratings} ORDER BY w.refinement, w.position, w.response_id) AS answers
        FROM report_responses w JOIN drawn d ON d.prompt_id = w.prompt_id AND d.iteration = w.iteration
        JOIN responses r ON r.response_id = w.response_id LEFT JOIN policies p ON p.policy_id = w.policy_id
        LEFT JOIN rated t ON t.response_id = w.response_id AND t.iteration = w.iteration WHERE w.run_id = $run GROUP BY ALL),
    paired AS (
        SELECT i.iteration, a.prompt_id, list([a.chosen_id::VARCHAR, a.rejected_id::VARCHAR] ORDER BY a.position) AS pairs
        FROM report_iterations i JOIN pairs a USING (pair_set) WHERE i.run_id = $run GROUP BY ALL)
    SELECT d.iteration, d.prompt_id, q.source, q.messages, q.reference, a.answers, x.pairs, u.reason AS unpaired
    FROM drawn d JOIN prompts q ON q.prompt_id = d.prompt_id
    JOIN answers a ON a.prompt_id = d.prompt_id AND a.iteration = d.iteration
    LEFT JOIN paired x ON x.prompt_id = d.prompt_id AND x.iteration = d.iteration
    LEFT JOIN report_iterations i ON i.run_id = $run AND i.iteration = d.iteration
    LEFT JOIN unpaired u ON u.pair_set = i.pair_set AND u.prompt_id = d.prompt_id
    ORDER BY d.place, d.iteration
"""


def samples(store: Store, run_id: str, most: int) -> Iterator[dict[str, Any]]:
    """Prompts with everything that an iteration made of them, in seeded order, up to `most` responses in all, at least one
    prompt. Never a held-out one: those are in another schema.

    iteration, prompt_id, source, messages, reference, answers (id, parent, policy, text, tokens, finish, judged, score,
    positive, unrated, chosen, rejected, ratings: aspect, rating, critique), pairs (chosen and rejected id), unpaired (why).
    """
    for row in store.query(_SAMPLES, {"run": run_id, "most": most, "seed": SEED}):
        yield row | {"messages": json.loads(row["messages"])}
