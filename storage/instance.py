"""This process's instance of DuckDB. A file is attached to it for one operation and let go: making an instance takes 20 ms.

To be used under `storage.store`'s lock alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

NAME = "store"
"""What the attached file is called in SQL."""


@dataclass
class _Instance:
    root: duckdb.DuckDBPyConnection
    users: int = 0


_instances: dict[Path, _Instance] = {}
"""By file, for an instance spills beside its file; the ones that aren't in use go when another file is attached."""

_parents: list[_Instance] = []
"""In a forked child: the parent's, whose threads the child doesn't have. Closing them would wait for those."""


def attach(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that sees the file; made if it isn't there. Raises duckdb.Error where it can't be opened."""
    instance = _instances.get(path) or _new(path)
    connection = instance.root.cursor()
    try:
        if not instance.users:
            quoted = str(path).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS {NAME} (TYPE duckdb)")
        connection.execute(f"USE {NAME}")
    except BaseException as error:
        connection.close()
        if not instance.users and not isinstance(error, duckdb.IOException):  # a busy file is tried again at once
            _drop(path)
        raise
    instance.users += 1
    return connection


def detach(path: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Let go of the file; what wasn't committed is gone."""
    connection.close()
    instance = _instances[path]
    instance.users -= 1
    if instance.users:
        return
    try:
        instance.root.execute(f"DETACH {NAME}")
    except duckdb.Error:  # a full disk, say: what is committed is in the log, and whoever opens the file next reads it
        _drop(path)


def _new(path: Path) -> _Instance:
    for other in [one for one, instance in _instances.items() if not instance.users]:
        _drop(other)
    config: dict[str, Any] = {"autoinstall_known_extensions": False, "temp_directory": f"{path}.tmp"}
    _instances[path] = _Instance(duckdb.connect(config=config))
    return _instances[path]


def _drop(path: Path) -> None:
    _instances.pop(path).root.close()


def _leave_to_parent() -> None:
    _parents.extend(_instances.values())
    _instances.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
