from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storage.store
from rlrf.errors import StoreError
from storage.schema import IDENTITY, MIGRATIONS, VERSION
from storage.store import Store, insert, open_store
from tests.storage.builders import uid
from tests.storage.processes import finish, start


def test_a_new_store_has_every_table_and_a_version(tmp_path: Path) -> None:
    store = open_store(tmp_path / "deep" / "home" / "store.duckdb")
    tables = {(row["schema_name"], row["table_name"]) for row in store.query("FROM duckdb_tables()")}
    both = {"prompts", "responses", "failures", "judgements", "ratings", "members"}
    assert {("main", name) for name in both} | {("held_out", name) for name in both} <= tables
    assert store.value("SELECT value FROM meta WHERE name = 'version'") == str(VERSION)


def test_the_store_id_is_random_and_stays(tmp_path: Path) -> None:
    first, second = (open_store(tmp_path / f"{name}.duckdb") for name in "ab")
    assert first.store_id != second.store_id
    assert str(uuid.UUID(first.store_id)) == open_store(first.path).store_id


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    def write_and_fail() -> None:
        with store.connect() as connection:
            insert(connection, "members", [{"set_key": uid("s"), "member_id": uid("m")}])
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        write_and_fail()
    assert store.value("SELECT count(*) FROM members") == 0


def test_a_wrong_statement_is_a_store_error_that_names_the_file(store: Store) -> None:
    with pytest.raises(StoreError, match=f"(?s){store.path}.*no_such_table"):
        store.query("SELECT * FROM no_such_table")


def test_insert_of_nothing_is_nothing(store: Store) -> None:
    with store.connect() as connection:
        assert insert(connection, "members", []) == 0


def two_versions(monkeypatch: pytest.MonkeyPatch, *later: str) -> None:
    """As if this rlrf had further migrations."""
    monkeypatch.setattr(storage.store, "MIGRATIONS", (*MIGRATIONS, *later))
    monkeypatch.setattr(storage.store, "VERSION", VERSION + len(later))


def test_an_older_store_is_backed_up_and_migrated_step_by_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.connect() as connection:
        insert(connection, "members", [{"set_key": uid("s"), "member_id": uid(str(i))} for i in range(100)])
    identity = store.store_id
    two_versions(monkeypatch, "ALTER TABLE members ADD COLUMN note VARCHAR", "UPDATE members SET note = 'seen'")
    assert open_store(store.path).store_id == identity
    assert store.value("SELECT count(*) FROM members WHERE note = 'seen'") == 100
    assert store.value("SELECT value FROM meta WHERE name = 'version'") == str(VERSION + 2)
    assert sorted(file.name for file in store.path.parent.iterdir()) == [
        "store.duckdb",
        f"store.v{VERSION}.backup.duckdb",
    ]
    monkeypatch.undo()
    backup = open_store(store.path.with_suffix(f".v{VERSION}.backup.duckdb"))
    assert backup.value("SELECT count(*) FROM members") == 100
    assert backup.value("SELECT count(*) FROM duckdb_columns() WHERE column_name = 'note'") == 0


def test_a_failed_migration_keeps_the_steps_before_it_and_can_be_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = "ALTER TABLE members ADD COLUMN note VARCHAR"
    two_versions(monkeypatch, added, "CREATE TABLE half (a INT); SELECT * FROM missing")
    with pytest.raises(StoreError, match="missing"):
        open_store(store.path)
    assert store.value("SELECT value FROM meta WHERE name = 'version'") == str(VERSION + 1)
    assert store.value("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'half'") == 0
    two_versions(monkeypatch, added, "CREATE TABLE half (a INT)")
    open_store(store.path)
    assert store.value("SELECT count(*) FROM half") == 0


TRY_IN = """
import sys, duckdb
try:
    duckdb.connect(sys.argv[1]).close()
except duckdb.IOException:
    print("refused", end="")
else:
    print("got in", end="")
"""


def test_the_file_stays_locked_while_its_backup_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Steps(tuple[str, ...]):
        """Migrations; each is fetched after the backup and before it runs: the moment to try the lock."""

        def __getitem__(self, number: int) -> str:  # type: ignore[override]
            seen.append(finish(start(TRY_IN, store.path)))
            return super().__getitem__(number)

    two_versions(monkeypatch, "SELECT 1")
    monkeypatch.setattr(storage.store, "MIGRATIONS", Steps((*MIGRATIONS, "SELECT 1")))
    open_store(store.path)
    assert seen == ["refused"]


def test_a_newer_store_is_refused_and_not_touched(store: Store) -> None:
    with store.connect() as connection:
        connection.execute(f"UPDATE meta SET value = '{VERSION + 1}' WHERE name = 'version'")
    before = store.path.read_bytes()
    with pytest.raises(StoreError, match=f"version {VERSION + 1}.*upgrade rlrf"):
        open_store(store.path)
    assert store.path.read_bytes() == before
    assert [file.name for file in store.path.parent.iterdir()] == ["store.duckdb"]


@pytest.mark.parametrize("tables", ["CREATE TABLE a (b INT)", "CREATE TABLE meta (name VARCHAR, value VARCHAR)"])
def test_another_duckdb_file_is_refused_and_not_touched(tmp_path: Path, tables: str) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(tables)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not an rlrf store"):
        open_store(path)
    assert path.read_bytes() == before


def sqlite_file(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (b)")
    connection.close()


@pytest.mark.parametrize(
    "write",
    [lambda path: path.write_text("dear diary\n" * 1000), lambda path: path.write_text("x"), sqlite_file, Path.mkdir],
    ids=["text", "one letter", "sqlite", "folder"],
)
@pytest.mark.parametrize("folder", ["home", "o'clock"])
def test_what_is_no_duckdb_file_is_refused_at_once(tmp_path: Path, write, folder: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / folder / "store.duckdb"
    path.parent.mkdir()
    write(path)
    started = time.monotonic()
    with pytest.raises(StoreError, match="damaged or is no DuckDB file"):
        open_store(path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("at", [0, 8, 100, 4096, 8192])
def test_a_damaged_header_is_refused_at_once(store: Store, at: int) -> None:
    damaged = bytearray(store.path.read_bytes())
    damaged[at : at + 64] = bytes(byte ^ 0xFF for byte in damaged[at : at + 64])
    store.path.write_bytes(damaged)
    started = time.monotonic()
    with pytest.raises(StoreError, match="damaged"):
        open_store(store.path)
    assert time.monotonic() - started < 5


def test_a_cut_file_is_refused(store: Store) -> None:
    store.path.write_bytes(store.path.read_bytes()[: store.path.stat().st_size // 2])
    with pytest.raises(StoreError, match="damaged"):
        open_store(store.path)


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreError, match="writable folder"):
        open_store(tmp_path / "home" / "store.duckdb")


def test_a_kill_right_after_the_migrations_leaves_a_store_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    migrate = f"""
import os, signal, duckdb
from storage.schema import MIGRATIONS
connection = duckdb.connect({str(path)!r})
for number, migration in enumerate(MIGRATIONS, 1):
    connection.execute("BEGIN; " + migration)
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?), ('store_id', 'x')", [str(number)])
    connection.execute("COMMIT")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", migrate]).returncode == -signal.SIGKILL
    assert (tmp_path / "store.duckdb.wal").stat().st_size, "nothing is left to be replayed: the test tests nothing"
    assert open_store(path).query("FROM lineage") == []


def test_a_store_of_the_first_version_keeps_its_rows_and_still_doubles_none(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(MIGRATIONS[0])
        connection.execute("INSERT INTO meta VALUES ('version', '1'), ('store_id', 'x')")
        for schema in ("main", "held_out"):
            connection.execute(f"INSERT INTO {schema}.members VALUES (?, ?), (?, ?)", [uid(n) for n in "sasb"])
        connection.execute("INSERT INTO training_metrics VALUES (?, 1, 'loss', 0.5)", [uid("t")])
        connection.execute(
            "INSERT INTO prompts (prompt_id, source, messages, metadata) VALUES (?, 's', '[]', '{}')", [uid("p")]
        )
        judged = f"('{uid('r')}', '{uid('j')}'"
        connection.execute(f"INSERT INTO ratings VALUES {judged}, 'answer', 0, 1, 'fine')")
        connection.execute(f"INSERT INTO judgements VALUES {judged}, 1.0, NULL, 'raw', 3, 4, NULL, now())")
        there = sorted(
            set(IDENTITY) - {"arrivals", "chosen_aspects", "claims", "dropped_rows", "ratings", "judgements"}
        )
        before = {name: connection.execute(f"FROM {name}").fetchall() for name in there}
    store = open_store(path)
    for each in (store, store.held_out()):
        with each.connect() as connection:
            new = [{"set_key": uid("s"), "member_id": uid(name)} for name in "abc"]
            assert insert(connection, "members", new) == 1
            connection.execute("DELETE FROM members WHERE member_id = ?", [uid("c")])
    with store.connect() as connection:
        assert {name: connection.execute(f"FROM {name}").fetchall() for name in there} == before
        assert connection.execute("SELECT rating, level, critique FROM ratings").fetchall() == [(1.0, 1.0, "fine")]
        assert connection.execute("SELECT score, positive, attempts FROM judgements").fetchall() == [(1.0, True, 1)]
        found = connection.execute("SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'")
        assert not {name for (name,) in found.fetchall()} & set(IDENTITY)
    assert store.value("SELECT created_at IS NOT NULL FROM prompts") is True


def test_a_store_of_the_version_before_keeps_its_rows_after_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with duckdb.connect(str(path)) as connection:
        for migration in MIGRATIONS[:5]:
            connection.execute(migration)
        connection.execute("INSERT INTO meta VALUES ('version', '5'), ('store_id', 'x')")
        connection.execute("INSERT INTO members SELECT uuid(), uuid() FROM range(1000)")
        connection.execute("INSERT INTO ratings SELECT uuid(), uuid(), 'answer', 0, 1, 1, 'fine' FROM range(1000)")
        before = {name: connection.execute(f"FROM {name}").fetchall() for name in ("members", "ratings")}
    store = open_store(path)
    assert store.value("SELECT value FROM meta WHERE name = 'version'") == str(VERSION)
    assert store.value("SELECT count(*) FROM intervals") == 0
    backup = path.with_name("store.v5.backup.duckdb")
    with store.connect() as connection, duckdb.connect(str(backup), read_only=True) as kept:
        assert kept.execute("SELECT value FROM meta WHERE name = 'version'").fetchall() == [("5",)]
        for each in (connection, kept):
            assert {name: each.execute(f"FROM {name}").fetchall() for name in before} == before


def test_every_table_without_a_primary_key_has_an_identity(store: Store) -> None:
    sql = """SELECT DISTINCT table_name FROM duckdb_tables() WHERE table_name NOT IN
             (SELECT table_name FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY')"""
    every_start_counts = {"starts"}
    assert {row["table_name"] for row in store.query(sql)} - every_start_counts == set(IDENTITY)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5)), max_size=8), max_size=4))
def test_however_rows_are_repeated_the_first_of_each_is_kept(
    tmp_path: Path, batches: list[list[tuple[str, int]]]
) -> None:
    path = tmp_path / f"{uuid.uuid4()}.duckdb"
    store, kept = open_store(path), dict[tuple[str, int], float]()
    for number, batch in enumerate(batches):
        rows = [
            {"stage_key": uid(stage), "step": step, "name": "loss", "value": float(100 * number + place)}
            for place, (stage, step) in enumerate(batch)
        ]
        with store.connect() as connection:
            new = insert(connection, "training_metrics", rows)
        already = len(kept)
        for row in rows:
            kept.setdefault((str(row["stage_key"]), int(row["step"])), float(row["value"]))  # type: ignore[call-overload]
        assert new == len(kept) - already
    found = store.query("SELECT stage_key, step, value FROM training_metrics")
    assert {(row["stage_key"], row["step"]): row["value"] for row in found} == kept
    assert len(found) == len(kept)
