"""A judge that asks a model to rate a response by a rubric: comment first, rating after, all aspects in one call.

Two pure halves meet in `RubricJudge`: `build_messages` writes the question, `parse` reads the reply. What can't be read
for certain is unrated, never guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import blake2b
from importlib.resources import files
from typing import Any

from rlrf.backends.protocols import Generator
from rlrf.judges.reply import parse
from rlrf.records import Case, Completion, Failure, Judgement, Message, Request, Sampling
from rlrf.rubric import Rubric

VERSION = 1
"""Rises with every change to this module or to `rlrf.judges.reply` that can change a verdict."""

JUDGE_TEMPLATE = files("rlrf").joinpath("templates/judge.txt").read_text(encoding="utf-8")

GREEDY = Sampling(temperature=0.0, max_tokens=1024)


class RubricJudge:
    """Rates by a rubric through a generator that the first case opens. `model`, the weights' digest, is in its identity.

    Unrated reasons: truncated (the response was cut off; no call is made), judge_failed:<why> (no reply; `raw_reply`
    holds the failure's detail), judge_truncated (the reply was cut off), and those of `rlrf.judges.reply.parse`.
    """

    def __init__(
        self,
        open_generator: Callable[[], Generator],
        rubric: Rubric,
        model: str,
        sampling: Sampling = GREEDY,
        *,
        guided: bool = False,
    ) -> None:
        self._open_generator = open_generator
        self._generator: Generator | None = None
        self.rubric = rubric
        self.model = model
        self.sampling = sampling
        self._schema = reply_schema(rubric) if guided else None
        self.aspects = tuple(aspect.name for aspect in rubric.aspects)
        self.weights = {aspect.name: aspect.weight for aspect in rubric.aspects}

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {
            "type": "rubric",
            "version": VERSION,
            "model": self.model,
            "rubric": self.rubric.model_dump(mode="json"),
            "template": JUDGE_TEMPLATE,
            "sampling": {**asdict(self.sampling), "stop": list(self.sampling.stop)},
        } | ({"schema": self._schema} if self._schema else {})

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the generator's batches, the truncated responses first."""
        truncated = [case for case in cases if case.finish_reason == "length"]
        if truncated:
            yield [Judgement(case.response_id, reason="truncated") for case in truncated]
        requests = [
            Request(case.response_id, build_messages(case, self.rubric), _seed(case), self._schema)
            for case in cases
            if case.finish_reason != "length"
        ]
        for results in self._opened().generate(requests, self.sampling) if requests else ():
            yield [self._read(result) for result in results]

    def close(self) -> None:
        """Give back the generator."""
        if self._generator is not None:
            self._generator.close()

    def _opened(self) -> Generator:
        """The generator; only the first case opens it, so that a judge's identity costs no model."""
        if self._generator is None:
            self._generator = self._open_generator()
        return self._generator

    def _read(self, result: Completion | Failure) -> Judgement:
        if isinstance(result, Failure):
            return Judgement(result.request_id, reason=f"judge_failed:{result.reason}", raw_reply=result.detail)
        ratings, reason = parse(result.text, self.rubric)
        if result.finish_reason == "length":
            ratings, reason = (), "judge_truncated"
        return Judgement(
            result.request_id, ratings, reason, result.text, result.prompt_tokens, result.completion_tokens
        )


def build_messages(case: Case, rubric: Rubric) -> tuple[Message, ...]:
    """The chat that asks for the ratings of one case: one user turn.

    Instruction, reference and response stand between lines marked with a tag that is a hash of their contents: a
    response would have to hold the hash of itself to forge one.
    """
    tag = _tag(case)
    values = {
        "tag": tag,
        "instruction": _chat(case.messages, tag),
        "reference": _reference(case.reference, tag),
        "response": case.text,
        "aspects": "\n\n".join(aspect.render() for aspect in rubric.aspects),
        "form": _form(rubric),
    }
    # One pass: braces inside the values are never filled in.
    content = re.sub(r"\{([a-z]+)\}", lambda place: values[place[1]], JUDGE_TEMPLATE.strip("\n"))
    return ({"role": "user", "content": content},)


def reply_schema(rubric: Rubric) -> str:
    """The JSON schema of a reply, as text: every aspect in order, comment before rating, nothing else."""
    entry = {
        "type": "object",
        "properties": {"comment": {"type": "string"}, "rating": {"enum": [-1, 0, 1]}},
        "required": ["comment", "rating"],
        "additionalProperties": False,
    }
    names = [aspect.name for aspect in rubric.aspects]
    whole = {
        "type": "object",
        "properties": dict.fromkeys(names, entry),
        "required": names,
        "additionalProperties": False,
    }
    return json.dumps(whole)


def _form(rubric: Rubric) -> str:
    # No valid JSON, so that a reply that repeats it is not taken for ratings.
    entries = [f'"{aspect.name}": {{"comment": "...", "rating": <-1, 0 or 1>}}' for aspect in rubric.aspects]
    return "{" + ", ".join(entries) + "}"


def _chat(messages: Sequence[Message], tag: str) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"[{tag} {message['role']}]\n{message['content']}" for message in messages)


def _reference(reference: str | None, tag: str) -> str:
    if not reference:
        return ""
    return f"[{tag} reference solution, known to be right]\n{reference}\n[{tag} end of reference solution]\n"


def _tag(case: Case) -> str:
    """16 hex digits from all that stands between the marks, each part with its length; found in none of them."""
    parts = [*(text for message in case.messages for text in message.values()), case.reference or "", case.text]
    digest = blake2b(digest_size=8)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    while any(digest.hexdigest() in part for part in parts):
        digest.update(b"again")
    return digest.hexdigest()


def _seed(case: Case) -> int:
    return int(_tag(case)[:7], 16)
