"""Policies side by side on one judged set: how long their responses are and how they are rated."""

from __future__ import annotations

from typing import Any

from storage.store import Store


def lengths(store: Store, set_key: str) -> list[dict[str, Any]]:
    """Per policy: responses, their mean length in tokens (None where nobody counted them), words and characters, and the
    95 % interval of the mean number of words."""
    sql = """WITH texts AS (
               SELECT coalesce(p.name, r.policy_id::VARCHAR) AS policy, r.completion_tokens AS tokens, length(r.text) AS chars,
                      length(regexp_split_to_array(trim(r.text), '\\s+')) AS words
               FROM members m JOIN responses r ON r.response_id = m.member_id LEFT JOIN policies p USING (policy_id)
               WHERE m.set_key = ?)
             SELECT policy, count(*) AS responses, avg(tokens) AS tokens, avg(words) AS words, avg(chars) AS chars,
                    coalesce(1.96 * stddev_samp(words) / sqrt(count(*)), 0) AS words_half
             FROM texts GROUP BY policy ORDER BY policy"""
    return store.query(sql, [set_key])


def aspect_means(store: Store, set_key: str, judge_key: str) -> list[dict[str, Any]]:
    """Per policy and aspect: mean rating on the judge's own scale with half of its 95 % interval, how many are rated and
    how many are not; policies without a single rating are there, with none."""
    sql = """SELECT coalesce(p.name, r.policy_id::VARCHAR) AS policy, t.aspect, min(t.place) AS place, avg(t.rating) AS mean,
                    coalesce(1.96 * stddev_samp(t.rating) / sqrt(count(t.rating)), 0) AS half, count(t.rating) AS rated,
                    count(*) - count(t.rating) AS unrated
             FROM members m JOIN responses r ON r.response_id = m.member_id LEFT JOIN policies p USING (policy_id)
             JOIN judgements j USING (response_id)
             LEFT JOIN ratings t ON t.response_id = r.response_id AND t.judge_key = j.judge_key
             WHERE m.set_key = $set AND j.judge_key = $judge GROUP BY ALL ORDER BY policy, place"""
    return store.query(sql, {"set": set_key, "judge": judge_key})
