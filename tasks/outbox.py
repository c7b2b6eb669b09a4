"""What is told to the Prefect server on the side: sent by a thread of its own, so that no stage ever waits for a server.

A server that is slow, hangs or is gone costs what it would have shown, and nothing else.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Hashable

from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_CLIENT_MAX_RETRIES,
    get_current_settings,
    temporary_settings,
)
from rich.console import Console

from rlrf.terminal import visible

REQUEST_SECONDS = 5.0
"""How long one request may take."""

FLUSH_SECONDS = 15.0
"""How long the end of a flow waits for what is still to be sent."""

WAITING = 100
"""What may wait to be sent; over that the oldest is left out."""

console = Console(stderr=True, highlight=False)


def is_watched() -> bool:
    """Whether there is a server that somebody can look at; the temporary one of a plain `rlrf run` ends with its records."""
    return get_current_settings().api.url is not None


class Outbox:
    """Jobs by name, oldest first; a newer job takes the place of a waiting one of the same name."""

    def __init__(self) -> None:
        self._jobs: dict[Hashable, tuple[contextvars.Context, Callable[[], object]]] = {}
        self._change = threading.Condition()
        self._busy = self._in_trouble = False
        self._thread: threading.Thread | None = None

    def put(self, name: Hashable, job: Callable[[], object]) -> None:
        """Have a job done soon, in the caller's context (settings, flow run, task run); returns at once."""
        with self._change:
            self._jobs.pop(name, None)
            self._jobs[name] = (contextvars.copy_context(), job)
            while len(self._jobs) > WAITING:
                del self._jobs[next(iter(self._jobs))]
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="rlrf outbox", daemon=True)
                self._thread.start()
            self._change.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all is sent, so long at most; whether it is. What isn't by then is left out."""
        until = time.monotonic() + seconds
        with self._change:
            while (self._jobs or self._busy) and time.monotonic() < until:
                self._change.wait(until - time.monotonic())
            done = not self._jobs and not self._busy
            self._jobs.clear()
        return done

    def _work(self) -> None:
        while True:
            with self._change:
                self._busy = False
                self._change.notify_all()
                while not self._jobs:
                    self._change.wait()
                context, job = self._jobs.pop(next(iter(self._jobs)))
                self._busy = True
            self._do(context, job)

    def _do(self, context: contextvars.Context, job: Callable[[], object]) -> None:
        try:
            context.run(_impatiently, job)
            self._in_trouble = False
        except Exception as error:  # whatever it is, it is no reason to stop a run
            if not self._in_trouble:
                said = visible(f"{type(error).__name__}: {error}").splitlines() or [""]
                console.print(
                    f"  Prefect's UI misses an artifact ({said[0]}); the run goes on", markup=False, soft_wrap=True
                )
            self._in_trouble = True


def _impatiently(job: Callable[[], object]) -> None:
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: REQUEST_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}):
        job()


outbox = Outbox()
