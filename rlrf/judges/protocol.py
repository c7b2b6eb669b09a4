"""What every judge is: something that turns cases into judgements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rlrf.records import Case, Choice, Judgement, Prompt


class Judge(Protocol):
    """A judge rates responses on aspects. It never raises for one bad case: it returns an unrated judgement."""

    aspects: tuple[str, ...]
    """The aspects it rates, in rubric order."""

    weights: dict[str, float]
    """The weight of each aspect in the score."""

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts (rubric text, code version, model digest, sampling), as plain JSON."""
        ...

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in micro-batches, in any order, each case exactly once."""
        ...

    def close(self) -> None:
        """Give back what it holds; may be called twice."""
        ...


class Chooser(Judge, Protocol):
    """A judge that names the aspects that a prompt needs most, once for all its responses."""

    def choice_ingredients(self) -> dict[str, Any]:
        """All that bears on what it names, as plain JSON."""
        ...

    def choose(self, prompts: Sequence[Prompt]) -> Iterator[list[Choice]]:
        """Yield choices in micro-batches, in any order, each prompt exactly once."""
        ...
