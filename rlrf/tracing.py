"""Why a key is new: its nearest earlier one, and each difference followed to the ingredient at its root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from rlrf.explaining import Change, differences
from rlrf.handles import Handle
from rlrf.past import UPSTREAM, Past
from rlrf.stages import Key

CORPUS_PARTS = {
    ("sample_prompts", "prompts"): "prompts",
    ("sample_prompts", "external"): "external",
    ("explore", "external"): "external",
    ("audit_pairs", "held_out"): "held_out",
    ("evaluate", "held_out"): "held_out",
}
"""Ingredients that are the digest of a part of what was ingested: whose."""

POLICIES = {("response", "weights"), ("refinement", "weights"), ("evaluate", "weights"), ("train_policy", "base")}
"""Ingredients that are policies' ids."""

Compared = Callable[[Handle, Handle], str]
"""Says how the rows of two sets compare."""


class Tracer:
    """Explains keys of a plan by what was done before. `now`: the keys by which the plan knows a digest's rows."""

    def __init__(self, past: Past, now: Mapping[str, str], compared: Compared) -> None:
        self.past, self.now, self.compared = past, now, compared
        self._explained: dict[tuple[str, str], tuple[Change, ...]] = {}

    def nearest(self, stage: str, key: Key, iteration: int) -> Key | None:
        """The stage's finished key before this one that is most like it.

        Of those over the same kind of rows and of the same iteration, where there are any, the one with the fewest
        differing ingredients; of several the one that was finished last.
        """
        own = self.past.receipts.get(key.key)
        known = [
            one
            for one in self.past.finished(stage, key.kind)
            if one.key != key.key and (own is None or self.past.receipts[one.key].order < own.order)
        ]
        known = _those(known, lambda one: self._over(one) == self._over(key))
        known = _those(known, lambda one: (self.past.iteration(one) or 0) == iteration)
        return min(reversed(known), key=lambda one: self.distance(one, key), default=None)

    def distance(self, old: Key, new: Key) -> int:
        """How many ingredients differ, those of keys among them counted one by one."""
        count = 0
        for change in differences(old.ingredients, new.ingredients):
            before, after = self.past.key(change.was), self.past.key(change.now)
            nested = before is not None and after is not None and before.kind == after.kind
            count += self.distance(before, after) if nested and before and after else 1
        return count

    def explain(self, old: Key, new: Key) -> tuple[Change, ...]:
        """Every ingredient that differs, each with what lies behind it as far as that is known."""
        pair = (old.key, new.key)
        if pair not in self._explained:
            found = differences(old.ingredients, new.ingredients, new.kind)
            self._explained[pair] = tuple(map(self._followed, found))
        return self._explained[pair]

    def _followed(self, change: Change) -> Change:
        ingredient = (change.of, str(change.path[0]))
        if ingredient in UPSTREAM:
            return self._rows(change, UPSTREAM[ingredient])
        if ingredient in CORPUS_PARTS:
            return self._corpus(change, CORPUS_PARTS[ingredient])
        if ingredient in POLICIES:
            return self._policy(change)
        before, after = self.past.key(change.was), self.past.key(change.now)
        if before is None or after is None or before.kind != after.kind or after.kind in _NAMED:
            known = [_described(key) if key else "?" for key in (before, after)]
            return replace(change, note=" -> ".join(known) if before or after else "")
        if after.kind == "text":
            return replace(change, was=before.ingredients["text"], now=after.ingredients["text"])
        return replace(change, because=self.explain(before, after), note=f"another {after.kind}")

    def _rows(self, change: Change, stages: tuple[str, ...]) -> Change:
        """Rows of an earlier stage: which of its ingredients made them others."""
        before = [one.handle for one in self.past.with_digest(change.was, stages)]
        after = [one.handle for one in self.past.with_digest(change.now, stages)]
        return self._stages(change, before, after)

    def _corpus(self, change: Change, part: str) -> Change:
        before = [handle.model_copy(update={"stage": "ingest"}) for handle in self._part(part, change.was)]
        after = [handle.model_copy(update={"stage": "ingest"}) for handle in self._part(part, change.now)]
        keys = {
            handle.key: key for digest in (change.was, change.now) for key, handle in self.past.ingests(part, digest)
        }
        return self._stages(change, before, after, keys)

    def _part(self, part: str, digest: object) -> list[Handle]:
        return [handle for _, handle in self.past.ingests(part, digest)]

    def _stages(
        self, change: Change, before: list[Handle], after: list[Handle], made_by: Mapping[str, str] | None = None
    ) -> Change:
        """`made_by`: the stage's key by the set's, where they differ."""
        made_by = made_by or {}
        stage_of = {one.key: self.past.key(made_by.get(one.key, one.key)) for one in (*before, *after)}
        new = next((one for one in after if self.now.get(one.digest) == one.key), after[-1] if after else None)
        new_key = stage_of[new.key] if new else None
        if new is None or new_key is None:
            return change
        known = [(one, key) for one in before if (key := stage_of[one.key]) is not None and key.kind == new_key.kind]
        if not known:
            return replace(change, note=f"other rows of {new.stage}")
        old, old_key = min(reversed(known), key=lambda one: self.distance(one[1], new_key))
        note = f"other rows of {new.stage}: {self.compared(old, new)}"
        return replace(change, note=note, because=self.explain(old_key, new_key))

    def _policy(self, change: Change) -> Change:
        before, after = self.past.policies.get(change.was), self.past.policies.get(change.now)
        note = f"other weights: {before.name if before else '?'} -> {after.name if after else '?'}"
        old = self.past.key(before.stage_key) if before else None
        new = self.past.key(after.stage_key) if after else None
        same = old is not None and new is not None and old.kind == new.kind and old.key != new.key
        return replace(change, note=note, because=self.explain(old, new) if same and old and new else ())

    def _over(self, key: Key) -> frozenset[str]:
        """Whose responses a judging is over; nothing for other stages."""
        digest = key.ingredients.get("responses") if key.kind == "judged" else None
        return frozenset(one.handle.stage for one in self.past.with_digest(digest, UPSTREAM["judged", "responses"]))


_NAMED = ("file", "weights", "endpoint", "scripted", "policy as judge")
"""Kinds of which nothing but the hash decides; the rest is for people."""


def _those(keys: list[Key], which: Callable[[Key], bool]) -> list[Key]:
    """Those keys for which it holds, all where it holds for none."""
    return [key for key in keys if which(key)] or keys


def _described(key: Key) -> str:
    """A key in a few words."""
    facts = key.ingredients if key.kind in _NAMED else {}
    return " ".join([key.kind, *(f"{name} {value!r}" for name, value in facts.items())])
