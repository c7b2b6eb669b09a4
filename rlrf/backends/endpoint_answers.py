"""From the body of an answer to a response: it is whole and well-formed, or a Failure that says what is wrong."""

from __future__ import annotations

import json
from typing import Any

from rlrf.records import Completion, Failure

DETAIL_CHARS = 500
MAX_ANSWER_BYTES = 16 * 2**20
"""Longer than the longest response any model writes; what an endpoint sends beyond it is not read."""


def read_answer(request_id: str, body: bytes) -> Completion | Failure:
    """One chat completion, or a Failure named after what is wrong with it; no text is ever made up."""
    excerpt = body[:DETAIL_CHARS].decode("utf-8", errors="replace")
    if len(body) > MAX_ANSWER_BYTES:
        return Failure(request_id, "answer_too_long", f"more than {MAX_ANSWER_BYTES} bytes: {excerpt}"[:DETAIL_CHARS])
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        return Failure(request_id, "invalid_json", f"{error}: {excerpt}"[:DETAIL_CHARS])
    reason = _fault(answer)
    if reason is not None:
        return Failure(request_id, reason, excerpt)
    choice, usage = answer["choices"][0], answer["usage"]
    text, finish = choice["message"]["content"], choice["finish_reason"]
    return Completion(request_id, text, finish, usage["prompt_tokens"], usage["completion_tokens"])


def _fault(answer: Any) -> str | None:
    """The name of the first thing wrong with a decoded answer."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        return "no_choices"
    if len(choices) > 1:
        return "wrong_choice_count"
    return _choice_fault(choices[0]) or _usage_fault(answer.get("usage"))


def _choice_fault(choice: Any) -> str | None:
    match choice:
        case {"finish_reason": "stop" | "length", "message": {"content": str(text)}}:
            return None if _is_unicode(text) else "lone_surrogate"
        case {"finish_reason": "stop" | "length"}:
            return "null_content"
        case {"finish_reason": "abort" | "content_filter" | "tool_calls" as finish}:
            return str(finish)
        case {"finish_reason": str()}:
            return "unknown_finish_reason"
    return "no_finish_reason"


def _usage_fault(usage: Any) -> str | None:
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None]
    return None if all(type(count) is int and count >= 0 for count in counts) else "missing_usage"


def _is_unicode(text: str) -> bool:
    """Whether it can be stored; JSON can spell half of a surrogate pair, UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
