from __future__ import annotations

import time
from pathlib import Path

import pytest

from storage.store import Store, open_store, snapshot_path
from tasks import publishing
from tasks.publishing import publish_or_say, publish_when_due


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store.duckdb")


def stamp(store: Store) -> int:
    return snapshot_path(store.path).stat().st_ino


def test_the_first_stage_publishes_and_the_next_one_only_when_it_is_due(store: Store) -> None:
    said: list[str] = []
    publish_when_due(store, said.append)
    first = stamp(store)
    publish_when_due(store, said.append)
    assert stamp(store) == first, "at most 5 % of the time"
    ended, took = publishing._last[store.path]
    publishing._last[store.path] = (ended - publishing.SHARE * took, took)
    publish_when_due(store, said.append)
    assert stamp(store) != first
    assert said == []


def test_the_end_of_a_run_always_publishes(store: Store) -> None:
    said: list[str] = []
    stamps = set()
    for _ in range(2):
        publish_or_say(store, said.append)
        stamps.add(stamp(store))
    assert len(stamps) == 2
    assert said == []


def test_a_snapshot_that_cannot_be_made_is_one_line_and_tried_again_later(store: Store) -> None:
    snapshot_path(store.path).mkdir()
    said: list[str] = []
    began = time.monotonic()
    publish_when_due(store, said.append)
    publish_when_due(store, said.append)
    assert len(said) == 1
    assert said[0].startswith("no snapshot: ")
    assert "directory" in said[0]
    assert publishing._last[store.path][0] > began
