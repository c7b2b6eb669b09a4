"""Damaged files, wherever the damage is: right results, or an error that says so and offers the last snapshot."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from rlrf.errors import StoreError
from storage import rows
from storage.snapshots import publish
from storage.store import Store, open_store
from tests.storage.builders import completion, prompt, respond
from tests.storage.processes import start

OFFER = r"(?s)damaged.*the last snapshot is \d+ seconds old, and `rlrf restore .* puts it in the store's place"
WIDTH = 64


@pytest.fixture
def filled(store: Store) -> Store:
    """A store of a few blocks with a snapshot beside it."""
    rows.add_prompts(store, [prompt(f"p{number}") for number in range(10)])
    for number in range(10):
        respond(store, f"p{number}", [completion(f"r{number}.{at}", os.urandom(6000).hex()) for at in range(4)])
    publish(store)
    return store


def texts(store: Store) -> list[dict[str, object]]:
    return open_store(store.path).query("SELECT * FROM responses ORDER BY response_id")


def outcome(store: Store, right: list[dict[str, object]]) -> str:
    """Read every response and write one more; anything but right rows and the offer fails the test."""
    try:
        assert texts(store) == right
        rows.add_prompts(store, [prompt("new")])
    except StoreError as error:
        with pytest.raises(StoreError, match=OFFER):
            raise error
        return "said"
    return "right"


@pytest.mark.parametrize("how", ["flipped", "overwritten", "zeroed", "cut"])
def test_damage_anywhere_is_harmless_or_said(filled: Store, how: str) -> None:
    good, right, found = filled.path.read_bytes(), texts(filled), Counter[str]()
    chance = random.Random(how)
    places = [8, chance.randrange(12_288), *(chance.randrange(len(good)) for _ in range(7))]
    for at in places:
        damaged = bytearray(good)
        if how == "cut":
            del damaged[at:]
        elif how == "flipped":
            damaged[at] ^= 1 << chance.randrange(8)
        else:
            new = bytes(WIDTH) if how == "zeroed" else chance.randbytes(WIDTH)
            damaged[at : at + WIDTH] = new[: len(damaged[at : at + WIDTH])]
        filled.path.write_bytes(damaged)
        found[outcome(filled, right)] += 1
    assert found["said"] > 0
    assert found.total() == len(places)


LEAVE_A_LOG = """
import os, signal, sys, duckdb
connection = duckdb.connect(sys.argv[1])
for batch in range(10):
    connection.execute("INSERT INTO members SELECT uuid(), uuid() FROM range(50)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["whole", "cut", "flipped"])
def test_a_log_that_a_kill_left_is_read_in_whole_batches_or_said_to_be_damaged(filled: Store, how: str) -> None:
    process = start(LEAVE_A_LOG, filled.path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    log = filled.path.with_name("store.duckdb.wal")
    good, left, chance = filled.path.read_bytes(), log.read_bytes(), random.Random(how)
    for _ in range(1 if how == "whole" else 4):
        damaged, at = bytearray(left), chance.randrange(len(left))
        if how == "cut":
            del damaged[at:]
        elif how == "flipped":
            damaged[at] ^= 0xFF
        filled.path.write_bytes(good)
        log.write_bytes(damaged)
        if how == "flipped":
            with pytest.raises(StoreError, match=OFFER):
                open_store(filled.path)
        else:
            found = open_store(filled.path).value("SELECT count(*) FROM members")
            assert found == 500 if how == "whole" else found % 50 == 0


def test_another_store_in_its_place_is_read_as_what_it_is(filled: Store, tmp_path: Path) -> None:
    other = open_store(tmp_path / "other.duckdb")
    name = filled.store_id
    shutil.copy(other.path, filled.path)
    assert open_store(filled.path).store_id == other.store_id != name, "so Prefect's cache has nothing for it"
    assert filled.value("SELECT count(*) FROM responses") == 0
