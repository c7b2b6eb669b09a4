from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.choice import ChoiceJudge
from rlrf.judges.letters import UNCLEAR, reference_letter, settled_letter
from rlrf.judges.protocol import Judge
from rlrf.records import Case, Judgement

LETTERS = "ABCDE"


def judged(text: str, reference: str | None = "B", letters: str = LETTERS) -> Judgement:
    judge: Judge = ChoiceJudge(letters)
    [[judgement]] = judge.judge([Case("r1", (), reference, text)])
    return judgement


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "b.",
        "**B**",
        "B) foo",
        "B. Because it is the only one.",
        "B\n\nExplanation: it fits.",
        "**B) Paris** is the capital.",
        "The answer is (B)",
        "the answer is b.",
        "The answer is B because the others are wrong.",
        "The answer is B rather than C.",
        "The answer is (B) Vitamin C.",
        "The answer is:\n(B) Paris",
        "The answer to this question is B",
        "The final answer is: $\\boxed{\\text{(B)}}$",
        "So \\boxed{B}",
        "$\\boxed{\\textbf{(B)}}$",
        "Answer: B.",
        "**Answer:** B",
        "Answer:\n\n**B**",
        "Answer: B, not A",
        "Answer: **B. Paris**",
        "#### B",
        "Q: which? A: B",
        "Correct option: (B) Foo",
        'The right answer is "B".',
        "Option B is correct.",
        "A is wrong. C is wrong. B is correct.",
        "I would choose B",
        "I'm going with B!",
        "I think the answer is B) Rome and Paris",
        "Final answer: A? No.\nFinal answer: B",
        "A man walks. C was my first thought, but the answer is (B).",
        "If the answer is C, it breaks, so the answer is B.",
        "A) one\nB) two\nC) three\n\nAnswer: B",
        "Let me think about it.\n\nAnswer B",
    ],
)
def test_real_ways_to_say_b(text: str) -> None:
    assert settled_letter(text, LETTERS) == "B"
    assert [(r.aspect, r.rating, r.critique) for r in judged(text).ratings] == [("answer", 1, "Correct.")]
    assert [(r.rating, r.critique) for r in judged(text, "D").ratings] == [(-1, "The final answer B is wrong.")]


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A or B.",
        "Answer: both A and B",
        "Answer: B, C",
        "B/C",
        "I can't decide.\nA and B",
        "\\boxed{A, B}",
        "The answer isn't B.",
        "The answer is not B.",
        "The answer is C major.",
        "The answer is vitamin B",
        "The option (B) has a certain charm.",
        "A) one\nB) two\nC) three",
        "A is correct. B is correct.",
        "A: Paris",
    ],
)
def test_what_can_be_meant_in_two_ways_is_not_guessed(text: str) -> None:
    assert settled_letter(text, LETTERS) == UNCLEAR
    assert (judged(text).reason, judged(text).ratings) == ("ambiguous_answer", ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A man walks into a bar.",
        "The answer is A man of the world.",
        "The answer is a dog.",
        "A big dog. A small cat.\nA bird",
        "I say A man did it.",
        "I am sure that I am right.",
        "The answer is 42.",
        "x: 5",
        "Plan of the day: nothing.",
    ],
)
def test_articles_and_pronouns_are_no_letters(text: str) -> None:
    judgement = judged(text, "A", letters="ABCDEFGHI")
    assert [(r.rating, r.critique) for r in judgement.ratings] == [(-1, "No final answer.")]


@pytest.mark.parametrize(
    "text", ["A", "A.", "(A)", "Answer: A", "answer: a", "The best choice would be A, since it fits", "A is correct"]
)
def test_a_can_be_an_answer(text: str) -> None:
    assert settled_letter(text, LETTERS) == "A"


@pytest.mark.parametrize(
    ("reference", "letter"),
    [("C", "C"), ("(c)", "C"), ("C) Paris", "C"), ("C. Paris", "C"), ("It is plain.\nThe answer is C.", "C")]
    + [(bad, None) for bad in (None, "", " ", "Paris", "A man", "A or B", "F", "F) Paris", "A) x\nB) y", "A: Paris")],
)
def test_references(reference: str | None, letter: str | None) -> None:
    assert reference_letter(reference, LETTERS) == letter
    assert (judged("Answer: C", reference).reason is None) == (letter is not None)
    if letter is None:
        assert judged("Answer: C", reference).reason == "no_reference"


def test_a_cut_off_response_is_unrated() -> None:
    [[judgement]] = ChoiceJudge().judge([Case("r1", (), "B", "Answer: B", finish_reason="length")])
    assert (judgement.reason, judgement.ratings) == ("truncated", ())


def test_a_letter_that_is_no_option_is_wrong() -> None:
    assert judged("The answer is B.\nFinal answer: F").ratings[0].rating == -1


@given(st.text(alphabet="ABCab ().:*\n\\{}is answertheboxd,'", max_size=120), st.sampled_from("ABC"))
def test_any_text_gets_a_verdict_that_does_not_name_the_reference(text: str, reference: str) -> None:
    judgement = judged(text, reference)
    assert judgement.reason in {None, "ambiguous_answer"}
    words = " ".join(r.critique for r in judgement.ratings).replace(".", "").split()
    assert reference not in words
    assert len(judgement.ratings) == (judgement.reason is None)


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    assert judged(text).response_id == "r1"


@given(st.text(alphabet=st.characters(categories=["L", "Zs", "P"]), max_size=100), st.sampled_from(LETTERS))
def test_the_last_marker_decides(text: str, letter: str) -> None:
    assert settled_letter(f"{text}\nFinal answer: ({letter})", LETTERS) == letter


@pytest.mark.parametrize(
    "text",
    ["answer: " * 50_000, "####" * 100_000, "\\boxed{" * 50_000, "(" * 300_000, "*B" * 200_000, "A) \n" * 100_000, "answer " * 60_000, "I pick " * 60_000, "' " * 200_000, "A," * 200_000],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_hostile_text_costs_little(text: str) -> None:
    start = time.perf_counter()
    assert judged(text).response_id == "r1"
    assert time.perf_counter() - start < 5


def test_every_case_once_in_batches() -> None:
    cases = [Case(str(at), (), "B", "B") for at in range(1100)]
    batches = list(ChoiceJudge().judge(cases))
    assert [len(batch) for batch in batches] == [512, 512, 76]
    assert [one.response_id for batch in batches for one in batch] == [case.response_id for case in cases]


def test_identity_is_the_set_of_letters() -> None:
    assert ChoiceJudge("BA").ingredients() == ChoiceJudge("AB").ingredients() != ChoiceJudge("ABC").ingredients()
