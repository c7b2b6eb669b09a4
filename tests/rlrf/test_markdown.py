from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.markdown import block, inline, table
from tests.flows.replies import HOSTILE

texts = st.text(max_size=80) | st.text(alphabet="`~|<>[]()!*_#\\& a\n", max_size=80)


@given(texts)
def test_a_text_on_one_line_has_no_mark_that_means_anything(text: str) -> None:
    shown = inline(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*[<>\[\]()|`*_!&:.]", shown.replace("\\\\", ""))


@given(texts)
def test_no_text_closes_its_fence(text: str) -> None:
    first, *lines, last = block(text, most=1000).split("\n")
    assert first == f"{last}text"
    assert not any(line.strip().startswith(last) for line in lines)


def test_hostile_text_is_shown_and_not_interpreted() -> None:
    for shown in (inline(HOSTILE), block(HOSTILE)):
        assert "\x1b" not in shown
        assert "\\x1b" in shown.replace("\\\\", "\\")
    assert "\\<script\\>" in inline(HOSTILE)
    assert "\\{\\{ 7 \\* 7 \\}\\}" in inline(HOSTILE)


@pytest.mark.parametrize(("text", "said"), [("x" * 20, "(the first 10 of 20 characters)"), ("x" * 10, "")])
def test_a_long_text_is_cut_and_says_so(text: str, said: str) -> None:
    shown = block(text, most=10)
    assert "x" * 10 in shown
    assert "x" * 11 not in shown
    assert shown.endswith(said or "```")


def test_a_cell_does_not_end_its_row() -> None:
    made = table(("", "n"), [(inline("a | b\nc"), "1")])
    assert made.splitlines() == ["|  | n |", "| --- | ---: |", "| a \\| b c | 1 |"]
