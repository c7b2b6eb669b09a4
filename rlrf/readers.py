"""Rows out of files: JSON Lines, JSON and CSV read natively, so that errors carry line numbers; Parquet and datasets.

A row's place is what an error says of it: the file and the line that the row starts on, or its row number, both
counted from 1. Nothing is guessed: CSV cells stay text, a key that occurs twice is an error, blank lines are counted.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from rlrf.errors import DataError

LOGGER = logging.getLogger(__name__)

SHOWN_CHARACTERS = 80
"""How much of a bad line an error shows."""


Refused = Callable[[str, str], None]
"""Is told the place of a row that is left out, and why."""


class Row(NamedTuple):
    """One row of a table and where it stands."""

    place: str
    values: dict[str, Any]


def require_columns(present: Iterable[str], wanted: Sequence[str], place: str) -> None:
    """Raise DataError for the first wanted column that is absent, with the ones present and the nearest of them."""
    names = list(present)
    for column in wanted:
        if column not in names:
            nearest = difflib.get_close_matches(column, names, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise DataError(f"{place}: there is no column {column!r}, only {names!r}{hint}")


def read_jsonl(path: Path, columns: Sequence[str], refused: Refused | None = None) -> Iterator[Row]:
    """One JSON object per line, UTF-8 with or without a byte order mark; every object has all the columns.

    A column with dots in its name may lie within objects: `request.messages`. With `refused` lines that can't be used are
    left out and told to it, but for a last line without an end, which is still being written: it is read the next time.
    """
    offset, blank = 0, 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, start=1):
            place = f"{path}, line {number}"
            before, offset = offset, offset + len(raw)
            if not raw.strip():
                blank += 1
                continue
            try:
                line = _decode(raw, before, number, path).rstrip("\r\n")
                yield Row(place, _values(_parse_json(line, path, number), columns, place))
            except DataError as error:
                if refused is None:
                    raise
                if raw.endswith(b"\n"):
                    refused(place, str(error))
    _report_blank(path, blank)


def _values(parsed: Any, columns: Sequence[str], place: str) -> dict[str, Any]:
    """An object with all the columns, those within other objects under their dotted names."""
    values = _object(parsed, place)
    for column in columns:
        if column not in values and "." in column:
            found: Any = values
            for name in column.split("."):
                found = found.get(name) if isinstance(found, dict) else None
            if found is not None:
                values[column] = found
    require_columns(values, columns, place)
    return values


def read_json(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """One JSON array of objects; every object has all the columns."""
    text = _decode(path.read_bytes(), 0, 1, path)
    if not text.strip():
        return
    rows = _parse_json(text, path, 1)
    if not isinstance(rows, list):
        raise DataError(f"{path}: {_start(text)} is no array; write [{{...}}, ...], or one object per line as .jsonl")
    for number, item in enumerate(rows, start=1):
        place = f"{path}, row {number}"
        yield Row(place, _values(item, columns, place))


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Comma-separated cells under a header line, quoted with double quotes; every cell is text, as written."""
    csv.field_size_limit(sys.maxsize)  # The default refuses cells above 128 KiB.
    reader = csv.reader(io.StringIO(_decode(path.read_bytes(), 0, 1, path), newline=""), strict=True)
    header, blank, line = None, 0, 1
    try:
        for cells in reader:
            place, line = f"{path}, line {line}", reader.line_num + 1
            if not cells:
                blank += 1
            elif header is None:
                header = _header(cells, columns, place)
            elif len(cells) != len(header):
                raise DataError(f"{place}: {len(cells)} cells under {len(header)} columns; quote cells with commas")
            else:
                yield Row(place, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{path}, line {line}: broken CSV ({error}); close every quote and double those inside"
        ) from None
    _report_blank(path, blank)


def read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """A Parquet file, only the wanted columns of it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            require_columns(file.schema_arrow.names, columns, str(path))
            rows = (row for batch in file.iter_batches(columns=list(columns)) for row in batch.to_pylist())
            for number, values in enumerate(rows, start=1):
                yield Row(f"{path}, row {number}", values)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read as Parquet ({error}); write the file again") from error


def read_dataset(
    dataset: str, subset: str | None, split: str, revision: str | None, columns: Sequence[str]
) -> Iterator[Row]:
    """One split of a dataset on the Hugging Face Hub, or of a folder in a layout that load_dataset knows."""
    from datasets import load_dataset

    try:
        table = load_dataset(dataset, subset, split=split, revision=revision)
    except Exception as error:  # datasets, its HTTP client and pyarrow raise their own errors, without a common base
        raise DataError(
            f"dataset {dataset!r} (subset {subset!r}, split {split!r}, revision {revision!r}) can't be loaded:"
            f" {type(error).__name__}: {error}; check the names and the network, or download its files and set path"
        ) from error
    place = f"dataset {dataset} ({split})"
    require_columns(table.column_names, columns, place)
    for number, values in enumerate(table.select_columns(list(columns)), start=1):
        yield Row(f"{place}, row {number}", values)


def _decode(raw: bytes, offset: int, line: int, path: Path) -> str:
    """Text of the bytes that start at this offset and line of the file."""
    mark = codecs.BOM_UTF8 if offset == 0 else b""
    body = raw.removeprefix(mark)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        at = offset + len(raw) - len(body) + error.start
        line += body.count(b"\n", 0, error.start)
        problem = f"byte {body[error.start]:#04x} at offset {at} is not UTF-8; save the file as UTF-8"
        raise DataError(f"{path}, line {line}: {problem}") from None


def _parse_json(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"{path}, line {first_line + error.lineno - 1}, column {error.colno}"
        line = text.split("\n")[error.lineno - 1]
        raise DataError(f"{place}: broken JSON ({error.msg}) in {_start(line)}; mend the line or remove it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, from line {first_line}: {error} in {_start(text)}; mend it or remove it") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: {_start(str(value))} is no JSON object; write {{...}} with one key per column")
    return value


def _header(cells: list[str], columns: Sequence[str], place: str) -> list[str]:
    if len(set(cells)) < len(cells):
        raise DataError(f"{place}: a column name occurs twice in {cells!r}; rename one")
    require_columns(cells, columns, place)
    return cells


def _start(text: str) -> str:
    return repr(text[:SHOWN_CHARACTERS] + ("..." if len(text) > SHOWN_CHARACTERS else ""))


def _report_blank(path: Path, count: int) -> None:
    if count:
        LOGGER.warning("%s: skipped %d blank lines", path, count)
