"""Responses that other models wrote, brought in to be judged and paired like our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlrf.errors import DataError
from rlrf.fingerprints import content_id
from rlrf.prompts import check_text, prompt_id_of, unstorable
from rlrf.readers import Row
from rlrf.records import Prompt
from rlrf.redacting import SETTING, Redactor, without_text
from rlrf.sources import Source, read_id, read_messages, read_metadata, read_prompts, read_reference
from rlrf.tables import Table, read_rows


class ResponseColumns(BaseModel):
    """Which column holds what: the prompt itself or the id of one in `prompts`; the response; who wrote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    response: str = Field(min_length=1, description="The response's text")
    prompt: str | None = Field(None, description="The prompt, text or chat messages")
    prompt_key: str | None = Field(None, description="Id of a prompt in `prompts`, where the rows have none themselves")
    system: str | None = Field(None, description="Text that becomes the first turn")
    reference: str | None = Field(None, description="The answer that only judges see")
    policy: str | None = Field(None, description="Who wrote the response")
    metadata: tuple[str, ...] = Field((), description="Columns to keep")

    def names(self) -> list[str]:
        """Every column that is read."""
        optional = [self.prompt, self.prompt_key, self.system, self.reference, self.policy]
        return [self.response, *(column for column in optional if column is not None), *self.metadata]


class ExternalSource(Table):
    """One named source of responses, all by `policy` or each by the policy that its column names."""

    name: str = Field(min_length=1, description="What the store calls it")
    columns: ResponseColumns = Field(description="Which column holds what")
    policy: str | None = Field(None, min_length=1, description="Who wrote all of them")
    prompts: Source | None = None
    """Where the prompts are, if the responses only hold their ids (`columns.prompt_key` here, `columns.id` there)."""

    @model_validator(mode="after")
    def _complete(self) -> ExternalSource:
        columns = self.columns
        if (self.policy is None) == (columns.policy is None):
            raise ValueError("give exactly one of policy (a name for all rows) and columns.policy")
        if (columns.prompt is None) == (columns.prompt_key is None):
            raise ValueError("give exactly one of columns.prompt and columns.prompt_key")
        if (columns.prompt_key is None) != (self.prompts is None):
            raise ValueError("columns.prompt_key and prompts belong together: give both or neither")
        if self.prompts is not None and (self.prompts.columns.id is None or columns.reference or columns.system):
            raise ValueError("with prompts, set prompts.columns.id, and name reference and system there")
        return self


@dataclass(frozen=True, slots=True)
class ExternalResponse:
    """One response of another policy, and where it stands.

    `reason` is set exactly when there is no usable text: "empty", or "unstorable" with what is wrong as the detail.
    """

    response_id: str
    prompt: Prompt
    policy: str
    text: str | None
    place: str
    reason: Literal["empty", "unstorable"] | None = None
    detail: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def read_responses(
    source: ExternalSource, system: str | None = None, redact: Redactor | None = None
) -> Iterator[ExternalResponse]:
    """Yield one record per row, in row order; a row without usable text comes with its reason and is never left out.

    The id is made of prompt, policy, text, and how many equal rows came before: equal rows stay distinct, and
    the same rows in any order have the same ids. `system` and `redact` are those of `read_prompts`; responses are redacted too.

    Raises:
        DataError: as `read_prompts`; a response that is neither text nor null, a row without a policy, an id that
            no prompt has; names file and line.
    """
    prompts = _prompts_by_id(source.prompts, system, redact) if source.prompts is not None else {}
    seen: Counter[str] = Counter()
    try:
        for row in read_rows(source, source.columns.names()):
            own = source.columns.prompt is not None
            prompt = _own_prompt(row, source, system, redact) if own else _joined_prompt(row, source, prompts)
            yield _response(row, source, prompt, seen, redact)
    except DataError as error:
        raise error if redact is None or SETTING in str(error) else without_text(error) from None


def _response(
    row: Row, source: ExternalSource, prompt: Prompt, seen: Counter[str], redact: Redactor | None
) -> ExternalResponse:
    policy = source.policy or _policy(row, str(source.columns.policy))
    text, reason, detail = _usable_text(row, source.columns.response)
    metadata = read_metadata(row, source.columns.metadata)
    if redact is not None:
        text = None if text is None else redact.text(text, row.place)
        metadata = {name: redact.value(value, row.place) for name, value in metadata.items()}
    content = content_id("external text", [prompt.prompt_id, policy, text, reason])
    seen[content] += 1
    return ExternalResponse(
        response_id=content_id("external response", [content, seen[content] - 1]),
        prompt=prompt,
        policy=policy,
        text=text,
        place=row.place,
        reason=reason,
        detail=detail,
        metadata=metadata,
    )


def _policy(row: Row, column: str) -> str:
    return check_text(row.values[column], f"{row.place}, column {column!r}")


def _usable_text(row: Row, column: str) -> tuple[str | None, Literal["empty", "unstorable"] | None, str]:
    """(text, None, "") or (None, reason, detail)."""
    value = row.values[column]
    if value is not None and not isinstance(value, str):
        kind = type(value).__name__
        raise DataError(f"{row.place}, column {column!r} is {value!r} ({kind}); a response is text, or null for none")
    if value is None or not value.strip():
        return None, "empty", ""
    problem = unstorable(value)
    return (None, "unstorable", problem) if problem else (value, None, "")


def _own_prompt(row: Row, source: ExternalSource, system: str | None, redact: Redactor | None) -> Prompt:
    columns = source.columns
    messages = read_messages(row, str(columns.prompt), columns.system, system)
    reference = read_reference(row, columns.reference)
    if redact is not None:
        messages = redact.messages(messages, row.place)
        reference = None if reference is None else redact.text(reference, row.place)
    return Prompt(prompt_id_of(messages), source.name, messages, reference)


def _prompts_by_id(prompts: Source, system: str | None, redact: Redactor | None) -> dict[str | int, Prompt]:
    return {prompt.metadata[str(prompts.columns.id)]: prompt for prompt in read_prompts(prompts, system, redact)}


def _joined_prompt(row: Row, source: ExternalSource, prompts: dict[str | int, Prompt]) -> Prompt:
    column = str(source.columns.prompt_key)
    key = read_id(row, column)
    if key not in prompts:
        known = next(iter(prompts))
        raise DataError(
            f"{row.place}, column {column!r}: no prompt has the id {key!r} ({type(key).__name__});"
            f" ids in {source.prompts.name if source.prompts else ''!r} are like {known!r} ({type(known).__name__})"
        )
    return prompts[key]
