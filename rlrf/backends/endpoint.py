"""A generator behind any OpenAI-compatible chat endpoint: vLLM, SGLang, a gateway, a provider.

Whose fault is it? decides what becomes of a request that got no answer:

    the endpoint says "not now" (refuses connections, 429, 503)   wait, for as long as it answers anybody at all
    the endpoint is not what was configured (3xx, 401, 403, 404)  BackendError at once
    a try went wrong (deadline, cut off, other 5xx)               try again a few times, then Failure
    the request is refused (other 4xx)                            Failure
    the answer is not one whole text                              Failure, named after what is wrong with it
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import random
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from rlrf.backends.http_connection import CutOff, HttpConnection, NotConnected, Reply
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Message, Request, Sampling

DETAIL_CHARS = 500
CONTACT_SECONDS = 30.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
SUSPECTS = 32
"""Requests that may fail one after another, with no answer to any other, before it is the endpoint's fault."""


class _NotNow(Exception):
    """The endpoint takes no requests for the time being."""

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class _WentWrong(Exception):
    """One try failed after the endpoint took it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


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
        if concurrency < 1:
            raise BackendError(f"concurrency is {concurrency!r}; an endpoint needs 1 or more requests in flight")
        self.base_url, self.model = _checked_url(base_url), model
        self.concurrency, self.request_timeout, self.retries = concurrency, request_timeout, retries
        self.batch_rows, self.flush_seconds = batch_rows, flush_seconds
        self._key = _read_key(api_key_env, self.base_url) if api_key_env is not None else None
        self._is_checked = False

    def __repr__(self) -> str:
        return f"EndpointGenerator({self.base_url!r}, {self.model!r})"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[list[Completion | Failure]]:
        """Yield results in micro-batches, in order of arrival, each request exactly once.

        Closing the iterator hangs up on the requests in flight. What was answered is always yielded before an error.

        Raises:
            BackendError: the endpoint is gone, is not what was configured, or answers nothing but errors.
        """
        run = _Run(self, requests, sampling)
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
            return pool.submit(asyncio.run, self._count(messages)).result()

    def close(self) -> None:
        """Nothing to give back: connections live as long as the iterator that uses them."""

    def connect(self) -> HttpConnection:
        """A connection of its own for one worker, not yet open."""
        return HttpConnection(self.base_url, {"Authorization": f"Bearer {self._key}"} if self._key else {})

    def chat_body(self, request: Request, sampling: Sampling) -> bytes:
        """One request for one response, in the OpenAI chat protocol."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(request.messages),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
            "n": 1,
        }
        if sampling.stop:  # some endpoints reject an empty list
            body["stop"] = list(sampling.stop)
        return json.dumps(body).encode()

    async def ask(self, connection: HttpConnection, method: str, path: str, body: bytes = b"") -> Reply:
        """One try, within the deadline. Returns 2xx and refusals of this one request; raises for all else."""
        seconds = self.request_timeout if path.endswith("/completions") else min(self.request_timeout, CONTACT_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                reply = await connection.send(method, path, body)
        except NotConnected as error:
            raise _NotNow(str(error)) from error
        except CutOff as error:
            raise _WentWrong("cut_off", str(error)) from error
        except TimeoutError as error:
            raise _WentWrong("timeout", f"no answer within {seconds} s") from error
        self._raise_for_status(reply, path)
        return reply

    async def check_model(self) -> None:
        """See that the endpoint serves the model, once. Raises BackendError."""
        if not self._is_checked:
            models = await self._get_models()
            if self.model not in models:
                raise BackendError(f"endpoint {self.base_url!r} does not serve {self.model!r}; it serves {models!r}")
            self._is_checked = True

    def said(self, reply: Reply) -> str:
        """The server's words, without the key, cut to DETAIL_CHARS."""
        words = reply.message()
        return (words.replace(self._key, "[API key]") if self._key else words)[:DETAIL_CHARS]

    def _raise_for_status(self, reply: Reply, path: str) -> None:
        status, detail = reply.status, f"status {reply.status}: {self.said(reply)}"
        if status in (429, 503):
            raise _NotNow(detail, reply.retry_after())
        if status >= 500:
            raise _WentWrong("server_error", detail)
        if 300 <= status < 400 or status in (401, 403, 404):
            raise BackendError(
                f"endpoint {self.base_url!r} answers {path} for model {self.model!r} with {detail!r}; "
                "correct base_url (it ends in /v1), model or API key"
            )

    async def _get_models(self) -> list[str]:
        path = f"{urlsplit(self.base_url).path}/models"
        reply = await self._ask_alone("GET", path)
        try:
            return [str(model["id"]) for model in json.loads(reply.body)["data"]]
        except (ValueError, TypeError, KeyError) as error:
            raise BackendError(f"endpoint {self.base_url!r} answers {path} with no list of models") from error

    async def _count(self, messages: Sequence[Message]) -> int:
        path = f"{urlsplit(self.base_url).path.removesuffix('/v1')}/tokenize"
        body = json.dumps({"model": self.model, "messages": list(messages), "add_generation_prompt": True}).encode()
        try:
            return int(json.loads((await self._ask_alone("POST", path, body)).body)["count"])
        except (BackendError, ValueError, TypeError, KeyError) as error:
            raise BackendError(
                f"no token counts by {path}: {error!r}; use vLLM, or count with the model's files"
            ) from error

    async def _ask_alone(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Ask outside a run, on a connection of its own, with the same number of tries."""
        connection = self.connect()
        try:
            for tries in range(self.retries + 1):
                try:
                    return await self.ask(connection, method, path, body)
                except (_NotNow, _WentWrong) as error:
                    detail = str(error)
                    connection.close()
                    await asyncio.sleep(pause_seconds(tries) if tries < self.retries else 0)
        finally:
            connection.close()
        raise BackendError(
            f"endpoint {self.base_url!r} unreachable in {tries + 1} tries ({detail}); start it or correct it"
        )


class _Run:
    """One call of `generate`: workers on an event loop in a thread, and the queue of batches they fill."""

    def __init__(self, endpoint: EndpointGenerator, requests: Sequence[Request], sampling: Sampling) -> None:
        self._endpoint, self._requests, self._sampling = endpoint, requests, sampling
        self._path = f"{urlsplit(endpoint.base_url).path}/chat/completions"
        self._todo = iter(requests)
        self._batches: SimpleQueue[list[Completion | Failure] | None] = SimpleQueue()
        self._ready: list[Completion | Failure] = []
        self._suspects: list[Failure] = []
        self._answers, self._last_answer = 0, time.monotonic()
        self._flush_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._drive())
        self._thread = threading.Thread(target=self._main, name="rlrf-endpoint", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[list[Completion | Failure]]:
        """What the workers hand over, until they end."""
        yield from iter(self._batches.get, None)

    def stop(self) -> None:
        """End the workers, whether or not they are done, and their thread. Call it once."""
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        self._loop.close()

    def raise_error(self) -> None:
        """Raise what ended the workers early, if anything did; after `stop`."""
        self._task.result()

    def _main(self) -> None:
        self._loop.run_until_complete(asyncio.wait([self._task]))

    async def _drive(self) -> None:
        try:
            await self._work_all()
            self._hand_over(self._suspects)
        finally:
            self._flush()
            self._batches.put(None)

    async def _work_all(self) -> None:
        error: BackendError | None = None
        try:
            if self._requests:
                await self._endpoint.check_model()
                self._last_answer = time.monotonic()
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._endpoint.concurrency, len(self._requests))):
                    workers.create_task(self._work())
        except* BackendError as group:
            error = next(e for e in group.exceptions if isinstance(e, BackendError))
        if error is not None:
            raise error

    async def _work(self) -> None:
        connection = self._endpoint.connect()
        try:
            for request in self._todo:
                await self._see_through(connection, request)
        finally:
            connection.close()

    async def _see_through(self, connection: HttpConnection, request: Request) -> None:
        """Ask until the request is answered, or is given up as a suspect."""
        body = self._endpoint.chat_body(request, self._sampling)
        tries = waits = 0
        while True:
            try:
                reply = await self._endpoint.ask(connection, "POST", self._path, body)
                return self._take_answer(request, reply)
            except _NotNow as refusal:
                connection.close()  # a server drops idle connections, and that would pass for a failed try
                await self._wait(refusal, waits)
                waits += 1
            except _WentWrong as failed:
                if tries == self._endpoint.retries:
                    return self._suspect(Failure(request.request_id, failed.reason, str(failed)))
                connection.close()
                await asyncio.sleep(pause_seconds(tries))
                tries += 1

    def _take_answer(self, request: Request, reply: Reply) -> None:
        self._answers, self._last_answer = self._answers + 1, time.monotonic()
        if reply.status >= 400:
            result: Completion | Failure = Failure(request.request_id, "rejected", self._endpoint.said(reply))
        else:
            result = read_answer(request.request_id, reply.body)
        self._hand_over([*self._suspects, result])  # the endpoint lives: the suspects were at fault themselves
        self._suspects.clear()

    def _suspect(self, failure: Failure) -> None:
        """Keep a failure back until an answer shows that the endpoint works; too many in a row and it doesn't."""
        self._suspects.append(failure)
        if len(self._suspects) > SUSPECTS:
            raise BackendError(
                f"endpoint {self._endpoint.base_url!r} failed {len(self._suspects)} requests in a row after "
                f"{self._answers} answers ({failure.reason}: {failure.detail}); see its log; rerun to go on from there"
            )

    async def _wait(self, refusal: _NotNow, waits: int) -> None:
        silent = time.monotonic() - self._last_answer
        if silent >= self._endpoint.request_timeout:
            raise BackendError(
                f"endpoint {self._endpoint.base_url!r} unreachable for {silent:.0f} s after {self._answers} answers "
                f"({refusal}); rerun to go on from there"
            )
        pause = pause_seconds(waits, refusal.retry_after)
        await asyncio.sleep(min(pause, self._endpoint.request_timeout - silent))

    def _hand_over(self, results: Sequence[Completion | Failure]) -> None:
        self._ready.extend(results)
        if len(self._ready) >= self._endpoint.batch_rows:
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(self._endpoint.flush_seconds, self._flush)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._ready:
            self._batches.put(self._ready)
            self._ready = []


def read_answer(request_id: str, body: bytes) -> Completion | Failure:
    """One chat completion, or a Failure named after what is wrong with it; no text is ever made up."""
    excerpt = body[:DETAIL_CHARS].decode("utf-8", errors="replace")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        return Failure(request_id, "invalid_json", f"{error}: {excerpt}"[:DETAIL_CHARS])
    reason = _fault(answer)
    if reason is not None:
        return Failure(request_id, reason, excerpt)
    choice, usage = answer["choices"][0], answer["usage"]
    text, finish = choice["message"]["content"], choice["finish_reason"]
    return Completion(request_id, text, finish, usage["prompt_tokens"], usage["completion_tokens"])


def _fault(answer: Any) -> str | None:
    """The name of the first thing wrong with a decoded answer."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        return "no_choices"
    if len(choices) > 1:
        return "wrong_choice_count"
    return _choice_fault(choices[0]) or _usage_fault(answer.get("usage"))


def _choice_fault(choice: Any) -> str | None:
    match choice:
        case {"finish_reason": "stop" | "length", "message": {"content": str(text)}}:
            return None if _is_unicode(text) else "lone_surrogate"
        case {"finish_reason": "stop" | "length"}:
            return "null_content"
        case {"finish_reason": "abort" | "content_filter" | "tool_calls" as finish}:
            return str(finish)
        case {"finish_reason": str()}:
            return "unknown_finish_reason"
    return "no_finish_reason"


def _usage_fault(usage: Any) -> str | None:
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None]
    return None if all(type(count) is int and count >= 0 for count in counts) else "missing_usage"


def _is_unicode(text: str) -> bool:
    """Whether it can be stored; JSON can spell half of a surrogate pair, UTF-8 can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def pause_seconds(tries: int, retry_after: float | None = None) -> float:
    """How long to wait after `tries` earlier pauses: what the server asks for, else twice as long each time; jittered.

    Between FIRST_PAUSE_SECONDS / 2 and LONGEST_PAUSE_SECONDS, but for a shorter `retry_after`.
    """
    if retry_after is None:
        return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries, 30)) * random.uniform(0.5, 1.0)
    return min(LONGEST_PAUSE_SECONDS, retry_after * random.uniform(1.0, 1.1))


def _checked_url(base_url: str) -> str:
    remedy = "give an address such as 'http://127.0.0.1:8000/v1'"
    try:
        url = urlsplit(base_url)
        _ = url.port
    except ValueError as error:
        raise BackendError(f"base_url is {base_url!r} ({error}); {remedy}") from error
    is_plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if not is_plain or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise BackendError(f"base_url is {base_url!r}; {remedy}")
    if "@" in url.netloc:
        raise BackendError(
            f"base_url for host {url.hostname!r} bears a password; name a variable by api_key_env instead"
        )
    return base_url.rstrip("/")


def _read_key(variable: str, base_url: str) -> str:
    key = os.environ.get(variable, "")
    if not key:
        raise BackendError(f"the environment variable {variable!r} is unset or empty; put the endpoint's API key in it")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise BackendError(f"the environment variable {variable!r} holds white space or other characters no key has")
    url = urlsplit(base_url)
    if url.scheme == "http" and not _is_loopback(url.hostname or ""):
        raise BackendError(
            f"base_url is {base_url!r}: the API key in {variable!r} would travel unencrypted; "
            "use https or a tunnel to 127.0.0.1, or leave api_key_env unset if the endpoint needs no key"
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
