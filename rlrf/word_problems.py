"""Seeded word problems of one to three steps with worked solutions: the task that the shipped tiny policy learns.

A third of the addition and subtraction facts are slippery: whoever wrote the demonstrations gets them wrong more often
than right, always by the same typical slip. A policy that imitates them does too, and greedily always; that gap is what
the wheel has to close, with a judge that checks the arithmetic.

Each question text belongs to exactly one split (a hash of the text decides), so demonstrations, prompts and held-out
questions never share one, whatever their seeds.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rlrf.records import Message
from rlrf.word_problem_phrases import CLAUSES, NAMES, OPENINGS, QUESTIONS, THINGS, TIMES

LARGEST = 199
"""No number in a problem or a solution is above this; the tiny tokenizer has one token for each."""

Operator = Literal["+", "-", "*"]
Split = Literal["demonstrations", "prompts", "held_out"]

SPLIT_SHARES: dict[Split, int] = {"demonstrations": 4, "prompts": 4, "held_out": 2}
"""How many tenths of all question texts belong to each split."""


START, LARGE_START = (3, 20), (3, 90)
CHANGE, LARGE_CHANGE = (2, 7), (2, 80)
FACTOR = (2, 3)
LARGE_SHARE = 0.4
"""What a problem draws its numbers from: inclusive ranges."""

SLIPS = (-10, -2, -1, 1, 2, 10)
SLIP_SHARE = 0.65
"""How far slips are off, and how often a demonstration makes one where a fact is slippery."""

HIGHEST_TOTAL, HIGHEST_LARGE_TOTAL = 30, 99
"""The bound on right results, without and with large numbers."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One operation on two numbers."""

    left: int
    operator: Operator
    right: int

    @property
    def result(self) -> int:
        """The right value."""
        if self.operator == "+":
            return self.left + self.right
        return self.left - self.right if self.operator == "-" else self.left * self.right

    @property
    def slip(self) -> int | None:
        """The wrong value that demonstrations mostly give, or None for a fact that they always get right.

        Products have none; a hash picks a third of the rest and how far each is off.
        """
        if self.operator == "*":
            return None
        drawn = _hash(f"{self.left} {self.operator} {self.right}")
        value = self.result + SLIPS[drawn // 3 % len(SLIPS)]
        return value if drawn % 3 == 0 and value > 0 else None


@dataclass(frozen=True, slots=True)
class WordProblem:
    """A question, and the facts that answer it in order; each fact's left number is the result so far."""

    question: str
    facts: tuple[Fact, ...]

    @property
    def answer(self) -> str:
        """The reference answer: a plain number."""
        return str(self.facts[-1].result)

    @property
    def solution(self) -> str:
        """The worked solution, one line per step, and the answer after `####`."""
        return render_solution([(fact, fact.result) for fact in self.facts])

    @property
    def split(self) -> Split:
        """The one split that this question text belongs to."""
        slot = _hash(self.question) % sum(SPLIT_SHARES.values())
        return next(split for split in SPLIT_SHARES if (slot := slot - SPLIT_SHARES[split]) < 0)


def render_solution(steps: Iterable[tuple[Fact, int]]) -> str:
    """The text of a solution whose steps claim the given results, right or wrong."""
    steps = list(steps)
    lines = [f"Step {i}: {f.left} {f.operator} {f.right} = {claim}." for i, (f, claim) in enumerate(steps, start=1)]
    return "\n".join([*lines, f"#### {steps[-1][1]}"])


def word_problems(
    split: Split, *, seed: int, sure_only: bool = False, large_numbers: bool = False
) -> Iterator[WordProblem]:
    """Endless problems of one split, no question twice; the same arguments give the same problems.

    With `sure_only` none has a slippery fact. With
    `large_numbers` there are so many facts that a small policy can't learn them by heart.
    """
    rng = random.Random(f"word problems/{split}/{seed}/{sure_only}/{large_numbers}")
    seen: set[str] = set()
    while True:
        facts = _draw_facts(rng, sure_only, large_numbers)
        problem = WordProblem(_draw_wording(rng, facts), facts)
        if problem.split == split and problem.question not in seen:
            seen.add(problem.question)
            yield problem


def wrong_draft(problem: WordProblem, rng: random.Random) -> str:
    """A wrong solution: with slips as the demonstrators make them where a fact is slippery, with any errors elsewhere."""
    if all(fact.slip is None for fact in problem.facts):
        return corrupt(problem, rng)
    while (draft := demonstration(problem, rng)[-1]["content"]) == problem.solution:
        pass
    return draft


def corrupt(problem: WordProblem, rng: random.Random) -> str:
    """A wrong solution to a problem without slippery facts, itself without them.

    The step with the largest change claims a wrong result four times in five, each other step two times in five, and
    later steps carry the wrong number on, as a policy does.
    """
    hardest = max(range(len(problem.facts)), key=lambda i: (problem.facts[i].operator != "*", problem.facts[i].right))
    while True:
        wrong = [rng.random() < (0.8 if i == hardest else 0.4) for i in range(len(problem.facts))]
        errors = [rng.choice((1, 2, 3, 4, 5, 10)) * rng.choice((1, -1)) * is_wrong for is_wrong in wrong]
        steps = _carry_on(problem.facts, errors)
        if any(errors) and all(
            0 <= claim <= LARGEST and fact.result >= 0 and fact.slip is None for fact, claim in steps
        ):
            return render_solution(steps)


def demonstration(problem: WordProblem, rng: random.Random) -> tuple[Message, ...]:
    """The chat that shows one problem as the demonstrators work it, slips included."""
    steps: list[tuple[Fact, int]] = []
    for fact in problem.facts:
        carried = replace(fact, left=steps[-1][1]) if steps else fact
        slips = carried.slip is not None and rng.random() < SLIP_SHARE
        steps.append((carried, carried.slip if slips and carried.slip is not None else carried.result))
    return (*as_prompt(problem), {"role": "assistant", "content": render_solution(steps)})


def as_prompt(problem: WordProblem) -> tuple[Message, ...]:
    """The chat that asks one problem."""
    return ({"role": "user", "content": problem.question},)


def write_prompts(path: Path, problems: Iterable[WordProblem]) -> None:
    """Write JSON lines with the fields `question` and `answer`."""
    _write_lines(path, ({"question": p.question, "answer": p.answer} for p in problems))


def write_demonstrations(path: Path, chats: Iterable[tuple[Message, ...]]) -> None:
    """Write JSON lines with the field `messages`, one chat each; the last turn is what is demonstrated."""
    _write_lines(path, ({"messages": list(chat)} for chat in chats))


def _draw_facts(rng: random.Random, sure_only: bool, large_numbers: bool) -> tuple[Fact, ...]:
    count = rng.randint(1, 3)
    highest = HIGHEST_LARGE_TOTAL if large_numbers else HIGHEST_TOTAL
    while True:
        facts: list[Fact] = []
        total = rng.randint(*(LARGE_START if large_numbers else START))
        for _ in range(count):
            facts.append(_draw_fact(rng, total, large_numbers))
            total = facts[-1].result
        usable = all(1 <= fact.result <= highest and (fact.slip is None or not sure_only) for fact in facts)
        if usable and len(set(facts)) == count:
            return tuple(facts)


def _draw_fact(rng: random.Random, total: int, large: bool) -> Fact:
    operator: Operator = rng.choices(("+", "-", "*"), weights=(9, 9, 2))[0]
    change = LARGE_CHANGE if large and rng.random() < LARGE_SHARE else CHANGE
    return Fact(total, operator, rng.randint(*(FACTOR if operator == "*" else change)))


def _draw_wording(rng: random.Random, facts: tuple[Fact, ...]) -> str:
    name, other = rng.sample(NAMES, 2)
    words = {"name": name, "other": other, "things": rng.choice(THINGS)}
    times = iter(sorted(rng.sample(range(len(TIMES)), len(facts))))
    sentences = [rng.choice(OPENINGS).format(**words, number=facts[0].left)]
    for fact in facts:
        clause = rng.choice(CLAUSES[fact.operator]).format(**words, number=fact.right)
        sentences.append(f"{TIMES[next(times)]} {clause}")
    return " ".join([*sentences, rng.choice(QUESTIONS).format(**words)])


def _carry_on(facts: tuple[Fact, ...], errors: list[int]) -> list[tuple[Fact, int]]:
    """The steps of a solution that is off by `errors`, each starting from what the one before it claims."""
    steps: list[tuple[Fact, int]] = []
    for fact, error in zip(facts, errors, strict=True):
        carried = replace(fact, left=steps[-1][1]) if steps else fact
        steps.append((carried, carried.result + error))
    return steps


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _hash(text: str) -> int:
    """A 64-bit hash that is the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
