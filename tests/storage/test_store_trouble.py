"""What goes wrong around a store: other processes, kills, full disks, closed folders. All of it real."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import storage.store
import storage.waiting
from rlrf.errors import StoreError
from storage.restoring import restore
from storage.schema import MIGRATIONS, VERSION
from storage.snapshots import publish, rows_in
from storage.store import Store, open_store, snapshot_path
from tests.storage.builders import uid
from tests.storage.processes import HOLD, finish, start

WRITE = """
import sys
from pathlib import Path
from storage.store import Store, insert
store, set_keys, batches, rows = Store(Path(sys.argv[1])), sys.argv[2].split(), int(sys.argv[3]), int(sys.argv[4])
for batch in range(batches):
    ids = [f"{batch * rows + row:032x}" for row in range(rows)]
    with store.connect() as connection:
        for key in set_keys:
            insert(connection, "members", [{"set_key": key, "member_id": one} for one in ids])
    print(batch, flush=True)
"""
"""Commits batches of the same members to these sets, and says each batch after its commit."""

OPEN = """
import sys
from storage.store import open_store
print(open_store(sys.argv[1]).store_id, end="")
"""


def test_a_busy_file_is_waited_for(store: Store) -> None:
    holder = start(HOLD, store.path, 1.0)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    started = time.monotonic()
    assert store.value("SELECT count(*) FROM prompts") == 0
    assert 0.5 < time.monotonic() - started < 10
    finish(holder)


def test_a_file_that_stays_busy_is_an_error_with_the_remedy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.store, "BUSY_SECONDS", 0.3)
    holder = start(HOLD, store.path, 60)
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        for use in (lambda: store.value("SELECT 1"), lambda: open_store(store.path)):
            with pytest.raises(
                StoreError, match=rf"python\S* \(PID {holder.pid}\) held it .*close it there.*snapshot.duckdb"
            ):
                use()
    finally:
        holder.kill()
        holder.communicate()


def test_a_wait_says_for_whom(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.waiting, "SAY_AFTER", 0.2)
    monkeypatch.setattr(storage.waiting, "SAY_EVERY", 0.5)
    said: list[str] = []
    monkeypatch.setattr(storage.waiting, "_say", said.append)
    holder = start(HOLD, store.path, 1.5)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert store.value("SELECT count(*) FROM prompts") == 0
    finish(holder)
    assert 2 <= len(said) <= 4
    assert all(f"(PID {holder.pid}), which has it open" in line for line in said)


def test_a_file_kept_open_is_read_and_written_without_turns_and_then_let_go(store: Store) -> None:
    code = """
import sys
from pathlib import Path
from storage.store import Store
print("waits", flush=True)
with Store(Path(sys.argv[1])).connect() as connection:
    connection.execute("INSERT INTO meta VALUES ('other', 'process')")
"""
    with store.kept_open():
        other = start(code, store.path)
        assert other.stdout is not None
        other.stdout.readline()
        with store.connect() as connection:
            connection.execute("INSERT INTO meta VALUES ('kept', 'open')")
        for _ in range(300):
            assert store.value("SELECT count(*) FROM meta WHERE name = 'other'") == 0
        assert other.poll() is None, "it waits as long as the file is kept open"
    finish(other)
    assert store.value("SELECT count(*) FROM meta WHERE name IN ('kept', 'other')") == 2


def test_processes_that_create_one_store_at_once_get_the_same_one(tmp_path: Path) -> None:
    processes = [start(OPEN, tmp_path / "home" / "store.duckdb") for _ in range(3)]
    assert len({finish(process) for process in processes}) == 1


def test_concurrent_writers_lose_and_double_nothing(store: Store) -> None:
    writers, shared = [uid(f"writer {number}") for number in range(4)], uid("shared")
    processes = [start(WRITE, store.path, f"{writer} {shared}", 20, 32) for writer in writers]
    for process in processes:
        finish(process, 120)
    counts = store.query("SELECT set_key, count(*) AS rows, count(DISTINCT member_id) AS ids FROM members GROUP BY ALL")
    assert {row["set_key"]: (row["rows"], row["ids"]) for row in counts} == dict.fromkeys(
        (*writers, shared), (640, 640)
    )


def test_a_killed_writer_leaves_whole_batches_and_all_that_it_acknowledged(store: Store) -> None:
    chance = random.Random(0)
    for attempt in range(4):
        own, shared = uid(f"killed {attempt}"), uid("shared")
        process = start(WRITE, store.path, f"{own} {shared}", 10_000, 50)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.4))
        process.send_signal(signal.SIGKILL)
        acknowledged = 1 + len(process.communicate()[0].splitlines())
        reopened = open_store(store.path)
        sql = "SELECT count(*) FROM members WHERE set_key = ?"
        written = reopened.value(sql, [own])
        assert written % 50 == 0
        assert acknowledged <= written // 50 <= acknowledged + 1
        assert reopened.value(sql, [shared]) >= written


FILL = """
import os, resource, sys
from pathlib import Path
from rlrf.errors import StoreError
from storage.store import Store, insert
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
store, batches = Store(Path(sys.argv[1])), 0
try:
    while batches < 1000:
        rows = [{"key": os.urandom(16).hex(), "kind": os.urandom(400).hex(), "ingredients": "{}"} for _ in range(200)]
        with store.connect() as connection:
            insert(connection, "keys", rows)
        batches += 1
except StoreError as error:
    print(batches, error)
"""
"""Commits batches of 200 keys until a write fails; says how many were committed, and the error."""


def assert_full_and_safe(store: Store, said: str) -> None:
    batches, _, error = said.partition(" ")
    assert "the disk is full: free some space and run the same command again" in error
    assert int(batches) > 0
    assert open_store(store.path).value("SELECT count(*) FROM keys") == 200 * int(batches)


def test_a_write_beyond_the_largest_file_fails_and_keeps_what_was_committed(store: Store) -> None:
    limit = store.path.stat().st_size + 1_000_000
    assert_full_and_safe(store, finish(start(FILL, store.path, limit)))
    with store.connect() as connection:
        connection.execute("INSERT INTO keys VALUES (uuid(), 'after', '{}')")
    assert store.value("SELECT count(*) FROM keys WHERE kind = 'after'") == 1


def test_a_full_disk_fails_the_write_and_keeps_what_was_committed(small_disk: Path) -> None:
    store = open_store(small_disk / "store.duckdb")
    assert_full_and_safe(store, finish(start(FILL, store.path)))


def test_a_backup_that_does_not_fit_stops_the_migration(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(small_disk / "store.duckdb")
    (small_disk / "ballast").write_bytes(bytes(8_000_000 - 2 * store.path.stat().st_size + 500_000))
    monkeypatch.setattr(storage.store, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE later (a INT)"))
    monkeypatch.setattr(storage.store, "VERSION", VERSION + 1)
    with pytest.raises(StoreError, match="the disk is full"):
        open_store(store.path)
    assert not list(small_disk.glob("*.backup.duckdb"))
    (small_disk / "ballast").unlink()
    assert open_store(store.path).value("SELECT count(*) FROM later") == 0


UNPRIVILEGED = """
import os, sys
from rlrf.errors import StoreError
from storage.store import open_store
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
try:
    open_store("store.duckdb").store_id
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("existing", [False, True], ids=["no store", "a store"])
def test_a_folder_that_may_not_be_written_is_refused_with_the_remedy(tmp_path: Path, existing: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if existing:
        open_store(home / "store.duckdb").path.chmod(0o444)
    home.chmod(0o555)
    try:
        said = finish(start(UNPRIVILEGED, home))
    finally:
        home.chmod(0o755)
    assert "choose another `home` or mend its permissions" in said
    assert [file.name for file in home.iterdir()] == (["store.duckdb"] if existing else [])


@pytest.fixture
def unwritable(store: Store) -> Iterator[Store]:
    """A store with a snapshot on a file system that is mounted read-only, which stops root, too."""
    publish(store)
    folder = store.path.parent
    bound = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
    if bound.returncode:
        pytest.skip("only root may mount a folder read-only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield store
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_read_only_file_system_is_said_and_its_snapshot_can_be_read(unwritable: Store) -> None:
    for use in (lambda: open_store(unwritable.path), lambda: publish(unwritable), lambda: restore(unwritable.path)):
        with pytest.raises(StoreError, match="can't be written: choose another `home` or mend its permissions"):
            use()
    assert rows_in(snapshot_path(unwritable.path)) == 2
