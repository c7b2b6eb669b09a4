"""What a judging model is asked: chats and, where the server can enforce them, the schemas of its replies."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from importlib.resources import files
from itertools import combinations
from math import comb
from typing import Any

from rlrf.records import Case, Message
from rlrf.rubric import Rubric

_TEMPLATES = files("rlrf").joinpath("templates")
JUDGE_TEMPLATE = _TEMPLATES.joinpath("judge.txt").read_text(encoding="utf-8")
CHOOSE_TEMPLATE = _TEMPLATES.joinpath("judge_choose.txt").read_text(encoding="utf-8")
RETRY_TEMPLATE = _TEMPLATES.joinpath("judge_retry.txt").read_text(encoding="utf-8")

COMMENT_CHARS = 400
"""The longest comment that a schema allows unless told otherwise."""

MOST_COMBINATIONS = 256
"""Of the aspects that a judge may choose, as alternatives of a schema."""

ALL = "Rate the response on every aspect below."
NAMED = (
    "Of the aspects below, name the {choose} that this instruction needs most, and rate the response on those alone."
)
BETWEEN = " A rating between two that are described stands for what lies between them."


def build_messages(
    case: Case, rubric: Rubric, aspects: Sequence[str] | None = None, choose: int | None = None
) -> tuple[Message, ...]:
    """The chat that asks for the ratings of one case on `aspects` (all where None), in this order: one user turn.

    With `choose`, the judge is to name so many of them and to rate those. Instruction, reference and response stand
    between lines marked with a tag that is a hash of their contents: a response would have to hold the hash of itself to
    forge one.
    """
    names = rubric.names if aspects is None else tuple(aspects)
    tag = _tag([*(text for turn in case.messages for text in turn.values()), case.reference or "", case.text])
    values = {
        "tag": tag,
        "instruction": _chat(case.messages, tag),
        "reference": _reference(case.reference, tag),
        "response": case.text,
        "which": ALL if choose is None else NAMED.format(choose=choose),
        "between": BETWEEN if rubric.scale[1] - rubric.scale[0] > 2 else "",
        "aspects": rubric.render(names),
        "keys": "every aspect in this order" if choose is None else f"the {choose} aspects that you named as its keys",
        "form": _form(names if choose is None else _places(choose), rubric),
    }
    return ({"role": "user", "content": _filled(JUDGE_TEMPLATE, values)},)


def choose_messages(messages: Sequence[Message], rubric: Rubric, choose: int) -> tuple[Message, ...]:
    """The chat that asks which `choose` aspects an instruction needs most: one user turn with marks of the same kind."""
    tag = _tag([text for turn in messages for text in turn.values()])
    values = {
        "tag": tag,
        "instruction": _chat(messages, tag),
        "choose": str(choose),
        "aspects": "\n".join(f"{aspect.name}: {aspect.definition}" for aspect in rubric.aspects),
        "form": "{" + ", ".join(f'"{place}": <why>' for place in _places(choose)) + "}",
    }
    return ({"role": "user", "content": _filled(CHOOSE_TEMPLATE, values)},)


def told_why(messages: Sequence[Message], reason: str, unrated: Sequence[str] = ()) -> tuple[Message, ...]:
    """The same chat with a last line that says why an earlier reply was of no use, in none of that reply's own words.

    `unrated` are the names of the aspects that it left without a rating.
    """
    *before, last = messages
    line = _filled(RETRY_TEMPLATE, {"why": _why(reason, unrated)})
    return (*before, {**last, "content": f"{last['content']}\n\n{line}"})


def reply_schema(
    rubric: Rubric,
    aspects: Sequence[str] | None = None,
    choose: int | None = None,
    comment_chars: int = COMMENT_CHARS,
) -> str:
    """The JSON schema of a reply, as text: the aspects in order, or any `choose` of them; comment before rating."""
    low, high = rubric.scale
    comment, ratings = _text(comment_chars), list(range(low, high + 1))
    entry = _object({"comment": comment, "rating": {"enum": ratings}}, ["comment", "rating"])
    names = rubric.names if aspects is None else tuple(aspects)
    return json.dumps(_keyed(names, entry, choose))


def choice_schema(rubric: Rubric, choose: int, comment_chars: int = COMMENT_CHARS) -> str:
    """The JSON schema of a choice, as text: any `choose` aspects, each with why."""
    return json.dumps(_keyed(rubric.names, _text(comment_chars), choose))


def seed_of(messages: Sequence[Message], repeat: int = 0) -> int:
    """A seed from what is asked, in 0 .. 2**28 - 1; each repetition has another."""
    return int(_tag([*(turn["content"] for turn in messages), str(repeat)])[:7], 16)


def _why(reason: str, unrated: Sequence[str]) -> str:
    """In words of ours alone: a reason may quote the reply."""
    if unrated:
        return f"it gave no rating on the scale to {', '.join(unrated)}"
    return {
        "judge_truncated": "it was cut off before its end; be briefer",
        "no_json": "it held no whole JSON object of this form",
        "contradiction": "it held several JSON objects that differ",
        "unrated_aspects": "it rated another number of aspects than asked for",
        "wrong_choice": "it named another number of qualities, or other qualities",
    }.get(reason.partition(":")[0], "it was lost on its way")


def _filled(template: str, values: dict[str, str]) -> str:
    # One pass: braces inside the values are never filled in.
    return re.sub(r"\{([a-z]+)\}", lambda place: values[place[1]], template.strip("\n"))


def _form(names: Sequence[str], rubric: Rubric) -> str:
    # No JSON, strict or loose, so that a reply that repeats it is not taken for ratings.
    return "{" + ", ".join(f'"{name}": {{"comment": "...", "rating": <{rubric.ratings}>}}' for name in names) + "}"


def _places(choose: int) -> list[str]:
    return [f"<name {at + 1}>" for at in range(choose)]


def _text(most: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": most}


def _object(properties: dict[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _keyed(names: Sequence[str], entry: dict[str, Any], choose: int | None) -> dict[str, Any]:
    """An object with an entry for each name, or for `choose` of them: one alternative per combination, since engines
    differ in how they count keys. Where those would be too many, the number of keys is left to the reader.
    """
    if choose is None:
        return _object(dict.fromkeys(names, entry), names)
    if comb(len(names), choose) > MOST_COMBINATIONS:
        return _object(dict.fromkeys(names, entry), ())
    one = {"$ref": "#/$defs/entry"}
    choices = [_object(dict.fromkeys(some, one), some) for some in combinations(names, choose)]
    return {"$defs": {"entry": entry}, "anyOf": choices}


def _chat(messages: Sequence[Message], tag: str) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"[{tag} {message['role']}]\n{message['content']}" for message in messages)


def _reference(reference: str | None, tag: str) -> str:
    if not reference:
        return ""
    return f"[{tag} reference solution, known to be right]\n{reference}\n[{tag} end of reference solution]\n"


def _tag(parts: Sequence[str]) -> str:
    """16 hex digits from all that stands between the marks, each part with its length; found in none of them."""
    digest = blake2b(digest_size=8)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    while any(digest.hexdigest() in part for part in parts):
        digest.update(b"again")
    return digest.hexdigest()
