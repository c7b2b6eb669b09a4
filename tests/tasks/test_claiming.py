"""Two processes at the same rows: each is asked for once, and who is killed leaves them to the other."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import storage.store
from rlrf.errors import StoreError
from rlrf.fingerprints import content_id
from rlrf.records import Prompt
from storage import rows, sets
from storage.claims import Claimant
from storage.store import Store, open_store
from tasks.claiming import turn
from tasks.progress import StageProgress
from tests import builders
from tests.storage.processes import start
from tests.tasks.test_judging import rubric_judge, stage_with

PROMPTS, BATCH = 10, 8


@dataclass(frozen=True)
class Place:
    """A configuration, and the key of a set in its store."""

    path: Path
    set_key: str
    store: Store

    @property
    def folder(self) -> Path:
        return self.path.parent

    def asked(self) -> Counter[str]:
        """How often each request was answered."""
        file = self.folder / "asked.txt"
        return Counter(file.read_text().split()) if file.exists() else Counter()

    def wait_for(self, count: int) -> None:
        """Until so many requests were answered."""
        deadline = time.monotonic() + 60
        while self.asked().total() < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def nothing_is_held(self) -> bool:
        return self.store.query("FROM claims") == self.store.query("FROM claimants") == []


WORK = """
import os, sys
from pathlib import Path
from uuid import uuid4
from rlrf.config import load_config
from rlrf.exploring import plan_responses
from rlrf.handles import Policy, Run
from rlrf.stages import response_key
from storage.rows import prompts_of
from storage.store import open_store
from tasks.judging import judge_set
from tasks.produce import produce
from tasks.progress import StageProgress
from tasks.stage import Stage
from tests.flows.replies import ASKED, SECONDS

print("ready", flush=True)
for line in sys.stdin:
    path, asked, set_key, n = line.split()
    os.environ |= {SECONDS: "0.02", ASKED: asked}
    config = load_config(Path(path))
    store = open_store(config.store_path)
    run = Run(run_id=str(uuid4()), store_id=store.store_id, config=config)
    stage, whole = Stage("stage", str(uuid4()), run, store, StageProgress("stage")), True
    if int(n):
        policy = Policy(policy_id=set_key, name="p", folder="")
        key = response_key(config, policy, config.explore)
        prompts = prompts_of(store, set_key)
        made = produce(
            stage, store, policy, key, config.explore.sampling(), lambda one: plan_responses(one, prompts, int(n))
        )
        whole = made == [one.response_id for one in plan_responses(key.key, prompts, int(n))]
    else:
        judge_set(stage, store, set_key, config.judge, stage.progress)
    print(int(whole), stage.progress.kept, stage.progress.produced, flush=True)
"""
"""Brings n responses to the prompts of a set into the store, or if n is 0 a judge's verdicts on it, whenever it is told to."""


@dataclass
class Workers:
    """Processes that work when they are told to; the ones that are still there are used again."""

    there: list[subprocess.Popen[str]] = field(default_factory=list)

    def pair(self) -> list[subprocess.Popen[str]]:
        """Two that are ready."""
        self.there = [one for one in self.there if one.poll() is None]
        new = [start(WORK, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2 - len(self.there))]
        for one in new:
            assert _line(one) == ["ready"]
        self.there += new
        return self.there[:2]


def _line(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    found = Workers()
    yield found
    for one in found.there:
        one.kill()
        one.communicate()


def go(process: subprocess.Popen[str], place: Place, n: int = 0) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{place.path} {place.folder / 'asked.txt'} {place.set_key} {n}\n")
    process.stdin.flush()


def done(process: subprocess.Popen[str]) -> tuple[bool, int, int]:
    """Whether it got all that it wanted, how much of it others had made, and how much it made itself."""
    whole, kept, produced = map(int, _line(process))
    return bool(whole), kept, produced


@pytest.fixture
def prompted(tmp_path: Path) -> Place:
    """A set of prompts for a slow engine."""
    path = builders.write_config(tmp_path, tmp_path / "model", "slow")
    store, set_key = open_store(tmp_path / "home" / "store.duckdb"), content_id("test", "prompts")
    prompts = [
        Prompt(content_id("p", one.question), "s", ({"role": "user", "content": one.question},))
        for one in builders.problems("prompts")[:PROMPTS]
    ]
    rows.add_prompts(store, prompts)
    sets.add_members(store, set_key, [one.prompt_id for one in prompts])
    return Place(path, set_key, store)


@pytest.fixture
def answered(tmp_path: Path) -> Place:
    """A set of 40 responses for a slow judge."""
    judge: Any = rubric_judge("slow")
    stage = stage_with(tmp_path, judge, responses=40)
    return Place(builders.write_config(tmp_path, tmp_path / "model", judge=judge), stage.key, stage.store)


@pytest.mark.parametrize("result", [None, "a result"], ids=["it stopped", "it finished"])
def test_a_stage_waits_for_the_process_that_is_at_it_and_says_for_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], result: str | None
) -> None:
    store, key, run_id = open_store(tmp_path / "store.duckdb"), content_id("test", "stage"), content_id("test", "run")
    first, second, results = Claimant(store, run_id), Claimant(store), []
    assert first.take(key, [key]) == {key}

    def end() -> None:
        if result:
            results.append(result)
        first.release(key)

    threading.Timer(1.0, end).start()
    with turn(second, StageProgress("explore"), key, lambda: results[0] if results else None) as done:
        assert done == result
        assert second.holders(key) == []
    said = f"waiting for run {run_id[:8]}, PID {os.getpid()} on {os.uname().nodename}, which does the same work"
    assert said in capsys.readouterr().err
    assert store.query("FROM claims") == store.query("FROM claimants") == []


def test_plans_that_overlap_share_what_they_have_in_common(workers: Workers, prompted: Place) -> None:
    few, many = workers.pair()
    go(few, prompted, 3)
    prompted.wait_for(1)
    go(many, prompted, 5)
    assert done(few) == (True, 0, 3 * PROMPTS)
    assert done(many) == (True, 3 * PROMPTS, 2 * PROMPTS)
    assert set(prompted.asked().values()) == {1}
    assert prompted.store.value("SELECT count(*) FROM responses") == 5 * PROMPTS
    assert prompted.nothing_is_held()


def test_who_is_killed_leaves_its_responses_to_the_other(workers: Workers, prompted: Place) -> None:
    first, second = workers.pair()
    go(first, prompted, 4)
    prompted.wait_for(2 * BATCH)
    go(second, prompted, 4)
    prompted.wait_for(3 * BATCH)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    whole, kept, produced = done(second)
    assert (whole, kept + produced) == (True, 4 * PROMPTS)
    assert 0 < kept < 4 * PROMPTS
    assert prompted.asked().total() - 4 * PROMPTS <= BATCH
    assert prompted.store.value("SELECT count(*) FROM responses") == 4 * PROMPTS
    assert prompted.nothing_is_held()


def test_two_judges_of_one_set_ask_once(workers: Workers, answered: Place) -> None:
    first, second = workers.pair()
    go(first, answered)
    go(second, answered)
    (_, kept, made), (_, other_kept, other_made) = done(first), done(second)
    assert (made + other_made, kept + made, other_kept + other_made) == (40, 40, 40)
    assert set(answered.asked().values()) == {1}
    assert answered.store.value("SELECT count(*) FROM judgements") == 40
    assert answered.nothing_is_held()


def test_a_judge_that_is_killed_leaves_its_responses_to_the_other(workers: Workers, answered: Place) -> None:
    first, second = workers.pair()
    go(first, answered)
    answered.wait_for(BATCH)
    go(second, answered)
    answered.wait_for(2 * BATCH)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert done(second)[0]
    assert answered.asked().total() - 40 <= 2 * BATCH
    assert answered.store.value("SELECT count(*) FROM judgements WHERE reason IS NULL") == 40
    assert answered.nothing_is_held()


def stop_without_the_file(process: subprocess.Popen[str], place: Place) -> None:
    """Suspend a process between two operations, and have its claims expire."""
    while True:
        process.send_signal(signal.SIGSTOP)
        try:
            with place.store.connect() as connection:
                held = connection.execute("SELECT count(*) FROM claims").fetchone()
                connection.execute("DELETE FROM claims; DELETE FROM claimants")
            assert held and held[0]
            return
        except StoreError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)


def test_a_suspended_process_that_lost_its_claims_doubles_nothing(
    workers: Workers, prompted: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.store, "BUSY_SECONDS", 0.5)
    first, second = workers.pair()
    go(first, prompted, 3)
    prompted.wait_for(BATCH)
    stop_without_the_file(first, prompted)
    try:
        go(second, prompted, 3)
        assert done(second)[0]
    finally:
        first.send_signal(signal.SIGCONT)
    assert done(first)[0]
    sql = "SELECT count(*) AS rows, count(DISTINCT response_id) AS ids FROM responses"
    assert prompted.store.query(sql) == [{"rows": 3 * PROMPTS, "ids": 3 * PROMPTS}]
    assert prompted.nothing_is_held()
