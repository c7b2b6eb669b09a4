"""Runs of words that prompts to learn from share with held-out ones: the sign that an evaluation leaked into training."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rlrf.deduplication import TOKEN
from rlrf.records import Prompt

Gram = tuple[str, ...]


class Overlap(NamedTuple):
    """A prompt, a held-out prompt that shares words in a row with it, the first of these runs, and their share of all."""

    prompt_id: str
    held_out_id: str
    words: str
    share: float


def overlaps(prompts: Iterable[Prompt], held_out: Sequence[Prompt], ngram: int) -> list[Overlap]:
    """The prompts that share `ngram` words in a row with a held-out one, the largest share of their runs first.

    Words are compared without case, Unicode form and punctuation. System turns don't count: a run's prompts have theirs
    in common. A prompt of fewer words has no run and can't overlap.
    """
    known: dict[Gram, str] = {}
    for prompt in sorted(held_out, key=lambda one: one.prompt_id):
        for gram in _grams(prompt, ngram):
            known.setdefault(gram, prompt.prompt_id)
    found = []
    if known:
        for prompt in prompts:
            grams = list(_grams(prompt, ngram))
            shared = [gram for gram in grams if gram in known]
            if shared:
                found.append(Overlap(prompt.prompt_id, known[shared[0]], " ".join(shared[0]), len(shared) / len(grams)))
    return sorted(found, key=lambda one: (-one.share, one.prompt_id))


def _grams(prompt: Prompt, ngram: int) -> Iterator[Gram]:
    """Every run of words within one turn."""
    for turn in prompt.messages:
        if turn["role"] != "system":
            words = TOKEN.findall(unicodedata.normalize("NFKC", turn["content"]).casefold())
            yield from zip(*(words[at:] for at in range(ngram)), strict=False)
