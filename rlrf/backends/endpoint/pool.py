"""The servers of an endpoint: a request goes to the least busy one that is there and takes requests.

A server that can't be reached, or fails one try after another while others answer, is left aside and looked for again.
One that turns out to be another than was configured is left out, which ends the run where it is at its first contact or
nobody else is left.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from rlrf.backends.endpoint.client import NotNow, Unreachable, WentWrong, pause_seconds
from rlrf.backends.endpoint.server import Server
from rlrf.backends.endpoint.settings import EndpointSettings
from rlrf.errors import BackendError

FAULTS = 8
"""Tries in a row that may go wrong before a server is left aside, if there is another."""
LONGEST_LOOK_SECONDS = 10.0


class ServerPool:
    """Hands out servers to ask; used within one event loop."""

    def __init__(
        self,
        settings: EndpointSettings,
        servers: Sequence[Server],
        check: Callable[[Server], Awaitable[None]],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """`check` sees that a server is what was configured; `tasks` run it, and end with what it raises."""
        self._settings, self._servers, self._check, self._tasks = settings, servers, check, tasks
        self._waiters: deque[tuple[asyncio.Future[Server], Server | None]] = deque()
        self._silent_since: float | None = None
        self._refusal = ""
        self.answers = 0
        self.looking = [tasks.create_task(self._look_for(server)) for server in servers]

    async def acquire(self, but: Server | None = None) -> Server:
        """The least busy server, as soon as one is free; rather another one than `but`. Must be released."""
        server = None if self._waiters else self._free(but)
        if server is None:
            waiter: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
            self._waiters.append((waiter, but))
            return await waiter
        server.busy += 1
        return server

    def release(self, server: Server) -> None:
        """After a request, however it ended."""
        server.busy -= 1
        if self._waiters:
            self._hand_out()

    def answered(self, server: Server) -> None:
        """It took a request and said something to it."""
        self.answers += 1
        self._silent_since = None
        server.refusals = server.faults = server.absences = 0
        server.limit.grow()

    def refused(self, server: Server, refusal: NotNow, sent_at: float) -> None:
        """It takes no requests: hold all of its own for as long as it asks for, or leave it aside if it is not there."""
        now = time.monotonic()
        self._refusal = str(refusal)
        if self._silent_since is None:
            self._silent_since = now
        if isinstance(refusal, Unreachable):
            return self._leave_aside(server)
        is_news = server.limit.cut(sent_at, now)
        if is_news or refusal.retry_after is not None:
            pause = pause_seconds(server.refusals, refusal.retry_after)
            server.held_until = max(server.held_until, now + pause)
            asyncio.get_running_loop().call_later(pause + 0.001, self._hand_out)  # after its end, not a tick before
        server.refusals += is_news

    def went_wrong(self, server: Server, failed: WentWrong, sent_at: float) -> None:
        """One try failed."""
        server.faults += 1
        if failed.reason == "timeout":
            server.limit.cut(sent_at, time.monotonic())
        if server.faults >= FAULTS and any(other.live for other in self._servers if other is not server):
            self._leave_aside(server)

    def rule_out(self, server: Server, error: BackendError) -> None:
        """It is not what was configured. Raises the error where no other server is left."""
        server.live, server.error, self._refusal = False, error, str(error)
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        if all(other.error is not None for other in self._servers):
            raise error

    def raise_if_silent(self) -> None:
        """Raise BackendError when nobody got an answer for `request_timeout` since the first refusal."""
        silent = 0.0 if self._silent_since is None else time.monotonic() - self._silent_since
        if silent >= self._settings.asking.request_timeout:
            raise BackendError(
                f"{self._settings.place} unreachable for {silent:.0f} s after {self.answers} answers "
                f"({self._refusal}); rerun to go on from there"
            )

    def _free(self, but: Server | None) -> Server | None:
        now, best = time.monotonic(), None
        for server in self._servers:
            if server.is_free(now) and (best is None or (server is but, server.busy) < (best is but, best.busy)):
                best = server
        return best

    def _hand_out(self) -> None:
        while self._waiters and (server := self._free(self._waiters[0][1])):
            waiter, _ = self._waiters.popleft()
            if not waiter.done():
                server.busy += 1
                waiter.set_result(server)

    def _leave_aside(self, server: Server) -> None:
        if server.live:
            server.live = False
            server.absences += 1
            self.looking.append(self._tasks.create_task(self._look_for(server)))

    async def _look_for(self, server: Server) -> None:
        """Ask whether it is there until it is, and then let requests go to it. Raises BackendError as `_look`."""
        tries = 0
        while True:
            if tries or server.absences:
                await asyncio.sleep(min(pause_seconds(max(tries, server.absences) - 1), LONGEST_LOOK_SECONDS))
            if await self._look(server, tries):
                break
            tries += 1
        if server.came:
            server.limit.restart()
        server.live = server.came = server.error is None
        server.faults = 0
        self._silent_since = None if server.live else self._silent_since
        self._hand_out()

    async def _look(self, server: Server, tries: int) -> bool:
        """Whether there is nothing more to look for. Raises BackendError where it is another, or nobody is found."""
        try:
            await self._check(server)
        except (NotNow, WentWrong) as error:
            server.given_up = tries >= self._settings.asking.retries
            if all(one.given_up and not one.came for one in self._servers):
                raise BackendError(
                    f"{self._settings.place} unreachable in {tries + 1} tries ({error}); start it or correct it"
                ) from None
            return False
        except BackendError as error:
            if not server.came:
                raise
            self.rule_out(server, error)
        return True
