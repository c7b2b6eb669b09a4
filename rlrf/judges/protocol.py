"""What every judge is: something that turns cases into judgements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rlrf.records import Case, Judgement


class Judge(Protocol):
    """A judge rates responses on aspects. It never raises for one bad case: it returns an unrated judgement."""

    aspects: tuple[str, ...]
    """The aspects it rates, in rubric order."""

    weights: tuple[float, ...]
    """One weight per aspect, for the score."""

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts (rubric text, code version, model digest, sampling), as plain JSON."""
        ...

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in micro-batches, in any order, each case exactly once."""
        ...

    def close(self) -> None:
        """Give back what it holds; may be called twice."""
        ...
