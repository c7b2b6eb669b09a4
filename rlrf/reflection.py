"""Reflection: a response's feedback becomes a request to rewrite it (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files

from rlrf.records import Message, Rating
from rlrf.redaction import without_answers

REFINE_TEMPLATE = files("rlrf").joinpath("templates/refine.txt").read_text(encoding="utf-8")


def render_feedback(ratings: Sequence[Rating]) -> str:
    """One line per rated aspect, in the rubric's order: its name, its level in words, and the critique."""
    return "\n".join(f"{r.aspect}: {_level(r.level)}. {r.critique}".rstrip() for r in ratings if r.level is not None)


def refine_messages(messages: Sequence[Message], draft: str, ratings: Sequence[Rating]) -> tuple[Message, ...]:
    """The chat that asks the reviser to rewrite `draft`: the original chat, the draft, then the feedback.

    The reference is not an argument: the reviser knows of it only what the critiques say.
    """
    turn = REFINE_TEMPLATE.strip("\n").replace("{feedback}", render_feedback(ratings))
    return (*messages, {"role": "assistant", "content": draft}, {"role": "user", "content": turn})


def hide_answers(ratings: Sequence[Rating], reference: str | None) -> tuple[Rating, ...]:
    """The same ratings, their critiques without the reference's answer and without what they copy from it."""
    return tuple(replace(rating, critique=without_answers(rating.critique, reference)) for rating in ratings)


def _level(level: float) -> str:
    """Between the ends of a scale all is moderate."""
    return "success" if level >= 1 else "failure" if level <= -1 else "moderate"
