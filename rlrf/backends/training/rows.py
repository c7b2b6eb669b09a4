"""Training data: message lists from a file become token ids, and a row that can't be used is counted by its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as parquet
from jinja2.exceptions import TemplateError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import PreTrainedTokenizerBase

from rlrf.backends.training.spec import TrainSpec
from rlrf.errors import TrainingError

Columns = dict[str, list[list[int]]]
IGNORED_LABEL = -100
"""What torch's cross-entropy, and trl, leave out of the loss."""


class Turn(BaseModel):
    """One message of a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    content: str


class Row(BaseModel):
    """One pair in trl's conversational format, or with no rejected, one demonstration; further columns are metadata."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: list[Turn] = Field(min_length=1)
    chosen: list[Turn] = Field(min_length=1)
    rejected: list[Turn] | None = Field(default=None, min_length=1)


class UnusableError(Exception):
    """A row can't be trained on; its argument is the reason it is counted under."""


def read_rows(spec: TrainSpec) -> list[Row]:
    """Every row of the spec's file.

    Raises:
        TrainingError: the file is neither JSONL nor Parquet, is empty, or a row isn't what the method needs.
    """
    rows = list(_parse(spec.data))
    if not rows:
        raise TrainingError(f"training data {str(spec.data)!r} is empty; there is nothing to learn from")
    if spec.method == "dpo":
        lacking = next((number for number, row in enumerate(rows, 1) if row.rejected is None), None)
        if lacking:
            raise TrainingError(f"{str(spec.data)!r}, row {lacking}: no 'rejected'; dpo needs pairs, rs doesn't")
    return rows


def tokenise(
    rows: Sequence[Row], spec: TrainSpec, tokenizer: PreTrainedTokenizerBase
) -> tuple[Columns, dict[str, int]]:
    """Token id columns of the usable rows, and how many rows were left out, by reason.

    dpo: `prompt_ids`, `chosen_ids`, `rejected_ids`. rs: `input_ids` and `labels`, the prompt's labels ignored.
    Reasons: "special_tokens" (chat markup inside a text), "template" (the chat template refuses the roles, or renders
    the prompt otherwise once it is answered), "too_long" (more than max_length tokens).

    Raises:
        TrainingError: no row is left.
    """
    special = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    excluded: Counter[str] = Counter()
    columns: Columns = {}
    for row in rows:
        try:
            encoded = _encode(row, spec, tokenizer, special)
        except UnusableError as error:
            excluded[str(error)] += 1
            continue
        for name, ids in encoded.items():
            columns.setdefault(name, []).append(ids)
    if not columns:
        raise TrainingError(f"training data {str(spec.data)!r}: all {len(rows)} rows are unusable: {dict(excluded)!r}")
    return columns, dict(excluded)


def row_lengths(columns: Columns) -> list[int]:
    """Tokens of each row as it goes through the model: prompt and longer response (dpo), or all (rs)."""
    if "input_ids" in columns:
        return [len(ids) for ids in columns["input_ids"]]
    pairs = zip(columns["prompt_ids"], columns["chosen_ids"], columns["rejected_ids"], strict=True)
    return [len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in pairs]


def _parse(path: Path) -> Iterator[Row]:
    number = 0
    try:
        for record in _records(path):
            number += 1
            yield Row.model_validate(record)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise TrainingError(
            f"{str(path)!r}, row {number}: {place}: {fault['msg']} ({fault['input']!r:.200})"
        ) from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"training data {str(path)!r} can't be read, at row {number + 1}: {error}") from error


def _records(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        yield from parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
    else:
        raise ValueError(f"suffix {path.suffix!r}; give a .jsonl or .parquet file")


def _encode(
    row: Row, spec: TrainSpec, tokenizer: PreTrainedTokenizerBase, special: Sequence[str]
) -> dict[str, list[int]]:
    rejected = row.rejected if spec.method == "dpo" else None
    if any(token in turn.content for turn in [*row.prompt, *row.chosen, *(rejected or [])] for token in special):
        raise UnusableError("special_tokens")
    prompt = _ids(row.prompt, tokenizer, add_generation_prompt=True)
    chosen = _answer(prompt, [*row.prompt, *row.chosen], spec, tokenizer)
    if spec.method == "rs":
        return {"input_ids": prompt + chosen, "labels": [IGNORED_LABEL] * len(prompt) + chosen}
    assert rejected is not None
    rejected_ids = _answer(prompt, [*row.prompt, *rejected], spec, tokenizer)
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected_ids}


def _answer(prompt: list[int], chat: Sequence[Turn], spec: TrainSpec, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the chat holds after the prompt, its end-of-sequence token included."""
    ids = _ids(chat, tokenizer, add_generation_prompt=False)
    if ids[: len(prompt)] != prompt:
        raise UnusableError("template")
    if len(ids) > spec.max_length:
        raise UnusableError("too_long")
    return ids[len(prompt) :]


def _ids(chat: Sequence[Turn], tokenizer: PreTrainedTokenizerBase, *, add_generation_prompt: bool) -> list[int]:
    messages = [{"role": turn.role, "content": turn.content} for turn in chat]
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, return_dict=False)
    except TemplateError as error:
        raise UnusableError("template") from error
    return cast(list[int], ids)
