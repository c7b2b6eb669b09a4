"""Judging case by case, for judges that need no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rlrf.records import Case, Judgement

BATCH = 512


def in_batches(cases: Sequence[Case], judge_one: Callable[[Case], Judgement]) -> Iterator[list[Judgement]]:
    """Yield judgements in the cases' order, 512 at a time; a response that was cut off is unrated ('truncated')."""
    for start in range(0, len(cases), BATCH):
        yield [
            Judgement(case.response_id, reason="truncated") if case.finish_reason == "length" else judge_one(case)
            for case in cases[start : start + BATCH]
        ]
