"""Repeated prompts: exact ones after normalisation, and near-duplicates by their word shingles.

Near-duplicates are found by prefix filtering (Chaudhuri, Ganti and Kaushik 2006; Bayardo, Ma and Srikant 2007): two
sets of similarity t or more share one of the few rarest members of each. Unlike MinHash it misses nothing and draws no
random numbers, and at the high thresholds that prompts need it is as fast.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from rlrf.records import Prompt

SHINGLE_WORDS = 3

TOKEN = re.compile(r"-?\d+(?:[.,:]\d+)*|[+*/=<>^%$€£]|[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_]+(?:'[^\W\d_]+)?")
"""Numbers, operators, single ideographs and kana, words; other punctuation doesn't count."""

_DIGITS = re.compile(r"\d+")

_SPELLED_OUT = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion half"
    " third quarter once twice thrice double triple"
)
NUMBER_WORDS = frozenset(_SPELLED_OUT.split())

Turns = tuple[tuple[str, str], ...]
"""(role, text) of every turn."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A prompt that was left out, and the id of the one that stands for it.

    `row` counts the given prompts from 0, because equal messages have equal ids. `similarity` is the Jaccard index of
    the shingles, 1.0 for exact duplicates. `reference_differs`: the two don't have the same reference.
    """

    row: int
    prompt_id: str
    source: str
    duplicate_of: str
    similarity: float
    kind: Literal["exact", "near"]
    against: Literal["prompts", "held_out"]
    reference_differs: bool


@dataclass(frozen=True, slots=True)
class Deduplicated:
    """The prompts that stay, in their order, and a record of every other one."""

    kept: tuple[Prompt, ...]
    dropped: tuple[Dropped, ...]


def deduplicate(prompts: Sequence[Prompt], held_out: Sequence[Prompt] = (), threshold: float = 0.9) -> Deduplicated:
    """Leave out every prompt that repeats a held-out one or an earlier one that stays.

    Held-out prompts win over all others and are never dropped; among the rest the first in order wins, and of several
    near-duplicates the most similar is named. Two prompts are exact duplicates if their turns are equal but for
    Unicode form (NFKC), case and whitespace. They are near-duplicates if the Jaccard index of their three-word
    shingles is `threshold` or more, their system turns are equal, and so are their numbers and operators in order:
    a word problem with other numbers is another problem. In scripts without spaces other than Chinese and Japanese
    only exact duplicates are found.

    Raises:
        ValueError: a threshold that is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold!r} is not above 0 and at most 1; 0.9 suits prompts")
    together = [*held_out, *prompts]
    turns = [_normal_turns(prompt) for prompt in together]
    index = _NearIndex(turns, threshold)
    first: dict[Turns, int] = {}
    kept, dropped = [], []
    for position, prompt in enumerate(together):
        exact = first.get(turns[position])
        match = _Match(exact, 1.0, "exact") if exact is not None else index.best_match(position)
        if position < len(held_out) or match is None:
            first.setdefault(turns[position], position)
            index.add(position)
        if position < len(held_out):
            continue
        if match is None:
            kept.append(prompt)
        else:
            dropped.append(_drop(together, len(held_out), position, match))
    return Deduplicated(tuple(kept), tuple(dropped))


class Near(NamedTuple):
    """A prompt, the other one that is most similar to it, and the Jaccard index of their shingles."""

    prompt_id: str
    other_id: str
    similarity: float


def near_duplicates(prompts: Sequence[Prompt], threshold: float = 0.9) -> list[Near]:
    """Every prompt that has a near-duplicate among the others, as `deduplicate` understands it; the most similar first.

    Prompts that are equal but for Unicode form, case and whitespace are near-duplicates too, of similarity 1.
    """
    turns = [_normal_turns(prompt) for prompt in prompts]
    kinds = [_kind(chat) for chat in turns]
    count = Counter(kinds)
    alike = [place for place, kind in enumerate(kinds) if count[kind] > 1]
    chats = [turns[place] for place in alike]
    index, same = _NearIndex(chats, threshold), defaultdict[Turns, list[int]](list)
    for position, chat in enumerate(chats):
        index.add(position)
        same[chat].append(position)
    found = []
    for position, chat in enumerate(chats):
        exact = next((other for other in same[chat][:2] if other != position), None)
        match = _Match(exact, 1.0, "exact") if exact is not None else index.best_match(position)
        if match is not None:
            here, there = prompts[alike[position]], prompts[alike[match.position]]
            found.append(Near(here.prompt_id, there.prompt_id, match.similarity))
    return sorted(found, key=lambda near: (-near.similarity, near.prompt_id))


def _kind(turns: Turns) -> tuple[str | None, tuple[str, ...]]:
    """What near-duplicates agree in, and cheap to have: the system turn and all runs of digits."""
    return _system(turns), tuple(_DIGITS.findall(" ".join(text for role, text in turns if role != "system")))


class _Match(NamedTuple):
    position: int
    similarity: float
    kind: Literal["exact", "near"]


def _drop(together: Sequence[Prompt], held_out: int, position: int, match: _Match) -> Dropped:
    prompt, winner = together[position], together[match.position]
    return Dropped(
        row=position - held_out,
        prompt_id=prompt.prompt_id,
        source=prompt.source,
        duplicate_of=winner.prompt_id,
        similarity=match.similarity,
        kind=match.kind,
        against="held_out" if match.position < held_out else "prompts",
        reference_differs=prompt.reference != winner.reference,
    )


class _NearIndex:
    """Finds the most similar of the other prompts that were added, among those with the same system turn and numbers."""

    def __init__(self, turns: Sequence[Turns], threshold: float) -> None:
        ids: dict[str, int] = {}
        tokens = [TOKEN.findall(" \n ".join(text for role, text in chat if role != "system")) for chat in turns]
        self._threshold = threshold
        self._groups = [(_system(chat), _numbers(words)) for chat, words in zip(turns, tokens, strict=True)]
        self._shingles = [_shingle([ids.setdefault(word, len(ids) + 1) for word in words]) for words in tokens]
        counts = Counter(chain.from_iterable(self._shingles))
        self._keys = [_rarest(shingles, counts, threshold) for shingles in self._shingles]
        self._places: defaultdict[tuple[object, int], list[int]] = defaultdict(list)

    def add(self, position: int) -> None:
        for shingle in self._keys[position]:
            self._places[self._groups[position], shingle].append(position)

    def best_match(self, position: int) -> _Match | None:
        """The most similar of the added prompts, the first of equals; None if none reaches the threshold."""
        group = self._groups[position]
        near = {other for shingle in self._keys[position] for other in self._places.get((group, shingle), ())}
        near.discard(position)
        matches = (_Match(other, self._similarity(position, other), "near") for other in sorted(near))
        best = max(matches, key=lambda match: match.similarity, default=None)
        return best if best is not None and best.similarity >= self._threshold else None

    def _similarity(self, position: int, other: int) -> float:
        one, two = self._shingles[position], self._shingles[other]
        shared = len(one & two)
        return shared / (len(one) + len(two) - shared)


def _rarest(shingles: frozenset[int], counts: Mapping[int, int], threshold: float) -> list[int]:
    """So many of the rarest shingles that any set similar enough has one of its own rarest among them."""
    size = len(shingles) - math.ceil(threshold * len(shingles) - 1e-9) + 1
    return sorted(sorted(shingles), key=counts.__getitem__)[:size]


def _normal_turns(prompt: Prompt) -> Turns:
    return tuple((turn["role"], _normal(turn["content"])) for turn in prompt.messages)


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _system(turns: Turns) -> str | None:
    return turns[0][1] if turns[0][0] == "system" else None


def _numbers(words: Sequence[str]) -> tuple[str, ...]:
    """Numbers, number words and operators, in order."""
    return tuple(word for word in words if not word[-1].isalpha() or word in NUMBER_WORDS)


def _shingle(ids: Sequence[int]) -> frozenset[int]:
    """Every run of three word ids as one number; fewer words are filled up with the id 0, no words give no shingle."""
    padded = [*ids, *[0] * (SHINGLE_WORDS - len(ids))] if ids else []
    return frozenset(a << 64 | b << 32 | c for a, b, c in zip(padded, padded[1:], padded[2:], strict=False))
