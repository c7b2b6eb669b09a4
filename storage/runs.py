"""Runs: who began them, whether they still live, how they ended."""

from __future__ import annotations

from typing import Any

from storage.process import Process, before_the_boot, is_gone, this_process, unmarked
from storage.store import Store, insert


def start_run(store: Store, run_id: str, name: str, config: str) -> None:
    """Record a run with its resolved configuration, as one of this process."""
    me = this_process()
    row = {"run_id": run_id, "name": name, "config": config, "status": "running", "host": me.host, "pid": me.pid}
    with store.connect() as connection:
        insert(connection, "runs", [row])
        insert(connection, "run_processes", [{"run_id": run_id, "process": me.mark}])


def config_of(store: Store, run_id: str) -> str:
    """The resolved configuration of a run, as JSON."""
    return str(store.value("SELECT config FROM runs WHERE run_id = ?", [run_id]))


def is_run(store: Store, run_id: str) -> bool:
    """Whether a run of this id is recorded."""
    return bool(store.value("SELECT count(*) FROM runs WHERE run_id = ?", [run_id]))


def live_runs(store: Store) -> list[dict[str, Any]]:
    """The runs of this host whose process isn't known to be gone, this process's own aside, oldest first: run_id, name,
    host, pid."""
    me = this_process()
    sql = """SELECT run_id, name, host, pid, process FROM runs LEFT JOIN run_processes USING (run_id)
             WHERE status = 'running' AND host = ? AND pid <> ? ORDER BY runs.rowid"""
    return [row for row in store.query(sql, [me.host, me.pid]) if not _ended(row)]


def mark_killed(store: Store, name: str) -> list[str]:
    """Give the runs of this name on this host whose process is gone the status they deserve; returns their ids."""
    sql = """SELECT run_id, host, pid, process FROM runs LEFT JOIN run_processes USING (run_id)
             WHERE name = ? AND status = 'running' AND host = ? ORDER BY runs.rowid"""
    dead = [row["run_id"] for row in store.query(sql, [name, this_process().host]) if _ended(row)]
    for run_id in dead:
        end_run(store, run_id, "killed", "its process ended without a word")
    return dead


def _ended(row: dict[str, Any]) -> bool:
    """Whether a run's process is gone; a store before version 5 tells the pid alone."""
    one = Process(row["host"], row["pid"], row["process"] or unmarked())
    return is_gone(one) or before_the_boot(one)


def end_run(store: Store, run_id: str, status: str, reason: str | None = None) -> None:
    """Record how a run ended: completed, stopped or failed."""
    with store.connect() as connection:
        connection.execute(
            "UPDATE runs SET status = ?, reason = ?, ended_at = now() WHERE run_id = ?", [status, reason, run_id]
        )
