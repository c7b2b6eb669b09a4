"""The audit of a pair set: every measure taken from the store's rows, in a few queries over all pairs at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import duckdb

from rlrf.auditing import RATIO, SHOWN, Measure, Offence, measure, ratio_of_means, share
from rlrf.deduplication import near_duplicates
from rlrf.fingerprints import content_id
from rlrf.label_noise import Interval, Reliability, label_noise, reliability
from rlrf.overlap import overlaps
from rlrf.pair_config import Audit
from rlrf.records import Prompt
from storage import audits, rows
from storage.store import Store, fetch

_PLAIN = r"trim(regexp_replace(lower({0}), '[\s\p{{Z}}]+', ' ', 'g'))"

_SAME_TEXT = f"""CASE WHEN starts_with({_PLAIN.format("left(c.text, 100)")}, {_PLAIN.format("left(r.text, 100)")})
                       OR starts_with({_PLAIN.format("left(r.text, 100)")}, {_PLAIN.format("left(c.text, 100)")})
                     THEN {_PLAIN.format("c.text")} = {_PLAIN.format("r.text")} ELSE false END"""
"""Equal but for white space and case. Most texts already differ at their start, which is much cheaper to see."""

_AUDITED = f"""
CREATE TEMP TABLE audited AS
    SELECT a.prompt_id, a.position, a.chosen_id, a.rejected_id, p.source, c.parent_id, c.completion_tokens AS chosen_tokens,
           r.completion_tokens AS rejected_tokens, length(c.text) AS chosen_characters,
           length(r.text) AS rejected_characters, cj.score AS chosen_score, rj.score AS rejected_score,
           coalesce(cj.positive, false) AS chosen_top, coalesce(rj.positive, false) AS rejected_top,
           {_SAME_TEXT} AS same_text
    FROM pairs a JOIN prompts p USING (prompt_id) JOIN responses c ON c.response_id = a.chosen_id
    JOIN responses r ON r.response_id = a.rejected_id
    LEFT JOIN judgements cj ON cj.response_id = a.chosen_id AND cj.judge_key = $judge
    LEFT JOIN judgements rj ON rj.response_id = a.rejected_id AND rj.judge_key = $judge
    WHERE a.pair_set = $pair_set"""

_SEEN = """
CREATE TEMP TABLE seen AS
    SELECT r.prompt_id, r.response_id, j.reason, j.positive
    FROM (SELECT DISTINCT member_id FROM members WHERE set_key IN (SELECT unnest($judged::UUID[]))) m
    JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id) WHERE j.judge_key = $judge"""

Connection = duckdb.DuckDBPyConnection


def audit(
    store: Store,
    stage_key: str,
    pair_set: str,
    *,
    judged: Sequence[str],
    judge_key: str,
    held_out: str,
    settings: Audit,
    seed: int,
) -> list[Measure]:
    """Take every measure of a pair set, write them with their offences, and return them in their order of display.

    `judged`: the response sets that the pairs were drawn from; `held_out`: the set of held-out prompts, the one thing of
    that side that is looked at. Whether a limit is kept is for the caller to act on.
    """
    with store.connect() as connection:
        connection.execute(_AUDITED, {"judge": judge_key, "pair_set": pair_set})
        connection.execute(_SEEN, {"judge": judge_key, "judged": list(judged)})
        about_texts = [_equal_texts(connection, settings), _ties(connection, settings), _length(connection, settings)]
        about_prompts = [_largest_source(connection, settings), _refinements(connection, settings)]
        about_judge = [
            _top_yield(connection, settings),
            _unrated(connection),
            *_noise(connection, judge_key, settings, seed),
        ]
        prompts = _paired_prompts(connection)
    repeated = _repeated(prompts, rows.prompts_of(store.held_out(), held_out), settings)
    measures = [*about_texts, *repeated, *about_prompts, *about_judge]
    audits.add_audit(store, stage_key, pair_set, measures)
    return measures


def check_of(store: Store, judge_key: str) -> list[dict[str, Any]]:
    """The judge's latest check on labelled data, a row per aspect; empty where it wasn't checked."""
    with store.connect() as connection:
        return _check_of(connection, judge_key)


def check_digest(store: Store, judge_key: str) -> str | None:
    """What the audit reads of the judge's latest check, as one hash; None where there is none."""
    found = check_of(store, judge_key)
    return (
        content_id("judge_check", [[row["aspect"], json.loads(row["confusion"])] for row in found]) if found else None
    )


def _pairs_where(connection: Connection, condition: str, said: str, worst: str = "prompt_id") -> list[Offence]:
    """The worst pairs that meet a condition, with what is to be said of each (SQL)."""
    sql = f"""SELECT prompt_id, {said} AS said, chosen_id, rejected_id FROM audited WHERE {condition}
              ORDER BY {worst}, prompt_id, position LIMIT {SHOWN}"""
    return [Offence(**row) for row in fetch(connection, sql)]


def _counts(connection: Connection, sql: str) -> list[Any]:
    return list(fetch(connection, sql)[0].values())


def _equal_texts(connection: Connection, settings: Audit) -> Measure:
    count, n = _counts(connection, "SELECT count(*) FILTER (same_text), count(*) FROM audited")
    worst = _pairs_where(connection, "same_text", "'both sides have the same text'")
    said = "pairs have the same text on both sides, white space and case aside"
    return share("equal_texts", count, n, settings.equal_texts, said, worst)


def _ties(connection: Connection, settings: Audit) -> Measure:
    sql = "SELECT count(*) FILTER (chosen_score = rejected_score), count(chosen_score - rejected_score) FROM audited"
    count, n = _counts(connection, sql)
    worst = _pairs_where(connection, "chosen_score = rejected_score", "format('both score {:.2f}', chosen_score)")
    return share("ties", count, n, settings.ties, "pairs have equal scores on both sides", worst)


def _length(connection: Connection, settings: Audit) -> Measure:
    """In tokens; in characters where some of the responses came without their number of tokens."""
    n, known = _counts(connection, "SELECT count(*), count(chosen_tokens + rejected_tokens) FROM audited")
    if not n:
        return measure(RATIO, None, 0, settings.length_ratio, "not measured: there are no pairs")
    unit = "tokens" if n == known else "characters"
    sql = (
        f"SELECT sum(chosen_{unit}) AS c, sum(rejected_{unit}) AS r FROM audited GROUP BY prompt_id ORDER BY prompt_id"
    )
    totals = fetch(connection, sql)
    chosen, rejected = ([float(row[side]) for row in totals] for side in "cr")
    ratio = ratio_of_means(chosen, rejected)
    longer, shorter = ("chosen", "rejected") if ratio[0] >= 1 else ("rejected", "chosen")
    told = f"format('chosen has {{:d}} {unit}, rejected {{:d}}', chosen_{unit}, rejected_{unit})"
    condition = f"{longer}_{unit} > {shorter}_{unit}"
    worst = _pairs_where(connection, condition, told, f"{longer}_{unit} / ({shorter}_{unit} + 1) DESC")
    said = f"chosen responses have {sum(chosen) / n:,.1f} {unit} on average, rejected ones {sum(rejected) / n:,.1f}"
    return measure(RATIO, ratio, n, settings.length_ratio, said, worst)


def _largest_source(connection: Connection, settings: Audit) -> Measure:
    sql = (
        "SELECT source, count(*) AS n, min(prompt_id) AS prompt_id FROM audited GROUP BY source ORDER BY n DESC, source"
    )
    found = fetch(connection, sql)
    n = sum(row["n"] for row in found)
    source, most = (found[0]["source"], found[0]["n"]) if found else (None, 0)
    said = f"pairs come from {source!r}, the most frequent of {len(found):,} source(s)"
    worst = [Offence(row["prompt_id"], f"{row['n']:,} pairs from {row['source']!r}") for row in found]
    return share("largest_source", most, n, settings.largest_source, said, worst)


def _refinements(connection: Connection, settings: Audit) -> Measure:
    count, n = _counts(connection, "SELECT count(parent_id), count(*) FROM audited")
    worst = _pairs_where(connection, "parent_id IS NOT NULL", "'chosen rewrites response ' || parent_id::VARCHAR")
    return share("refinements", count, n, settings.refinements, "chosen responses are refinements", worst)


def _top_yield(connection: Connection, settings: Audit) -> Measure:
    sql = "SELECT count(*) FILTER (positive), count(*) FROM seen WHERE reason IS NULL"
    count, n = _counts(connection, sql)
    sql = f"""SELECT prompt_id, format('none of {{:d}} rated responses is at the top', count(*)) AS said FROM seen
              WHERE reason IS NULL GROUP BY prompt_id HAVING NOT bool_or(positive)
              ORDER BY count(*) DESC, prompt_id LIMIT {SHOWN}"""
    worst = [Offence(**row) for row in fetch(connection, sql)]
    return share("top_yield", count, n, settings.top_yield, "rated responses are at the top of every aspect", worst)


def _unrated(connection: Connection) -> Measure:
    count, n = _counts(connection, "SELECT count(reason), count(*) FROM seen")
    sql = f"""SELECT prompt_id, 'response ' || response_id::VARCHAR || ' is unrated because ' || reason AS said FROM seen
              WHERE reason IS NOT NULL ORDER BY prompt_id, response_id LIMIT {SHOWN}"""
    worst = [Offence(**row) for row in fetch(connection, sql)]
    return share("unrated", count, n, None, "judged responses have no rating (limits.unrated has its limit)", worst)


def _noise(connection: Connection, judge_key: str, settings: Audit, seed: int) -> list[Measure]:
    """The two expected shares, from the aspect of the latest check on which they are worst."""
    sql = "SELECT chosen_top, rejected_top, count(*) AS n FROM audited GROUP BY ALL"
    sides = {(row["chosen_top"], row["rejected_top"]): row["n"] for row in fetch(connection, sql)}
    found: list[tuple[tuple[Interval, Interval], str, Reliability]] = []
    why = "run `rlrf judge check` on labelled responses with this judge"
    for row in _check_of(connection, judge_key) if sides else ():
        counts = reliability(json.loads(row["confusion"]), _top(connection, judge_key, row["aspect"]))
        if isinstance(counts, str):
            why = f"the latest check says nothing of it, {counts}; run `rlrf judge check` on other labelled responses"
        else:
            found.append((label_noise(counts, sides, seed), row["aspect"], counts))
    if not found:
        unknown = f"not measured: {why}"
        names = {"label_noise": settings.label_noise, "inverted_labels": None}
        return [measure(name, None, 0, bound, unknown) for name, bound in names.items()]
    (noise, inverted), aspect, counts = max(found, key=lambda one: one[0])
    pairs = sum(sides.values())
    told = "format('scores {:.2f} and {:.2f}', chosen_score, rejected_score)"
    closest = _pairs_where(
        connection, "chosen_score - rejected_score IS NOT NULL", told, "chosen_score - rejected_score"
    )
    because = (
        f"the judge was right in {counts.ppv:.1%} of its top ratings and {counts.npv:.1%} of its others ({aspect!r}); "
        "the closest scores are listed"
    )
    return [
        measure(
            "label_noise",
            noise,
            pairs,
            settings.label_noise,
            f"expected: chosen isn't truly better; {because}",
            closest,
        ),
        measure("inverted_labels", inverted, pairs, None, f"expected: rejected is truly better; {because}", closest),
    ]


def _check_of(connection: Connection, judge_key: str) -> list[dict[str, Any]]:
    sql = """SELECT aspect, confusion FROM judge_checks WHERE judge_key = $judge AND data = (
                 SELECT data FROM judge_checks WHERE judge_key = $judge ORDER BY rowid DESC LIMIT 1)
             ORDER BY aspect"""
    return fetch(connection, sql, {"judge": judge_key})


def _top(connection: Connection, judge_key: str, aspect: str) -> float | None:
    """The highest rating of the judge's scale, as far as the store has met it."""
    sql = "SELECT max(rating) AS top FROM ratings WHERE judge_key = ? AND aspect = ? AND level = 1"
    found: float | None = fetch(connection, sql, [judge_key, aspect])[0]["top"]
    return found


def _paired_prompts(connection: Connection) -> list[Prompt]:
    sql = """SELECT p.prompt_id, p.source, p.messages FROM prompts p
             WHERE p.prompt_id IN (SELECT prompt_id FROM audited) ORDER BY p.prompt_id"""
    found = fetch(connection, sql)
    return [Prompt(row["prompt_id"], row["source"], tuple(json.loads(row["messages"]))) for row in found]


def _repeated(prompts: Sequence[Prompt], held_out: Sequence[Prompt], settings: Audit) -> list[Measure]:
    """What paired prompts have in common with each other, and with the held-out ones."""
    near = near_duplicates(prompts, settings.near_duplicate)
    like = [Offence(one.prompt_id, f"{one.similarity:.0%} like prompt {one.other_id}") for one in near[:SHOWN]]
    leaked = overlaps(prompts, held_out, settings.ngram)
    told = [
        Offence(one.prompt_id, f"{one.share:.0%} of it is in held-out prompt {one.held_out_id}, first: {one.words}")
        for one in leaked[:SHOWN]
    ]
    alike = f"paired prompts are near-duplicates of another one (similarity {settings.near_duplicate:g} or more)"
    shared = f"paired prompts share {settings.ngram} words in a row with one of {len(held_out):,} held-out prompts"
    return [
        share("near_duplicate_prompts", len(near), len(prompts), settings.near_duplicate_prompts, alike, like),
        share("evaluation_overlap", len(leaked), len(prompts), settings.evaluation_overlap, shared, told),
    ]
