"""A generator behind any OpenAI-compatible chat endpoint: vLLM, SGLang, a gateway, a provider.

Whose fault is it? decides what becomes of a request that got no answer:

    the endpoint says "not now" (refuses connections, 429, 503)   wait, for as long as it answers anybody at all
    the endpoint is not what was configured (3xx, 401, 403, 404)  BackendError at once
    a try went wrong (deadline, cut off, other 5xx)               try again a few times, then Failure
    the request is refused (other 4xx)                            Failure
    the answer is not one whole text                              Failure, named after what is wrong with it

One run over many requests is in endpoint_run, one try in endpoint_client, one answer in endpoint_answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

from rlrf.backends.endpoint_questions import count_tokens
from rlrf.backends.endpoint_run import EndpointRun
from rlrf.backends.endpoint_settings import EndpointSettings, checked_url, read_key
from rlrf.records import Completion, Failure, Message, Request, Sampling


class EndpointGenerator:
    """Generates through `{base_url}/chat/completions`; a Generator (rlrf.backends.protocols)."""

    name = "endpoint"

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key_env: str | None,
        concurrency: int = 32,
        request_timeout: float = 300.0,
        retries: int = 4,
        batch_rows: int = 64,
        flush_seconds: float = 1.0,
    ) -> None:
        """Check the address and read the key; nothing is sent before the first request.

        `base_url` ends where the API's version does ("http://127.0.0.1:8000/v1"). `request_timeout` is the deadline of
        one try in seconds, and also how long an endpoint may answer nobody before it counts as gone. `retries` are
        tries after the first. A micro-batch is yielded at `batch_rows`, or `flush_seconds` after its first row.

        Raises:
            BackendError: the address can't be used, the variable is unset, or the key would travel unencrypted.
        """
        url = checked_url(base_url)
        key = read_key(api_key_env, url) if api_key_env is not None else None
        self._settings = EndpointSettings(
            url, model, key, concurrency, request_timeout, retries, batch_rows, flush_seconds
        )

    def __repr__(self) -> str:
        return f"EndpointGenerator({self._settings.base_url!r}, {self._settings.model!r})"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[list[Completion | Failure]]:
        """Yield results in micro-batches, in order of arrival, each request exactly once.

        The model is looked for first. Closing the iterator hangs up on the requests in flight. What was answered is
        always yielded before an error.

        Raises:
            BackendError: the endpoint is gone, is not what was configured, or answers nothing but errors.
        """
        run = EndpointRun(self._settings, requests, sampling)
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
