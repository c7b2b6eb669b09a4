"""Planning responses: which rows there should be, each with its id and seed, before anything is generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlrf.fingerprints import content_id, response_seed
from rlrf.records import Message, Prompt, Rating
from rlrf.reflection import refine_messages, render_feedback


@dataclass(frozen=True, slots=True)
class Planned:
    """One response that a stage wants: its identity, and the chat that asks for it."""

    response_id: str
    prompt_id: str
    parent_id: str | None
    position: int
    seed: int
    messages: tuple[Message, ...]


def plan_responses(gen_key: str, prompts: Iterable[Prompt], n: int) -> list[Planned]:
    """n responses per prompt. Raising n keeps the first n: an id depends on the position, not on n."""
    return [
        Planned(
            response_id=content_id("response", [gen_key, prompt.prompt_id, position]),
            prompt_id=prompt.prompt_id,
            parent_id=None,
            position=position,
            seed=response_seed(gen_key, prompt.prompt_id, None, position),
            messages=prompt.messages,
        )
        for prompt in prompts
        for position in range(n)
    ]


def plan_refinements(
    gen_key: str,
    prompt_id: str,
    parent_id: str,
    messages: Sequence[Message],
    draft: str,
    ratings: Sequence[Rating],
    m: int,
) -> list[Planned]:
    """m refinements of one promising response. The feedback is part of their ids: other feedback, other refinements."""
    chat, feedback = refine_messages(messages, draft, ratings), content_id("feedback", render_feedback(ratings))
    return [
        Planned(
            response_id=content_id("refinement", [gen_key, prompt_id, parent_id, feedback, position]),
            prompt_id=prompt_id,
            parent_id=parent_id,
            position=position,
            seed=response_seed(gen_key, prompt_id, parent_id, position),
            messages=chat,
        )
        for position in range(m)
    ]
