"""What differs between two keys' ingredients, value by value, and how a difference is said."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rlrf.terminal import visible


class Mark(Enum):
    """What stands where no value can: for one that isn't there, and for the order of named entries."""

    ABSENT = "not there"
    ORDER = "order"

    def __str__(self) -> str:
        return str(self.value)


Path = tuple[str | int | Mark, ...]
"""Steps from an ingredient inwards: a name, a place in a list, or the name of a list's entry (an aspect of a rubric)."""


@dataclass(frozen=True)
class Change:
    """One ingredient of a key that is another than it was.

    Attributes:
        of: the kind of key it belongs to: a stage, a judge, a response...
        path: where it is among that key's ingredients.
        was, now: the values; Mark.ABSENT for none.
        note: what the two values stand for, where they name something: rows of a stage, policies.
        because: what those two differ in, where that is known; none for a root.
    """

    of: str
    path: Path
    was: Any
    now: Any
    note: str = ""
    because: tuple[Change, ...] = ()

    @property
    def name(self) -> str:
        """The dotted path."""
        return ".".join(map(str, self.path))


def differences(old: Any, new: Any, of: str = "", path: Path = ()) -> list[Change]:
    """Everything that differs between two values of plain JSON, each difference once, as deep as it can be told.

    Lists are compared place by place where they are equally long, by name where their entries have names of their own
    (rubrics' aspects), else as a whole.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return _of_names(old, new, of, path)
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        before, after = _by_name(old), _by_name(new)
        if before is not None and after is not None:
            return [*_of_names(before, after, of, path), *_of_order(before, after, of, path)]
        if len(old) == len(new):
            pairs = enumerate(zip(old, new, strict=True))
            return [one for place, pair in pairs for one in differences(*pair, of, (*path, place))]
    return [] if _same(old, new) else [Change(of, path, old, new)]


def said(change: Change, width: int | None = 60) -> str:
    """A change in one line, `name: was -> is`; values longer than `width` lose their middle. Safe for a terminal."""
    name = "code version" if change.path == ("code",) else change.name
    return visible(f"{name}: {value(change.was, width)} -> {value(change.now, width)}")


def value(given: Any, width: int | None = None) -> str:
    """A value as people read it: text and numbers as Python writes them, nothing as `none`."""
    if given is None or isinstance(given, Mark):
        return "none" if given is None else str(given)
    text = repr(given)
    if width is None or len(text) <= width:
        return text
    half = (width - 3) // 2
    return f"{text[:half]}...{text[-half:]}"


def text_difference(was: str, now: str) -> list[str]:
    """Two long texts as the lines of a unified diff, safe for a terminal; white space at a line's end is spelled out."""
    before, after = was.splitlines(), now.splitlines()
    found = list(difflib.unified_diff(before, after, "was", "is", n=1, lineterm=""))
    return [visible(line) for line in found] or ["(only line ends differ)"]


def is_text(change: Change) -> bool:
    """Whether a change is of texts that are better read line by line."""
    both = isinstance(change.was, str) and isinstance(change.now, str)
    return (both and max(len(change.was), len(change.now)) > 80) or (both and "\n" in change.was + change.now)


def roots(changes: Sequence[Change]) -> list[Change]:
    """The changes that no other explains, each once, in order."""
    found: dict[tuple[str, Path, str, str], Change] = {}
    for change in _leaves(changes, set()):
        found.setdefault((change.of, change.path, repr(change.was), repr(change.now)), change)
    return list(found.values())


def _leaves(changes: Sequence[Change], passed: set[int]) -> Iterator[Change]:
    for change in changes:
        if not change.because:
            yield change
        elif id(change.because) not in passed:  # shared explanations are walked once
            passed.add(id(change.because))
            yield from _leaves(change.because, passed)


def _of_names(old: dict[str, Any], new: dict[str, Any], of: str, path: Path) -> list[Change]:
    names = sorted(old.keys() | new.keys())
    return [
        one
        for name in names
        for one in differences(old.get(name, Mark.ABSENT), new.get(name, Mark.ABSENT), of, (*path, name))
    ]


def _of_order(old: dict[str, Any], new: dict[str, Any], of: str, path: Path) -> list[Change]:
    """A change of order that is more than entries that went, and entries that came at the end by their names."""
    expected = [*(name for name in old if name in new), *sorted(name for name in new if name not in old)]
    return [] if expected == list(new) else [Change(of, (*path, Mark.ORDER), list(old), list(new))]


def _by_name(entries: Sequence[Any]) -> dict[str, Any] | None:
    """The entries of a list by their names, where each has its own."""
    found = {
        entry["name"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
    return found if found and len(found) == len(entries) else None


def _same(old: Any, new: Any) -> bool:
    """Equal and of one type: 1, 1.0 and true are three values, as they are in a hash."""
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(one, new[name]) for name, one in old.items())
    return type(old) is type(new) and bool(old == new)
