"""A judge that asks a reward model: one number per response, without a critique."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rlrf.backends.protocols import Conversation, Reward, Scorer
from rlrf.records import UNBOUNDED, Case, Failure, Judgement, Rating

VERSION = 1
"""Rises with every change to this module or to `rlrf.backends.reward` that can change a reward."""

OWN_REASONS = ("too_long", "not_finite")
"""A scorer's reasons that are the judge's as they are."""


class RewardJudge:
    """Rates by a scorer that the first case opens, on the one aspect `reward`, whose scale has no ends.

    `model`, the weights' digest, is in its identity. Unrated reasons: truncated (the response was cut off; the model is
    not asked), too_long (chat and response have more than `max_length` tokens, or than the model has positions for),
    not_finite, reward_failed:<why>; `raw_reply` holds the failure's detail.
    """

    aspects: tuple[str, ...] = ("reward",)

    def __init__(self, open_scorer: Callable[[], Scorer], model: str, max_length: int | None = None) -> None:
        self._open_scorer = open_scorer
        self._scorer: Scorer | None = None
        self.model = model
        self.max_length = max_length
        self.weights = {"reward": 1.0}

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {"type": "reward", "version": VERSION, "model": self.model, "max_length": self.max_length}

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the scorer's batches, the truncated responses first."""
        truncated = [case for case in cases if case.finish_reason == "length"]
        if truncated:
            yield [Judgement(case.response_id, reason="truncated") for case in truncated]
        conversations = [conversation(case) for case in cases if case.finish_reason != "length"]
        for results in self._opened().score(conversations, self.max_length) if conversations else ():
            yield [_read(result) for result in results]

    def close(self) -> None:
        """Give back the scorer."""
        if self._scorer is not None:
            self._scorer.close()

    def _opened(self) -> Scorer:
        """The scorer; only the first case opens it, so that a judge's identity costs no model."""
        if self._scorer is None:
            self._scorer = self._open_scorer()
        return self._scorer


def conversation(case: Case) -> Conversation:
    """The prompt's chat with the response as the assistant's turn."""
    return case.response_id, (*case.messages, {"role": "assistant", "content": case.text})


def _read(result: Reward | Failure) -> Judgement:
    if isinstance(result, Failure):
        reason = result.reason if result.reason in OWN_REASONS else f"reward_failed:{result.reason}"
        return Judgement(result.request_id, reason=reason, raw_reply=result.detail, attempts=1)
    tokens = result.prompt_tokens
    if not math.isfinite(result.value):
        return Judgement(result.request_id, (), "not_finite", str(result.value), tokens, attempts=1)
    rating = Rating("reward", float(result.value), "", scale=UNBOUNDED)
    return Judgement(result.request_id, (rating,), prompt_tokens=tokens, attempts=1)
