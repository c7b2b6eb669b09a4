"""Questions to a model whose replies have to be read: what can't be read is asked for again, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlrf.backends.protocols import Generator
from rlrf.judges.questions import told_why
from rlrf.records import Completion, Failure, Message, Rating, Request, Sampling

PERMANENT = {"prompt_too_long", "special_tokens_in_prompt", "template_error", "empty_prompt", "rejected"}
"""Reasons of failures that another try doesn't change."""

SEED_STEP = 1_000_003
"""From one try's seed to the next one's; consecutive seeds would be asked for as choices of one request."""

Read = Callable[[str], tuple[Any, str | None]]
"""What a reply says, and why that isn't certain."""


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to ask, under an id of the caller's; `read` makes something of a reply."""

    question_id: str
    messages: tuple[Message, ...]
    seed: int
    read: Read
    json_schema: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question in the end. `reason` is set exactly when no reply could be read.

    Tokens are those of all tries; `raw_reply` is the last reply, or the detail of the last failure.
    """

    value: Any = ()
    reason: str | None = None
    raw_reply: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 0


Answers = list[tuple[Question, Answer]]


def ask(generator: Generator, questions: Sequence[Question], sampling: Sampling, retries: int) -> Iterator[Answers]:
    """Yield answers as the generator's batches bring them, each question exactly once.

    Each of `retries` later passes asks what could not be read: with twice the tokens of the pass before, another seed
    and a line that says what was wrong. A question that has no room for more tokens is asked with the first number of them.
    Reasons: judge_failed:<why> (no reply), judge_truncated (cut off), and those of `read`.
    """
    left = [(question, Answer()) for question in questions]
    for attempt in range(retries + 1):
        if not left:
            return
        unread: Answers = []
        for answers in _pass(generator, left, sampling, attempt):
            again = [pair for pair in answers if attempt < retries and _is_worth_another_try(pair[1])]
            unread += again
            kept = {pair[0].question_id for pair in again}
            if done := [pair for pair in answers if pair[0].question_id not in kept]:
                yield done
        left = unread


def _pass(generator: Generator, asked: Answers, sampling: Sampling, attempt: int) -> Iterator[Answers]:
    """Ask each question once more; yields its answer so far."""
    grown = replace(sampling, max_tokens=sampling.max_tokens * 2**attempt)
    for most in (grown, sampling) if attempt else (sampling,):
        by_id = {question.question_id: (question, before) for question, before in asked}
        requests = [_request(question, before, attempt) for question, before in asked]
        asked = []
        for results in generator.generate(requests, most) if requests else ():
            answers: Answers = []
            for result in results:
                question, before = by_id[result.request_id]
                if attempt and most is grown and _is_refused(result):
                    asked.append((question, before))
                else:
                    answers.append((question, _after(question, before, result)))
            if answers:
                yield answers


def _request(question: Question, before: Answer, attempt: int) -> Request:
    messages = question.messages
    if before.reason:
        unrated = [one.aspect for one in before.value if isinstance(one, Rating) and one.rating is None]
        messages = told_why(messages, before.reason, unrated)
    return Request(question.question_id, messages, question.seed + attempt * SEED_STEP, question.json_schema)


def _after(question: Question, before: Answer, result: Completion | Failure) -> Answer:
    """The answer with one more result. A retry that is refused leaves the reply before it as the last."""
    if isinstance(result, Failure):
        if before.attempts and result.reason in PERMANENT:
            return replace(before, attempts=before.attempts + 1)
        why = f"judge_failed:{result.reason}"
        return replace(before, value=(), reason=why, raw_reply=result.detail, attempts=before.attempts + 1)
    value, reason = question.read(result.text)
    if result.finish_reason == "length":
        value, reason = (), "judge_truncated"
    return Answer(
        value,
        reason,
        result.text,
        before.prompt_tokens + result.prompt_tokens,
        before.completion_tokens + result.completion_tokens,
        before.attempts + 1,
    )


def _is_refused(result: Completion | Failure) -> bool:
    return isinstance(result, Failure) and result.reason in PERMANENT


def _is_worth_another_try(answer: Answer) -> bool:
    why = (answer.reason or "").removeprefix("judge_failed:")
    return answer.reason is not None and why not in PERMANENT
