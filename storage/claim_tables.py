"""Tables of who is at work on what."""

from __future__ import annotations

CLAIMS = """
CREATE TABLE claimants (
    owner UUID PRIMARY KEY, run_id UUID, host VARCHAR NOT NULL, pid INTEGER NOT NULL, process VARCHAR NOT NULL,
    beats BIGINT NOT NULL DEFAULT 0, started_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE claims (work UUID NOT NULL, row_id UUID NOT NULL, owner UUID NOT NULL);
CREATE TABLE run_processes (run_id UUID PRIMARY KEY, process VARCHAR NOT NULL);
"""
"""Who is at work on what, so that two processes don't do it twice. `beats` rises as long as the owner lives; `process` (boot,
pid namespace, start) says whether the pid can be looked up here and is still the same process, for runs as for claimants."""

STARTS = """
CREATE TABLE starts (
    stage_key UUID NOT NULL, stage VARCHAR NOT NULL, run_id UUID, started_at TIMESTAMPTZ NOT NULL DEFAULT now());
"""
"""When a stage's work was begun, and by which run: one row each time; a finished stage isn't begun again."""
