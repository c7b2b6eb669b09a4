"""Claims between real processes: disjoint, free at once when their owner ends, void elsewhere by beats alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage import claims, process
from storage.claims import Claimant
from storage.process import Process, this_process
from storage.store import Store
from tests.storage.builders import RUN, uid
from tests.storage.processes import start

WORK = uid("work")
ROWS = [uid(f"row {number}") for number in range(40)]

TAKE = """
import sys, time
from pathlib import Path
from storage.claims import Claimant
from storage.store import Store
claimant = Claimant(Store(Path(sys.argv[1])), sys.argv[5])
for _ in range(int(sys.argv[3])):
    mine = claimant.take(sys.argv[2], sys.argv[6:])
print(" ".join(sorted(mine)), flush=True)
time.sleep(float(sys.argv[4]))
"""
"""Claims these rows, so many times, says which it got, and stays for so many seconds."""


@contextmanager
def holding(store: Store, rows: list[str], seconds: float = 60) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds rows of WORK."""
    other = start(TAKE, store.path, WORK, 1, seconds, RUN, *rows)
    assert other.stdout is not None
    assert other.stdout.readline().split() == sorted(rows)
    try:
        yield other
    finally:
        other.kill()
        other.communicate()


def pretend(store: Store, **changes: object) -> None:
    """Change what the store says of the claimants."""
    with store.connect() as connection:
        for name, value in changes.items():
            connection.execute(f"UPDATE claimants SET {name} = ?", [value])


def count(store: Store, table: str) -> int:
    return int(store.value(f"SELECT count(*) FROM {table}"))


def test_claimers_at_once_get_disjoint_rows_and_all_of_them(store: Store) -> None:
    order = (ROWS, ROWS[::-1], ROWS[20:] + ROWS[:20])
    others = [start(TAKE, store.path, WORK, 3, 60, RUN, *rows) for rows in order]
    try:
        got = [set(other.stdout.readline().split()) for other in others if other.stdout is not None]
    finally:
        for other in others:
            other.kill()
            other.communicate()
    assert set.union(*got) == set(ROWS)
    assert sum(map(len, got)) == len(ROWS)


def test_a_claim_holds_back_others_until_it_is_released(store: Store) -> None:
    with holding(store, ROWS[:3]) as other:
        mine = Claimant(store)
        assert mine.take(WORK, ROWS[:5]) == set(ROWS[3:5])
        assert mine.take(uid("other work"), ROWS[:1]) == set(ROWS[:1])
        (holder,) = mine.holders(WORK)
        assert (holder.run_id, holder.process.pid, holder.rows) == (RUN, other.pid, 3)
        assert str(holder) == f"run {RUN[:8]}, PID {other.pid} on {os.uname().nodename}"
        mine.release(WORK)
        assert Claimant(store).take(WORK, ROWS[3:5]) == set(ROWS[3:5])
        mine.release(uid("other work"))


def test_two_claimants_of_one_process_hold_each_other_back(store: Store) -> None:
    first, second = Claimant(store), Claimant(store)
    assert first.take(WORK, ROWS[:2]) == first.take(WORK, ROWS[:2]) == set(ROWS[:2])
    assert second.take(WORK, ROWS[:2]) == set()
    first.release(WORK)
    assert second.take(WORK, ROWS[:2]) == set(ROWS[:2])
    second.release(WORK)
    assert count(store, "claims") == count(store, "claimants") == 0


def test_the_rows_of_a_killed_process_are_free_at_once(store: Store) -> None:
    with holding(store, ROWS) as other:
        other.send_signal(signal.SIGKILL)
        while process._state(other.pid) != ("Z", process._state(other.pid)[1]):  # type: ignore[index]
            time.sleep(0.01)
        mine = Claimant(store)  # nobody has waited for the dead process: its pid is still there
        assert mine.take(WORK, ROWS) == set(ROWS)
        assert mine.holders(WORK) == []
        assert count(store, "claimants") == 1
        mine.release(WORK)


def test_a_pid_that_another_process_has_by_now_does_not_hold(store: Store) -> None:
    with holding(store, ROWS):
        pretend(store, process=process.unmarked() + "17")
        mine = Claimant(store)
        assert mine.take(WORK, ROWS) == set(ROWS)
        mine.release(WORK)


@pytest.mark.parametrize("elsewhere", [{"host": "far"}, {"process": "boot|pid:[1]|5"}], ids=["host", "container"])
def test_elsewhere_a_claim_ends_by_beats_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, elsewhere: dict[str, str]
) -> None:
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 0.6)
    gone = subprocess.Popen(["true"])
    gone.wait()
    with holding(store, ROWS):
        pretend(store, pid=gone.pid, **elsewhere)
        mine = Claimant(store)
        began = time.monotonic()
        for beats in range(1, 9):  # it lives as long as it beats, whatever pid it has there
            time.sleep(0.1)
            assert mine.take(WORK, ROWS) == set()
            pretend(store, beats=100 * beats)
        assert time.monotonic() - began > 0.8
        silent = time.monotonic()
        while not mine.take(WORK, ROWS):
            time.sleep(0.1)
        assert 0.5 < time.monotonic() - silent < 5
        mine.release(WORK)


@pytest.mark.parametrize("started_at", ["1970-01-02", "2999-01-01"])
def test_clocks_that_jump_change_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, started_at: str) -> None:
    with holding(store, ROWS):
        pretend(store, started_at=started_at)
        monkeypatch.setattr(time, "time", lambda: 0.0)
        mine = Claimant(store)
        assert mine.take(WORK, ROWS) == set()
        assert len(mine.holders(WORK)) == 1
    assert mine.take(WORK, ROWS) == set(ROWS)
    mine.release(WORK)


def test_time_in_which_nobody_could_look_does_not_expire_claims(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook that had the file open kept owners from beating as well; so did a waiter's own suspension."""
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(claims, "EXPIRY_SECONDS", 0.3)
    with holding(store, ROWS):
        pretend(store, host="far")
        mine = Claimant(store)
        assert mine.take(WORK, ROWS) == set()
        time.sleep(0.6)
        assert mine.take(WORK, ROWS) == set()


def test_an_owner_beats_while_it_holds_anything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    mine = Claimant(store)
    mine.take(WORK, ROWS)
    deadline = time.monotonic() + 10
    while store.value("SELECT beats FROM claimants") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert store.value("SELECT beats FROM claimants") >= 3
    mine.release(WORK)
    assert mine._thread is None


def test_a_process_that_lost_its_claims_takes_them_anew(store: Store) -> None:
    suspended, other = Claimant(store), Claimant(store)
    suspended.take(WORK, ROWS[:1])
    with store.connect() as connection:
        connection.execute("DELETE FROM claims; DELETE FROM claimants")
    assert other.take(WORK, ROWS[:1]) == set(ROWS[:1])
    assert suspended.take(WORK, ROWS[:2]) == set(ROWS[1:2])
    suspended.release(WORK)
    assert len(suspended.holders(WORK)) == 1
    other.release(WORK)
    assert count(store, "claims") == count(store, "claimants") == 0


def test_held_out_rows_are_claimed_in_the_same_tables(store: Store) -> None:
    mine, other = Claimant(store.held_out()), Claimant(store)
    assert mine.take(WORK, ROWS[:2]) == set(ROWS[:2])
    assert other.take(WORK, ROWS[:3]) == set(ROWS[2:3])
    mine.release(WORK)
    other.release(WORK)


def test_without_proc_the_pid_alone_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_BOOT", tmp_path / "none")
    monkeypatch.setattr(process, "_NAMESPACE", tmp_path / "none")
    me, gone = this_process(), subprocess.Popen(["true"])
    gone.wait()
    assert me.mark.startswith("||")
    assert not process.is_gone(me)
    assert process.is_gone(Process(me.host, gone.pid, "||"))
    assert not process.is_gone(Process("far", gone.pid, "||"))
