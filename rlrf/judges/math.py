"""A judge that needs no model: it checks the final answer, the arithmetic of every step, and the form of a solution."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rlrf.judges.answers import MAX_ANSWER, FinalAnswer, final_answer, same_answer
from rlrf.judges.steps import MAX_QUOTED, Check, check_steps
from rlrf.records import LEVELS, Case, Judgement, Rating

VERSION = 1
"""Rises with every change that can change a verdict or a critique."""

CORRECT = "Correct."
MAX_NAMED = 2
BATCH = 512

_LABEL = re.compile(r"^step\s+\d+\s*[:.)-]\s*", re.IGNORECASE)
_SENTENCES = re.compile(r"\n|(?<=[.!?])\s")
_LOOP_WORDS = 30
_LONG_TAIL = 20
_LONGEST_WORD = 100


class MathJudge:
    """Rates answer, arithmetic, completeness and conciseness of worked solutions against a reference.

    No critique ever names the reference. With `reveal_values` off, the critique of a wrong step doesn't give the right
    value either. A cut-off response (finish_reason "length") and a case without a usable reference stay unrated.
    """

    aspects: tuple[str, ...] = ("answer", "arithmetic", "completeness", "conciseness")

    def __init__(self, reveal_values: bool = True) -> None:
        self.reveal_values = reveal_values
        self.weights = dict.fromkeys(self.aspects, 1.0)
        self.scales = dict.fromkeys(self.aspects, LEVELS)

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {
            "type": "math",
            "version": VERSION,
            "reveal_values": self.reveal_values,
            "aspects": list(self.aspects),
            "weights": list(self.weights.values()),
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the cases' order, 512 at a time."""
        for start in range(0, len(cases), BATCH):
            yield [self.judge_one(case) for case in cases[start : start + BATCH]]

    def judge_one(self, case: Case) -> Judgement:
        """The judgement of one case; the reasons for unrated are no_reference, truncated, answer_not_comparable."""
        if case.finish_reason == "length":
            return Judgement(case.response_id, reason="truncated")
        reference = reference_answer(case.reference)
        if reference is None:
            return Judgement(case.response_id, reason="no_reference")
        answer = final_answer(case.text)
        same = same_answer(answer.text, reference) if answer else False
        if same is None:
            return Judgement(case.response_id, reason="answer_not_comparable")
        checks = check_steps(case.text)
        ratings = (
            _rate_answer(answer, same),
            _rate_arithmetic(checks, self.reveal_values),
            _rate_completeness(case.text, answer),
            _rate_conciseness(case.text, answer),
        )
        return Judgement(case.response_id, ratings)

    def close(self) -> None:
        """Nothing is held."""


def reference_answer(reference: str | None) -> str | None:
    """The final answer of a reference, be it a worked solution with a marker or the bare answer; None without one."""
    found = final_answer(reference) if reference else None
    text = found.text if found else (reference or "").strip()
    return text if text and len(text) <= MAX_ANSWER else None


def _rate_answer(answer: FinalAnswer | None, same: bool) -> Rating:
    if answer is None:
        return Rating("answer", -1, "No final answer.")
    if same:
        return Rating("answer", 1, CORRECT)
    shown = answer.text.rstrip(".")
    critique = f"The final answer {shown} is wrong." if len(shown) <= MAX_QUOTED else "The final answer is wrong."
    return Rating("answer", -1, critique)


def _rate_arithmetic(checks: Sequence[Check], reveal: bool) -> Rating:
    if not checks:
        return Rating("arithmetic", 0, "No step to check.")
    wrong = [check for check in checks if not check.holds]
    if not wrong:
        return Rating("arithmetic", 1, CORRECT)
    return Rating("arithmetic", -1, " ".join(check.critique(reveal) for check in wrong[:MAX_NAMED]))


def _rate_completeness(text: str, answer: FinalAnswer | None) -> Rating:
    before = text[: answer.start] if answer else text
    reasoned = "=" in before or len(before.split()) >= 5
    if reasoned and answer:
        return Rating("completeness", 1, CORRECT)
    if reasoned:
        return Rating("completeness", 0, "No final answer.")
    return (
        Rating("completeness", 0, "No steps.") if answer else Rating("completeness", -1, "No steps, no final answer.")
    )


def _rate_conciseness(text: str, answer: FinalAnswer | None) -> Rating:
    tail = text[answer.end :] if answer else ""
    repeats = _repeats(text)
    if repeats > 1 or _loops(text):
        return Rating("conciseness", -1, "Steps repeat.")
    if len(tail.split()) > _LONG_TAIL:
        return Rating("conciseness", -1, "Much text after the final answer.")
    if repeats:
        return Rating("conciseness", 0, "One step repeats.")
    # A full stop or a closing dollar sign is no text.
    if any(mark.isalnum() for mark in tail):
        return Rating("conciseness", 0, "Text after the final answer.")
    return Rating("conciseness", 1, CORRECT)


def _repeats(text: str) -> int:
    """How many lines or sentences of two words or more say again what an earlier one said, step numbers aside."""
    said = [_LABEL.sub("", part.strip()).lower() for part in _SENTENCES.split(text)]
    said = [part for part in said if " " in part]
    return len(said) - len(set(said))


def _loops(text: str) -> bool:
    """Whether the text goes round in circles inside a sentence: endless digits, or the same three words again."""
    words = text.split()
    if any(len(word) > _LONGEST_WORD for word in words):
        return True
    if len(words) < _LOOP_WORDS:
        return False
    triples = len(words) - 2
    return len(set(zip(words, words[1:], words[2:], strict=False))) * 2 < triples
