"""Prompts from the user's own files or from a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rlrf.errors import DataError
from rlrf.fingerprints import canonical_json
from rlrf.prompts import check_text, parse_messages, prompt_id_of, with_system
from rlrf.readers import Refused, Row
from rlrf.records import Message, Prompt
from rlrf.redacting import SETTING, Redactor, without_text
from rlrf.tables import Table, read_rows
from rlrf.times import moment


class PromptColumns(BaseModel):
    """Which column holds what. A named column must be there in every row; all but the prompt may be null."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    prompt: str = Field(min_length=1)
    """Text, or chat messages."""
    reference: str | None = None
    """The answer that only judges see."""
    system: str | None = None
    """Text that becomes the first turn."""
    id: str | None = None
    """The user's own id, text or a whole number; kept in the metadata under the column's name, and unique."""
    metadata: tuple[str, ...] = ()
    """Further columns to keep; judges may see them."""
    time: str | None = None
    """When the row arrived: ISO 8601, or seconds, milli- or microseconds since 1970; without a zone it is UTC."""

    def names(self) -> list[str]:
        """Every column that is read."""
        optional = [self.reference, self.system, self.id, self.time]
        return [self.prompt, *(column for column in optional if column is not None), *self.metadata]


class Source(Table):
    """One named source of prompts."""

    name: str = Field(min_length=1, description="What the store calls it")
    columns: PromptColumns = Field(description="Which column holds what")
    log: bool = False
    """A log of chat requests that is written all the time: rows that can't be used are left out with their reason, a last line
    that isn't whole is read the next time, files may be missing, and an answer at a chat's end is cut off."""


def read_prompts(
    source: Source, system: str | None = None, redact: Redactor | None = None, refused: Refused | None = None
) -> Iterator[Prompt]:
    """Yield the source's prompts in row order, every row exactly once (see rlrf.deduplication for repeated ones).

    `system` becomes the first turn of every chat that has no system turn. `redact` is called on every text. Rows of a log
    that can't be used are left out and told to `refused`.

    Raises:
        DataError: as `read_rows`; a prompt, reference or metadata value that can't be used; the same user's id over
            two different prompts; names file and line.
    """
    seen: dict[str | int, tuple[str, str]] = {}

    def leave_out(place: str, error: str) -> None:
        assert refused is not None, "told only where rows may be left out"
        refused(place, error if redact is None else str(without_text(DataError(error))))

    lenient = leave_out if source.log and refused is not None else None
    try:
        for row in read_rows(source, source.columns.names(), lenient):
            try:
                prompt = _prompt(row, source, system, redact)
                if source.columns.id is not None:
                    _check_unique(row, source.columns.id, prompt.prompt_id, seen)
            except DataError as error:
                if lenient is None or SETTING in str(error):
                    raise
                lenient(row.place, str(error))
                continue
            yield prompt
    except DataError as error:
        raise error if redact is None or SETTING in str(error) else without_text(error) from None


def read_reference(row: Row, column: str | None) -> str | None:
    """The row's reference; null and empty text mean none, a whole number becomes its digits."""
    value = None if column is None else row.values[column]
    if value is None or value == "":
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return check_text(value, f"{row.place}, column {column!r}")


def read_metadata(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    """The named columns of a row, as plain JSON; otherwise DataError."""
    metadata = {column: row.values[column] for column in columns}
    try:
        canonical_json(metadata)
    except (TypeError, ValueError) as error:
        raise DataError(f"{row.place}: metadata {error}; leave the column out or store it as JSON") from None
    return metadata


def read_messages(row: Row, column: str, system_column: str | None, system: str | None) -> tuple[Message, ...]:
    """The row's messages. The system turn is the row's own, in its chat or in its system column, or else `system`."""
    messages = parse_messages(row.values[column], f"{row.place}, column {column!r}")
    own = None if system_column is None else row.values[system_column]
    has_turn = messages[0]["role"] == "system"
    if own is not None and own != "":
        if has_turn:
            raise DataError(
                f"{row.place}, column {system_column!r} is {own!r}, but the chat has a system turn; empty one"
            )
        return with_system(messages, check_text(own, f"{row.place}, column {system_column!r}"))
    return messages if has_turn or system is None else with_system(messages, system)


def read_id(row: Row, column: str) -> str | int:
    """The user's own id of a row: text or a whole number."""
    value = row.values[column]
    if not isinstance(value, (str, int)) or isinstance(value, bool) or value == "":
        raise DataError(f"{row.place}, column {column!r} is {value!r}; an id is text or a whole number")
    return value


def _prompt(row: Row, source: Source, system: str | None, redact: Redactor | None) -> Prompt:
    columns = source.columns
    if source.log:
        row = Row(row.place, row.values | {columns.prompt: asked_chat(row.values[columns.prompt])})
    messages = read_messages(row, columns.prompt, columns.system, system)
    reference, metadata = read_reference(row, columns.reference), read_metadata(row, columns.metadata)
    if redact is not None:
        messages = redact.messages(messages, row.place)
        reference = None if reference is None else redact.text(reference, row.place)
        metadata = {name: redact.value(value, row.place) for name, value in metadata.items()}
    own = {} if columns.id is None else read_metadata(row, [columns.id])
    return Prompt(
        prompt_id=prompt_id_of(messages),
        source=source.name,
        messages=messages,
        reference=reference,
        metadata=own | metadata,
        arrived=None
        if columns.time is None
        else moment(row.values[columns.time], f"{row.place}, column {columns.time!r}"),
    )


def asked_chat(value: Any) -> Any:
    """What was asked in a logged request: its chat up to the last turn of the user, texts in parts put together.

    What is no such chat comes back as it is, for `parse_messages` to say what is wrong with it.
    """
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        return value
    turns = list(value)
    while turns and turns[-1].get("role") == "assistant":
        turns.pop()
    return [turn | {"content": _joined(turn.get("content"))} for turn in turns] or value


def _joined(content: Any) -> Any:
    """The text of a turn that comes in parts, where all of them are texts."""
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    whole = texts and len(texts) == len(parts) and all(isinstance(text, str) for text in texts)
    return "\n".join(map(str, texts)) if whole else content


def _check_unique(row: Row, column: str, prompt_id: str, seen: dict[str | int, tuple[str, str]]) -> None:
    value = read_id(row, column)
    first_place, first_prompt = seen.setdefault(value, (row.place, prompt_id))
    if first_prompt != prompt_id:
        raise DataError(f"{row.place}: the id {value!r} is that of another prompt at {first_place}; make ids unique")
