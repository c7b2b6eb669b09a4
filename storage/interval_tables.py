"""Tables of runs with a date."""

from __future__ import annotations

INTERVALS = """
CREATE TABLE intervals (
    name VARCHAR NOT NULL, as_of TIMESTAMPTZ NOT NULL, since TIMESTAMPTZ, policy_id UUID,
    settled_at TIMESTAMPTZ NOT NULL DEFAULT now(), read_at TIMESTAMPTZ, done_at TIMESTAMPTZ, PRIMARY KEY (name, as_of));
CREATE TABLE arrivals (reading UUID NOT NULL, prompt_id UUID NOT NULL, arrived_at TIMESTAMPTZ NOT NULL);
CREATE TABLE dropped_rows (source VARCHAR NOT NULL, place VARCHAR NOT NULL, reason VARCHAR NOT NULL);
"""
"""The dates of runs on a schedule: what each works on, settled by its first run; when its sources were read, when it was done.
`arrivals`: when a prompt was first there, by how prompts are read. `dropped_rows`: rows of logs that couldn't be used."""
