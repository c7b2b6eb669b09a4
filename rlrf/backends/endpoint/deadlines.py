"""Deadlines of many tries at once, seen to by one timer: a timer for each costs a tenth of a try."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self

SWEEPS, LONGEST_SWEEP_SECONDS = 20, 1.0
"""A try ends late by a 20th of its time at most, and by a second at most."""


class Deadlines:
    """Used within one event loop."""

    def __init__(self) -> None:
        self.due: dict[asyncio.Task[Any], Deadline] = {}
        self._timer: asyncio.TimerHandle | None = None

    def of(self, seconds: float) -> Deadline:
        """A block that is cancelled after some seconds and then raises TimeoutError, as asyncio.timeout does."""
        if self._timer is None:
            self._sweep_in(seconds)
        return Deadline(self, seconds)

    def _sweep_in(self, seconds: float) -> None:
        pause = min(seconds / SWEEPS, LONGEST_SWEEP_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(pause, self._sweep)

    def _sweep(self) -> None:
        self._timer, now = None, time.monotonic()
        for task, deadline in self.due.items():
            if deadline.at <= now and not deadline.is_late:
                deadline.is_late = True
                task.cancel()
        if self.due:
            self._sweep_in(min(deadline.seconds for deadline in self.due.values()))


class Deadline:
    """One try's."""

    __slots__ = ("_all", "_cancels", "_task", "at", "is_late", "seconds")

    def __init__(self, all_: Deadlines, seconds: float) -> None:
        self._all, self.seconds, self.is_late = all_, seconds, False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # only coroutines wait for answers
        self._task, self._cancels, self.at = task, task.cancelling(), time.monotonic() + self.seconds
        self._all.due[task] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._all.due[self._task]
        if self.is_late and self._task.uncancel() <= self._cancels and kind is asyncio.CancelledError:
            raise TimeoutError from error
