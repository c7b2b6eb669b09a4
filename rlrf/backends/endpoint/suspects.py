"""Failures that may be the endpoint's fault and not the requests': kept back until it answers anything."""

from __future__ import annotations

from rlrf.errors import BackendError
from rlrf.records import Failure

SUSPECTS = 32
"""Requests that may fail one after another, with no answer to any other, before it is the endpoint's fault."""


class Suspects:
    """The failures since the last answer."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._failures: list[list[Failure]] = []

    def add(self, failures: list[Failure], answers: int) -> None:
        """Those of one HTTP request. Raises BackendError when they are too many in a row, after so many answers."""
        self._failures.append(failures)
        if len(self._failures) > SUSPECTS:
            raise BackendError(
                f"{self._place} failed {len(self._failures)} requests in a row after {answers} answers "
                f"({failures[0].reason}: {failures[0].detail}); see its log; rerun to go on from there"
            )

    def cleared(self) -> list[Failure]:
        """All of them, once the endpoint has shown that it lives: they were at fault themselves."""
        failures = [failure for some in self._failures for failure in some]
        self._failures.clear()
        return failures
