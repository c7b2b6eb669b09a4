"""Planning responses: which rows there should be, each with its id and seed, before anything is generated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rlrf.fingerprints import content_id, numbered_ids, response_seed, response_seeds
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


def plan_responses(gen_key: str, prompts: Iterable[Prompt], n: int, first: int = 0) -> list[Planned]:
    """n responses per prompt, at positions from `first` on.

    Raising n keeps the first n: an id depends on the position, not on n.
    """
    positions = range(first, first + n)
    return [
        Planned(response_id, prompt.prompt_id, None, position, seed, prompt.messages)
        for prompt in prompts
        for position, response_id, seed in zip(
            positions,
            numbered_ids("response", [gen_key, prompt.prompt_id], positions),
            response_seeds(gen_key, prompt.prompt_id, None, positions),
            strict=True,
        )
    ]


def plan_refinements(
    gen_key: str,
    prompt_id: str,
    parent_id: str,
    messages: Sequence[Message],
    draft: str,
    feedbacks: Sequence[Sequence[Rating]],
    m: int,
) -> list[Planned]:
    """m refinements of one promising response, shared out over its feedbacks in turn.

    The feedback is part of their ids: other feedback, other refinements. Raises ValueError without any feedback.
    """
    if not feedbacks:
        raise ValueError(f"response {parent_id!r} has no feedback to be refined from")
    chats = [refine_messages(messages, draft, ratings) for ratings in feedbacks]
    said = [content_id("feedback", render_feedback(ratings)) for ratings in feedbacks]
    return [
        Planned(
            response_id=content_id("refinement", [gen_key, prompt_id, parent_id, said[position % len(said)], position]),
            prompt_id=prompt_id,
            parent_id=parent_id,
            position=position,
            seed=response_seed(gen_key, prompt_id, parent_id, position),
            messages=chats[position % len(chats)],
        )
        for position in range(m)
    ]
