"""What each rule of pairs is, as SQL over the candidates of a pair set; `rlrf.pair_config.Pairs` names the rules.

A rule reads the table `candidates` (prompt_id, response_id, parent_id, score, positive, rank, text_hash, tokens, characters,
draw) and gives rows (prompt_id, place, chosen_id, rejected_id), `place` from 1 to k within a prompt. `score` is the judge's;
`rank` is the reward where responses are ranked by one (NULL for an unrated reward) and the score elsewhere. Both are rounded to
9 decimals, so that the same ratings summed in another order are equal. Every order ends with `draw`, a hash of seed and id.
Equal texts have equal `text_hash`es of 64 bits; two texts of one prompt that differ share one with a chance of 5e-20.

The second part of a rule says why a prompt with candidates has no pair: the rest of a CASE over them.
"""

from __future__ import annotations

from typing import NamedTuple

from rlrf.pair_config import Pairs
from storage.aspect_bits import Packing

MARGIN = 0.5
"""The least difference of scores where `pairs.margin` is unset."""
LOW_TIER = 0.25
"""Which part of the range from a prompt's lowest score to its highest is the low tier."""
ROUNDED = 1e-9
"""How far a difference of rounded scores may be off."""


class RuleSql(NamedTuple):
    """A SELECT of pairs, and the reasons of prompts without one."""

    pairs: str
    reasons: str


_SIDES = """WHEN count(*) FILTER (c.positive) = 0 THEN 'no_positive'
            WHEN count(*) FILTER (NOT c.positive) = 0 THEN 'no_negative' ELSE 'no_difference'"""

_PAPER = """
WITH ranked AS (
    SELECT prompt_id, response_id, positive, row_number() OVER (PARTITION BY prompt_id, positive
           ORDER BY CASE WHEN positive THEN rank END DESC NULLS LAST, draw, response_id) AS place
    FROM candidates)
SELECT c.prompt_id, place, c.response_id AS chosen_id, r.response_id AS rejected_id
FROM ranked c JOIN ranked r USING (prompt_id, place) WHERE c.positive AND NOT r.positive AND place <= $k
"""
"""Section 3.3: the top-k of D+ against as many of D- in the order of a draw. Scores are not compared."""

_ENDS = """
WITH ranked AS (
    SELECT prompt_id, response_id, {value} AS value, count(*) OVER (PARTITION BY prompt_id) AS n,
           row_number() OVER (PARTITION BY prompt_id ORDER BY {value} DESC, rank DESC NULLS LAST, draw, response_id) AS place
    FROM candidates WHERE {value} IS NOT NULL)
SELECT c.prompt_id, c.place, c.response_id AS chosen_id, r.response_id AS rejected_id
FROM ranked c JOIN ranked r ON r.prompt_id = c.prompt_id AND r.place = c.n + 1 - c.place
WHERE c.place <= $k AND c.value > r.value AND c.value - r.value >= {least}
"""
"""The i-th from the top against the i-th from the bottom: the largest difference first, no response in two pairs."""

_MEASURED = """
measured AS (
    SELECT c.*, CASE WHEN all_counted THEN tokens ELSE characters END AS length
    FROM candidates c JOIN (SELECT prompt_id, count(tokens) = count(*) AS all_counted FROM candidates GROUP BY prompt_id)
         USING (prompt_id))"""
"""Lengths of one prompt in one unit: tokens if every candidate's are known, else characters."""

_NEAREST = f"""
WITH {_MEASURED},
chosen AS (
    SELECT *, row_number() OVER (PARTITION BY prompt_id ORDER BY rank DESC NULLS LAST, draw, response_id) AS place
    FROM measured WHERE positive QUALIFY place <= $k)
SELECT c.prompt_id, c.place, c.response_id AS chosen_id,
       arg_min(r.response_id, (-r.score, abs(r.length - c.length), r.draw, r.response_id)) AS rejected_id
FROM chosen c JOIN measured r USING (prompt_id) WHERE NOT r.positive AND r.score < c.score
GROUP BY c.prompt_id, c.place, c.response_id
"""
"""Each of the top-k of D+ against the best of D- below it; of equally good ones, against the one most like it in length."""

_OWN_PARENT = """
WITH better AS (
    SELECT r.prompt_id, r.response_id AS chosen_id, p.response_id AS rejected_id, round(r.score - p.score, 9) AS lift,
           r.rank, r.draw
    FROM candidates r JOIN candidates p ON p.response_id = r.parent_id AND p.prompt_id = r.prompt_id
    WHERE r.score > p.score AND r.text_hash <> p.text_hash
    QUALIFY row_number() OVER (PARTITION BY r.prompt_id, r.text_hash ORDER BY r.parent_id, r.response_id) = 1)
SELECT prompt_id, row_number() OVER (PARTITION BY prompt_id
       ORDER BY lift DESC, rank DESC NULLS LAST, draw, chosen_id) AS place, chosen_id, rejected_id
FROM better QUALIFY place <= $k
"""
"""The largest gain first. Refinements of one parent share it as their rejected response."""

_LENGTH_CONTROLLED = f"""
WITH {_MEASURED},
bounds AS (
    SELECT prompt_id, min(score) + {LOW_TIER} * (max(score) - min(score)) + {ROUNDED} AS low
    FROM candidates GROUP BY prompt_id),
ranked AS (
    SELECT prompt_id, response_id, positive, row_number() OVER (PARTITION BY prompt_id, positive ORDER BY
           CASE WHEN positive THEN length ELSE -length END, CASE WHEN positive THEN -rank ELSE score END NULLS LAST, draw,
           response_id) AS place
    FROM measured JOIN bounds USING (prompt_id) WHERE positive OR score <= low)
SELECT c.prompt_id, place, c.response_id AS chosen_id, r.response_id AS rejected_id
FROM ranked c JOIN ranked r USING (prompt_id, place) WHERE c.positive AND NOT r.positive AND place <= $k
"""
"""The i-th shortest of D+ against the i-th longest of the low tier, so that length is not what training rewards.

After Self-Rewarding (2401.10020) and Meta-Rewarding (2407.19594), whose top tier is here D+.
"""

_DOMINANCE = """
WITH better AS (
    SELECT c.prompt_id, c.response_id AS chosen_id, r.response_id AS rejected_id, {better} AS aspects,
           round(c.score - r.score, 9) AS lift, c.turn, r.turn AS other_turn
    FROM packed c JOIN packed r ON r.prompt_id = c.prompt_id AND {alike}
    WHERE c.score > r.score AND {no_worse})
SELECT prompt_id, row_number() OVER (PARTITION BY prompt_id
       ORDER BY aspects DESC, lift DESC, turn, other_turn) AS place, chosen_id, rejected_id
FROM better QUALIFY place <= $k
"""
"""The most aspects better first, then the largest difference of scores. `turn` is the place in the order of rank and draw."""


def rule_sql(rule: Pairs) -> RuleSql:
    """The SQL of every rule but `dominance`; its parameter is $k."""
    if rule.type == "margin":
        least = (MARGIN if rule.margin is None else rule.margin) - ROUNDED
        return RuleSql(_ENDS.format(value="score", least=least), "ELSE 'no_margin'")
    return {
        "paper": RuleSql(_PAPER, _SIDES),
        "best_worst": RuleSql(
            _ENDS.format(value="rank", least=0), "WHEN count(c.rank) = 0 THEN 'no_reward' ELSE 'no_difference'"
        ),
        "nearest": RuleSql(_NEAREST, _SIDES),
        "own_parent": RuleSql(
            _OWN_PARENT, "WHEN count(c.parent_id) = 0 THEN 'no_refinement' ELSE 'no_refinement_better'"
        ),
        "length_controlled": RuleSql(_LENGTH_CONTROLLED, _SIDES),
    }[rule.type]


def dominance_sql(packing: Packing) -> RuleSql:
    """The SQL of `dominance` over the table `packed`; its parameter is $k."""
    compared = {"alike": packing.alike, "no_worse": packing.no_worse, "better": packing.better}
    return RuleSql(_DOMINANCE.format(**compared), "ELSE 'no_dominance'")
