"""Waiting for the store's file while another process has it open, and saying for whom."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

SAY_AFTER, SAY_EVERY = 3.0, 10.0
"""Seconds of silence before the first line, and between lines."""

SLEEP = (0.01, 0.1)
"""Seconds between attempts: jitter, so that waiting processes don't march in step."""

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
