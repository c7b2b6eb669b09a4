"""Differences between ingredients: complete, minimal, and said without harm."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.explaining import Change, Mark, differences, is_text, roots, said, text_difference, value
from rlrf.terminal import visible

NAMES = st.sampled_from(["a", "b", "name", "order", "0"])
LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 0.5, "", "x", "a"])
NAMED = st.lists(st.fixed_dictionaries({"name": NAMES, "text": LEAVES}), max_size=4, unique_by=lambda one: one["name"])
VALUES = st.recursive(
    LEAVES | NAMED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def spelled(given: Any) -> str:
    """A value with its types: 1, 1.0 and True differ."""
    if isinstance(given, dict):
        return "{" + ",".join(f"{name!r}:{spelled(given[name])}" for name in sorted(given)) + "}"
    return "[" + ",".join(map(spelled, given)) + "]" if isinstance(given, list) else repr(given)


def applied(old: Any, changes: list[Change]) -> Any:
    """The old value with every change made."""
    box = [copy.deepcopy(old)]
    for change in sorted(changes, key=lambda one: one.path[-1:] == (Mark.ORDER,)):  # orders last: of what is there then
        inside, last = [0, *change.path][:-1], [0, *change.path][-1]
        place: Any = box
        for step in inside:
            place = place[_place(place, step)]
        if last is Mark.ORDER:
            place.sort(key=lambda entry, names=change.now: names.index(entry["name"]))
        elif change.now is Mark.ABSENT:
            del place[_place(place, last)]
        elif change.was is Mark.ABSENT and isinstance(place, list):
            place.append(copy.deepcopy(change.now))
        else:
            place[_place(place, last)] = copy.deepcopy(change.now)
    return box[0]


def _place(container: Any, step: Any) -> Any:
    if isinstance(container, list) and isinstance(step, str):
        return next(at for at, entry in enumerate(container) if entry["name"] == step)
    return step


@given(VALUES, VALUES)
def test_differences_are_complete(old: Any, new: Any) -> None:
    assert spelled(applied(old, differences(old, new))) == spelled(new)


@given(VALUES, VALUES)
def test_differences_are_minimal(old: Any, new: Any) -> None:
    changes = differences(old, new)
    paths = [one.path for one in changes]
    assert len(set(paths)) == len(paths)
    for one in changes:
        assert spelled_or_mark(one.was) != spelled_or_mark(one.now)
        assert not [path for path in paths if path != one.path and path == one.path[: len(path)]]


def spelled_or_mark(given: Any) -> str:
    return repr(given) if isinstance(given, Mark) else spelled(given)


@given(VALUES)
def test_nothing_differs_from_itself(one: Any) -> None:
    assert differences(one, copy.deepcopy(one)) == []
    assert differences({"a": one}, {}) == [Change("", ("a",), one, Mark.ABSENT)]


def aspects(**definitions: str) -> dict[str, Any]:
    return {"rubric": {"aspects": [{"name": name, "definition": text} for name, text in definitions.items()]}}


def test_aspects_are_told_by_their_names() -> None:
    old, new = aspects(depth="How deep", tone="Polite"), aspects(depth="How deep it goes", tone="Polite", facts="True")
    first, second = differences(old, new, "judge")
    assert (first.name, first.was, first.now) == ("rubric.aspects.depth.definition", "How deep", "How deep it goes")
    assert (second.name, second.was) == ("rubric.aspects.facts", Mark.ABSENT)
    (moved,) = differences(aspects(a="1", b="2"), aspects(b="2", a="1"))
    assert (moved.name, moved.was, moved.now) == ("rubric.aspects.order", ["a", "b"], ["b", "a"])


def test_nothing_and_none_are_two_things() -> None:
    (change,) = differences({"teacher": None}, {})
    assert said(change) == "teacher: none -> not there"


def test_a_line_names_the_code_version_and_shortens_values() -> None:
    assert said(Change("response", ("code",), 1, 2)) == "code version: 1 -> 2"
    assert said(Change("x", ("stop",), "a" * 100, None), 11) == "stop: 'aaa...aaa' -> none"
    assert said(Change("x", ("stop",), "a" * 100, None), None) == f"stop: {'a' * 100!r} -> none"
    assert value(["\x1b[31m"]) == "['\\x1b[31m']"


def test_long_texts_are_shown_line_by_line_and_steer_nothing() -> None:
    was, now = "Rewrite.\nKeep it short.\n\x1b[31m", "Rewrite.\nKeep it long.\n\x1b[31m\u202e"
    assert is_text(Change("refinement", ("template",), was, now))
    lines = text_difference(was, now)
    assert {"-Keep it short.", "+Keep it long.", "-\\x1b[31m", "+\\x1b[31m\\u202e"} <= set(lines)
    assert all(line == visible(line) for line in lines)
    assert not is_text(Change("ingest", ("system",), None, "Be brief."))


def test_roots_are_the_changes_that_nothing_explains_each_once() -> None:
    root = Change("sample_prompts", ("per_iteration",), 10, 20)
    behind = (root,)
    tree = (
        Change("explore", ("prompts",), "a", "b", because=behind),
        Change("explore", ("n",), 3, 5),
        Change("refine", ("feedback",), "c", "d", because=behind),
    )
    assert roots(tree) == [root, tree[1]]


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0, False), ([1], [True])])
def test_numbers_of_other_types_are_other_values(old: Any, new: Any) -> None:
    assert len(differences(old, new)) == 1
