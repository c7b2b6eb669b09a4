"""What the tiny policy is taught before the wheel turns: worked solutions, rewriting from feedback, and recall drills.

The demonstrators slip when they work alone and mend a slip when feedback names it, so a policy that imitates them answers
better after feedback than before; distilling that into direct answers is the wheel's work. Half of the rewrites are of
problems with numbers too large to learn by heart, where only the feedback knows. The drills have the policy find, among
corrections it was given, the one it needs; a short burst of them first is what makes it follow feedback later.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from rlrf.judges.math import MathJudge
from rlrf.records import Case, Message
from rlrf.reflection import refine_messages
from rlrf.word_problems import Fact, WordProblem, as_prompt, demonstration, word_problems, wrong_draft

Chat = tuple[Message, ...]

DRILL_FACTS = 4


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Chats whose last turn is to be learnt, by kind."""

    drills: tuple[Chat, ...]
    solutions: tuple[Chat, ...]
    reflections: tuple[Chat, ...]

    @property
    def demonstrations(self) -> tuple[Chat, ...]:
        """What a run keeps as its demonstrations: all but the drills."""
        return self.solutions + self.reflections


def build_curriculum(*, seed: int, drills: int = 4000, solutions: int = 12000, reflections: int = 5000) -> Curriculum:
    """The given numbers of chats of each kind; the same seed gives the same chats."""
    everyday = word_problems("demonstrations", seed=seed)
    large = word_problems("demonstrations", seed=seed, sure_only=True, large_numbers=True)
    rng = random.Random(f"curriculum/{seed}")
    return Curriculum(
        solutions=tuple(demonstration(problem, rng) for problem in islice(everyday, solutions)),
        reflections=tuple(reflect(next((large, everyday)[i % 2]), rng) for i in range(reflections)),
        drills=tuple(islice(_drills(large, rng), drills)),
    )


def reflect(problem: WordProblem, rng: random.Random) -> Chat:
    """The chat in which a wrong draft gets the math judge's feedback and is rewritten rightly."""
    draft = wrong_draft(problem, rng)
    case = Case("draft", as_prompt(problem), problem.answer, draft)
    asked = refine_messages(as_prompt(problem), draft, MathJudge().judge_one(case).ratings)
    return (*asked, {"role": "assistant", "content": problem.solution})


def _drills(problems: Iterator[WordProblem], rng: random.Random) -> Iterator[Chat]:
    """Corrections of unrelated facts, and the facts in the same or another order."""
    while True:
        facts = [rng.choice(problem.facts) for problem in islice(problems, DRILL_FACTS)]
        corrections = " ".join(
            f"Step {i}: {_text(fact)} = {fact.result}, not {fact.result + rng.randint(1, 10)}."
            for i, fact in enumerate(facts, start=1)
        )
        if rng.random() < 0.5:
            rng.shuffle(facts)
        steps = "\n".join(f"Step {i}: {_text(fact)} = {fact.result}." for i, fact in enumerate(facts, start=1))
        yield ({"role": "user", "content": corrections}, {"role": "assistant", "content": steps})


def _text(fact: Fact) -> str:
    return f"{fact.left} {fact.operator} {fact.right}"
