"""Snapshots: a copy of the store beside it, for readers to hold open and for the day when the store is damaged.

A snapshot is put in place by rename: who has the one before open keeps it whole, and no reader ever blocks a writer. Writers
wait only while the blocks are copied that changed since a first copy, which is made while they write.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from rlrf.errors import StoreError
from storage.store import Store, opened_bytes, snapshot_path, version_of, way_back, wrapped

_HEADERS = 3 * 4096
"""A DuckDB file starts with three headers of 4 KiB; then come blocks, each led by a checksum of 8 bytes."""
_CHECKSUM = 8
_PIECE = 64 * 2**20

PATIENCE = 60.0
"""Seconds to wait for another process that is publishing."""


@dataclass(frozen=True)
class Snapshot:
    """A published copy: bytes, rows of all tables, seconds in all, and `held`, the seconds that writers had to wait."""

    path: Path
    bytes: int
    rows: int
    seconds: float
    held: float


def publish(store: Store, wait: float = PATIENCE) -> Snapshot | None:
    """Publish the store as it is; None where another process is at that and doesn't finish within `wait` seconds.

    The copy is read in full first: one that doesn't read well is never published. Raises StoreError when the store is
    damaged or busy, or the copy can't be written; the snapshot before stays then.
    """
    began = time.monotonic()
    path = snapshot_path(store.path)
    try:
        with partial_file(path, wait) as target:
            if target is None:
                return None
            partial, handle = target
            rows, held = _whole_copy(store, partial, handle)
            size = os.fstat(handle).st_size
            put_in_place(partial, handle, path)
            os.fchmod(handle, store.path.stat().st_mode & 0o444)
    except OSError as error:
        raise wrapped(path, error) from error
    return Snapshot(path, size, rows, time.monotonic() - began, held)


def rows_in(path: Path) -> int:
    """Read every row of every table of a DuckDB file, by which its checksums are verified; returns their number.

    Raises StoreError for what can't be read or is no store.
    """
    try:
        with duckdb.connect(str(path), read_only=True, config={"memory_limit": "1GB"}) as connection:
            if not version_of(connection, path):
                raise StoreError(f"{str(path)!r} is an empty file, not a store")
            tables = connection.execute("SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal")
            return sum(_read(connection, *table) for table in tables.fetchall())
    except duckdb.Error as error:
        raise wrapped(path, error) from error


def put_in_place(partial: Path, handle: int, path: Path) -> None:
    """Rename a file that is open as `handle`; whole and durable under its new name, or not there."""
    os.fsync(handle)
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def copy_bytes(source: int, target: int, start: int, end: int) -> None:
    """Copy a range of one open file to the same place in another, in the kernel where it can; stops where the source ends."""
    while start < end:
        done = _copy_piece(source, target, start, min(_PIECE, end - start))
        if not done:
            return
        start += done


def _read(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> int:
    sql = f'SELECT count(*), bit_xor(hash(t)) FROM "{schema}"."{table}" t'
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _whole_copy(store: Store, partial: Path, handle: int) -> tuple[int, float]:
    """Copy the store and read the copy; returns its rows, and how long writers had to wait."""
    held = _copy(store, handle)
    with suppress(StoreError):  # a block may have been written while the first copy was made
        return rows_in(partial), held
    held += _copy(store, handle, anew=True)
    try:
        return rows_in(partial), held
    except StoreError as error:
        said = f"the store is damaged, a copy of it can't be read: {error.__cause__ or error}"
        raise StoreError(f"store {str(store.path)!r}: {said} ({way_back(store.path)})") from error


def _copy(store: Store, target: int, *, anew: bool = False) -> float:
    """Copy the store; returns how long writers had to wait. `anew`: every block while they wait."""
    with opened_bytes(store.path) as source:
        if not anew:
            copy_bytes(source, target, 0, os.fstat(source).st_size)
        with store.connect() as connection:
            began = time.monotonic()
            connection.execute("CHECKPOINT")
            row = connection.execute(
                "SELECT block_size FROM pragma_database_size() WHERE database_name = current_database()"
            )
            (block,) = row.fetchone() or (0,)
            if anew:
                os.ftruncate(target, 0)
                copy_bytes(source, target, 0, os.fstat(source).st_size)
            else:
                _copy_changed(source, target, int(block))
    return time.monotonic() - began


def _copy_changed(source: int, target: int, block: int) -> None:
    """Bring a copy up to date: the headers, and every block whose checksum is another."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    copy_bytes(source, target, 0, _HEADERS)
    for at in range(_HEADERS, size, block):
        if os.pread(source, _CHECKSUM, at) != os.pread(target, _CHECKSUM, at):
            copy_bytes(source, target, at, min(at + block, size))


def _copy_piece(source: int, target: int, at: int, count: int) -> int:
    with suppress(AttributeError, OSError):  # not on every system, nor between all file systems; the other way says why
        return os.copy_file_range(source, target, count, at, at)
    piece = os.pread(source, count, at)
    written = 0
    while written < len(piece):
        written += os.pwrite(target, piece[written:], at + written)
    return written


@contextmanager
def partial_file(path: Path, wait: float) -> Iterator[tuple[Path, int] | None]:
    """An empty file that is to become `path`, for one process at a time; gone at the end unless it was renamed.

    None where another process has it for longer than `wait` seconds. The lock is the kernel's (flock): it ends with the
    process that has it, and what a killed one left is begun anew.
    """
    partial = path.with_name(path.name + ".partial")
    handle = _lock(partial, wait)
    if handle is None:
        yield None
        return
    try:
        os.ftruncate(handle, 0)
        yield partial, handle
    finally:
        if _is_at(handle, partial):
            partial.unlink()
        os.close(handle)


def _lock(path: Path, wait: float) -> int | None:
    deadline = time.monotonic() + wait
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):  # or else the one before renamed it in the meantime
                return handle
        os.close(handle)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)


def _is_at(handle: int, path: Path) -> bool:
    try:
        there, own = path.stat(), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
