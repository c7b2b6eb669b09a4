"""The dates of runs on a schedule, and when prompts arrived.

`intervals` has one row for each name and date; its first run settles what it works on. `arrivals` has each prompt's first
arrival, by how the prompts were read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from rlrf.handles import Interval
from rlrf.records import Prompt
from storage.rows import read_prompt
from storage.store import Store, fetch

_COLUMNS = "as_of, since, policy_id"


def interval(store: Store, name: str, as_of: datetime) -> Interval | None:
    """What was settled for a date, or None."""
    with store.connect() as connection:
        return _settled(connection, name, as_of)


def proposed(store: Store, name: str, as_of: datetime, champion: str | None) -> Interval:
    """What the first run of a date would settle, or did: since the last finished run before it."""
    with store.connect() as connection:
        return _settled(connection, name, as_of) or _proposed(connection, name, as_of, champion)


def settle(store: Store, name: str, as_of: datetime, champion: str | None) -> Interval:
    """The interval of a date, settled now where no run of this date has done it. `champion`: the policy to start from."""
    with store.connect() as connection:
        there = _settled(connection, name, as_of)
        if there is not None:
            return there
        new = _proposed(connection, name, as_of, champion)
        connection.execute(
            f"INSERT INTO intervals (name, {_COLUMNS}) VALUES (?, ?, ?, ?)", [name, new.as_of, new.since, new.policy_id]
        )
        return new


def unfinished(store: Store, name: str) -> datetime | None:
    """The newest date, where no run has finished it: a run without a date goes on with it."""
    sql = "SELECT as_of, done_at FROM intervals WHERE name = ? ORDER BY as_of DESC LIMIT 1"
    rows = store.query(sql, [name])
    return _utc(rows[0]["as_of"]) if rows and rows[0]["done_at"] is None else None


def newest(store: Store, name: str) -> datetime | None:
    """The newest date that a run has begun."""
    rows = store.query("SELECT max(as_of) AS as_of FROM intervals WHERE name = ?", [name])
    return _utc(rows[0]["as_of"])


def finished(store: Store, name: str) -> set[datetime]:
    """The dates of which a run has finished."""
    rows = store.query("SELECT as_of FROM intervals WHERE name = ? AND done_at IS NOT NULL", [name])
    return {found for row in rows if (found := _utc(row["as_of"]))}


def finish(store: Store, name: str, as_of: datetime) -> None:
    """A run of this date has come to its end: later ones work on what arrives after it."""
    sql = "UPDATE intervals SET done_at = now() WHERE name = ? AND as_of = ? AND done_at IS NULL"
    with store.connect() as connection:
        connection.execute(sql, [name, as_of])


def first_seen(
    store: Store, reading: str, times: Mapping[str, datetime], name: str, as_of: datetime
) -> dict[str, datetime]:
    """Remember when prompts arrived, and return when those of this reading first did, all of them.

    `times` maps prompt ids to the time that their source gives, or else the moment of reading. What comes without a time counts
    for the date whose run sees it first, as long as that run is the first to read for this date: see `seen_at`.
    """
    rows = pa.table(
        {
            "prompt_id": pa.array(list(times), pa.string()),
            "arrived_at": pa.array(list(times.values()), pa.timestamp("us", tz="UTC")),
        }
    )
    with store.connect() as connection:
        connection.register("incoming", rows)
        connection.execute(
            """INSERT INTO arrivals (reading, prompt_id, arrived_at)
               SELECT ?, prompt_id::UUID, arrived_at FROM incoming i
               WHERE NOT EXISTS (FROM arrivals a WHERE a.reading = ? AND a.prompt_id = i.prompt_id::UUID)""",
            [reading, reading],
        )
        connection.unregister("incoming")
        connection.execute(
            "UPDATE intervals SET read_at = now() WHERE name = ? AND as_of = ? AND read_at IS NULL", [name, as_of]
        )
        found = fetch(connection, "SELECT prompt_id, arrived_at FROM arrivals WHERE reading = ?", [reading])
    return {row["prompt_id"]: row["arrived_at"].astimezone(UTC) for row in found}


def seen_at(store: Store, name: str, as_of: datetime) -> datetime:
    """The arrival of prompts whose source gives no time, where they are new: this date for its first reading, later now."""
    sql = "SELECT read_at FROM intervals WHERE name = ? AND as_of = ?"
    return as_of if store.value(sql, [name, as_of]) is None else datetime.now(UTC)


def arrived(store: Store, reading: str) -> list[Prompt]:
    """Prompts of this scope that this reading ever brought, by id; also those whose files are gone."""
    sql = """SELECT p.* FROM arrivals a JOIN prompts p ON p.prompt_id = a.prompt_id
             WHERE a.reading = ? ORDER BY p.prompt_id"""
    return [read_prompt(row) for row in store.query(sql, [reading])]


def _settled(connection: duckdb.DuckDBPyConnection, name: str, as_of: datetime) -> Interval | None:
    rows = fetch(connection, f"SELECT {_COLUMNS} FROM intervals WHERE name = ? AND as_of = ?", [name, as_of])
    if not rows:
        return None
    return Interval(as_of=as_of, since=_utc(rows[0]["since"]), policy_id=rows[0]["policy_id"])


def _proposed(connection: duckdb.DuckDBPyConnection, name: str, as_of: datetime, champion: str | None) -> Interval:
    sql = "SELECT max(as_of) AS since FROM intervals WHERE name = ? AND as_of < ? AND done_at IS NOT NULL"
    return Interval(as_of=as_of, since=_utc(fetch(connection, sql, [name, as_of])[0]["since"]), policy_id=champion)


def _utc(value: datetime | None) -> datetime | None:
    return None if value is None else value.astimezone(UTC)
