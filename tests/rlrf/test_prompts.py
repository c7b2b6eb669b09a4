"""Messages of a prompt and the id that they make."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.errors import DataError
from rlrf.prompts import check_text, parse_messages, prompt_id_of, unstorable, with_system

STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
FILLED = STORABLE.filter(lambda text: bool(text.strip()))


@given(FILLED)
def test_plain_text_is_one_user_turn_unchanged(text: str) -> None:
    assert parse_messages(text, "here") == ({"role": "user", "content": text},)


def test_a_chat_keeps_its_turns_and_loses_null_fields() -> None:
    chat = [
        {"role": "system", "content": "Be brief.", "tool_calls": None},
        {"role": "user", "content": "Hi", "tool_calls": None},
        {"role": "assistant", "content": "Hello", "tool_calls": None},
        {"role": "user", "content": "Bye", "tool_calls": None},
    ]
    assert parse_messages(chat, "here") == tuple({"role": t["role"], "content": t["content"]} for t in chat)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "here is empty (''); fill it or remove the row"),
        (" \n\t", "here is empty (' \\n\\t'); fill it"),
        (None, "here is None; a prompt is text or a list of {role, content}"),
        (7, "here is 7; a prompt is text or a list"),
        ([], "here is []; a prompt is text or a list"),
        ("a\0b", "here holds a NUL character at 1; remove the character"),
        ("ab\ud83d", "here holds the lone surrogate '\\ud83d' at 2; remove the character"),
        (["Hi"], "here, turn 1 is 'Hi'; write {role, content}"),
        ([{"from": "human", "value": "Hi"}], "here, turn 1 is {'from': 'human', 'value': 'Hi'}; write {role, content}"),
        ([{"role": "tool", "content": "Hi"}], "here, turn 1 has the role 'tool'; it must be one of ('system', 'user'"),
        ([{"role": "user", "content": ""}], "here, turn 1 is empty ('')"),
        ([{"role": "user", "content": ["Hi"]}], "here, turn 1 is ['Hi'] (list); write text"),
        ([{"role": "user", "content": "Hi", "image": "x.png"}], "here, turn 1 also has ['image']"),
        (
            [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
            "here: the turns are ['user', 'assistant']; the last one must be the user's, so cut off the answer",
        ),
        (
            [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}],
            "here: the turns are ['user', 'system']; a system turn can only be the first",
        ),
    ],
)
def test_what_is_no_prompt_is_refused_with_place_value_and_remedy(value: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        parse_messages(value, "here")


@given(st.text())
def test_unstorable_is_what_utf8_or_the_store_refuses(text: str) -> None:
    try:
        storable = b"\0" not in text.encode("utf-8")
    except UnicodeEncodeError:
        storable = False
    assert (unstorable(text) is None) == storable


@given(FILLED)
def test_check_text_returns_the_text_itself(text: str) -> None:
    assert check_text(text, "here") is text


@given(FILLED, FILLED)
def test_prompts_are_equal_when_their_messages_are(one: str, other: str) -> None:
    same = prompt_id_of(parse_messages(one, "a")) == prompt_id_of(parse_messages(other, "b"))
    assert same == (one == other)


def test_a_prompt_id_never_changes() -> None:
    assert prompt_id_of(parse_messages("What is 2 + 2?", "here")) == "e61a0012-219b-9e6e-a17f-8f8aa7222426"


@given(FILLED, FILLED)
def test_a_system_turn_makes_another_prompt(text: str, system: str) -> None:
    bare = parse_messages(text, "here")
    chat = with_system(bare, system)
    assert chat == ({"role": "system", "content": system}, *bare)
    assert prompt_id_of(chat) != prompt_id_of(bare)
