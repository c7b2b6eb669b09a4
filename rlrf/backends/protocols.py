"""The two seams behind which models live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rlrf.records import Completion, Failure, Message, Request, Sampling


class Generator(Protocol):
    """Something that answers chats: transformers in process, a vLLM server, an endpoint elsewhere, the scripted fake."""

    name: str
    """What the store records as the backend of a response."""

    settings: dict[str, Any]
    """How responses are made, for the store: plain JSON without places, ports or keys."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion | Failure]]:
        """Yield results in micro-batches, in any order, each request exactly once.

        A batch is yielded as soon as it is done, so that the caller can make it durable. A request that can't be
        answered is a Failure; a backend that can't go on at all raises BackendError.
        """
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Length of the rendered chat in the model's tokens, generation prompt included."""
        ...

    def close(self) -> None:
        """Give back memory and connections; may be called twice."""
        ...
