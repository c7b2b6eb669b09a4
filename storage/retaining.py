"""What a store needs of its home's folders: which policies, trainings and stages it knows."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.invalidating import renew_id
from storage.store import Store

REMOVED = ".removed"
"""After the folder of a policy whose folder was removed: no training ever writes there."""


@dataclass(frozen=True)
class Known:
    """policies: policy_id, name, kind, folder, newest first. champions: ids of all that were ever in office.
    stages: keys that have started; finished: those with a receipt. configs: of all runs, as text."""

    policies: list[dict[str, Any]]
    champions: set[str]
    stages: set[str]
    finished: set[str]
    configs: str


def known(store: Store) -> Known:
    """What the store knows."""
    policies = store.query("SELECT policy_id, name, kind, folder FROM policies ORDER BY created_at DESC, policy_id")
    return Known(
        policies=policies,
        champions=_column(store, "SELECT DISTINCT champion_id FROM decisions"),
        stages=_column(store, "SELECT key FROM keys WHERE kind IN ('bootstrap', 'train_policy')"),
        finished=_column(store, "SELECT stage_key FROM receipts"),
        configs="\n".join(_column(store, "SELECT DISTINCT config FROM runs")),
    )


def maybe_live(store: Store) -> list[dict[str, Any]]:
    """Runs of other hosts that say that they are under way and began this week: whether they live can't be seen here."""
    sql = """SELECT run_id, name, host, pid FROM runs WHERE status = 'running' AND host <> ?
             AND started_at > now() - INTERVAL 7 DAY ORDER BY started_at"""
    return store.query(sql, [socket.gethostname()])


def latest_retention(store: Store) -> dict[str, Any]:
    """The section `retention` of the latest run's configuration; empty where there is none."""
    found = store.value("SELECT config FROM runs ORDER BY started_at DESC LIMIT 1")
    section: dict[str, Any] = json.loads(found).get("retention", {}) if found else {}
    return section


def forget_folders(store: Store, policy_ids: Sequence[str]) -> None:
    """Say that the folders of these policies are there no longer. Trainings that made them are then unfinished."""
    with store.connect() as connection:
        connection.execute(
            f"UPDATE policies SET folder = folder || '{REMOVED}' WHERE policy_id IN (SELECT unnest($ids::UUID[]))",
            {"ids": list(policy_ids)},
        )
        renew_id(connection)


def _column(store: Store, sql: str) -> set[str]:
    return {str(next(iter(row.values()))) for row in store.query(sql)}
