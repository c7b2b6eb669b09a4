from __future__ import annotations

import pytest

from rlrf.evaluating import wilson
from storage import answers, rows
from storage.store import Store
from tests.storage.builders import JUDGE, completion, judge, judgement, members, prompt, respond, uid


def answered(store: Store) -> tuple[Store, str]:
    """Four held-out prompts: right, wrong, right but unrated on steps, cut off; and one that another policy answered."""
    held_out = store.held_out()
    for name, finish in (("right", "stop"), ("wrong", "stop"), ("half", "stop"), ("cut", "length"), ("other", "stop")):
        rows.add_prompts(held_out, [prompt(f"{name}?")])
        respond(held_out, f"{name}?", [completion(name, finish=finish, tokens=10 if name == "right" else 20)])
    judge(held_out, judgement("right", 1, 0), judgement("wrong", -1, 1), judgement("half", 1, None, reason="no steps"))
    judge(held_out, judgement("cut", reason="truncated"), judgement("other", 1, 1))
    judge(held_out, judgement("wrong", 1, 1), judge_key=uid("another judge"))
    return held_out, members(held_out, "answers", ["right", "wrong", "half", "cut"])


def test_an_answer_is_correct_at_the_top_of_its_aspect_when_rated(store: Store) -> None:
    held_out, key = answered(store)
    found = {row["prompt_id"]: row for row in answers.answers(held_out, key, JUDGE, "answer")}
    assert list(found) == sorted(uid(f"{name}?") for name in ("right", "wrong", "half", "cut"))
    assert {
        name: (found[uid(f"{name}?")]["correct"], found[uid(f"{name}?")]["unrated"])
        for name in ("right", "wrong", "half", "cut")
    } == {
        "right": (True, False),
        "wrong": (False, False),
        "half": (False, True),
        "cut": (False, True),
    }
    other = {row["prompt_id"] for row in answers.answers(held_out, key, JUDGE, "steps") if row["correct"]}
    assert other == {uid("wrong?")}


def test_accuracy_counts_every_question(store: Store) -> None:
    held_out, key = answered(store)
    low, high = wilson(1, 4)
    found = answers.accuracy(answers.answers(held_out, key, JUDGE, "answer"))
    assert found == {"questions": 4, "accuracy": 0.25, "low": low, "high": high, "tokens_mean": 17.5}


def test_accuracy_of_nothing(store: Store) -> None:
    assert answers.answers(store, uid("nobody"), JUDGE, "answer") == []
    assert answers.accuracy([]) == {"questions": 0, "accuracy": 0.0, "low": 0.0, "high": 1.0, "tokens_mean": 0.0}


def test_aspect_means_leave_unrated_answers_out(store: Store) -> None:
    held_out, key = answered(store)
    found = answers.aspects(held_out, key, JUDGE)
    assert [(row["aspect"], row["place"], row["mean"], row["rated"]) for row in found] == [
        ("answer", 0, 0.0, 2),
        ("steps", 1, 0.5, 2),
    ]
    assert found[1]["low"] == pytest.approx(0.5 - 1.959963984540054 * 0.5)
    assert answers.aspects(store, key, JUDGE) == []
