from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.answers import plain_number
from rlrf.redaction import HIDDEN, answer_of, copied_runs, numbers_of_size, occurrences, without_answers

WORDS = st.sampled_from(
    ["the", "total", "is", "5", "12", "1,200", "1200", "so", "add", "seven", "apples", "B,", "it's", "."]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=40).map(" ".join))
ANSWERS = st.one_of(
    st.integers(-2000, 2000).map(str), st.sampled_from(["1,200", "$12.50", "1/2", "Paris", "B", "x^2", "]a", "[...] a"])
)
REFERENCES = st.builds(lambda text, answer: f"{text}\n#### {answer}", TEXTS, ANSWERS) | ANSWERS | TEXTS


@given(TEXTS, REFERENCES)
def test_neither_the_answer_nor_a_copied_run_is_left(critique: str, reference: str) -> None:
    left = without_answers(critique, reference)
    assert copied_runs(left, reference) == []
    if reference:
        answer, size = answer_of(reference), plain_number(answer_of(reference))
        assert (occurrences(left, answer) if size is None else numbers_of_size(left, size)) == []
    assert without_answers(left, reference) == left


@given(TEXTS, REFERENCES)
def test_nothing_else_changes(critique: str, reference: str) -> None:
    parts = [re.escape(part) for part in without_answers(critique, reference).split(HIDDEN)]
    assert re.fullmatch(".*".join(parts), critique, re.DOTALL)


@given(TEXTS, st.integers(10_000, 99_999))
def test_a_critique_that_holds_none_of_it_stays_as_it_is(critique: str, answer: int) -> None:
    if str(answer) not in re.sub(r"\W", "", critique):
        assert without_answers(critique, f"#### {answer}") == critique


@given(TEXTS)
def test_without_a_reference_the_critique_stays_as_it_is(critique: str) -> None:
    assert without_answers(critique, None) == without_answers(critique, "") == critique


@given(st.text(max_size=20), st.integers(0, 10**7), st.text(max_size=20))
def test_no_spelling_in_digits_gets_through(before: str, size: int, after: str) -> None:
    for spelled in (f"{size}", f"{size:,}", f"{size}.00", f"${size:,}.0", f"{size:,}".replace(",", " ")):
        said = f"{before} [{spelled}] {after}"
        assert f"[{spelled}]" not in without_answers(said, f"#### {size}")


@pytest.mark.parametrize(
    ("critique", "reference", "left"),
    [
        ("It is 1,200, not 12.", "so\n#### 1200", "It is [...], not 12."),
        ("It costs $1200.00!", "#### 1,200", "It costs $[...]!"),
        ("1.2 thousand or 1 200 or 1{,}200", "1200", "[...] or [...] or [...]"),
        ("12005 and 1200.5 and 0.1200", "1200", "12005 and 1200.5 and 0.1200"),
        ("2400/2 is a step, 2 dozen", "#### 24", "2400/2 is a step, [...]"),
        ("a half: 1/2, 2/4, 0.5, not 12", "#### 1/2", "a half: [...], [...], [...], not 12"),
        ("You wrote -5 for 5.", "#### -5", "You wrote -[...] for [...]."),
        ("The capital is paris, not Parisian.", "Paris", "The capital is [...], not Parisian."),
        ("A step is wrong: B is right, but Bob said so.", "B", "A step is wrong: [...] is right, but Bob said so."),
        ("It is B.", r"\boxed{\text{B}}", "It is [...]."),
        ("no digits here", "#### 3", "no digits here"),
    ],
)
def test_what_is_taken_out(critique: str, reference: str, left: str) -> None:
    assert without_answers(critique, reference) == left


def test_eight_words_of_the_reference_are_a_copy_and_seven_are_not() -> None:
    reference = "First she buys six red apples, then she gives two of them away.\n#### 4"
    said = "Better: First she BUYS six red apples; then she gives some."
    assert without_answers(said, reference) == "Better: [...] some."
    short = "Better: First she buys six red apples, then he gives."
    assert without_answers(short, reference) == short
