"""Published copies of a store: whole or not there, harmless to readers and writers, and the way back from damage."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import duckdb
import pytest

from rlrf.errors import StoreError
from storage import rows, sizes
from storage.restoring import restore
from storage.snapshots import publish, rows_in
from storage.store import Store, insert, open_store, snapshot_path
from tests.storage.builders import completion, members, prompt, respond, uid
from tests.storage.processes import HOLD, finish, start

SNAPSHOT = "snapshot.duckdb"


@pytest.fixture
def filled(store: Store) -> Store:
    """A store of a few blocks: 20 prompts with 4 responses each, of texts that don't compress."""
    rows.add_prompts(store, [prompt(f"p{number}") for number in range(20)])
    for number in range(20):
        respond(store, f"p{number}", [completion(f"r{number}.{at}", os.urandom(6000).hex()) for at in range(4)])
    return store


def count(path: Path, table: str = "responses") -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def damage(path: Path) -> None:
    """Change a byte in every block; the headers stay, so the file can be opened."""
    whole = bytearray(path.read_bytes())
    for at in range(100_000, len(whole), 2**18):
        whole[at] ^= 0xFF
    path.write_bytes(whole)


def test_a_snapshot_holds_what_the_store_holds_and_is_read_only(filled: Store) -> None:
    made = publish(filled)
    assert made is not None
    assert made.path == snapshot_path(filled.path)
    with filled.connect() as live, duckdb.connect(str(made.path), read_only=True) as copy:
        texts = "SELECT response_id, text FROM responses ORDER BY response_id"
        assert copy.execute(texts).fetchall() == live.execute(texts).fetchall()
    assert made.rows == sum(table.rows for table in sizes.tables(filled))
    assert made.bytes == made.path.stat().st_size
    assert 0 < made.held <= made.seconds
    assert made.path.stat().st_mode & 0o222 == 0
    assert sorted(file.name for file in made.path.parent.iterdir()) == [SNAPSHOT, "store.duckdb"]


def test_a_reader_of_the_one_before_keeps_it_and_blocks_no_writer(filled: Store) -> None:
    made = publish(filled)
    assert made is not None
    with duckdb.connect(str(made.path), read_only=True) as reader:
        respond(filled, "p0", [completion("later")])
        publish(filled)
        assert reader.execute("SELECT count(*) FROM responses").fetchall() == [(80,)]
        assert reader.execute("SELECT max(length(text)) FROM responses").fetchall() == [(12_000,)]
    assert count(made.path) == 81


WRITE_UNTIL_KILLED = """
import os, sys
from pathlib import Path
from storage.store import Store, insert
store = Store(Path(sys.argv[1]))
while True:
    rows = [{"key": os.urandom(16).hex(), "kind": os.urandom(2000).hex(), "ingredients": "{}"} for _ in range(50)]
    with store.connect() as connection:
        insert(connection, "keys", rows)
    print(flush=True)
"""


def test_a_snapshot_among_writers_is_one_moment_of_the_store(filled: Store) -> None:
    writer = start(WRITE_UNTIL_KILLED, filled.path)
    assert writer.stdout is not None
    try:
        seen = 0
        for _ in range(3):
            writer.stdout.readline()
            made = publish(filled)
            assert made is not None
            found = count(made.path, "keys")
            assert found % 50 == 0
            assert found > seen
            seen = found
    finally:
        writer.kill()
        writer.communicate()


PUBLISH = """
import sys
from pathlib import Path
from storage.snapshots import publish
from storage.store import Store
while True:
    publish(Store(Path(sys.argv[1])))
    print(flush=True)
"""


def test_a_kill_leaves_a_whole_snapshot_and_the_next_one_is_made(filled: Store) -> None:
    path = snapshot_path(filled.path)
    for attempt in range(4):
        process = start(PUBLISH, filled.path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert count(path) == 80
        left = {file.name for file in path.parent.iterdir()} - {SNAPSHOT, SNAPSHOT + ".partial", "store.duckdb"}
        assert left <= {"store.duckdb.wal"}
    assert publish(filled) is not None
    assert not path.with_name(SNAPSHOT + ".partial").exists()


def test_two_at_once_publish_one_after_the_other(filled: Store) -> None:
    both = [start(PUBLISH.replace("while True", "for _ in range(3)"), filled.path) for _ in range(2)]
    assert [finish(process) for process in both] == ["\n" * 3] * 2
    assert count(snapshot_path(filled.path)) == 80


def test_who_does_not_wait_leaves_it_to_the_other(filled: Store) -> None:
    hold = "import fcntl, sys, time\nfile = open(sys.argv[1], 'w')\nfcntl.flock(file, 2)\nprint(flush=True)\ntime.sleep(60)"
    holder = start(hold, filled.path.with_name(SNAPSHOT + ".partial"))
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        assert publish(filled, wait=0) is None
    finally:
        holder.kill()
        holder.communicate()
    assert publish(filled, wait=0) is not None


def test_a_damaged_store_is_said_and_its_last_snapshot_stays(filled: Store) -> None:
    made = publish(filled)
    assert made is not None
    before = made.path.read_bytes()
    damage(filled.path)
    with pytest.raises(StoreError, match=r"damaged.* last snapshot is \d+ seconds old, and `rlrf restore "):
        publish(filled)
    assert made.path.read_bytes() == before
    assert not made.path.with_name(SNAPSHOT + ".partial").exists()


def test_a_snapshot_that_does_not_fit_leaves_the_one_before(small_disk: Path) -> None:
    store = open_store(small_disk / "store.duckdb")
    members(store, "s", "abc")
    made = publish(store)
    assert made is not None
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - made.bytes // 2))
    with pytest.raises(StoreError, match="the disk is full"):
        publish(store)
    assert count(made.path, "members") == 3
    assert sorted(file.name for file in small_disk.iterdir()) == ["ballast", SNAPSHOT, "store.duckdb"]


def test_a_damaged_store_is_restored_and_kept_aside(filled: Store) -> None:
    publish(filled)
    lost, store_id = respond(filled, "p0", [completion("later")]), filled.store_id
    damage(filled.path)
    broken = filled.path.read_bytes()
    log = filled.path.with_name("store.duckdb.wal")
    log.write_bytes(b"no log")
    done = restore(filled.path)
    assert lost == 1
    assert filled.value("SELECT count(*) FROM responses") == 80
    assert done.rows == rows_in(filled.path)
    assert done.age.endswith(" seconds")
    names = ["store.damaged-1.duckdb.wal", "store.damaged-1.duckdb"]
    assert [file.name for file in done.aside] == names
    assert [file.read_bytes() for file in done.aside] == [b"no log", broken]
    assert open_store(filled.path).store_id != store_id, "Prefect's cache knows stages that are lost"
    assert respond(filled, "p0", [completion("later")]) == 1
    damage(filled.path)
    assert [file.name for file in restore(filled.path).aside] == ["store.damaged-2.duckdb"]


def test_a_store_that_was_deleted_is_restored(filled: Store) -> None:
    publish(filled)
    filled.path.unlink()
    assert restore(filled.path).aside == ()
    assert filled.value("SELECT count(*) FROM responses") == 80


def test_a_sound_store_is_restored_by_force_alone(filled: Store) -> None:
    publish(filled)
    with filled.connect() as connection:
        insert(connection, "members", [{"set_key": uid("s"), "member_id": uid("m")}])
    with pytest.raises(StoreError, match=r"is sound.*--force"):
        restore(filled.path)
    assert filled.value("SELECT count(*) FROM members") == 1
    assert len(restore(filled.path, force=True).aside) == 1
    assert filled.value("SELECT count(*) FROM members") == 0


def test_a_store_that_a_process_has_open_is_not_restored(filled: Store) -> None:
    publish(filled)
    holder = start(HOLD, filled.path, 60)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        with pytest.raises(StoreError, match="another process has it open"):
            restore(filled.path, force=True)
    finally:
        holder.kill()
        holder.communicate()


def test_without_a_snapshot_or_with_a_damaged_one_nothing_is_moved(filled: Store) -> None:
    damage(filled.path)
    with pytest.raises(StoreError, match="no snapshot at"):
        restore(filled.path)
    snapshot_path(filled.path).write_bytes(filled.path.read_bytes())
    with pytest.raises(StoreError, match="damaged"):
        restore(filled.path)
    assert sorted(file.name for file in filled.path.parent.iterdir()) == [SNAPSHOT, "store.duckdb"]


RESTORE = """
import sys
from pathlib import Path
from storage.restoring import restore
restore(Path(sys.argv[1]), force=True)
"""


def test_a_killed_restore_can_be_repeated(filled: Store) -> None:
    publish(filled)
    killed = 0
    for attempt in range(4):
        process = start(RESTORE, filled.path)
        try:
            process.wait(0.5 + 0.15 * attempt)
        except subprocess.TimeoutExpired:
            process.kill()
            killed += 1
        process.communicate()
        assert filled.path.is_file(), "a run would begin anew in an empty place"
    assert killed
    restore(filled.path, force=True)
    assert filled.value("SELECT count(*) FROM responses") == 80
    assert not list(filled.path.parent.glob("*.partial*"))


def test_sizes_add_up_to_the_file(filled: Store) -> None:
    found = {table.name: table for table in sizes.tables(filled)}
    assert found["responses"].rows == 80
    assert found["responses"].bytes > 80 * 12_000 / 2
    assert found["held_out.prompts"].rows == found["held_out.prompts"].bytes == 0
    assert sum(table.bytes for table in found.values()) <= filled.path.stat().st_size
