"""Views of what reflection is worth, iteration by iteration, for people and for `storage.reflecting`.

`reflection_lifts`: every refinement against its own parent. `reflection_aspects`: the same aspect by aspect (`broken`: the
parent was at the top there). `reflection_against_plain`: per prompt, its refinements against as many plain responses.
"""

REFLECTION = """
CREATE VIEW reflection_lifts AS
    SELECT i.run_id, i.iteration, r.prompt_id, r.response_id, r.parent_id, i.judge_key, p.score AS parent_score, c.score,
           p.positive AS parent_positive, c.positive, c.score - p.score AS lift,
           CASE WHEN c.score > p.score THEN 'win' WHEN c.score < p.score THEN 'loss'
                WHEN c.score = p.score THEN 'tie' ELSE 'unrated' END AS outcome
    FROM iterations i JOIN members m ON m.set_key = i.refinements_key JOIN responses r ON r.response_id = m.member_id
    LEFT JOIN judgements p ON p.response_id = r.parent_id AND p.judge_key = i.judge_key AND p.reason IS NULL
    LEFT JOIN judgements c ON c.response_id = r.response_id AND c.judge_key = i.judge_key AND c.reason IS NULL
    WHERE i.arm = 'policy';
CREATE VIEW reflection_aspects AS
    SELECT l.run_id, l.iteration, l.prompt_id, l.response_id, l.parent_id, l.judge_key, c.aspect, c.place,
           p.level AS parent_level, c.level, c.level - p.level AS lift,
           CASE WHEN c.level > p.level THEN 'win' WHEN c.level < p.level THEN 'loss' ELSE 'tie' END AS outcome,
           p.level = 1 AS parent_top, p.level = 1 AND c.level < 1 AS broken
    FROM reflection_lifts l JOIN ratings c ON c.response_id = l.response_id AND c.judge_key = l.judge_key
    JOIN ratings p ON p.response_id = l.parent_id AND p.judge_key = l.judge_key AND p.aspect = c.aspect
    WHERE l.outcome <> 'unrated' AND c.level IS NOT NULL AND p.level IS NOT NULL;
CREATE VIEW reflection_against_plain AS
    WITH arms AS (
        SELECT run_id, iteration, judge_key, refinements_key AS set_key, true AS refined FROM iterations WHERE arm = 'policy'
        UNION ALL SELECT run_id, iteration, judge_key, TRY_CAST(stage_keys ->> 'compare' AS UUID), false
        FROM iterations WHERE arm = 'policy'),
    answers AS (
        SELECT a.run_id, a.iteration, r.prompt_id, a.refined, j.score, j.positive, j.score IS NOT NULL AS rated
        FROM arms a JOIN members m USING (set_key) JOIN responses r ON r.response_id = m.member_id
        LEFT JOIN judgements j ON j.response_id = r.response_id AND j.judge_key = a.judge_key AND j.reason IS NULL)
    SELECT run_id, iteration, prompt_id, count(*) FILTER (refined AND rated) AS refinements,
           count(*) FILTER (NOT refined AND rated) AS plain, count(*) FILTER (refined AND NOT rated) AS refinements_unrated,
           count(*) FILTER (NOT refined AND NOT rated) AS plain_unrated,
           avg(score) FILTER (refined) AS refined_score, avg(score) FILTER (NOT refined) AS plain_score,
           avg(positive::INTEGER) FILTER (refined AND rated) AS refined_positive,
           avg(positive::INTEGER) FILTER (NOT refined AND rated) AS plain_positive,
           max(score) FILTER (refined) AS refined_best, max(score) FILTER (NOT refined) AS plain_best
    FROM answers GROUP BY ALL HAVING count(*) FILTER (NOT refined) > 0;
"""
