"""Where rows come from: the configuration that every source shares, and the way from it to the reader of its format."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from rlrf.errors import DataError
from rlrf.readers import Refused, Row, read_csv, read_dataset, read_json, read_jsonl, read_parquet

Format = Literal["jsonl", "json", "csv", "parquet"]

READERS = {"jsonl": read_jsonl, "json": read_json, "csv": read_csv, "parquet": read_parquet}


class Table(BaseModel):
    """Rows in files (`path`: file, pattern or folder), in a dataset (`dataset`: Hub name or local folder), or in a table of a
    DuckDB file (`database` and `table`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    path: str | None = None
    """A file, a folder, or a pattern such as data/*.jsonl."""
    format: Format | None = None
    """What the files are, where their suffix doesn't say it."""
    dataset: str | None = None
    """A dataset's name on the Hugging Face Hub, or a folder that load_dataset knows."""
    subset: str | None = None
    """The dataset's configuration."""
    split: str | None = None
    """A dataset's split; "train" where none is given."""
    revision: str | None = None
    """The dataset's branch, tag or commit."""
    database: str | None = None
    """A DuckDB file."""
    table: str | None = None
    """A table or view of `database`, with its schema where it isn't main: analytics.requests."""

    @model_validator(mode="after")
    def _one_place(self) -> Table:
        if [self.path, self.dataset, self.database].count(None) != 2:
            raise ValueError("give exactly one of path, dataset and database")
        if (self.database is None) != (self.table is None):
            raise ValueError("database and table belong together: give both or neither")
        of_dataset = {"subset": self.subset, "split": self.split, "revision": self.revision}
        foreign: dict[str, str | None] = {} if self.path else {"format": self.format}
        foreign.update({} if self.dataset else of_dataset)
        if misplaced := [name for name, value in foreign.items() if value is not None]:
            raise ValueError(f"{misplaced} belong to {'path' if 'format' in misplaced else 'dataset'}: remove them")
        return self


def read_rows(table: Table, columns: Sequence[str], refused: Refused | None = None) -> Iterator[Row]:
    """Yield every row with at least the wanted columns, in the order of the file names and of their lines.

    `refused` is called with the place of each line of JSON Lines that can't be used and why, where such lines are left out
    and files may be missing or empty: a log is written while it is read.

    Raises:
        DataError: no file, a file without rows or one that can't be read, a missing column, a dataset that can't be
            loaded; names the file and the line.
    """
    wanted = list(dict.fromkeys(columns))
    assert table.database is None, "tables of databases are exported before they are read"
    if table.dataset is not None:
        yield from read_dataset(table.dataset, table.subset, table.split or "train", table.revision, wanted)
        return
    for path in find_files(table, missing_ok=refused is not None):
        empty = refused is None
        try:
            for row in _read(path, _format(path, table), wanted, refused):
                empty = False
                yield row
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}") from error
        if empty:
            raise DataError(f"{path} holds no rows; fill it or remove it")


def _read(path: Path, format: str, wanted: Sequence[str], refused: Refused | None) -> Iterator[Row]:
    if format == "jsonl":
        return read_jsonl(path, wanted, refused)
    return READERS[format](path, wanted)


def find_files(table: Table, missing_ok: bool = False) -> list[Path]:
    """The files that a table's path names, sorted; of a folder, those directly in it that have the right suffix."""
    assert table.path is not None
    path = Path(table.path)
    if path.is_file():
        return [path]
    suffixes = [table.format] if table.format else list(READERS)
    if path.is_dir():
        found = [file for file in path.iterdir() if file.is_file() and _suffix(file) in suffixes]
    else:
        found = [Path(name) for name in glob.glob(table.path, recursive=True) if Path(name).is_file()]
    if not found and not missing_ok:
        kinds = ", ".join(f".{suffix}" for suffix in suffixes)
        what = f"a folder without {kinds} files" if path.is_dir() else "no file, no folder and no pattern that matches"
        raise DataError(f"path {table.path!r} is {what}; it was looked up from {str(Path.cwd())!r}")
    return sorted(found)


def _format(path: Path, table: Table) -> str:
    chosen = table.format or _suffix(path)
    if chosen not in READERS:
        raise DataError(f"{path}: the suffix {path.suffix!r} names no format; set format to one of {list(READERS)}")
    return chosen


def _suffix(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
