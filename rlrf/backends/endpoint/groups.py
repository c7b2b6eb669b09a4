"""Which requests can be one: the same chat and schema, consecutive seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rlrf.records import Request


def goes_on(one: Request, other: Request) -> bool:
    """Whether the other asks for what would be the next choice of a request for the one."""
    return (
        other.seed == one.seed + 1
        and (other.messages is one.messages or other.messages == one.messages)
        and other.json_schema == one.json_schema
    )


def any_group(requests: Sequence[Request]) -> bool:
    """Whether any two neighbours can be asked for together."""
    return any(goes_on(one, other) for one, other in pairwise(requests))


class Todo:
    """Requests in their order, taken from the front."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests, self._next = requests, 0

    def take(self, most: int) -> Sequence[Request]:
        """The next ones that can be asked for together, at most `most`; empty at the end."""
        start = end = self._next
        while end < len(self._requests) and end - start < most:
            if end > start and not goes_on(self._requests[end - 1], self._requests[end]):
                break
            end += 1
        self._next = end
        return self._requests[start:end]
