"""Waiting for the store's file while another process has it open, and saying for whom."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SAY_AFTER, SAY_EVERY = 3.0, 10.0
"""Seconds of silence before the first line, and between lines."""

SLEEP = (0.005, 0.02)
"""Seconds between attempts to open the file: one process makes them, or few."""

_say: Callable[[str], None] = logging.getLogger("rlrf.store").warning


def say_with(say: Callable[[str], None]) -> None:
    """Where lines about waits for a file go; a logger's warnings when this is never called."""
    global _say
    _say = say


def holder(message: str) -> str:
    """Who has the file, from DuckDB's message: 'python3.11 (PID 77)'."""
    found = re.search(r"lock is held in (?P<program>.*?)(?: \((?P<pid>PID \d+)[^)]*\))", message)
    return f"{Path(found['program']).name} ({found['pid']})" if found else "another process"


class Wait:
    """One operation's wait for a file."""

    def __init__(self, path: Path) -> None:
        self._path, self._started, self._said = path, time.monotonic(), 0.0

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._started

    def sleep(self, message: str) -> None:
        """Sleep a little, and say now and then for whom; `message`: what DuckDB said."""
        if self.seconds > (self._said + SAY_EVERY if self._said else SAY_AFTER):
            self._said = self.seconds
            _say(
                f"store {str(self._path)!r}: waiting for {holder(message)}, which has it open; {self.seconds:.0f} s so far"
            )
        time.sleep(random.uniform(*SLEEP))


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Be the next to open the file: of those who wait one tries, and who had it last waits like the others.

    Who waits longer asks more often. Where the one whose turn it is hangs, the others try all the same after a few seconds.
    The lock is one on the folder; it goes with its process, and where there is none, as on some network disks, all try.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError:
        yield
        return
    began = time.monotonic()
    try:
        while not _locked(folder) and (waited := time.monotonic() - began) < SAY_AFTER:
            time.sleep(random.uniform(0.5, 1) * 0.05 / (1 + 10 * waited))
        yield
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # there are no locks on folders here
        return True
    return True
