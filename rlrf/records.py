"""The nouns of rlrf as frozen records; no behaviour, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, str]
"""One chat turn, `{"role": "system" | "user" | "assistant", "content": text}` (Hugging Face's chat format)."""

FinishReason = Literal["stop", "length"]
"""Why a response ended: by itself, or cut off by max_tokens."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to the policy. The reference is shown to judges, never to the policy or the reviser."""

    prompt_id: str
    source: str
    messages: tuple[Message, ...]
    reference: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a response is drawn; part of its identity."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One response to be generated: the caller's id for it, the chat so far, and its own seed."""

    request_id: str
    messages: tuple[Message, ...]
    seed: int
    json_schema: str | None = None  # canonical JSON of the schema that the text must be an instance of


@dataclass(frozen=True, slots=True)
class Completion:
    """What a generator made of one request."""

    request_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that yielded no response, with its named reason. It is stored and counted, never scored."""

    request_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Case:
    """What a judge sees: one response to one prompt, with the prompt's reference where there is one."""

    response_id: str
    messages: tuple[Message, ...]
    reference: str | None
    text: str
    finish_reason: FinishReason = "stop"
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rating:
    """One aspect of one response: -1, 0 or 1, or None where the judge gave none; the critique is the judge's words."""

    aspect: str
    rating: int | None
    critique: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that one judge said of one response. `reason` is set exactly when it is unrated."""

    response_id: str
    ratings: tuple[Rating, ...] = ()
    reason: str | None = None
    raw_reply: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def rated(self) -> bool:
        """Whether every aspect has a rating; only a rated response can enter a pair."""
        return self.reason is None
