"""From the body of an answer to responses: each is whole and well-formed, or a Failure that says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlrf.backends.endpoint.guided import schema_fault
from rlrf.records import Completion, Failure, Request, Sampling

DETAIL_CHARS = 500
MAX_ANSWER_BYTES = 16 * 2**20
"""Longer than the longest responses any model writes; what a server sends beyond it is not read."""


_FAULTY_FINISHES = ("abort", "content_filter", "tool_calls")


@dataclass(frozen=True, slots=True)
class Spoilt:
    """An answer of which no choice can be used."""

    reason: str
    detail: str


def read_answer(group: Sequence[Request], sampling: Sampling, body: bytes) -> list[Completion | Failure] | Spoilt:
    """What one answer says to each request of the group, the choice of index i to the i-th; no text is ever made up.

    How many tokens a choice has is told by `usage` where it is the only one, and by its `token_ids` else.
    """
    if len(body) > MAX_ANSWER_BYTES:
        return _spoilt("answer_too_long", body, f"more than {MAX_ANSWER_BYTES} bytes: ")
    try:
        answer = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return _spoilt("invalid_json", body, f"{error}: ")
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        return _spoilt("no_choices", body)
    in_order = choices if len(group) == len(choices) == 1 else _by_index(choices, len(group))
    if in_order is None:
        return _spoilt("wrong_choice_count", body, f"{len(choices)} choices for n = {len(group)}: ")
    counts = _token_counts(in_order, answer.get("usage"))
    if counts is None:
        return _spoilt("missing_usage", body)
    prompt_tokens = answer["usage"]["prompt_tokens"]
    return [
        _read_choice(request, sampling, choice, prompt_tokens, count)
        for request, choice, count in zip(group, in_order, counts, strict=True)
    ]


def _spoilt(reason: str, body: bytes, why: str = "") -> Spoilt:
    return Spoilt(reason, (why + body[:DETAIL_CHARS].decode("utf-8", errors="replace"))[:DETAIL_CHARS])


def _by_index(choices: list[Any], n: int) -> list[Any] | None:
    """n choices in the order of their `index`, each index once."""
    by_index = {choice.get("index"): choice for choice in choices if isinstance(choice, dict) and _indexed(choice)}
    if len(choices) != n or len(by_index) != n or not all(i in by_index for i in range(n)):
        return None
    return [by_index[i] for i in range(n)]


def _indexed(choice: dict[str, Any]) -> bool:
    return type(choice.get("index")) is int


def _token_counts(choices: list[Any], usage: Any) -> list[int] | None:
    """Tokens of each choice, or None where the answer doesn't tell them."""
    if not isinstance(usage, dict) or not _is_count(usage.get("prompt_tokens")):
        return None
    if not _is_count(usage.get("completion_tokens")):
        return None
    if len(choices) == 1:
        return [usage["completion_tokens"]]
    drawn = [choice.get("token_ids") for choice in choices]
    if not all(isinstance(ids, list) for ids in drawn) or sum(map(len, drawn)) != usage["completion_tokens"]:
        return None
    return list(map(len, drawn))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _read_choice(
    request: Request, sampling: Sampling, choice: Any, prompt_tokens: int, count: int
) -> Completion | Failure:
    reason = _choice_fault(choice, count)
    if reason is not None:
        return Failure(request.request_id, reason, json.dumps(choice)[:DETAIL_CHARS])
    text, finish = choice["message"]["content"], choice["finish_reason"]
    if count > sampling.max_tokens:
        detail = f"{count} tokens, asked for at most {sampling.max_tokens}: {text}"
        return Failure(request.request_id, "ignored_max_tokens", detail[:DETAIL_CHARS])
    if sampling.stop and any(stop in text for stop in sampling.stop):
        return Failure(request.request_id, "ignored_stop", text[:DETAIL_CHARS])
    if request.json_schema is not None and finish == "stop":
        fault = schema_fault(text, request.json_schema)
        if fault is not None:
            return Failure(request.request_id, "not_guided", f"{fault}: {text}"[:DETAIL_CHARS])
    return Completion(request.request_id, text, finish, prompt_tokens, count)


def _choice_fault(choice: Any, count: int) -> str | None:
    """The name of the first thing wrong with a choice. An empty text is one if the model drew it: its end came first."""
    finish = choice.get("finish_reason") if isinstance(choice, dict) else None
    if finish in ("stop", "length"):
        message = choice.get("message")
        text = message.get("content") if isinstance(message, dict) else None
        if not isinstance(text, str):
            return "null_content"
        if not text and not count:
            return "empty_choice"
        return None if text.isascii() or _is_unicode(text) else "lone_surrogate"
    if finish in _FAULTY_FINISHES:
        return str(finish)
    return "unknown_finish_reason" if isinstance(finish, str) else "no_finish_reason"


def _is_unicode(text: str) -> bool:
    """Whether it can be stored; JSON can spell half of a surrogate pair, UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
