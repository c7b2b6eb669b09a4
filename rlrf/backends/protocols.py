"""The seams behind which models live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


Conversation = tuple[str, tuple[Message, ...]]
"""The caller's id, and a chat that ends with the assistant's turn."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward model gave one conversation: its raw output, which may be no finite number, and the tokens it read."""

    request_id: str
    value: float
    prompt_tokens: int


class Scorer(Protocol):
    """Something that gives every conversation one number: transformers in process, or vLLM's pooling API."""

    def score(self, conversations: Sequence[Conversation], max_length: int | None) -> Iterator[list[Reward | Failure]]:
        """Yield results in micro-batches, in any order, each conversation exactly once.

        One that has more tokens than `max_length`, or than the model has positions for, is a Failure "too_long": nothing
        is cut off. One that can't be scored is a Failure with another reason; a backend that can't go on at all raises
        BackendError.
        """
        ...

    def close(self) -> None:
        """Give back memory and connections; may be called twice."""
        ...
