"""Promotions that wait for a person, and what people answered; part of the store's schema."""

from __future__ import annotations

APPROVALS = """
CREATE TABLE proposals (
    stage_key UUID PRIMARY KEY, run_id UUID, iteration INTEGER NOT NULL, evaluation UUID NOT NULL,
    against UUID NOT NULL, hours DOUBLE NOT NULL, reason VARCHAR NOT NULL,
    asked_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE TABLE proposal_forms (
    stage_key UUID NOT NULL, flow_run_id UUID NOT NULL, response VARCHAR NOT NULL,
    asked_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (flow_run_id, response));
CREATE TABLE approvals (
    stage_key UUID PRIMARY KEY, approved BOOLEAN NOT NULL, decided_by VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now());
"""
"""`proposals`: a promotion that the gate would make, by the evaluations of both policies, and how many hours it waits.
`proposal_forms`: where Prefect keeps what is answered in its UI, once per form that was shown. `approvals`: the answers; the
first one counts."""
