"""Views behind the report page, one iteration of one run at a time; part of the store's schema.

`report_iterations`: which sets an iteration is made of. A run that did not end has one more, with `finished` false: what was
begun, by it or by an earlier run of the same name and configuration, and is in no iteration yet. `report_responses`: every
response to learn from, with its judgement and its places in pairs. `report_funnel` counts them, `report_losses` says what fell
out at which step and why, `report_stages` what each stage made and cost (`reused`: another run did the work).
"""

from __future__ import annotations

REPORT = """
CREATE VIEW report_stages AS
    WITH used AS (
        SELECT i.run_id, i.iteration, i.arm, k.key AS stage, TRY_CAST(k.value ->> '$' AS UUID) AS stage_key, i.rowid AS number
        FROM iterations i, json_each(i.stage_keys) k),
    begun AS (
        SELECT stage_key, stage, run_id, rowid AS number FROM starts
        UNION ALL SELECT c.stage_key, c.stage, c.run_id, c.rowid FROM receipts c
        WHERE NOT EXISTS (FROM starts s WHERE s.stage_key = c.stage_key)),
    likes AS (
        SELECT r.run_id, o.run_id AS other FROM runs r JOIN runs o
            ON o.name = r.name AND o.config::VARCHAR = r.config::VARCHAR AND o.rowid <= r.rowid
        WHERE r.status <> 'completed'),
    left_open AS (
        SELECT l.run_id, b.stage, b.stage_key, max(b.number) AS number FROM likes l JOIN begun b ON b.run_id = l.other
        WHERE b.stage NOT IN ('ingest', 'bootstrap')
          AND NOT EXISTS (FROM used u JOIN likes m ON m.other = u.run_id WHERE m.run_id = l.run_id AND u.stage_key = b.stage_key)
          AND b.stage_key NOT IN (SELECT decision FROM iterations WHERE decision IS NOT NULL)
        GROUP BY l.run_id, b.stage, b.stage_key),
    stages AS (
        SELECT run_id, iteration, arm, stage, stage_key, true AS finished, number FROM used
        UNION ALL
        SELECT o.run_id, 1 + coalesce((SELECT max(i.iteration) FROM iterations i WHERE i.run_id = o.run_id), 0), 'policy',
               o.stage, o.stage_key, false, o.number FROM left_open o)
    SELECT s.run_id, s.iteration, s.arm, s.stage, s.stage_key, s.finished, s.number, c.stage_key IS NOT NULL AS done, c.rows,
           c.kept, c.produced, c.failed, c.tokens, c.seconds, c.run_id IS DISTINCT FROM s.run_id AS reused
    FROM stages s LEFT JOIN receipts c ON c.stage_key = s.stage_key;
CREATE VIEW report_iterations AS
    SELECT run_id, iteration, prompts_key, responses_key, refinements_key, pair_set, judge_key, true AS finished
    FROM iterations WHERE arm = 'policy'
    UNION ALL
    SELECT s.run_id, s.iteration, arg_max(s.stage_key, s.number) FILTER (s.stage = 'sample_prompts'),
           arg_max(s.stage_key, s.number) FILTER (s.stage = 'explore'),
           arg_max(s.stage_key, s.number) FILTER (s.stage = 'refine'),
           arg_max(s.stage_key, s.number) FILTER (s.stage = 'select_pairs'),
           coalesce(arg_min(TRY_CAST(k.ingredients ->> 'judge' AS UUID), s.number) FILTER (s.stage = 'judge'),
                    (SELECT any_value(i.judge_key) FROM iterations i WHERE i.run_id = s.run_id)), false
    FROM report_stages s LEFT JOIN keys k ON k.key = s.stage_key WHERE NOT s.finished
    GROUP BY s.run_id, s.iteration HAVING bool_or(s.stage IN ('sample_prompts', 'explore'));
CREATE VIEW report_responses AS
    WITH rows AS (
        SELECT i.run_id, i.iteration, i.judge_key, i.pair_set, m.member_id AS response_id
        FROM report_iterations i JOIN members m ON m.set_key IN (i.responses_key, i.refinements_key)
        UNION
        SELECT i.run_id, i.iteration, i.judge_key, i.pair_set, r.response_id
        FROM report_iterations i JOIN responses r ON r.run_id = i.run_id
        WHERE NOT i.finished AND NOT EXISTS (FROM members m WHERE m.member_id = r.response_id)),
    chosen AS (SELECT pair_set, chosen_id AS response_id, count(*) AS pairs FROM pairs GROUP BY ALL),
    rejected AS (SELECT pair_set, rejected_id AS response_id, count(*) AS pairs FROM pairs GROUP BY ALL)
    SELECT w.run_id, w.iteration, w.judge_key, r.response_id, r.prompt_id, r.parent_id, r.parent_id IS NOT NULL AS refinement,
           r.policy_id, r.backend, r.position, r.finish_reason, r.finish_reason = 'length' AS truncated, r.completion_tokens,
           j.response_id IS NOT NULL AS judged, j.score, j.positive, j.reason AS unrated_because,
           coalesce(c.pairs, 0) AS chosen, coalesce(x.pairs, 0) AS rejected
    FROM rows w JOIN responses r USING (response_id)
    LEFT JOIN judgements j ON j.response_id = w.response_id AND j.judge_key = w.judge_key
    LEFT JOIN chosen c ON c.pair_set = w.pair_set AND c.response_id = w.response_id
    LEFT JOIN rejected x ON x.pair_set = w.pair_set AND x.response_id = w.response_id;
CREATE VIEW report_funnel AS
    WITH counted AS (
        SELECT run_id, iteration, count(*) FILTER (NOT refinement) AS responses, count(*) FILTER (refinement) AS refinements,
               count(*) FILTER (backend = 'external') AS external, count(*) FILTER (truncated) AS truncated,
               count(*) FILTER (judged) AS judged, count(*) FILTER (judged AND unrated_because IS NULL) AS rated,
               count(*) FILTER (chosen > 0 OR rejected > 0) AS in_pairs FROM report_responses GROUP BY ALL)
    SELECT i.run_id, i.iteration, i.finished, (SELECT count(*) FROM members m WHERE m.set_key = i.prompts_key) AS prompts,
           coalesce(c.responses, 0) AS responses, coalesce(c.refinements, 0) AS refinements, coalesce(c.external, 0) AS external,
           coalesce(c.truncated, 0) AS truncated, coalesce(c.judged, 0) AS judged, coalesce(c.rated, 0) AS rated,
           coalesce(c.in_pairs, 0) AS in_pairs, coalesce(s.prompts_paired, 0) AS prompts_paired, coalesce(s.pairs, 0) AS pairs
    FROM report_iterations i LEFT JOIN counted c ON c.run_id = i.run_id AND c.iteration = i.iteration
    LEFT JOIN pair_set_summary s ON s.pair_set = i.pair_set;
CREATE VIEW report_losses AS
    SELECT i.run_id, i.iteration, 'requests without a response' AS step, f.reason, count(*) AS rows
    FROM report_iterations i JOIN members m ON m.set_key = i.prompts_key JOIN failures f ON f.prompt_id = m.member_id
    WHERE (f.run_id = i.run_id OR f.gen_key IN (SELECT DISTINCT r.gen_key FROM responses r JOIN members s
               ON s.member_id = r.response_id WHERE s.set_key IN (i.responses_key, i.refinements_key)))
      AND NOT EXISTS (FROM responses r WHERE r.response_id = f.response_id) GROUP BY ALL
    UNION ALL
    SELECT run_id, iteration, 'responses without a rating', coalesce(unrated_because, 'not judged'), count(*)
    FROM report_responses WHERE unrated_because IS NOT NULL OR NOT judged GROUP BY ALL
    UNION ALL
    SELECT i.run_id, i.iteration, 'prompts without a pair', u.reason, count(*)
    FROM report_iterations i JOIN unpaired u ON u.pair_set = i.pair_set GROUP BY ALL;
"""
