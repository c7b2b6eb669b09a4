from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.function import FunctionJudge
from rlrf.records import Case, Judgement

ROOT = Path(__file__).parents[2]
RESPONSES = ROOT.parent / "shared/data/just_eval"
ASPECTS = ("complete", "on_task", "clean")
JUDGE = FunctionJudge(f"{ROOT / 'deployments/plain_form.py'}:rate", ASPECTS)

ASKED = "Explain to me why the sky is blue on a clear day."
GOOD = "Air scatters blue light more than red light. So blue reaches the eye from all directions."
FINE = "Nothing to object to."


def judged(text: str, asked: str = ASKED) -> Judgement:
    [[judgement]] = JUDGE.judge([Case("r1", ({"role": "user", "content": asked},), None, text)])
    return judgement


def rated(text: str, aspect: str) -> tuple[float | None, str]:
    [rating] = [one for one in judged(text).ratings if one.aspect == aspect]
    return rating.rating, rating.critique


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "Because of Rayleigh scattering",
        "Reasons:\n1. Air scatters light\n2. Blue light is scattered most of all by the air around us here",
        f"{GOOD}\n\n```\nx = 1\n```",
        "It's a fact (see above).",
        f"{GOOD} 😊",
        "No, no, no! It is all about scattering.",
        "| a | b |\n|---|---|\n| 1 | 1 |",
        "1 1 1 1 1 1 1 1 is eight ones.",
        "See https://example.org/" + "abcdefghijklmnop" * 10 + ".",
    ],
)
def test_a_good_text_is_at_the_top(text: str) -> None:
    assert [(one.rating, one.critique) for one in judged(text).ratings] == [(1, FINE)] * 3


@pytest.mark.parametrize(
    ("text", "aspect", "expected"),
    [
        ("", "complete", (-1, "There is no text.")),
        (
            "Air scatters blue light more than red light, so that the",
            "complete",
            (-1, "It breaks off in mid-sentence."),
        ),
        ("Air scatters blue light,", "complete", (-1, "It breaks off in mid-sentence.")),
        (f"{GOOD}\n```python\nx = 1", "complete", (-1, "A code block is not closed.")),
        (GOOD.rstrip("."), "complete", (0, "The last sentence has no closing mark.")),
        ("  \n", "on_task", (-1, "There is no answer.")),
        ("I'm sorry, but I can't help with that.", "on_task", (-1, "It refuses instead of answering.")),
        ("As an AI language model, I have no eyes.", "on_task", (-1, "It refuses instead of answering.")),
        (f"I'm sorry to hear that. {GOOD * 6}", "on_task", (0, "It begins with a refusal or an apology.")),
        (ASKED, "on_task", (-1, "It repeats the instruction instead of answering.")),
        (ASKED.upper(), "on_task", (-1, "It repeats the instruction instead of answering.")),
        (f"{ASKED}\n{GOOD}", "on_task", (0, "It repeats the instruction before it answers.")),
        (f"{GOOD} {GOOD.partition('.')[0]}.", "clean", (0, "One sentence repeats.")),
        (f"{GOOD}\n{GOOD}", "clean", (-1, "Sentences repeat.")),
        ("so and then and then and then and then", "clean", (-1, "It goes round in a loop.")),
        ("very very very very", "clean", (-1, "It goes round in a loop.")),
        ("a" * 500, "clean", (-1, "It goes round in a loop.")),
    ],
)
def test_each_level_of_each_aspect(text: str, aspect: str, expected: tuple[int, str]) -> None:
    assert rated(text, aspect) == expected


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_text_is_rated_alike_twice(text: str, asked: str) -> None:
    judgement = judged(text, asked)
    assert judgement.rated and judgement == judged(text, asked)
    assert all(rating.critique for rating in judgement.ratings)


@given(st.text(max_size=100))
def test_the_reference_is_not_looked_at(reference: str) -> None:
    messages = ({"role": "user", "content": ASKED},)
    [[judgement]] = JUDGE.judge([Case("r1", messages, reference, GOOD)])
    assert judgement == judged(GOOD)


@pytest.mark.parametrize("text", ["a " * 200_000, "(" * 10**6, "```" * 10**5, "I'm " * 10**5, "." * 10**6, " " * 10**6])
def test_hostile_text_costs_little(text: str) -> None:
    start = time.perf_counter()
    assert judged(text).rated
    assert time.perf_counter() - start < 5


def test_on_responses_of_six_models() -> None:
    """Finished answers of chat models to 1,000 instructions: hardly any is out of form."""
    if not RESPONSES.exists():
        pytest.skip("needs shared/data/just_eval")
    asked = {row["id"]: row["instruction"] for row in _rows("items.jsonl")}
    counts: dict[tuple[str, str, float | None], int] = {}
    rows = [row for row in _rows("responses.jsonl") if row["id"] % 10 == 0 and row["response"]]
    for row in rows:
        for rating in judged(row["response"], asked[row["id"]]).ratings:
            where = (row["model"], rating.aspect, rating.rating)
            counts[where] = counts.get(where, 0) + 1
    for where, count in sorted(counts.items(), key=str):
        print(*where, count)
    top = {aspect: sum(count for where, count in counts.items() if where[1:] == (aspect, 1)) for aspect in ASPECTS}
    assert all(count > 0.7 * len(rows) for count in top.values()), (top, len(rows))


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (RESPONSES / name).read_text(encoding="utf-8").splitlines()]
