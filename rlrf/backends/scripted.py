"""The scripted fake: a generator whose replies are a function of the request, for tests and dry runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Message, Request, Sampling

Reply = Callable[[Request], str | Failure]


class ScriptedGenerator:
    """Answers every request with `reply(request)`, in order; its tokens are words.

    Args:
        reply: the text, or a Failure (its request_id is filled in) for a request that is to fail.
        batch_size: results per yielded batch.
        name: what the store records as the backend.
        raise_after: how many batches are yielded, over the generator's life, before it raises BackendError instead of
            the next: a crash to be restarted from. None: never.
    """

    def __init__(
        self, reply: Reply, *, batch_size: int = 8, name: str = "scripted", raise_after: int | None = None
    ) -> None:
        if batch_size < 1:
            raise BackendError(f"ScriptedGenerator: batch_size {batch_size!r}; give at least 1")
        self.name = name
        self.settings: dict[str, Any] = {"type": "scripted"}
        self._reply = reply
        self._batch_size = batch_size
        self._raise_after = raise_after
        self._yielded = 0

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Completion | Failure]]:
        """Yield lists of `batch_size` results; max_tokens and stop strings cut replies as a model's would be."""
        for start in range(0, len(requests), self._batch_size):
            if self._yielded == self._raise_after:
                raise BackendError(f"{self.name!r} was told to stop after {self._raise_after!r} batches; run again")
            batch = [self._answer(request, sampling) for request in requests[start : start + self._batch_size]]
            self._yielded += 1
            yield batch

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The number of words of all turns."""
        return sum(len(message["content"].split()) for message in messages)

    def close(self) -> None:
        """Nothing to give back."""

    def _answer(self, request: Request, sampling: Sampling) -> Completion | Failure:
        reply = self._reply(request)
        if isinstance(reply, Failure):
            return replace(reply, request_id=request.request_id)
        whole = re.match(rf"\s*(?:\S+\s*){{0,{sampling.max_tokens}}}", reply)
        within = whole.group() if whole else ""
        stops = [place for place in map(within.find, sampling.stop) if place >= 0]
        text = within[: min(stops)] if stops else within if within == reply else within.rstrip()
        return Completion(
            request_id=request.request_id,
            text=text,
            finish_reason="stop" if stops or within == reply else "length",
            prompt_tokens=self.count_tokens(request.messages),
            completion_tokens=len(text.split()),
        )
