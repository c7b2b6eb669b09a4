"""Rows on their way from the event loop that asks for them to the caller's thread, which may be slow."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from rlrf.records import Failure

Row = TypeVar("Row")
"""What a request that was answered becomes."""


class Results(Generic[Row]):
    """Batches of rows, each handed over when it is full or its first row has waited for `flush_seconds`.

    Rows gather while the caller is busy. It has a batch behind it, made durable, when it comes for the next one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, batch_rows: int, flush_seconds: float) -> None:
        self._loop, self._batch_rows, self._flush_seconds = loop, batch_rows, flush_seconds
        self._rows: list[Row | Failure] = []
        self._handed = 0
        self._since = 0.0
        self._closed = self._hurried = False
        self._changed = threading.Condition()
        self._taken = asyncio.Event()

    def add(self, rows: Sequence[Row | Failure]) -> None:
        """From the loop; never waits."""
        with self._changed:
            if not self._rows:
                self._since = time.monotonic()
                self._changed.notify()  # a caller that waits for nothing now waits for the flush time
            self._rows += rows
            if len(self._rows) >= self._batch_rows:
                self._changed.notify()

    def close(self) -> None:
        """From the loop: no more rows will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def hurry(self) -> None:
        """From the loop: nothing more can come before the caller has taken what there is."""
        with self._changed:
            self._hurried = True
            self._changed.notify()

    @property
    def pending(self) -> int:
        """Rows that the caller has not put behind it yet."""
        return len(self._rows) + self._handed

    async def taken(self) -> None:
        """Wait, in the loop, until the caller has put another batch behind it."""
        self._taken.clear()
        await self._taken.wait()

    def batches(self) -> Iterator[list[Row | Failure]]:
        """In the caller's thread, until `close`."""
        while batch := self._take():
            yield batch

    def _take(self) -> list[Row | Failure]:
        self._put_behind()
        with self._changed:
            while not self._is_due():
                left = self._since + self._flush_seconds - time.monotonic()
                self._changed.wait(max(0.0, left) if self._rows else None)
            batch, self._rows = self._rows[: self._batch_rows], self._rows[self._batch_rows :]
            self._handed, self._hurried = len(batch), False
        return batch

    def _put_behind(self) -> None:
        if self._handed:
            self._handed = 0
            self._loop.call_soon_threadsafe(self._taken.set)

    def _is_due(self) -> bool:
        return (
            self._closed
            or (self._hurried and bool(self._rows))
            or len(self._rows) >= self._batch_rows
            or (bool(self._rows) and time.monotonic() >= self._since + self._flush_seconds)
        )
