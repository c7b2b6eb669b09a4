"""A judge of multiple-choice answers that needs no model: the letter that the response settles on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlrf.judges.batching import in_batches
from rlrf.judges.letters import UNCLEAR, reference_letter, settled_letter
from rlrf.records import LEVELS, Case, Judgement, Rating

VERSION = 1
"""Rises with every change to this module or to `rlrf.judges.letters` that can change a verdict or a critique."""


class ChoiceJudge:
    """Rates one aspect, `answer`: 1 if the response settles on the reference's letter, else -1.

    No critique names the reference. Unrated reasons: truncated, no_reference (none, or not among `letters`),
    ambiguous_answer (several letters where the answer should be, or one that may be part of something else).
    """

    aspects: tuple[str, ...] = ("answer",)

    def __init__(self, letters: str = "ABCDE") -> None:
        self.letters = letters
        self.weights = dict.fromkeys(self.aspects, 1.0)
        self.scales = dict.fromkeys(self.aspects, LEVELS)

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {
            "type": "multiple_choice",
            "version": VERSION,
            "letters": "".join(sorted(set(self.letters))),
            "aspects": list(self.aspects),
            "weights": list(self.weights.values()),
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the cases' order, 512 at a time."""
        return in_batches(cases, self.judge_one)

    def judge_one(self, case: Case) -> Judgement:
        """The judgement of one complete response."""
        wanted = reference_letter(case.reference, self.letters)
        if wanted is None:
            return Judgement(case.response_id, reason="no_reference")
        given = settled_letter(case.text, self.letters)
        if given == UNCLEAR:
            return Judgement(case.response_id, reason="ambiguous_answer")
        if given is None:
            return _rated(case, -1, "No final answer.")
        if given != wanted:
            return _rated(case, -1, f"The final answer {given} is wrong.")
        return _rated(case, 1, "Correct.")

    def close(self) -> None:
        """Nothing is held."""


def _rated(case: Case, rating: int, critique: str) -> Judgement:
    return Judgement(case.response_id, (Rating("answer", rating, critique),))
