"""The last snapshot in a damaged store's place. What was there is moved aside, never deleted."""

from __future__ import annotations

import fcntl
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import duckdb

from rlrf.errors import StoreError
from storage.snapshots import copy_bytes, partial_file, put_in_place, rows_in
from storage.store import age_of, snapshot_path, wrapped


@dataclass(frozen=True)
class Restored:
    """What took the store's place: rows, the snapshot's age in words, and where the files lie that were there before."""

    path: Path
    rows: int
    age: str
    aside: tuple[Path, ...]


def restore(path: Path, *, force: bool = False) -> Restored:
    """Put the last snapshot in the place of the store at `path`. `force`: of a sound one, too.

    The store gets a new id, for Prefect's cache knows stages that only the lost rows belong to. Raises StoreError where there
    is no snapshot that can be read, another process has the store, or the store is sound.
    """
    snapshot = snapshot_path(path)
    if not snapshot.is_file():
        raise StoreError(f"no snapshot at {str(snapshot)!r}, so nothing to put in the place of {str(path)!r}")
    try:
        _refuse_held(path)
        if not force:
            _refuse_sound(path)
        with partial_file(path, wait=0) as target:
            if target is None:
                raise StoreError(f"another process is restoring {str(path)!r}: wait for it")
            partial, handle = target
            _copy(snapshot, handle)
            rows = rows_in(partial)
            _rename_store(partial)
            age = age_of(snapshot)
            _refuse_held(path)
            aside = _move_aside(path)
            put_in_place(partial, handle, path)
    except OSError as error:
        raise wrapped(path, error) from error
    return Restored(path, rows, age, aside)


def _refuse_held(path: Path) -> None:
    """DuckDB locks its file as POSIX does; so a lock that can't be had says that a process is at it."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise StoreError(f"store {str(path)!r}: another process has it open; end that process first") from error


def _refuse_sound(path: Path) -> None:
    try:
        rows = rows_in(path) if path.is_file() else None
    except StoreError:
        return
    if rows is not None:
        raise StoreError(
            f"store {str(path)!r} is sound: all of its {rows:,} rows can be read, and a snapshot has no more; to go back to "
            "the snapshot in spite of that give --force"
        )


def _copy(snapshot: Path, target: int) -> None:
    source = os.open(snapshot, os.O_RDONLY)
    try:
        copy_bytes(source, target, 0, os.fstat(source).st_size)
    finally:
        os.close(source)


def _rename_store(path: Path) -> None:
    try:
        with duckdb.connect(str(path)) as connection:
            connection.execute("UPDATE meta SET value = ? WHERE name = 'store_id'", [str(uuid.uuid4())])
    except duckdb.Error as error:
        raise wrapped(path, error) from error


def _move_aside(path: Path) -> tuple[Path, ...]:
    """Give the store and its log other names. The store keeps its own name, too, until the snapshot takes it: at no instant
    would a run find an empty place and begin anew."""
    number = 1
    while any(file.exists() for file in _aside(path, number)):
        number += 1
    moved = []
    for file, aside in zip((_log(path), path), reversed(_aside(path, number)), strict=True):
        if file.exists():
            os.link(file, aside)
            moved.append(aside)
    _log(path).unlink(missing_ok=True)
    return tuple(moved)


def _aside(path: Path, number: int) -> tuple[Path, Path]:
    aside = path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")
    return aside, _log(aside)


def _log(path: Path) -> Path:
    return path.with_name(path.name + ".wal")
