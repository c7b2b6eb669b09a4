"""What was done so far, as far as keys go: which keys there are, what they were made of, which stages finished with what."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rlrf.handles import Corpus, Handle
from rlrf.stages import Key

STAGE_KINDS = {"judge": "judged", "train_control": "train_policy"}
"""The kinds of stages' keys, where they aren't called as the stage is."""

UPSTREAM = {
    ("explore", "prompts"): ("sample_prompts",),
    ("judged", "responses"): ("explore", "refine", "compare"),
    ("refine", "feedback"): ("judge",),
    ("compare", "refined"): ("refine",),
    ("select_pairs", "judged"): ("judge",),
    ("audit_pairs", "judged"): ("judge",),
    ("audit_pairs", "pairs"): ("select_pairs",),
    ("train_policy", "data"): ("select_pairs",),
}
"""Ingredients that are the digests of stages' rows: whose they may be."""


@dataclass(frozen=True)
class Receipt:
    """A finished stage. `order`: how many were finished before it."""

    handle: Handle
    kept: int
    produced: int
    tokens: int
    seconds: float
    run_id: str | None
    finished_at: datetime
    order: int


@dataclass(frozen=True)
class Start:
    """The first time that work on a stage began."""

    run_id: str | None
    started_at: datetime


@dataclass(frozen=True)
class Maker:
    """A policy: its name, and the stage that made it, None for one that came from elsewhere."""

    name: str
    stage_key: str | None


@dataclass
class Past:
    """The whole of it, in memory: a few rows per stage that ever ran. `keys`: kind and ingredients (JSON text) by key."""

    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    starts: dict[str, Start] = field(default_factory=dict)
    corpora: dict[str, Corpus] = field(default_factory=dict)
    policies: dict[str, Maker] = field(default_factory=dict)
    iterations: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._made_of: dict[str, Key] = {}
        self._of_digest: dict[str, list[Receipt]] = defaultdict(list)
        for receipt in self.receipts.values():
            self._of_digest[receipt.handle.digest].append(receipt)
        self._iterations: dict[str, int | None] = {}

    def know(self, keys: Iterable[Key]) -> None:
        """Add keys that a plan made and the store needn't have."""
        for key in keys:
            for one in key.whole():
                self._made_of.setdefault(one.key, one)

    def key(self, key: Any) -> Key | None:
        """The key with this hash, or None for any other value."""
        if not isinstance(key, str):
            return None
        if key not in self._made_of and key in self.keys:
            kind, ingredients = self.keys[key]
            self._made_of[key] = Key(kind, key, json.loads(ingredients))
        return self._made_of.get(key)

    def with_digest(self, digest: Any, stages: Iterable[str]) -> list[Receipt]:
        """The finished stages of these names whose rows have this digest, in order."""
        found = self._of_digest.get(digest, []) if isinstance(digest, str) else []
        return [receipt for receipt in found if receipt.handle.stage in set(stages)]

    def ingests(self, part: str, digest: Any) -> list[tuple[str, Handle]]:
        """The ingestions one of whose parts (prompts, held_out, external) has this digest: key and part."""
        parts = ((key, getattr(corpus, part)) for key, corpus in self.corpora.items())
        return [(key, handle) for key, handle in parts if handle.digest == digest]

    def finished(self, stage: str, kind: str) -> list[Key]:
        """The keys of one stage that have a receipt, in order."""
        receipts = [one for one in self.receipts.values() if one.handle.stage == stage]
        keys = (self.key(one.handle.key) for one in sorted(receipts, key=lambda one: one.order))
        return [key for key in keys if key is not None and key.kind == kind]

    def iteration(self, key: Key) -> int | None:
        """The iteration that a stage's key belongs to: as recorded, else as its ancestors were drawn; None for none."""
        if key.key not in self._iterations:
            self._iterations[key.key] = None  # an id can't be its own ancestor; this only ends a damaged chain
            self._iterations[key.key] = self.iterations.get(key.key, self._drawn(key))
        return self._iterations[key.key]

    def _drawn(self, key: Key) -> int | None:
        if key.kind == "sample_prompts":
            return int(key.ingredients["draw"])
        above = [self.iteration(one) for one in self._above(key)]
        return max((number for number in above if number is not None), default=None)

    def _above(self, key: Key) -> Iterable[Key]:
        """The stages whose rows or policy went into a key."""
        for name, given in key.ingredients.items():
            for one in given if isinstance(given, list) else [given]:
                found = [receipt.handle.key for receipt in self.with_digest(one, UPSTREAM.get((key.kind, name), ()))]
                if isinstance(one, str) and name in {"weights", "base"} and one in self.policies:
                    found = [self.policies[one].stage_key or ""]
                for above in found[:1]:
                    if (known := self.key(above)) is not None:
                        yield known
