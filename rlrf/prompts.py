"""What a prompt is: checked messages, and an id that is made of them alone.

The id is content_id("prompt", messages): the same question from two sources is one prompt and keeps its responses.
Source, reference and metadata are not in it, because no policy sees them; whoever keys a judgement must put the
reference that the judge saw into the key, or a mended reference would keep verdicts on the old one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlrf.errors import DataError
from rlrf.fingerprints import content_id
from rlrf.records import Message

ROLES = ("system", "user", "assistant")


def prompt_id_of(messages: Sequence[Message]) -> str:
    """The id of the prompt with these messages."""
    return content_id("prompt", list(messages))


def parse_messages(value: Any, place: str) -> tuple[Message, ...]:
    """Messages of a prompt that is plain text (one user turn) or a chat (a list of {role, content}).

    Raises:
        DataError: an empty prompt, an unknown role, a system turn that is not first, a last turn that is not the
            user's, a turn with other fields than these two, text that can't be stored; names `place` and the turn.
    """
    if isinstance(value, str):
        return ({"role": "user", "content": check_text(value, place)},)
    if not isinstance(value, list) or not value:
        raise DataError(f"{place} is {value!r}; a prompt is text or a list of {{role, content}} with a user turn")
    turns = tuple(_parse_turn(turn, f"{place}, turn {number}") for number, turn in enumerate(value, start=1))
    roles = [turn["role"] for turn in turns]
    if "system" in roles[1:]:
        raise DataError(f"{place}: the turns are {roles!r}; a system turn can only be the first")
    if roles[-1] != "user":
        raise DataError(f"{place}: the turns are {roles!r}; the last one must be the user's, so cut off the answer")
    return turns


def with_system(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """The chat with a system turn before it."""
    return ({"role": "system", "content": text}, *messages)


def check_text(value: Any, place: str) -> str:
    """The value, if it is text with something in it that the store can hold; otherwise DataError."""
    if not isinstance(value, str):
        raise DataError(f"{place} is {value!r} ({type(value).__name__}); write text")
    if not value.strip():
        raise DataError(f"{place} is empty ({value!r}); fill it or remove the row")
    if problem := unstorable(value):
        raise DataError(f"{place} holds {problem}; remove the character")
    return value


def unstorable(text: str) -> str | None:
    """What keeps a text out of the store, in words: a NUL or a lone surrogate; None for text that it can hold."""
    if (at := text.find("\0")) >= 0:
        return f"a NUL character at {at}"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"the lone surrogate {text[error.start]!r} at {error.start}"
    return None


def _parse_turn(turn: Any, place: str) -> Message:
    if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
        raise DataError(f"{place} is {turn!r}; write {{role, content}}")
    # Columnar files give every turn the union of all fields, as null where a turn lacks it.
    if foreign := sorted(key for key in turn.keys() - {"role", "content"} if turn[key] is not None):
        raise DataError(f"{place} also has {foreign!r}, which no policy here would see; remove them")
    if turn["role"] not in ROLES:
        raise DataError(f"{place} has the role {turn['role']!r}; it must be one of {ROLES}")
    return {"role": turn["role"], "content": check_text(turn["content"], place)}
