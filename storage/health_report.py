"""All that a store says of how far its judges can be trusted, as plain rows for tables and programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from storage import health
from storage.store import Store

Rows = list[dict[str, Any]]


def report(store: Store, prefix: str = "") -> dict[str, Rows]:
    """Rows by name, for the judges whose key starts with `prefix`: judges, sets, unrated, aspects, variants, panels, drift,
    critiques, checks. Raises StoreError where there is no such judge.
    """
    judges = health.judges_called(store, prefix)
    keys = [judge["judge_key"] for judge in judges]
    return {
        "judges": judges,
        "sets": _of(store, "judge_health", "judge_key, judged DESC, set_key", keys),
        "unrated": _of(store, "judge_unrated", "judge_key, set_key, responses DESC, reason", keys),
        "aspects": _of(store, "judge_aspects", "judge_key, set_key, place, aspect", keys),
        "variants": _variants(store, judges),
        "panels": [row for key in keys for row in _panel(store, key)],
        "drift": _drift(store, keys),
        "critiques": _of(store, "critique_worth", "judge_key, place, aspect, parent_level", keys),
        "checks": [_check(row) for key in keys for row in health.checks_of(store, key)],
    }


def _of(store: Store, view: str, order: str, keys: list[str]) -> Rows:
    sql = f"FROM {view} WHERE judge_key IN (SELECT unnest($keys::UUID[])) ORDER BY {order}"
    return store.query(sql, {"keys": keys})


def _drift(store: Store, keys: list[str]) -> Rows:
    sql = """FROM judge_drift WHERE judge_key IN (SELECT unnest($keys::UUID[])) OR other_key IN (SELECT unnest($keys::UUID[]))
             ORDER BY judge_key, other_key, aspect"""
    return store.query(sql, {"keys": keys})


def _variants(store: Store, judges: Rows) -> Rows:
    """The agreement of judges with their variants, each two of them once, the plain judge first."""
    plain_first = sorted(judges, key=lambda judge: (judge["repeat"] is not None, judge["reverse"] is not None))
    rows: Rows = []
    told: set[frozenset[str]] = set()
    for key in [judge["judge_key"] for judge in plain_first]:
        found = health.variants(store, key)
        for kind, others in (("repeat", found.repeats), ("reverse", found.reversed)):
            for other in others:
                if frozenset((key, other)) not in told:
                    told.add(frozenset((key, other)))
                    rows += _compared(store, key, other, kind)
    return rows


def _compared(store: Store, judge_key: str, other_key: str, kind: str) -> Rows:
    names = {"judge_key": judge_key, "other_key": other_key, "kind": kind}
    found = health.agreement(store, judge_key, other_key)
    return [names | {"aspect": one.aspect} | _plain(asdict(one.found)) for one in found]


def _panel(store: Store, judge_key: str) -> Rows:
    members = health.panel_members(store, judge_key)
    found = health.panel_agreement(store, members) if members else []
    return [{"judge_key": judge_key, "members": len(members)} | asdict(one) for one in found]


def _check(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"created_at": row["created_at"].isoformat()}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
