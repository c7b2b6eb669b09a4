"""Views on where judges differ."""

from __future__ import annotations

DISAGREEMENTS = """
CREATE VIEW judge_disagreements AS
    SELECT a.judge_key AS judge, b.judge_key AS other, t.aspect, a.response_id, r.prompt_id, r.gen_key,
           r.parent_id IS NOT NULL AS refinement, t.level, u.level AS other_level, abs(t.level - u.level) AS difference,
           a.score, b.score AS other_score, t.critique, u.critique AS other_critique
    FROM judgements a JOIN judgements b ON b.response_id = a.response_id AND b.judge_key <> a.judge_key
    JOIN responses r ON r.response_id = a.response_id
    JOIN ratings t ON t.response_id = a.response_id AND t.judge_key = a.judge_key
    JOIN ratings u ON u.response_id = a.response_id AND u.judge_key = b.judge_key AND u.aspect = t.aspect
    WHERE t.level <> u.level;
CREATE VIEW pairs_by_judge AS
    SELECT p.pair_set, p.prompt_id, p.position, c.judge_key, c.score AS chosen_score, r.score AS rejected_score,
           CASE WHEN c.score > r.score THEN 'agrees' WHEN c.score < r.score THEN 'flips'
                WHEN c.score = r.score THEN 'ties' ELSE 'unrated' END AS outcome
    FROM pairs p JOIN judgements c ON c.response_id = p.chosen_id
    JOIN judgements r ON r.response_id = p.rejected_id AND r.judge_key = c.judge_key;
"""
"""Where two judges differ, aspect by aspect; and what a judge says of pairs that another one's ratings made."""
