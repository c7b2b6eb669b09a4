"""Claims: who is at work on which rows, so that processes that share a store don't do work twice.

A claim ends when its owner releases it or ends. A waiting process knows that at once of a process beside it; of any other
by its beats: an owner whose count of beats stays the same while the waiter looks for a minute of its own monotonic clock
has lost its claims. No times are compared between machines. A process that lost its claims, suspended for a while, does no
harm: what it writes is left out where it is already there.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from rlrf.errors import StoreError
from storage.process import Process, is_gone, this_process
from storage.store import Store, fetch

BEAT_SECONDS = 5.0
"""How often an owner says that it lives."""

EXPIRY_SECONDS = 60.0
"""How long a waiter must have looked at an owner that doesn't beat before its claims are void."""


@dataclass(frozen=True)
class Holder:
    """Another process at the same work, and how many rows of it it has claimed."""

    owner: str
    run_id: str | None
    process: Process
    rows: int

    def __str__(self) -> str:
        run = f"run {self.run_id[:8]}, " if self.run_id else ""
        return f"{run}{self.process}"


@dataclass
class _Watched:
    """How long another's beats have stayed the same, of the time in which we could look."""

    beats: int
    looked: float
    quiet: float = 0.0


class Claimant:
    """What one worker of a process claims in a store. Beats in a thread of its own while it holds anything."""

    def __init__(self, store: Store, run_id: str | None = None) -> None:
        self.owner = str(uuid.uuid4())
        self.store, self._run_id = store, run_id
        self._works: set[str] = set()
        self._watched: dict[str, _Watched] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, work: str, row_ids: Collection[str]) -> set[str]:
        """Claim those of the rows that nobody alive holds; returns the ones that are now ours.

        `work` is the key under which they are made: of responses, of a judge, of a stage.
        """
        if not row_ids:
            return set()
        about = {"work": work, "owner": self.owner}
        with self.store.connect() as connection:
            self._sweep(connection)
            others = "FROM claims c WHERE c.work = $work AND c.owner <> $owner"
            free = set(row_ids)
            if connection.execute(f"{others} LIMIT 1", about).fetchone():
                connection.register("wanted", pa.table({"row_id": list(free)}))
                held = f"SELECT w.row_id FROM wanted w WHERE EXISTS ({others} AND c.row_id = w.row_id::UUID)"
                free -= {row["row_id"] for row in fetch(connection, held, about)}
            if free:
                self._register(connection)
                connection.register("free", pa.table({"row_id": list(free)}))
                connection.execute(
                    """INSERT INTO claims SELECT $work::UUID, w.row_id::UUID, $owner::UUID FROM free w
                       WHERE NOT EXISTS (FROM claims c WHERE c.work = $work AND c.row_id = w.row_id::UUID)""",
                    about,
                )
        if free:
            self._works.add(work)
            self._start_beating()
        return free

    def release(self, work: str) -> None:
        """Give up what is claimed of this work. A store that can't be written only makes others wait a while longer."""
        if work not in self._works:
            return
        self._works.remove(work)
        if not self._works:
            self._stop.set()
        try:
            with self.store.connect() as connection:
                connection.execute("DELETE FROM claims WHERE owner = ? AND work = ?", [self.owner, work])
                if not self._works:
                    connection.execute("DELETE FROM claimants WHERE owner = ?", [self.owner])
        except StoreError as error:
            logging.getLogger(__name__).warning("claims could not be given up; they expire: %s", error)
        if not self._works and self._thread is not None:
            self._thread.join()
            self._thread = None

    def holders(self, work: str) -> list[Holder]:
        """The other processes that hold rows of this work and are alive as far as can be told, busiest first."""
        sql = """SELECT owner, run_id, host, pid, process, count(*) AS n FROM claims JOIN claimants USING (owner)
                 WHERE work = ? AND owner <> ? GROUP BY ALL ORDER BY n DESC, owner"""
        with self.store.connect() as connection:
            self._sweep(connection)
            found = fetch(connection, sql, [work, self.owner])
        return [Holder(row["owner"], row["run_id"], _process(row), row["n"]) for row in found]

    def _register(self, connection: duckdb.DuckDBPyConnection) -> None:
        me = this_process()
        row = [self.owner, self._run_id, me.host, me.pid, me.mark]
        sql = "INSERT INTO claimants (owner, run_id, host, pid, process) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
        connection.execute(sql, row)

    def _sweep(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Forget the owners that are gone, with their claims."""
        sql = "SELECT owner, host, pid, process, beats FROM claimants WHERE owner <> ?"
        others = fetch(connection, sql, [self.owner])
        self._watched = {row["owner"]: self._look(row) for row in others}
        void = [
            row["owner"]
            for row in others
            if self._watched[row["owner"]].quiet >= EXPIRY_SECONDS or is_gone(_process(row))
        ]
        for table in ("claims", "claimants") if void else ():
            connection.execute(f"DELETE FROM {table} WHERE owner IN (SELECT unnest($void::UUID[]))", {"void": void})

    def _look(self, row: dict[str, Any]) -> _Watched:
        """What is known of an owner after this look. A gap in which nobody could look counts as one beat at most."""
        before, now = self._watched.get(row["owner"]), time.monotonic()
        if before is None or before.beats != row["beats"]:
            return _Watched(row["beats"], now)
        return _Watched(before.beats, now, before.quiet + min(now - before.looked, BEAT_SECONDS))

    def _start_beating(self) -> None:
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with suppress(StoreError), self.store.connect() as connection:
                connection.execute("UPDATE claimants SET beats = beats + 1 WHERE owner = ?", [self.owner])
                self._sweep(connection)


def _process(row: dict[str, Any]) -> Process:
    return Process(row["host"], row["pid"], row["process"])
