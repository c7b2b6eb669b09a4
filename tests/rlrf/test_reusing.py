"""Which judges share aspects."""

from __future__ import annotations

from typing import Any

import pytest

from rlrf.reusing import shared_aspects


def aspect(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "definition": "d", "success": "s", "moderate": "m", "failure": "f", "weight": 1.0} | more


def judge(*aspects: dict[str, Any], scale: tuple[int, int] = (-1, 1), **more: Any) -> dict[str, Any]:
    rubric = {"name": "r", "scale": list(scale), "aspects": list(aspects)}
    return {"type": "rubric", "version": 2, "model": "m", "rubric": rubric} | more


MINE = judge(aspect("b"), aspect("a"), aspect("c"))


def test_aspects_in_the_same_words_are_shared_in_the_judges_own_order() -> None:
    assert shared_aspects(MINE, judge(aspect("a"), aspect("b"))) == ("b", "a")
    assert shared_aspects(MINE, judge(aspect("a", weight=5.0), aspect("d"))) == ("a",)


@pytest.mark.parametrize("part", ["definition", "success", "moderate", "failure"])
def test_a_reworded_aspect_is_another_one(part: str) -> None:
    assert shared_aspects(MINE, judge(aspect("a", **{part: "else"}), aspect("b"))) == ("b",)


def test_who_is_asked_for_which_aspects_makes_no_other_judge() -> None:
    by_task = judge(aspect("a"), task="kind", tasks={"math": ["a"]})
    assert shared_aspects(by_task, judge(aspect("a"))) == shared_aspects(MINE, by_task) == ("a",)


@pytest.mark.parametrize(
    "theirs",
    [
        judge(aspect("a"), scale=(1, 5)),
        judge(aspect("a"), model="another"),
        judge(aspect("a"), version=1),
        judge(aspect("a"), repeat=1),
        judge(aspect("a"), reverse=True),
        judge(aspect("a"), calls="each"),
        judge(aspect("a"), choose=2),
        {"type": "math", "version": 1},
    ],
)
def test_judges_that_differ_in_anything_else_share_nothing(theirs: dict[str, Any]) -> None:
    assert shared_aspects(MINE, theirs) == ()


@pytest.mark.parametrize("chosen", [{"choose": 2}, {"choice": {"choose": 2}}])
def test_judges_that_name_the_aspects_themselves_share_nothing(chosen: dict[str, Any]) -> None:
    assert shared_aspects(judge(aspect("a"), **chosen), judge(aspect("a"), aspect("b"), **chosen)) == ()
    assert shared_aspects({"type": "math"}, {"type": "math"}) == ()
