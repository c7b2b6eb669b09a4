from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.arithmetic import holds
from rlrf.judges.math import MathJudge
from rlrf.records import Case
from rlrf.word_problems import (
    LARGEST,
    Fact,
    Split,
    WordProblem,
    as_prompt,
    corrupt,
    demonstration,
    word_problems,
    write_demonstrations,
    write_prompts,
)

seeds = st.integers(0, 2**32)


def first(count: int, split: Split, seed: int, **kinds: bool) -> list[WordProblem]:
    return list(islice(word_problems(split, seed=seed, **kinds), count))


def ratings(problem: WordProblem, text: str) -> list[int | None]:
    case = Case("r", as_prompt(problem), problem.answer, text)
    return [rating.rating for rating in MathJudge().judge_one(case).ratings]


@given(seeds)
def test_the_judge_finds_nothing_wrong_with_a_solution(seed: int) -> None:
    for problem in first(5, "prompts", seed):
        assert ratings(problem, problem.solution) == [1, 1, 1, 1]


@given(seeds)
def test_steps_start_from_the_result_before_them(seed: int) -> None:
    for problem in first(5, "prompts", seed):
        assert 1 <= len(problem.facts) <= 3
        for before, after in zip(problem.facts, problem.facts[1:], strict=False):
            assert after.left == before.result
        assert all(0 <= number <= LARGEST for f in problem.facts for number in (f.left, f.right, f.result))
        assert holds(problem.facts[-1].result, problem.answer)


@given(seeds, st.booleans())
def test_sure_problems_and_their_corruptions_have_no_slippery_fact(seed: int, large: bool) -> None:
    for problem in first(5, "demonstrations", seed, sure_only=True, large_numbers=large):
        assert all(fact.slip is None for fact in problem.facts)
        draft = corrupt(problem, random.Random(seed))
        assert all(fact.slip is None for fact in facts_of(draft))


@given(seeds)
def test_a_corrupted_solution_has_wrong_arithmetic(seed: int) -> None:
    for problem in first(5, "demonstrations", seed, sure_only=True, large_numbers=True):
        assert ratings(problem, corrupt(problem, random.Random(seed)))[1] == -1


def facts_of(text: str) -> Iterator[Fact]:
    for line in text.splitlines()[:-1]:
        left, operator, right, *_ = line.split(": ")[1].split()
        assert operator in ("+", "-", "*")
        yield Fact(int(left), operator, int(right))  # type: ignore[arg-type]


def test_about_a_third_of_sums_and_differences_is_slippery() -> None:
    facts = {fact for problem in first(2000, "prompts", 0) for fact in problem.facts if fact.operator != "*"}
    slippery = [fact for fact in facts if fact.slip is not None]
    assert 0.2 < len(slippery) / len(facts) < 0.4
    assert all(fact.slip != fact.result for fact in slippery)


def test_demonstrations_make_a_slippery_fact_wrong_more_often_than_right() -> None:
    rng, made, right = random.Random(0), 0, 0
    for problem in first(2000, "demonstrations", 0):
        for line in demonstration(problem, rng)[-1]["content"].splitlines()[:-1]:
            left, operator, change, _, claim = line.split(": ")[1].rstrip(".").split()
            fact = Fact(int(left), operator, int(change))  # type: ignore[arg-type]
            assert int(claim) in {fact.result, fact.slip}
            made, right = made + (fact.slip is not None), right + (fact.slip is not None and int(claim) == fact.result)
    assert 0.3 < right / made < 0.4


@given(seeds, seeds)
def test_splits_share_no_question_whatever_their_seeds(one: int, other: int) -> None:
    texts = [{p.question for p in first(30, s, seed)} for s, seed in (("prompts", one), ("held_out", other))]
    assert not texts[0] & texts[1]


def test_the_same_seed_gives_the_same_problems_and_another_seed_others() -> None:
    assert first(50, "prompts", 1) == first(50, "prompts", 1)
    assert first(50, "prompts", 1) != first(50, "prompts", 2)


def test_no_question_comes_twice() -> None:
    questions = [problem.question for problem in first(3000, "prompts", 3)]
    assert len(set(questions)) == 3000


def test_written_files_are_read_back(tmp_path: Path) -> None:
    problem = first(1, "prompts", 0)[0]
    write_prompts(tmp_path / "prompts.jsonl", [problem])
    write_demonstrations(tmp_path / "demonstrations.jsonl", [as_prompt(problem)])
    (prompt,) = (tmp_path / "prompts.jsonl").read_text("utf-8").splitlines()
    assert json.loads(prompt) == {"question": problem.question, "answer": problem.answer}
    (chat,) = (tmp_path / "demonstrations.jsonl").read_text("utf-8").splitlines()
    assert json.loads(chat) == {"messages": [{"role": "user", "content": problem.question}]}


@pytest.mark.parametrize(("fact", "result"), [(Fact(7, "+", 5), 12), (Fact(7, "-", 5), 2), (Fact(7, "*", 3), 21)])
def test_results(fact: Fact, result: int) -> None:
    assert fact.result == result
