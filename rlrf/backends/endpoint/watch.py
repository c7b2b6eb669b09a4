"""What ends a run early: a server known to be dead, an endpoint that answers nobody, a stage that takes too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rlrf.backends.endpoint.pool import ServerPool
from rlrf.backends.endpoint.settings import EndpointSettings
from rlrf.errors import BackendError

WATCH_SECONDS = 0.5


async def watch(
    settings: EndpointSettings, pool: ServerPool, gone: Callable[[], str | None] | None, progress: Callable[[], str]
) -> None:
    """Raise BackendError when there is no use in going on; `progress` says in words how far the run has come."""
    started = time.monotonic()
    while True:
        if gone is not None and (why := gone()) is not None:
            raise BackendError(why)
        pool.raise_if_silent()
        spent, limit = time.monotonic() - started, settings.asking.stage_timeout
        if limit is not None and spent >= limit:
            raise BackendError(
                f"{settings.place} answered {progress()} in {spent:.0f} s; stage_timeout is {limit!r} s: "
                "raise it, or rerun to go on from there"
            )
        await asyncio.sleep(WATCH_SECONDS if limit is None else min(WATCH_SECONDS, limit - spent))
