"""The store: one DuckDB file, opened for moments at a time, the truth about every row.

A DuckDB file has one writing process at a time, and an open reader blocks it too. So a connection lives for one
operation; a busy file is waited for with jitter; one transaction holds one micro-batch; every insert may be repeated.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from rlrf.errors import StoreError
from storage.schema import IDENTITY, MIGRATIONS, VERSION
from storage.waiting import Wait, holder, turn

BUSY_SECONDS = 600.0
"""How long an operation waits for another process to let go of the file. Those of rlrf do so after each operation; a
notebook may take a while to be noticed."""

_BUSY = "could not set lock"
_DAMAGE = (
    "not a valid duckdb",
    "corrupt",
    "checksum",
    "could not read",
    "sqlite_scanner",
    "internal error",
    "fatal error",
    "is a directory",
)
"""How DuckDB's messages say that a file is held by another process, and that it is damaged or of another kind."""

_process_lock = threading.RLock()
"""One connection at a time within this process: concurrent connects to one file race inside DuckDB."""

_kept_open: Counter[Path] = Counter()
"""Files that this process keeps open for a moment: it needn't take its turn to open them once more."""


@dataclass(frozen=True)
class Store:
    """A handle to the file; it holds no connection. `scope` is the schema of row tables that it sees."""

    path: Path
    scope: str = "main"

    def held_out(self) -> Store:
        """The same file, seen by evaluation alone: prompts, responses and ratings of the held-out split."""
        return Store(self.path, "held_out")

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A short-lived connection; within a `with`, one transaction, committed at its end.

        Raises StoreError when the file stays busy, is damaged or read-only, or the disk is full.
        """
        with _process_lock:
            connection = _connect(self.path)
            try:
                connection.execute("SET enable_progress_bar = false")  # it would be drawn into whatever stdout is
                if self.scope != "main":
                    connection.execute(f"SET search_path = '{self.scope},main'")
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except duckdb.Error as error:
                raise wrapped(self.path, error) from error
            finally:
                connection.close()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Open the file once for a series of operations, which takes each of them 1 ms instead of 25.

        Other processes wait meanwhile: for a second's worth of reading and recording, never around generation.
        """
        with _process_lock:
            connection = _connect(self.path)
            _kept_open[self.path] += 1
        try:
            yield
        finally:
            with _process_lock:
                _kept_open[self.path] -= 1
                connection.close()

    def query(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Rows of one SELECT as dicts, UUIDs as text."""
        with self.connect() as connection:
            return fetch(connection, sql, parameters)

    def value(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """First column of the first row, or None."""
        rows = self.query(sql, parameters)
        return next(iter(rows[0].values())) if rows else None

    @property
    def store_id(self) -> str:
        """The random name of this file's contents, part of every Prefect cache key."""
        return str(self.value("SELECT value FROM meta WHERE name = 'store_id'"))


def open_store(path: Path | str) -> Store:
    """Create the store or bring an older one up to date (after a backup beside it).

    Raises StoreError for a newer version, a damaged file or a folder that can't be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"store {str(path)!r}: {error}; choose a writable folder as `home`") from error
    with _process_lock, ExitStack() as after_connection:
        connection = _connect(path)
        try:
            _migrate(connection, path, after_connection)
        except (duckdb.Error, OSError) as error:
            raise wrapped(path, error) from error
        finally:
            connection.close()
    return Store(path)


def back_up(store: Store, to: Path) -> None:
    """Copy the whole store to another file, or nothing. Raises StoreError where it can't be read or the copy written."""
    with _process_lock, ExitStack() as after_connection:
        connection = _connect(store.path)
        try:
            connection.execute("CHECKPOINT")
            _back_up(store.path, to, after_connection)
        except (duckdb.Error, OSError) as error:
            raise wrapped(store.path, error) from error
        finally:
            connection.close()


def fetch(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """Rows as dicts within an open connection, UUIDs as text."""
    cursor = connection.execute(sql, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor.fetchall()]


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]], *, looked_up: bool = False
) -> int:
    """Insert rows that aren't there yet, in bulk through Arrow; returns how many were new. Of equal ones the first counts.

    `looked_up`: this transaction has seen that none of them is there, so the table isn't searched for them.
    """
    if not rows:
        return 0
    identity = IDENTITY.get(table)
    incoming = pa.Table.from_pylist([dict(row) for row in _distinct(rows, identity)])
    columns = ", ".join(incoming.column_names)
    new = "ON CONFLICT DO NOTHING"
    if looked_up:
        new = ""
    elif identity is not None:
        same = " AND ".join(f"t.{name} = incoming.{name}::{kind}" for name, kind in identity.items())
        new = f"WHERE NOT EXISTS (FROM {table} t WHERE {same})"
    connection.register("incoming", incoming)
    try:
        done = connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming {new}").fetchone()
    finally:
        connection.unregister("incoming")
    return int(done[0]) if done else 0


def _distinct(rows: Sequence[Mapping[str, Any]], identity: Iterable[str] | None) -> Iterable[Mapping[str, Any]]:
    if identity is None:
        return rows
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in identity), row)
    return found.values()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, uuid.UUID) else value


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    wait = Wait(path)
    with nullcontext() if _kept_open[path] else turn(path):
        while True:
            try:
                return duckdb.connect(str(path), config={"autoinstall_known_extensions": False})
            except duckdb.IOException as error:
                if _BUSY not in str(error).lower() or wait.seconds > BUSY_SECONDS:
                    raise wrapped(path, error) from error
                wait.sleep(str(error))
            except duckdb.Error as error:
                raise wrapped(path, error) from error


def wrapped(path: Path, error: duckdb.Error | OSError) -> StoreError:
    """The error with the file that it is about and the remedy."""
    text = str(error)
    lowered = text.replace(str(path), "").lower()  # a folder's name must not decide
    remedy = "see the message; the last transaction was not committed, nothing before it is lost"
    if "no space left" in lowered or "could not write" in lowered:
        remedy = "the disk is full: free some space and run the same command again; committed rows are safe"
    elif _BUSY in lowered:
        remedy = (
            f"{holder(text)} held it for {BUSY_SECONDS:.0f} s: close it there, and run the same command again; notebooks and "
            f"shells read {str(path.with_name('snapshot.duckdb'))!r} without harm, which `rlrf snapshot` makes"
        )
    elif "permission denied" in lowered or "read-only" in lowered:
        remedy = "the file or its folder can't be written: choose another `home` or mend its permissions"
    elif any(sign in lowered for sign in _DAMAGE):
        remedy = f"the file is damaged or is no DuckDB file: {way_back(path)}"
    return StoreError(f"store {str(path)!r}: {text} ({remedy})")


def snapshot_path(path: Path) -> Path:
    """Where the published copy of the store at `path` is."""
    return path.with_name("snapshot.duckdb")


def way_back(path: Path) -> str:
    """What to do about a damaged store at `path`: which snapshot there is, and how it is put in its place."""
    snapshot = snapshot_path(path)
    if not snapshot.is_file():
        return "restore a backup or choose another `home`"
    return f"the last snapshot is {age_of(snapshot)} old, and `rlrf restore {path.parent}` puts it in the store's place"


def age_of(path: Path) -> str:
    """How long ago a file was written, for people."""
    seconds = max(0.0, time.time() - path.stat().st_mtime)
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


@contextmanager
def opened_bytes(path: Path) -> Iterator[int]:
    """The file's own bytes, to be read; closed while this process has no connection to it.

    Closing any handle of a file gives up the POSIX locks that this process has on it, DuckDB's included.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        with _process_lock:
            os.close(handle)


def _migrate(connection: duckdb.DuckDBPyConnection, path: Path, after_connection: ExitStack) -> None:
    version = version_of(connection, path)
    if version > VERSION:
        raise StoreError(
            f"store {str(path)!r} has version {version}, this rlrf knows up to {VERSION}: upgrade rlrf, or choose "
            "another `home`; the file was not touched"
        )
    if 0 < version < VERSION:
        connection.execute("CHECKPOINT")
        _back_up(path, path.with_suffix(f".v{version}.backup.duckdb"), after_connection)
    for number in range(version, VERSION):
        connection.execute("BEGIN")
        connection.execute(MIGRATIONS[number])
        if number == 0:
            connection.execute("INSERT INTO meta VALUES ('store_id', ?)", [str(uuid.uuid4())])
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", [str(number + 1)])
        connection.execute("COMMIT")


def _back_up(path: Path, backup: Path, after_connection: ExitStack) -> None:
    """Copy the open file, whole or not at all.

    The handle is closed after the connection: closing any handle of a file gives up the POSIX locks that this process
    has on it, DuckDB's included, and another process could write in the middle of the migration.
    """
    source = after_connection.enter_context(path.open("rb"))
    partial = backup.with_name(backup.name + ".partial")
    with open(partial, "wb") as copy:
        shutil.copyfileobj(source, copy)
    partial.replace(backup)


def version_of(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    sql = "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
    columns = {tuple(row) for row in connection.execute(sql).fetchall()}
    if not columns:
        return 0
    if not {("meta", "name"), ("meta", "value"), ("prompts", "prompt_id")} <= columns:
        raise StoreError(f"{str(path)!r} is a DuckDB file but not an rlrf store: choose another `home`")
    row = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    return int(row[0]) if row else 0
