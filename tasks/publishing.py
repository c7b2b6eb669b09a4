"""Snapshots without being asked: after finished stages, as far as they are cheap, and at the end of every run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rlrf.errors import StoreError
from storage.snapshots import PATIENCE, publish
from storage.store import Store

SHARE = 20.0
"""A snapshot after a stage comes no sooner than so many times what the last one took: at most 5 % of the time."""

_last: dict[Path, tuple[float, float]] = {}
"""Per store, when this process last published it (monotonic clock), and the seconds that it took."""


def publish_when_due(store: Store, say: Callable[[str], None]) -> None:
    """Publish a snapshot after a stage, unless the last one was too short a time ago or another process is at it."""
    ended, took = _last.get(store.path, (0.0, 0.0))
    if time.monotonic() - ended >= SHARE * took:
        publish_or_say(store, say, wait=0)


def publish_or_say(store: Store, say: Callable[[str], None], wait: float = PATIENCE) -> None:
    """Publish a snapshot; one that can't be made stops no run, a line says why."""
    began = time.monotonic()
    try:
        publish(store, wait)
    except StoreError as error:
        say(f"no snapshot: {error}")
    ended = time.monotonic()
    _last[store.path] = (ended, ended - began)
