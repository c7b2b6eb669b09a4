"""Tables of other DuckDB files as sources of prompts: copied out once, so that nobody's file is held open."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from rlrf.errors import DataError
from rlrf.tables import Table

T = TypeVar("T", bound=Table)


@contextmanager
def exported(tables: Sequence[T]) -> Iterator[list[T]]:
    """The same sources, each of a database as a Parquet file of all its rows, which is gone afterwards.

    Raises DataError for a file that is missing, locked by a writer or no database, and for a table that isn't in it.
    """
    with tempfile.TemporaryDirectory(prefix="rlrf-tables-") as folder:
        yield [_exported(table, Path(folder) / f"{number}.parquet") for number, table in enumerate(tables)]


def _exported(source: T, to: Path) -> T:
    if source.database is None or source.table is None:
        return source
    path, name = Path(source.database), source.table
    if not path.is_file():
        raise DataError(f"database {str(path)!r} is no file; it was looked up from {str(Path.cwd())!r}")
    try:
        with duckdb.connect(str(path), read_only=True, config={"autoinstall_known_extensions": False}) as connection:
            _copy(connection, name, to)
    except duckdb.CatalogException as error:
        raise DataError(f"database {str(path)!r} has no table {name!r}: {str(error).splitlines()[0]}") from None
    except duckdb.Error as error:
        raise DataError(
            f"table {name!r} of database {str(path)!r} can't be read: {error}; a process that writes it holds it: close it "
            "there, or give a copy or an exported Parquet file as `path`"
        ) from error
    return source.model_copy(update={"path": str(to), "database": None, "table": None})


def _copy(connection: duckdb.DuckDBPyConnection, name: str, to: Path) -> None:
    """All rows in the table's own order. The name's parts are quoted: it is data, and never SQL."""
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))
    connection.execute("SET preserve_insertion_order = true")
    connection.execute(f"COPY (FROM {quoted}) TO ? (FORMAT parquet)", [str(to)])
