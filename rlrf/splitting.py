"""Which prompts are held out, which are learned from, and which an iteration takes.

Every choice hangs on content hashes alone: it is the same on each machine and in each order of the rows, and prompts
that are added later leave the split of all others as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from rlrf.deduplication import Deduplicated, deduplicate
from rlrf.errors import DataError
from rlrf.fingerprints import content_id
from rlrf.records import Prompt

SHOWN_OVERLAPS = 3
SHOWN_CHARACTERS = 80

_HASH_DIGITS = 8


def split_of(prompt_id: str, fraction: float, salt: str = "") -> Literal["train", "held_out"]:
    """The side of one prompt: about `fraction` (0 to 1) of all prompts are held out, each always on the same side.

    A larger fraction only moves prompts from train to held_out. Another salt gives an independent split.
    """
    position = int(content_id("split", [salt, prompt_id])[:_HASH_DIGITS], 16) / 16**_HASH_DIGITS
    return "held_out" if position < fraction else "train"


def keep_disjoint(train: Sequence[Prompt], held_out: Sequence[Prompt], threshold: float = 0.9) -> Deduplicated:
    """Deduplicate training prompts against themselves and against a held-out set that has its own files.

    Near-duplicates of held-out prompts are dropped from train and recorded, like all repeated prompts. For one set
    that was split by hash use `deduplicate` itself: there an exact repetition is no sign of mixed-up files.

    Raises:
        DataError: a training prompt is exactly a held-out one; names examples.
    """
    result = deduplicate(train, held_out, threshold)
    overlap = [drop for drop in result.dropped if drop.kind == "exact" and drop.against == "held_out"]
    if not overlap:
        return result
    examples = ", ".join(repr(_start(train[drop.row])) for drop in overlap[:SHOWN_OVERLAPS])
    sources = sorted({drop.source for drop in overlap})
    raise DataError(
        f"{len(overlap)} of {len(train)} training prompts of {sources!r} are in the held-out set"
        f" {sorted({prompt.source for prompt in held_out})!r}, such as {examples};"
        " evaluation would ask what was learned: remove them from one side"
    )


def choose_prompts(
    prompt_ids: Collection[str],
    count: int | None,
    seed: int,
    iteration: int,
    reuse: bool,
) -> list[str]:
    """The prompts of an iteration (counted from 1), in seeded order; None as count takes all that there are.

    With `reuse` every iteration takes the first `count` of the order. Without, iteration i takes the i-th slice, so
    that no two iterations over the same prompts share one; the last slices can be short or empty, which the caller
    has to report. Prompts that are added shift the slices only by their number.

    Raises:
        ValueError: an iteration or a count below 1.
    """
    if iteration < 1 or (count is not None and count < 1):
        raise ValueError(f"iteration {iteration!r} and count {count!r} must be 1 or more")
    order = sorted(set(prompt_ids), key=lambda prompt_id: content_id("order", [seed, prompt_id]))
    size = len(order) if count is None else count
    first = 0 if reuse else (iteration - 1) * size
    return order[first : first + size]


def _start(prompt: Prompt) -> str:
    text = prompt.messages[-1]["content"]
    return text[:SHOWN_CHARACTERS] + ("..." if len(text) > SHOWN_CHARACTERS else "")
