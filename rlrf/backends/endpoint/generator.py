"""A generator behind any OpenAI-compatible chat endpoint: vLLM, SGLang, a gateway, a provider; one server or replicas.

Whose fault is it? decides what becomes of a request that got no answer:

    a server says "not now" (429, 503)                      hold all of its requests; fewer at once from then on
    a server is not there (refuses connections)             leave it aside, ask the others, look for it again
    nobody is there for `request_timeout`                   BackendError
    a server is not what was configured (3xx, 401, 403,     BackendError at once at the first contact, and later
    404, another model, no guided answers)                  where nobody else is left
    a try went wrong (deadline, cut off, other 5xx)         try again a few times, rather elsewhere, then Failure
    a request is refused (other 4xx), or its answer is not  what was asked for together is asked again singly;
    what was asked for                                      one alone is a Failure, named after what is wrong

One run over many requests is in `run` and `chat`, the servers in `pool`, one try in `client`, one answer in `answers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rlrf.backends.endpoint.chat import ChatRun
from rlrf.backends.endpoint.questions import count_tokens
from rlrf.backends.endpoint.server import Traits
from rlrf.backends.endpoint.settings import BACKLOG, EndpointSettings, check_key, checked_urls
from rlrf.engine_config import Client
from rlrf.records import Completion, Failure, Message, Request, Sampling


class EndpointGenerator:
    """Generates through `{base_url}/chat/completions`; a Generator (rlrf.backends.protocols)."""

    name = "endpoint"

    def __init__(
        self,
        base_urls: Sequence[str] | str,
        model: str,
        asking: Client,
        *,
        key: str | None = None,
        batch_rows: int = 2048,
        backlog: int = BACKLOG,
        flush_seconds: float = 1.0,
        gone: Callable[[], str | None] | None = None,
    ) -> None:
        """Check the addresses and the key; nothing is sent before the first request.

        A base URL ends where the API's version does ("http://127.0.0.1:8000/v1"); several are replicas of one model.
        Requests for the same chat with consecutive seeds are asked for together, up to `choices_per_request`, where the
        server tells how many tokens each choice has and the temperature is not 0; the texts are those that they would
        have alone.

        Of `asking`, `concurrency` is per server, and fewer while it pushes back; `request_timeout` is also how long an
        endpoint may answer nobody before it counts as gone; `stage_timeout` is for one call of `generate`. A
        micro-batch is yielded at `batch_rows` or half of what may be under way, or `flush_seconds` after its first row.
        Beyond those that the caller has put behind it no more than `concurrency` x `choices_per_request` responses per
        server and `backlog` are asked for. `gone` is asked twice a second whether the server is known to be dead, and
        says why.

        Raises:
            BackendError: an address or the key can't be used, or the key would travel unencrypted.
        """
        urls = checked_urls(base_urls)
        for url in urls if key is not None else ():
            check_key(str(key), url)
        self._settings = EndpointSettings(urls, model, key, asking, batch_rows, backlog, flush_seconds)
        self._traits = {url: Traits() for url in urls}
        self._gone = gone
        self.settings: dict[str, Any] = {"type": self.name, "model": model}

    def __repr__(self) -> str:
        return f"EndpointGenerator({self._settings.base_urls!r}, {self._settings.model!r})"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[list[Completion | Failure]]:
        """Yield results in micro-batches, in order of arrival, each request exactly once.

        The model is looked for first. Closing the iterator hangs up on the requests in flight. What was answered is
        always yielded before an error.

        Raises:
            BackendError: the endpoint is gone, is not what was configured, answers nothing but errors, or not in time.
        """
        run = ChatRun(self._settings, self._traits, requests, sampling, self._gone)
        try:
            yield from run.batches()
        finally:
            run.stop()
        run.raise_error()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Length of the rendered chat in tokens, as vLLM's `/tokenize` counts it.

        Raises:
            BackendError: the endpoint has no `/tokenize`. OpenAI's protocol can't count, and nothing is guessed.
        """
        with ThreadPoolExecutor(1) as pool:  # a thread of its own: the caller's may have an event loop running
            return pool.submit(asyncio.run, count_tokens(self._settings, messages)).result()

    def close(self) -> None:
        """Nothing to give back: connections live as long as the iterator that uses them."""
