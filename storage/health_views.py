"""Views that say how far judges can be trusted, over the rows that policies learn from; part of the store's schema."""

from __future__ import annotations

HEALTH_VIEWS = """
CREATE VIEW judge_health AS
    WITH judged AS (
        SELECT m.set_key, j.judge_key, r.prompt_id, j.score, j.positive, j.reason, j.attempts,
               j.prompt_tokens + j.completion_tokens AS tokens
        FROM members m JOIN judgements j ON j.response_id = m.member_id JOIN responses r USING (response_id)),
    scores AS (
        SELECT set_key, judge_key, prompt_id, score, count(*) AS n
        FROM judged WHERE reason IS NULL GROUP BY set_key, judge_key, prompt_id, score),
    prompts AS (
        SELECT set_key, judge_key, sum(n) AS n, sum(n * (n - 1) / 2) AS tied
        FROM scores GROUP BY set_key, judge_key, prompt_id),
    ties AS (
        SELECT set_key, judge_key, sum(n * (n - 1) / 2)::BIGINT AS score_pairs, sum(tied)::BIGINT AS tied_pairs
        FROM prompts GROUP BY set_key, judge_key),
    totals AS (
        SELECT set_key, judge_key, count(*) AS judged, count(reason) AS unrated,
               avg(positive::INT) FILTER (reason IS NULL) AS positive_share,
               avg(attempts) AS attempts_mean, avg(tokens) AS tokens_mean
        FROM judged GROUP BY set_key, judge_key)
    SELECT t.judge_key, t.set_key, s.kind AS stage, t.judged, t.unrated, t.unrated / t.judged AS unrated_share,
           coalesce(x.score_pairs, 0) AS score_pairs, x.tied_pairs / nullif(x.score_pairs, 0) AS tie_share,
           t.positive_share, t.attempts_mean, t.tokens_mean
    FROM totals t LEFT JOIN ties x USING (set_key, judge_key) LEFT JOIN keys s ON s.key = t.set_key;
CREATE VIEW judge_unrated AS
    SELECT j.judge_key, m.set_key, j.reason, count(*) AS responses
    FROM members m JOIN judgements j ON j.response_id = m.member_id
    WHERE j.reason IS NOT NULL GROUP BY j.judge_key, m.set_key, j.reason;
CREATE VIEW judge_aspects AS
    SELECT t.judge_key, m.set_key, t.aspect, min(t.place) AS place, count(t.level) AS rated,
           count(*) - count(t.level) AS unrated, avg(t.level) AS level_mean,
           CASE WHEN any_value(k.ingredients ->> 'type') IS DISTINCT FROM 'reward'
                THEN avg((t.level = 1)::INT) END AS top_share
    FROM members m JOIN ratings t ON t.response_id = m.member_id LEFT JOIN keys k ON k.key = t.judge_key
    GROUP BY t.judge_key, m.set_key, t.aspect;
CREATE VIEW judge_drift AS
    SELECT a.judge_key, b.judge_key AS other_key, a.aspect, count(*) AS n, avg((a.level = b.level)::INT) AS equal_share,
           avg(b.level - a.level) AS mean_difference
    FROM ratings a JOIN ratings b ON b.response_id = a.response_id AND b.aspect = a.aspect AND b.judge_key > a.judge_key
    WHERE a.level IS NOT NULL AND b.level IS NOT NULL
    GROUP BY a.judge_key, b.judge_key, a.aspect;
CREATE VIEW critique_worth AS
    SELECT c.judge_key, c.aspect, min(c.place) AS place, p.level AS parent_level, count(*) AS refinements,
           avg(c.level - p.level) AS mean_change, stddev_samp(c.level - p.level) / sqrt(count(*)) AS standard_error
    FROM responses r JOIN ratings c USING (response_id)
    JOIN ratings p ON p.response_id = r.parent_id AND p.judge_key = c.judge_key AND p.aspect = c.aspect
    WHERE c.level IS NOT NULL AND p.level IS NOT NULL
    GROUP BY c.judge_key, c.aspect, p.level;
"""
"""Every row of the first three is a judge over one set of responses.

judge_health: `tie_share` is the share of equal scores among the pairs of rated responses to the same prompt (counted from how
often each score occurs, not pair by pair); `positive_share` is the share of rated responses at the top of every aspect;
`tokens_mean` and `attempts_mean` are per judgement. judge_aspects: `top_share` is the share of ratings at the top of the
scale, NULL for a reward, which has no top. judge_drift: two judges over the same responses, levels of `other_key` less those
of `judge_key`. critique_worth: how an aspect's level changes from parent to refinement, by the parent's level.
"""
