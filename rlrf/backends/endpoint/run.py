"""One run over many requests: workers on an event loop in a thread, and the rows that they hand over."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic

import aiohttp

from rlrf.backends.endpoint.answers import Spoilt
from rlrf.backends.endpoint.client import EndpointClient, NotNow, Reply, WentWrong, open_session, pause_seconds
from rlrf.backends.endpoint.groups import Todo
from rlrf.backends.endpoint.pool import ServerPool
from rlrf.backends.endpoint.results import Results, Row
from rlrf.backends.endpoint.server import Server, Traits
from rlrf.backends.endpoint.settings import EndpointSettings
from rlrf.backends.endpoint.suspects import Suspects
from rlrf.backends.endpoint.watch import watch
from rlrf.errors import BackendError
from rlrf.records import Failure, Request


class EndpointRun(ABC, Generic[Row]):
    """One run over many requests. It starts at once; `stop` must be called in every case.

    What is asked for counts as under way until the caller has made it durable: whatever dies, no more is lost than what
    can be in flight, and the `backlog`.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        traits: Mapping[str, Traits],
        requests: Sequence[Request],
        gone: Callable[[], str | None] | None,
        *,
        groups: bool = False,
    ) -> None:
        """`groups`: whether requests for one chat are asked for together, by a server that can."""
        self._settings, self._traits, self._groups, self._gone = settings, traits, groups, gone
        self._total, self._todo = len(requests), Todo(requests)
        self._suspects = Suspects(settings.place)
        self._open, self._done = len(requests), asyncio.Event()
        self._pool: ServerPool
        self._loop = asyncio.new_event_loop()
        in_flight = settings.asking.concurrency * settings.asking.choices_per_request * len(settings.base_urls)
        self._window, self._in_flight = in_flight + settings.backlog, 0
        batch_rows = min(settings.batch_rows, max(1, self._window // 2))
        self._results: Results[Row] = Results(self._loop, batch_rows, settings.flush_seconds)
        self._task = self._loop.create_task(self._drive())
        self._thread = threading.Thread(target=self._main, name="rlrf-endpoint", daemon=True)
        self._thread.start()

    @abstractmethod
    async def _check(self, server: Server) -> None:
        """See that a server is what was configured. Raises NotNow, WentWrong, BackendError."""

    @abstractmethod
    def _question(self, server: Server, group: Sequence[Request]) -> tuple[str, dict[str, Any]]:
        """The address to ask at, and what is asked for a group."""

    @abstractmethod
    def _answer(self, group: Sequence[Request], body: bytes) -> list[Row | Failure] | Spoilt:
        """What the body of a 2xx reply says to each request of the group."""

    def _refusal(self, server: Server, reply: Reply) -> Spoilt:
        """What a 4xx reply says."""
        return Spoilt("rejected", server.client.said(reply))

    def batches(self) -> Iterator[list[Row | Failure]]:
        """What the workers hand over, until they end."""
        return self._results.batches()

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
            if self._total:
                async with open_session(self._settings) as session:
                    await self._work_all(session)
            self._results.add(self._suspects.cleared())
        finally:
            self._results.close()

    async def _work_all(self, session: aiohttp.ClientSession) -> None:
        error: BackendError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                servers = [self._server(url, session) for url in self._settings.base_urls]
                self._pool = ServerPool(self._settings, servers, self._check, tasks)
                watching = tasks.create_task(watch(self._settings, self._pool, self._gone, self._progress))
                most = min(self._total, self._settings.asking.concurrency * len(servers))
                workers = [tasks.create_task(self._work()) for _ in range(most)]
                await self._done.wait()
                for task in (watching, *workers, *self._pool.looking):
                    task.cancel()
        except* BackendError as group:
            error = _first(group)
        if error is not None:
            raise error

    def _server(self, url: str, session: aiohttp.ClientSession) -> Server:
        return Server(
            EndpointClient(self._settings, url, session), self._traits[url], self._settings.asking.concurrency
        )

    def _progress(self) -> str:
        return f"{self._total - self._open:,} of {self._total:,} requests"

    async def _work(self) -> None:
        while True:
            while not self._has_room():
                if not self._in_flight:
                    self._results.hurry()
                await self._results.taken()
            server = await self._pool.acquire()
            if not self._has_room():  # another worker was faster
                self._pool.release(server)
                continue
            group = self._todo.take(self._choices(server))
            if not group:
                return self._pool.release(server)
            self._in_flight += len(group)
            await self._see_through(group, server)

    def _has_room(self) -> bool:
        return self._in_flight + self._results.pending + self._settings.asking.choices_per_request <= self._window

    def _choices(self, server: Server) -> int:
        return self._settings.asking.choices_per_request if self._groups and server.traits.apart else 1

    async def _see_through(self, group: Sequence[Request], server: Server, spoilt_by: Server | None = None) -> None:
        """Ask until the group is answered, or is given up as a suspect; one that can't be answered together, singly.

        `server` is acquired. `spoilt_by` is one that could not answer the group that this request was part of.
        """
        tries = 0
        while True:
            try:
                reply = await self._ask(server, group)
                break
            except NotNow:
                pass
            except WentWrong as failed:
                if tries == self._settings.asking.retries:
                    failures = [Failure(one.request_id, failed.reason, str(failed)) for one in group]
                    self._suspects.add(failures, self._pool.answers)
                    return self._account_for(len(group))
                await asyncio.sleep(pause_seconds(tries))
                tries += 1
            server = await self._pool.acquire(but=server)
            if len(group) > self._choices(server):
                self._pool.release(server)
                return await self._ask_singly(group)
        answer = self._read(group, server, reply)
        if isinstance(answer, Spoilt):
            cause = server if answer.reason not in ("invalid_json", "answer_too_long") else None
            return await self._ask_singly(group, cause)
        self._results.add([*self._suspects.cleared(), *answer])
        self._account_for(len(group))
        if spoilt_by is server and not isinstance(answer[0], Failure):
            server.traits.apart = False

    async def _ask_singly(self, group: Sequence[Request], spoilt_by: Server | None = None) -> None:
        async with asyncio.TaskGroup() as parts:
            for request in group:
                parts.create_task(self._ask_for_one(request, spoilt_by))

    async def _ask_for_one(self, request: Request, spoilt_by: Server | None) -> None:
        await self._see_through([request], await self._pool.acquire(), spoilt_by)

    async def _ask(self, server: Server, group: Sequence[Request]) -> Reply:
        """One try at an acquired server, which is released. Raises NotNow, WentWrong, BackendError."""
        url, content = self._question(server, group)
        sent_at = time.monotonic()
        try:
            reply = await server.client.ask("POST", url, content, seconds=self._settings.asking.request_timeout)
        except NotNow as refusal:
            self._pool.refused(server, refusal, sent_at)
            raise
        except WentWrong as failed:
            self._pool.went_wrong(server, failed, sent_at)
            raise
        except BackendError as error:
            self._pool.rule_out(server, error)
            raise NotNow(str(error)) from None
        finally:
            self._pool.release(server)
        self._pool.answered(server)
        return reply

    def _read(self, group: Sequence[Request], server: Server, reply: Reply) -> list[Row | Failure] | Spoilt:
        answer = self._refusal(server, reply) if reply.status >= 400 else self._answer(group, reply.body)
        if isinstance(answer, Spoilt):
            if len(group) > 1:
                return answer
            answer = [Failure(group[0].request_id, answer.reason, answer.detail)]
        for i, row in enumerate(answer):
            if isinstance(row, Failure):
                answer[i] = replace(row, detail=server.client.without_key(row.detail))
        return answer

    def _account_for(self, requests: int) -> None:
        self._in_flight -= requests
        self._open -= requests
        if not self._open:
            self._done.set()


def _first(group: BaseExceptionGroup[BackendError]) -> BackendError:
    """The first error of nested groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
