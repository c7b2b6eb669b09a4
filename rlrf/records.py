"""The nouns of rlrf as frozen records; no behaviour, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
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
    arrived: datetime | None = None  # when, where the source says it


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
    prompt_id: str = ""
    aspects: tuple[str, ...] = ()  # those to rate where they are settled already: the prompt's, or the parent's
    known: tuple[Known, ...] = ()  # ratings that a judge which differs in other aspects only gave it


@dataclass(frozen=True, slots=True)
class Choice:
    """The aspects that a judge named as the ones a prompt needs most; `reason` is set exactly when it named none."""

    prompt_id: str
    aspects: tuple[str, ...]
    reason: str | None = None
    raw_reply: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


Scale = tuple[float, float]
"""Lowest and highest rating."""

LEVELS: Scale = (-1, 1)
UNBOUNDED: Scale = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class Rating:
    """One aspect of one response on the judge's scale, or None where it gave none; the critique is the judge's words.

    The usual scale is -1, 0, 1; others are 1 to 5, or all numbers (a reward).
    """

    aspect: str
    rating: float | None
    critique: str = ""
    scale: Scale = LEVELS

    def __post_init__(self) -> None:
        if self.rating is not None and not self.scale[0] <= self.rating <= self.scale[1]:
            raise ValueError(f"rating of {self.aspect!r}: {self.rating!r} is not within {self.scale!r}")

    @property
    def level(self) -> float | None:
        """The rating's place on its scale, from -1 (failure) to 1 (success); the rating itself on a scale without ends."""
        low, high = self.scale
        if self.rating is None or math.isinf(high):
            return self.rating
        return 2 * (self.rating - low) / (high - low) - 1

    @property
    def top(self) -> bool:
        """Whether it is the highest rating of its scale; a scale without ends has none."""
        return self.rating is not None and self.rating == self.scale[1]


@dataclass(frozen=True, slots=True)
class Known:
    """A rating that needs no question any more, and the key of the judge under which it is kept."""

    rating: Rating
    judge_key: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that one judge said of one response. `reason` is set exactly when it is unrated.

    `attempts` counts how often a model was asked, 0 for a judge that asks none.
    """

    response_id: str
    ratings: tuple[Rating, ...] = ()
    reason: str | None = None
    raw_reply: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 0

    @property
    def rated(self) -> bool:
        """Whether every aspect has a rating; only a rated response can enter a pair."""
        return self.reason is None
