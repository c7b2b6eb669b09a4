"""What becomes of replies that can't be read: they are asked for again, block nobody, and never become a score."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrf.judges.rubric import GREEDY, Manner, RubricJudge
from rlrf.records import Completion, Failure, Judgement, Message, Request, Sampling
from rlrf.rubric import Rubric, load_rubric
from tests.rlrf.judges.unreliable import Unreliable, cases, truth

GENERAL, JUST_EVAL, MATH = load_rubric("general"), load_rubric("just_eval"), load_rubric("math")
GOOD = '{"logical_correctness": {"comment": "All right.", "rating": 1}}'


class Tries:
    """Answers the n-th call about a response with the n-th of its replies; the last one again after that."""

    name = "tries"

    def __init__(self, *replies: str | Failure, most_tokens: int = 10**9) -> None:
        self.settings: dict[str, Any] = {}
        self.calls: list[tuple[list[Request], Sampling]] = []
        self._replies, self._most = replies, most_tokens
        self._asked: dict[str, int] = {}

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion | Failure]]:
        self.calls.append((list(requests), sampling))
        for request in requests:
            yield [self._answer(request, sampling)]

    def _answer(self, request: Request, sampling: Sampling) -> Completion | Failure:
        if sampling.max_tokens > self._most:
            return Failure(request.request_id, "prompt_too_long", f"more than {self._most} tokens")
        tried = self._asked.setdefault(request.request_id, 0)
        self._asked[request.request_id] += 1
        reply = self._replies[min(tried, len(self._replies) - 1)]
        if isinstance(reply, Failure):
            return Failure(request.request_id, reply.reason, reply.detail)
        return Completion(request.request_id, reply.rstrip("~"), "length" if reply.endswith("~") else "stop", 100, 20)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return 0

    def close(self) -> None:
        pass


def judged(generator: Tries, count: int = 1, rubric: Rubric = MATH, **manner: Any) -> list[Judgement]:
    judge = RubricJudge(lambda: generator, rubric, "digest", GREEDY, Manner(**manner))
    return [judgement for batch in judge.judge(cases(count)) for judgement in batch]


def last_lines(generator: Tries) -> list[str]:
    return [requests[0].messages[-1]["content"].splitlines()[-1] for requests, _ in generator.calls]


@pytest.mark.parametrize(
    ("spoilt", "why"),
    [
        ("I like it, 1.", "no whole JSON object"),
        (f"{GOOD[:40]}~", "cut off before its end"),
        (f"{GOOD} {GOOD.replace('1', '-1')}", "several JSON objects that differ"),
        (GOOD.replace("1", '"rather zebra"'), "no rating on the scale to logical_correctness"),
        (Failure("", "timeout", "no answer within 60 s"), "lost on its way"),
    ],
)
def test_an_unreadable_reply_is_asked_for_again(spoilt: str | Failure, why: str) -> None:
    generator = Tries(spoilt, spoilt, GOOD)
    [judgement] = judged(generator)
    assert (judgement.rated, judgement.attempts, judgement.raw_reply) == (True, 3, GOOD)
    replies = 1 if isinstance(spoilt, Failure) else 3
    assert (judgement.prompt_tokens, judgement.completion_tokens) == (replies * 100, replies * 20)
    assert [sampling.max_tokens for _, sampling in generator.calls] == [1024, 2048, 4096]
    assert len({requests[0].seed for requests, _ in generator.calls}) == 3
    first, second, third = last_lines(generator)
    assert why not in first
    assert why in second
    assert second == third
    asked = "\n".join(turn["content"] for requests, _ in generator.calls for turn in requests[0].messages)
    assert "zebra" not in asked
    assert "I like it" not in asked


def test_what_stays_unread_is_unrated_with_its_last_reason_and_reply() -> None:
    [judgement] = judged(Tries("Prose.", Failure("", "timeout", "late"), "More prose."))
    assert (judgement.reason, judgement.attempts, judgement.raw_reply) == ("no_json", 3, "More prose.")
    [judgement] = judged(Tries("Prose.", Failure("", "timeout", "late")), retries=1)
    assert (judgement.reason, judgement.attempts, judgement.raw_reply) == ("judge_failed:timeout", 2, "late")
    [judgement] = judged(Tries("Prose."), retries=0)
    assert (judgement.reason, judgement.attempts) == ("no_json", 1)


def test_a_request_that_will_be_refused_again_is_not_repeated() -> None:
    generator = Tries(GOOD, most_tokens=1)
    [judgement] = judged(generator)
    assert (judgement.reason, judgement.attempts) == ("judge_failed:prompt_too_long", 1)
    assert len(generator.calls) == 1


def test_where_twice_the_tokens_have_no_room_the_first_number_is_asked_for() -> None:
    generator = Tries("Prose.", GOOD, most_tokens=1500)
    [judgement] = judged(generator)
    assert (judgement.rated, judgement.attempts) == (True, 2)
    assert [sampling.max_tokens for _, sampling in generator.calls] == [1024, 2048, 1024]


def test_what_is_read_waits_for_no_retry() -> None:
    generator = Tries("Prose.", GOOD)
    generator._asked["r1"] = 1  # its next reply is good
    judge = RubricJudge(lambda: generator, MATH, "digest")
    batches = judge.judge(cases(2))
    assert [judgement.response_id for judgement in next(batches)] == ["r1"]
    assert len(generator.calls) == 1
    assert [judgement.response_id for batch in batches for judgement in batch] == ["r0"]
    assert [len(requests) for requests, _ in generator.calls] == [2, 1]


def test_one_call_for_each_aspect_and_retries_for_each() -> None:
    good = json.dumps({name: {"comment": f"{name}.", "rating": 4} for name in JUST_EVAL.names})
    generator = Tries("Prose.", good)
    for name in JUST_EVAL.names[2:]:
        generator._asked[f"r0:{name}"] = 1
    [judgement] = judged(generator, rubric=JUST_EVAL, calls="each")
    assert [(rating.aspect, rating.rating) for rating in judgement.ratings] == [(name, 4) for name in JUST_EVAL.names]
    assert (judgement.attempts, judgement.prompt_tokens) == (7, 700)
    assert [len(requests) for requests, _ in generator.calls] == [5, 2]
    assert list(json.loads(judgement.raw_reply or "")) == list(JUST_EVAL.names)
    shown = [request.messages[0]["content"] for request in generator.calls[0][0]]
    assert all(JUST_EVAL.aspects[at].success in text for at, text in enumerate(shown))
    assert not any(JUST_EVAL.aspects[at - 1].success in text for at, text in enumerate(shown))


def test_one_unread_aspect_of_five_calls_is_named_and_the_others_are_kept() -> None:
    generator = Tries("Prose.", '{"clarity": 5, "depth": "N/A", "engagement": 1, "factuality": 2}')
    for name in JUST_EVAL.names[1:]:
        generator._asked[f"r0:{name}"] = 1
    [judgement] = judged(generator, rubric=JUST_EVAL, calls="each", retries=0)
    assert judgement.reason == "unrated_aspects: helpfulness (no_json), depth ('N/A')"
    assert [rating.rating for rating in judgement.ratings] == [None, 5, 2, None, 1]


@pytest.mark.parametrize("calls", ["together", "each"])
def test_a_judge_that_fails_three_calls_in_ten_gives_no_wrong_rating(calls: Any) -> None:
    fake, asked = Unreliable(JUST_EVAL, 0.3), cases(200)
    judge = RubricJudge(lambda: fake.generator(), JUST_EVAL, "digest", GREEDY, Manner(calls=calls))
    found = [judgement for batch in judge.judge(asked) for judgement in batch]
    check(found, asked, fake, JUST_EVAL)
    assert 0.25 < fake.failed / sum(fake.calls.values()) < 0.35
    unread = [judgement for judgement in found if not judgement.rated]
    assert 0 < len(unread) < (0.27 if calls == "each" else 0.06) * 200  # 0.3 ** 3 of all questions


def check(found: list[Judgement], asked: list[Any], fake: Unreliable, rubric: Rubric) -> None:
    assert sorted(judgement.response_id for judgement in found) == sorted(case.response_id for case in asked)
    for judgement in found:
        assert judgement.attempts == fake.calls[judgement.response_id]
        for rating in judgement.ratings:
            assert rating.rating in (None, truth(rubric, judgement.response_id, rating.aspect))
            assert rating.scale == rubric.scale
        unrated = [rating.aspect for rating in judgement.ratings if rating.rating is None]
        assert judgement.rated == (bool(judgement.ratings) and not unrated and judgement.reason is None)
        assert judgement.rated or (judgement.reason and judgement.raw_reply is not None)
        assert all(f"{name} (" in (judgement.reason or "") for name in unrated)


@settings(max_examples=40)
@given(st.data())
def test_every_case_comes_once_in_any_mode(data: st.DataObject) -> None:
    draw = data.draw
    rubric = draw(st.sampled_from([GENERAL, JUST_EVAL, MATH]))
    mode = draw(st.sampled_from(["all", "task", "call"]))
    manner = Manner(
        calls="together" if mode == "call" else draw(st.sampled_from(["together", "each"])),
        aspects=mode,
        choose=draw(st.integers(1, len(rubric.names))),
        tasks={"sums": rubric.names[:1]} if mode == "task" else {},
        retries=draw(st.integers(0, 3)),
        repeat=draw(st.integers(0, 2)),
        reverse=draw(st.booleans()),
    )
    own = tuple(draw(st.lists(st.sampled_from(rubric.names), unique=True)))
    asked = cases(draw(st.integers(0, 12)), own)
    fake = Unreliable(rubric, draw(st.sampled_from([0.0, 0.3, 0.9])), choose=manner.choose)
    generator = fake.generator(draw(st.integers(1, 5)))
    judge = RubricJudge(lambda: generator, rubric, "digest", GREEDY, manner)
    found = [judgement for batch in judge.judge(asked) for judgement in batch]
    check(found, asked, fake, rubric)
    for judgement in found:
        names = [rating.aspect for rating in judgement.ratings]
        assert names == [name for name in rubric.names if name in names]
        if judgement.rated:
            expected = len(own) or (manner.choose if mode == "call" else len(rubric.names))
            assert len(names) == expected
            assert not own or set(names) == set(own)
