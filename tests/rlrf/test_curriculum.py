from __future__ import annotations

import re

from rlrf.curriculum import build_curriculum
from rlrf.records import Message
from rlrf.word_problems import Fact

CLAIM = re.compile(r"(\d+) ([-+*]) (\d+) = (\d+)")


def text_of(chat: tuple[Message, ...]) -> str:
    return "\n".join(message["content"] for message in chat)


def stated(chats: tuple[tuple[Message, ...], ...]) -> list[tuple[Fact, int]]:
    found = [claim for chat in chats for claim in CLAIM.findall(text_of(chat[-1:]))]
    return [(Fact(int(left), operator, int(right)), int(value)) for left, operator, right, value in found]


def test_drills_have_no_slippery_fact_and_rewrites_make_no_slip() -> None:
    curriculum = build_curriculum(seed=0, drills=200, solutions=300, reflections=300)
    assert all(fact.slip is None and fact.result == value for fact, value in stated(curriculum.drills))
    assert all(fact.result == value for fact, value in stated(curriculum.reflections))
    assert any(fact.slip == value for fact, value in stated(curriculum.solutions))


def test_a_reflection_ends_in_the_solution_that_its_feedback_asks_for() -> None:
    for chat in build_curriculum(seed=1, drills=1, solutions=1, reflections=50).reflections:
        assert [message["role"] for message in chat] == ["user", "assistant", "user", "assistant"]
        assert "arithmetic: failure." in chat[2]["content"]
        assert chat[3]["content"] != chat[1]["content"]


def test_the_same_seed_gives_the_same_curriculum() -> None:
    sizes = {"drills": 5, "solutions": 5, "reflections": 5}
    assert build_curriculum(seed=2, **sizes) == build_curriculum(seed=2, **sizes)
    assert build_curriculum(seed=2, **sizes) != build_curriculum(seed=3, **sizes)
