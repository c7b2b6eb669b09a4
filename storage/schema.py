"""The tables of the store, as migrations applied in order.

Row tables (prompts, responses, judgements, ratings, failures, members) exist twice: in the schema `main` for what policies
learn from, in `held_out` for what only evaluation may touch. A connection sees one of the two: no WHERE can be forgotten.
"""

from __future__ import annotations

import re

from storage.approval_tables import APPROVALS
from storage.claim_tables import CLAIMS, STARTS
from storage.disagreement_views import DISAGREEMENTS
from storage.health_views import HEALTH_VIEWS
from storage.interval_tables import INTERVALS
from storage.reflection_views import REFLECTION
from storage.report_views import REPORT

IDENTITY: dict[str, dict[str, str]] = {
    "prompts": {"prompt_id": "UUID"},
    "responses": {"gen_key": "UUID", "response_id": "UUID"},
    "failures": {"response_id": "UUID"},
    "judgements": {"response_id": "UUID", "judge_key": "UUID"},
    "ratings": {"response_id": "UUID", "judge_key": "UUID", "aspect": "VARCHAR"},
    "members": {"set_key": "UUID", "member_id": "UUID"},
    "chosen_aspects": {"prompt_id": "UUID", "judge_key": "UUID"},
    "pairs": {"pair_set": "UUID", "prompt_id": "UUID", "position": "INTEGER"},
    "unpaired": {"pair_set": "UUID", "prompt_id": "UUID"},
    "training_metrics": {"stage_key": "UUID", "step": "INTEGER", "name": "VARCHAR"},
    "dropped_prompts": {"source": "VARCHAR", "row": "INTEGER", "prompt_id": "UUID", "reason": "VARCHAR"},
    "dropped_responses": {"source": "VARCHAR", "place": "VARCHAR"},
    "dropped_rows": {"source": "VARCHAR", "place": "VARCHAR"},
    "arrivals": {"reading": "UUID", "prompt_id": "UUID"},
    "claims": {"work": "UUID", "row_id": "UUID"},
}
"""Tables that grow with the data, and the columns of which no two of their rows agree in all.

They have no primary key: DuckDB writes a key's whole index anew whenever the file is closed, which costs every micro-batch
0.3 s at 100,000 rows. Instead `storage.store.insert` leaves out what is there, under the lock that a writer has on the file.
A response's id follows from its `gen_key`, among other things; naming that lets DuckDB pass over all rows of other keys.
"""

ROW_TABLES = """
CREATE TABLE {schema}.prompts (
    prompt_id UUID PRIMARY KEY, source VARCHAR NOT NULL, messages JSON NOT NULL, reference VARCHAR,
    metadata JSON NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE {schema}.responses (
    response_id UUID PRIMARY KEY, prompt_id UUID NOT NULL, parent_id UUID, gen_key UUID NOT NULL,
    policy_id UUID NOT NULL, position INTEGER NOT NULL, seed BIGINT, text VARCHAR NOT NULL,
    finish_reason VARCHAR NOT NULL, prompt_tokens INTEGER, completion_tokens INTEGER,
    backend VARCHAR NOT NULL, metadata JSON, run_id UUID, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE {schema}.failures (
    response_id UUID PRIMARY KEY, prompt_id UUID NOT NULL, parent_id UUID, gen_key UUID NOT NULL,
    reason VARCHAR NOT NULL, detail VARCHAR NOT NULL, backend VARCHAR NOT NULL, run_id UUID,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE {schema}.judgements (
    response_id UUID NOT NULL, judge_key UUID NOT NULL, score DOUBLE, reason VARCHAR, raw_reply VARCHAR,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, run_id UUID,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (response_id, judge_key));
CREATE TABLE {schema}.ratings (
    response_id UUID NOT NULL, judge_key UUID NOT NULL, aspect VARCHAR NOT NULL, place INTEGER NOT NULL,
    rating TINYINT CHECK (rating IN (-1, 0, 1)), critique VARCHAR NOT NULL,
    PRIMARY KEY (response_id, judge_key, aspect));
CREATE TABLE {schema}.members (set_key UUID NOT NULL, member_id UUID NOT NULL, PRIMARY KEY (set_key, member_id));
"""

SHARED_TABLES = """
CREATE TABLE meta (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE runs (
    run_id UUID PRIMARY KEY, name VARCHAR NOT NULL, config JSON NOT NULL, status VARCHAR NOT NULL, reason VARCHAR,
    host VARCHAR NOT NULL, pid INTEGER NOT NULL, started_at TIMESTAMPTZ NOT NULL DEFAULT now(), ended_at TIMESTAMPTZ);
CREATE TABLE keys (key UUID PRIMARY KEY, kind VARCHAR NOT NULL, ingredients JSON NOT NULL);
CREATE TABLE receipts (
    stage_key UUID PRIMARY KEY, stage VARCHAR NOT NULL, rows BIGINT NOT NULL, digest UUID NOT NULL,
    kept BIGINT NOT NULL, produced BIGINT NOT NULL, failed BIGINT NOT NULL, tokens BIGINT NOT NULL,
    seconds DOUBLE NOT NULL, run_id UUID, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE policies (
    policy_id UUID PRIMARY KEY, name VARCHAR NOT NULL, kind VARCHAR NOT NULL, folder VARCHAR,
    parent_id UUID, stage_key UUID, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE corpora (stage_key UUID PRIMARY KEY, sets JSON NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE dropped_prompts (
    source VARCHAR NOT NULL, row INTEGER NOT NULL, prompt_id UUID NOT NULL, reason VARCHAR NOT NULL,
    duplicate_of UUID, similarity DOUBLE, PRIMARY KEY (source, row, prompt_id, reason));
CREATE TABLE dropped_responses (
    source VARCHAR NOT NULL, place VARCHAR NOT NULL, reason VARCHAR NOT NULL, PRIMARY KEY (source, place));
CREATE TABLE pairs (
    pair_set UUID NOT NULL, prompt_id UUID NOT NULL, position INTEGER NOT NULL, chosen_id UUID NOT NULL,
    rejected_id UUID NOT NULL, PRIMARY KEY (pair_set, prompt_id, position), CHECK (chosen_id <> rejected_id));
CREATE TABLE unpaired (
    pair_set UUID NOT NULL, prompt_id UUID NOT NULL, reason VARCHAR NOT NULL, PRIMARY KEY (pair_set, prompt_id));
CREATE TABLE training_metrics (
    stage_key UUID NOT NULL, step INTEGER NOT NULL, name VARCHAR NOT NULL, value DOUBLE NOT NULL,
    PRIMARY KEY (stage_key, step, name));
CREATE TABLE trainings (
    stage_key UUID PRIMARY KEY, policy_id UUID NOT NULL, base_id UUID NOT NULL, pair_set UUID, spec JSON NOT NULL,
    rows INTEGER NOT NULL, excluded JSON NOT NULL, steps INTEGER NOT NULL, seconds DOUBLE NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE evaluations (
    stage_key UUID PRIMARY KEY, policy_id UUID NOT NULL, judge_key UUID NOT NULL, digest UUID NOT NULL,
    questions INTEGER NOT NULL, accuracy DOUBLE NOT NULL, low DOUBLE NOT NULL, high DOUBLE NOT NULL,
    unrated INTEGER NOT NULL, tokens_mean DOUBLE, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE evaluation_aspects (
    stage_key UUID NOT NULL, aspect VARCHAR NOT NULL, place INTEGER NOT NULL, mean DOUBLE NOT NULL, low DOUBLE NOT NULL,
    high DOUBLE NOT NULL, rated INTEGER NOT NULL, PRIMARY KEY (stage_key, aspect));
CREATE TABLE iterations (
    run_id UUID NOT NULL, iteration INTEGER NOT NULL, arm VARCHAR NOT NULL, base_id UUID, policy_id UUID NOT NULL,
    evaluation UUID NOT NULL, decision UUID, prompts_key UUID, responses_key UUID, refinements_key UUID,
    pair_set UUID, judge_key UUID,
    stage_keys JSON NOT NULL, seconds DOUBLE NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, iteration, arm));
CREATE SEQUENCE decision_numbers;
CREATE TABLE decisions (
    number BIGINT PRIMARY KEY DEFAULT nextval('decision_numbers'), stage_key UUID, run_id UUID, iteration INTEGER,
    verdict VARCHAR NOT NULL, policy_id UUID NOT NULL, champion_id UUID NOT NULL, gain DOUBLE,
    low DOUBLE, high DOUBLE, length_ratio DOUBLE,
    reason VARCHAR NOT NULL, decided_by VARCHAR NOT NULL, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
"""

VIEWS = """
CREATE VIEW champion AS
    SELECT p.policy_id, p.name, p.folder, d.number, d.verdict, d.reason, d.decided_by, d.created_at
    FROM decisions d JOIN policies p ON p.policy_id = d.champion_id ORDER BY d.number DESC LIMIT 1;
CREATE VIEW aspect_means AS
    SELECT r.gen_key, t.judge_key, t.aspect, min(t.place) AS place, r.parent_id IS NOT NULL AS refinement,
           avg(t.rating) AS mean, stddev_samp(t.rating) / sqrt(count(t.rating)) AS standard_error,
           count(t.rating) AS rated, count(*) - count(t.rating) AS unrated
    FROM ratings t JOIN responses r USING (response_id) GROUP BY ALL;
CREATE VIEW refinement_against_parent AS
    SELECT c.response_id, c.parent_id, c.prompt_id, cj.judge_key, pj.score AS parent_score, cj.score,
           cj.score - pj.score AS lift,
           CASE WHEN cj.score > pj.score THEN 'win' WHEN cj.score < pj.score THEN 'loss'
                WHEN cj.score = pj.score THEN 'tie' ELSE 'unrated' END AS outcome
    FROM responses c JOIN judgements cj USING (response_id)
    JOIN judgements pj ON pj.response_id = c.parent_id AND pj.judge_key = cj.judge_key;
CREATE VIEW lineage AS
    SELECT r.response_id, r.prompt_id, q.source, q.messages, r.parent_id, p.text AS parent_text, r.text,
           r.finish_reason, po.name AS policy, po.folder, r.position, r.seed, k.ingredients AS made_with, j.judge_key,
           j.score, j.reason AS unrated_because, pairs_chosen.pair_set AS chosen_in,
           pairs_rejected.pair_set AS rejected_in,
           tc.policy_id AS taught_policy
    FROM responses r JOIN prompts q USING (prompt_id) LEFT JOIN responses p ON p.response_id = r.parent_id
    LEFT JOIN policies po ON po.policy_id = r.policy_id LEFT JOIN keys k ON k.key = r.gen_key
    LEFT JOIN judgements j ON j.response_id = r.response_id
    LEFT JOIN pairs pairs_chosen ON pairs_chosen.chosen_id = r.response_id
    LEFT JOIN pairs pairs_rejected ON pairs_rejected.rejected_id = r.response_id
    LEFT JOIN trainings tc ON tc.pair_set = coalesce(pairs_chosen.pair_set, pairs_rejected.pair_set);
CREATE VIEW pair_texts AS
    SELECT a.pair_set, a.prompt_id, a.position, q.messages, c.text AS chosen, r.text AS rejected, a.chosen_id,
           a.rejected_id, c.parent_id IS NOT NULL AS chosen_is_refinement, c.completion_tokens AS chosen_tokens,
           r.completion_tokens AS rejected_tokens
    FROM pairs a JOIN prompts q USING (prompt_id) JOIN responses c ON c.response_id = a.chosen_id
    JOIN responses r ON r.response_id = a.rejected_id;
CREATE VIEW pair_set_summary AS
    SELECT s.pair_set, coalesce(p.pairs, 0) AS pairs, coalesce(p.prompts, 0) AS prompts_paired,
           coalesce(u.unpaired, 0) AS prompts_dropped, p.refinement_share, p.chosen_tokens, p.rejected_tokens
    FROM (SELECT pair_set FROM pairs UNION SELECT pair_set FROM unpaired) s
    LEFT JOIN (SELECT pair_set, count(*) AS pairs, count(DISTINCT prompt_id) AS prompts,
                      avg(chosen_is_refinement::INT) AS refinement_share, avg(chosen_tokens) AS chosen_tokens,
                      avg(rejected_tokens) AS rejected_tokens FROM pair_texts GROUP BY ALL) p USING (pair_set)
    LEFT JOIN (SELECT pair_set, count(*) AS unpaired FROM unpaired GROUP BY ALL) u USING (pair_set);
CREATE VIEW judged_sets AS
    SELECT m.set_key, j.judge_key, count(*) AS judged, count(j.reason) AS unrated,
           avg((j.reason IS NOT NULL)::INT) AS unrated_share, avg((j.score = 1)::INT) AS top_share,
           avg(r.completion_tokens) AS tokens_mean, sum(r.completion_tokens) AS tokens
    FROM members m JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id) GROUP BY ALL;
CREATE VIEW iteration_summary AS
    SELECT i.run_id, i.iteration, i.arm, p.name AS policy, b.name AS base, e.questions, e.accuracy, e.low, e.high,
           e.tokens_mean, s.pairs, s.prompts_dropped, s.refinement_share, s.chosen_tokens, s.rejected_tokens,
           (coalesce(x.unrated, 0) + coalesce(y.unrated, 0))
               / nullif(coalesce(x.judged, 0) + coalesce(y.judged, 0), 0) AS unrated_share,
           x.judged AS explored, y.judged AS refined, coalesce(x.tokens, 0) + coalesce(y.tokens, 0) AS tokens,
           d.verdict, d.gain, d.low AS gain_low, d.high AS gain_high, i.seconds, i.evaluation
    FROM iterations i JOIN policies p USING (policy_id) LEFT JOIN policies b ON b.policy_id = i.base_id
    JOIN evaluations e ON e.stage_key = i.evaluation LEFT JOIN pair_set_summary s ON s.pair_set = i.pair_set
    LEFT JOIN judged_sets x ON x.set_key = i.responses_key AND x.judge_key = i.judge_key
    LEFT JOIN judged_sets y ON y.set_key = i.refinements_key AND y.judge_key = i.judge_key
    LEFT JOIN decisions d ON d.stage_key = i.decision
    ORDER BY i.run_id, i.iteration, i.arm;
"""

ENGINES = """
DROP VIEW lineage;
CREATE VIEW lineage AS
    SELECT r.response_id, r.prompt_id, q.source, q.messages, r.parent_id, p.text AS parent_text, r.text,
           r.finish_reason, po.name AS policy, po.folder, r.position, r.seed, k.ingredients AS made_with,
           e.ingredients AS engine, j.judge_key, j.score, j.reason AS unrated_because,
           pairs_chosen.pair_set AS chosen_in, pairs_rejected.pair_set AS rejected_in, tc.policy_id AS taught_policy
    FROM responses r JOIN prompts q USING (prompt_id) LEFT JOIN responses p ON p.response_id = r.parent_id
    LEFT JOIN policies po ON po.policy_id = r.policy_id LEFT JOIN keys k ON k.key = r.gen_key
    LEFT JOIN keys e ON e.key = TRY_CAST(r.metadata ->> 'engine' AS UUID) LEFT JOIN judgements j ON j.response_id = r.response_id
    LEFT JOIN pairs pairs_chosen ON pairs_chosen.chosen_id = r.response_id
    LEFT JOIN pairs pairs_rejected ON pairs_rejected.rejected_id = r.response_id
    LEFT JOIN trainings tc ON tc.pair_set = coalesce(pairs_chosen.pair_set, pairs_rejected.pair_set);
"""
"""How the engine that made a response was set: `metadata.engine` names a key whose ingredients say it.

No column of its own: DuckDB 1.5 can't replay ALTER TABLE ADD COLUMN from its write-ahead log where another column has a
default such as now(), so a kill right after that migration would have cost the whole store.
"""


def _without_primary_keys(tables: str, names: str) -> str:
    """SQL that makes the named ones of the tables anew, with their rows."""
    steps = []
    for create in filter(None, map(str.strip, tables.split(";\n"))):
        found = re.match(r"CREATE TABLE (?P<name>(?:\w+\.)?(?P<table>\w+)) ", create)
        if found and found["table"] in names.split():
            name, keyless = found["name"], re.sub(r",\s*PRIMARY KEY \([^)]*\)", "", create)
            keyless = keyless.replace(" PRIMARY KEY", " NOT NULL")
            steps.append(f"CREATE TEMP TABLE kept AS FROM {name}; DROP TABLE {name}; {keyless};")
            steps.append(f"INSERT INTO {name} FROM kept; DROP TABLE kept;")
    return "\n".join(steps)


JUDGES = """
CREATE TABLE {schema}.judgements (
    response_id UUID NOT NULL, judge_key UUID NOT NULL, score DOUBLE, positive BOOLEAN NOT NULL, reason VARCHAR,
    raw_reply VARCHAR, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, attempts INTEGER NOT NULL,
    run_id UUID, created_at TIMESTAMPTZ NOT NULL DEFAULT now());
INSERT INTO {schema}.judgements
    SELECT response_id, judge_key, score, score IS NOT DISTINCT FROM 1, reason, raw_reply, prompt_tokens, completion_tokens,
           (raw_reply IS NOT NULL)::INTEGER, run_id, created_at FROM kept_judgements;
CREATE TABLE {schema}.ratings (
    response_id UUID NOT NULL, judge_key UUID NOT NULL, aspect VARCHAR NOT NULL, place INTEGER NOT NULL,
    rating DOUBLE, level DOUBLE, critique VARCHAR NOT NULL);
INSERT INTO {schema}.ratings
    SELECT response_id, judge_key, aspect, place, rating, rating, critique FROM kept_ratings;
CREATE TABLE {schema}.chosen_aspects (
    prompt_id UUID NOT NULL, judge_key UUID NOT NULL, aspects VARCHAR[] NOT NULL, reason VARCHAR, raw_reply VARCHAR,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, run_id UUID,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now());
"""
"""Ratings on any scale: `rating` as the judge gave it, `level` its place on the scale from -1 to 1. `positive`: every aspect
at the top of its scale. `chosen_aspects`: what a judge named, once per prompt, as the aspects that it needs most."""


def _judges(schema: str) -> str:
    """SQL that brings one schema's judgements and ratings into their new form, with their rows."""
    keep = "".join(
        f"CREATE TEMP TABLE kept_{table} AS FROM {schema}.{table}; DROP TABLE {schema}.{table};\n"
        for table in ("judgements", "ratings")
    )
    return keep + JUDGES.format(schema=schema) + "DROP TABLE kept_judgements; DROP TABLE kept_ratings;\n"


CHECKS = """
CREATE TABLE judge_checks (
    judge_key UUID NOT NULL, data UUID NOT NULL, aspect VARCHAR NOT NULL, n INTEGER NOT NULL, unrated INTEGER NOT NULL,
    agreement DOUBLE, low DOUBLE, high DOUBLE, alpha DOUBLE, confusion JSON NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (judge_key, data, aspect));
CREATE TABLE pair_audits (
    stage_key UUID NOT NULL, pair_set UUID NOT NULL, place INTEGER NOT NULL, measure VARCHAR NOT NULL, value DOUBLE,
    low DOUBLE, high DOUBLE, n BIGINT NOT NULL, bound DOUBLE, passed BOOLEAN NOT NULL, said VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (stage_key, measure));
CREATE TABLE audit_offences (
    stage_key UUID NOT NULL, measure VARCHAR NOT NULL, place INTEGER NOT NULL, prompt_id UUID NOT NULL,
    chosen_id UUID, rejected_id UUID, said VARCHAR NOT NULL, PRIMARY KEY (stage_key, measure, place));
"""
"""What judges are worth on labelled data (`confusion`: label -> rating -> count), and what the audits of pair sets found."""

TOP_SHARE = """
DROP VIEW judged_sets;
CREATE VIEW judged_sets AS
    SELECT m.set_key, j.judge_key, count(*) AS judged, count(j.reason) AS unrated,
           avg((j.reason IS NOT NULL)::INT) AS unrated_share,
           avg(j.positive::INT) FILTER (j.reason IS NULL) AS top_share,
           avg(r.completion_tokens) AS tokens_mean, sum(r.completion_tokens) AS tokens
    FROM members m JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id) GROUP BY ALL;
"""
"""`top_share`: of the rated responses, those at the top of every aspect, whatever the scale."""

MIGRATIONS: tuple[str, ...] = (
    "CREATE SCHEMA held_out;"
    + ROW_TABLES.format(schema="main")
    + ROW_TABLES.format(schema="held_out")
    + SHARED_TABLES
    + VIEWS,
    ENGINES,
    _without_primary_keys(
        ROW_TABLES.format(schema="main") + ROW_TABLES.format(schema="held_out") + SHARED_TABLES,
        "prompts responses failures judgements ratings members pairs unpaired training_metrics dropped_prompts "
        "dropped_responses",
    ),
    _judges("main") + _judges("held_out") + CHECKS + TOP_SHARE + HEALTH_VIEWS + REFLECTION,
    CLAIMS + STARTS,
    INTERVALS + DISAGREEMENTS + APPROVALS + REPORT,
)
"""Migration i brings a store from version i to i + 1. A shipped one is never edited."""

VERSION = len(MIGRATIONS)
