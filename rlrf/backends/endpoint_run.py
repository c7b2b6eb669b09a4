"""One run over many requests: workers on an event loop in a thread, and the queue of batches they fill."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

from rlrf.backends.endpoint_answers import read_answer
from rlrf.backends.endpoint_client import EndpointClient, NotNow, Reply, WentWrong, open_client, pause_seconds
from rlrf.backends.endpoint_questions import chat_content, check_model
from rlrf.backends.endpoint_settings import EndpointSettings
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Request, Sampling

SUSPECTS = 32
"""Requests that may fail one after another, with no answer to any other, before it is the endpoint's fault."""


class EndpointRun:
    """One call of `generate`. It starts at once; `stop` must be called in every case."""

    def __init__(self, settings: EndpointSettings, requests: Sequence[Request], sampling: Sampling) -> None:
        self._settings, self._requests, self._sampling = settings, requests, sampling
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
            if self._requests:
                async with open_client(self._settings) as client:
                    await check_model(client, self._settings)
                    await self._work_all(client)
            self._hand_over(self._suspects)
        finally:
            self._flush()
            self._batches.put(None)

    async def _work_all(self, client: EndpointClient) -> None:
        error: BackendError | None = None
        self._last_answer = time.monotonic()
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._settings.concurrency, len(self._requests))):
                    workers.create_task(self._work(client))
        except* BackendError as group:
            error = next(e for e in group.exceptions if isinstance(e, BackendError))
        if error is not None:
            raise error

    async def _work(self, client: EndpointClient) -> None:
        for request in self._todo:
            await self._see_through(client, request)

    async def _see_through(self, client: EndpointClient, request: Request) -> None:
        """Ask until the request is answered, or is given up as a suspect."""
        url = f"{self._settings.base_url}/chat/completions"
        content = chat_content(self._settings.model, request, self._sampling)
        tries = waits = 0
        while True:
            try:
                reply = await client.ask("POST", url, content, seconds=self._settings.request_timeout)
                return self._take_answer(request, reply, client)
            except NotNow as refusal:
                await self._wait(refusal, waits)
                waits += 1
            except WentWrong as failed:
                if tries == self._settings.retries:
                    return self._suspect(Failure(request.request_id, failed.reason, str(failed)))
                await asyncio.sleep(pause_seconds(tries))
                tries += 1

    def _take_answer(self, request: Request, reply: Reply, client: EndpointClient) -> None:
        self._answers, self._last_answer = self._answers + 1, time.monotonic()
        if reply.status >= 400:
            result: Completion | Failure = Failure(request.request_id, "rejected", client.said(reply))
        else:
            result = read_answer(request.request_id, reply.body)
        self._hand_over([*self._suspects, result])  # the endpoint lives: the suspects were at fault themselves
        self._suspects.clear()

    def _suspect(self, failure: Failure) -> None:
        """Keep a failure back until an answer shows that the endpoint works; too many in a row and it doesn't."""
        self._suspects.append(failure)
        if len(self._suspects) > SUSPECTS:
            raise BackendError(
                f"endpoint {self._settings.base_url!r} failed {len(self._suspects)} requests in a row after "
                f"{self._answers} answers ({failure.reason}: {failure.detail}); see its log; rerun to go on from there"
            )

    async def _wait(self, refusal: NotNow, waits: int) -> None:
        silent = time.monotonic() - self._last_answer
        if silent >= self._settings.request_timeout:
            raise BackendError(
                f"endpoint {self._settings.base_url!r} unreachable for {silent:.0f} s after {self._answers} answers "
                f"({refusal}); rerun to go on from there"
            )
        pause = pause_seconds(waits, refusal.retry_after)
        await asyncio.sleep(min(pause, self._settings.request_timeout - silent))

    def _hand_over(self, results: Sequence[Completion | Failure]) -> None:
        self._ready.extend(results)
        if len(self._ready) >= self._settings.batch_rows:
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(self._settings.flush_seconds, self._flush)

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._ready:
            self._batches.put(self._ready)
            self._ready = []
