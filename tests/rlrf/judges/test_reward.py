"""The reward judge on a scorer that says what it is told to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.backends.protocols import Conversation, Reward, Scorer
from rlrf.errors import BackendError, ConfigError
from rlrf.judge_config import RewardJudge as Settings
from rlrf.judges.protocol import Judge
from rlrf.judges.reward import RewardJudge
from rlrf.judging import build_judge, described, key_of
from rlrf.records import UNBOUNDED, Case, Failure, Judgement, Rating
from tests.rlrf.backends.reward.tiny_reward import build_tiny_reward, rewards_one_by_one

CASE = Case(
    "r1", ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "6 * 7?"}), "42", "It is 42."
)
Say = Callable[[Conversation], Reward | Failure]


class Said:
    """A scorer that answers with what a function of the conversation returns, in batches of two, last batch first."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.seen: list[Conversation] = []
        self.max_length: int | None = None
        self.closed = 0

    def score(self, conversations: Sequence[Conversation], max_length: int | None) -> Iterator[list[Reward | Failure]]:
        self.seen += conversations
        self.max_length = max_length
        for start in reversed(range(0, len(conversations), 2)):
            yield [self.say(one) for one in conversations[start : start + 2]]

    def close(self) -> None:
        self.closed += 1


def gives(value: float) -> Say:
    return lambda one: Reward(one[0], value, 30)


def judged(say: Say, case: Case = CASE) -> Judgement:
    scorer: Scorer = Said(say)
    judge: Judge = RewardJudge(lambda: scorer, "digest")
    [[judgement]] = judge.judge([case])
    return judgement


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_finite_number_is_the_one_rating_as_it_is(value: float) -> None:
    judgement = judged(gives(value))
    assert judgement.ratings == (Rating("reward", value, "", UNBOUNDED),)
    assert (judgement.ratings[0].level, judgement.ratings[0].top) == (value, False)
    assert (judgement.rated, judgement.response_id, judgement.prompt_tokens) == (True, "r1", 30)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_unrated(value: float) -> None:
    judgement = judged(gives(value))
    assert (judgement.reason, judgement.ratings, judgement.raw_reply) == ("not_finite", (), str(value))


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        ("too_long", "too_long"),
        ("not_finite", "not_finite"),
        ("timeout", "reward_failed:timeout"),
        ("special_tokens_in_text", "reward_failed:special_tokens_in_text"),
    ],
)
def test_a_failure_is_unrated_by_its_name_and_keeps_its_words(failed: str, reason: str) -> None:
    judgement = judged(lambda one: Failure(one[0], failed, "9,000 tokens"))
    assert (judgement.reason, judgement.ratings, judgement.raw_reply) == (reason, (), "9,000 tokens")


@given(st.lists(st.booleans(), max_size=9))
def test_every_case_comes_once_and_truncated_ones_are_not_asked_about(truncated: list[bool]) -> None:
    cases = [
        replace(CASE, response_id=str(at), finish_reason="length" if cut else "stop")
        for at, cut in enumerate(truncated)
    ]
    scorer = Said(gives(1.5))
    found = [one for batch in RewardJudge(lambda: scorer, "digest").judge(cases) for one in batch]
    assert sorted(int(one.response_id) for one in found) == list(range(len(cases)))
    assert {int(one.response_id) for one in found if one.reason == "truncated"} == {
        at for at, cut in enumerate(truncated) if cut
    }
    assert [int(name) for name, _ in scorer.seen] == [at for at, cut in enumerate(truncated) if not cut]


def test_the_model_sees_the_chat_with_the_response_as_its_last_turn_and_no_reference() -> None:
    scorer = Said(gives(0.0))
    list(RewardJudge(lambda: scorer, "digest", max_length=512).judge([CASE]))
    assert scorer.seen == [("r1", (*CASE.messages, {"role": "assistant", "content": "It is 42."}))]
    assert scorer.max_length == 512


def test_batches_are_passed_on_as_they_are_done() -> None:
    def fails_on_the_last(one: Conversation) -> Reward:
        if one[0] == "0":
            raise BackendError("gone")
        return Reward(one[0], 1.0, 3)

    judge = RewardJudge(lambda: Said(fails_on_the_last), "digest")
    batches = judge.judge([replace(CASE, response_id=str(at)) for at in range(4)])
    assert [one.response_id for one in next(batches)] == ["2", "3"]
    with pytest.raises(BackendError, match="gone"):
        next(batches)


def test_only_a_case_opens_the_scorer_and_close_gives_it_back() -> None:
    scorer, opened = Said(gives(0.0)), list[Said]()

    def open_scorer() -> Said:
        opened.append(scorer)
        return scorer

    judge = RewardJudge(open_scorer, "digest")
    judge.close()
    assert list(judge.judge([])) == []
    list(judge.judge([replace(CASE, finish_reason="length")]))
    assert (opened, scorer.closed) == ([], 0)
    list(judge.judge([CASE]))
    list(judge.judge([CASE]))
    judge.close()
    judge.close()
    assert opened == [scorer]
    assert scorer.closed > 0


def test_model_and_length_are_its_identity() -> None:
    made = [RewardJudge(lambda: Said(gives(0.0)), *given) for given in (("a",), ("b",), ("a", 512))]
    assert len({json.dumps(judge.ingredients()) for judge in made}) == 3
    assert (made[0].aspects, made[0].weights) == (("reward",), {"reward": 1.0})


def settings(**values: object) -> Settings:
    return Settings.model_validate({"type": "reward", **values})


def test_a_folder_is_known_by_its_weights_and_judges_here(tmp_path: Path) -> None:
    folder, other = build_tiny_reward(tmp_path / "one"), build_tiny_reward(tmp_path / "two", seed=1)
    one = settings(model=str(folder), device="cpu")
    assert key_of(one) == key_of(one.model_copy(update={"batch_size": 7, "device": "auto"}))
    assert key_of(one) != key_of(settings(model=str(other)))
    assert key_of(one) != key_of(settings(model=str(folder), max_length=64))
    judge = build_judge(one, lambda engine, model: pytest.fail(f"opened {engine} for {model}"))
    [[judgement]] = judge.judge([CASE])
    judge.close()
    asked = (*CASE.messages, {"role": "assistant", "content": CASE.text})
    assert judgement.ratings[0].rating == pytest.approx(rewards_one_by_one(folder, [("r", asked)])["r"], abs=1e-4)


def test_an_endpoint_is_known_by_its_address_and_model_and_asks_for_its_key_when_it_is_opened() -> None:
    place = {"type": "endpoint", "base_url": "https://127.0.0.1:1/v1", "model": "rm", "api_key_secret": "reward-key"}
    one = settings(endpoint=place)
    assert key_of(one) == key_of(settings(endpoint=place | {"retries": 1, "api_key_secret": "other"}))
    assert key_of(one) != key_of(settings(endpoint=place | {"model": "other"}))
    asked: list[str] = []

    def secret(name: str) -> str:
        asked.append(name)
        raise ConfigError("no such block")

    judge = build_judge(one, lambda engine, model: pytest.fail(f"opened {engine} for {model}"), secret)
    assert asked == []
    with pytest.raises(ConfigError, match="no such block"):
        list(judge.judge([CASE]))
    assert asked == ["reward-key"]
    with pytest.raises(ConfigError, match=r"reward-key.*api_key_env"):
        list(described(one).judge([CASE]))
