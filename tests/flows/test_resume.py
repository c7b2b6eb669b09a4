"""A run that is killed without warning goes on from its rows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlrf.config import load_config
from storage import reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import Ran, Said
from tests.flows.conftest import KILLED
from tests.flows.replies import ASKED, SECONDS

RLRF = Path(sys.executable).with_name("rlrf")
BATCH, PLANNED, ENOUGH = 8, 80, 30


@dataclass(frozen=True)
class Killed:
    """A store after the kill, what commands said of it then, and the run that went on."""

    rows: set[str]
    plan: Said
    status: Said
    resumed: Ran
    asked: Counter[str]


def kill_in_the_middle(path: Path, asked: Path) -> None:
    """Start `rlrf run` and kill its process group once it has answered the exam and some of explore."""
    process = subprocess.Popen(
        [RLRF, "run", path],
        env=os.environ | {SECONDS: "0.05", ASKED: str(asked)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if asked.exists() and len(asked.read_text().splitlines()) >= builders.HELD_OUT + ENOUGH:
            break
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it ended before it could be killed: {said.decode()}"


def response_ids(store: Store) -> set[str]:
    return {row["response_id"] for row in store.query("SELECT response_id FROM responses")}


@pytest.fixture(scope="module")
def killed(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Killed in explore, looked at, and run again."""
    folder = tmp_path_factory.mktemp("killed")
    path, asked = builders.write_config(folder, model, "slow", **KILLED), folder / "asked.txt"
    kill_in_the_middle(path, asked)
    store = open_store(load_config(path).store_path)
    rows, plan, status = response_ids(store), builders.rlrf("plan", path), builders.rlrf("status", store.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECONDS, "0")
        patch.setenv(ASKED, str(asked))
        resumed = builders.run(path)
    return Killed(rows, plan, status, resumed, Counter(asked.read_text().splitlines()))


def test_the_kill_fell_into_the_middle(killed: Killed) -> None:
    assert 0 < len(killed.rows) < PLANNED
    assert len(killed.rows) % BATCH == 0, "a batch is one transaction"


def test_the_plan_says_what_is_left(killed: Killed) -> None:
    assert killed.plan.code == 0, killed.plan.err
    explore = next(line.split() for line in killed.plan.out.splitlines() if " explore " in line)
    assert explore[:2] == ["1", "explore"]
    kept = len(killed.rows)
    assert explore[2:7] == ["partly", "reusable", str(PLANNED), str(kept), str(PLANNED - kept)]
    assert " ".join(explore[7:]).endswith("started, not finished")


def test_the_status_shows_a_run_that_did_not_end(killed: Killed) -> None:
    assert killed.status.code == 0, killed.status.err
    assert "running" in killed.status.out


def test_the_next_run_says_what_it_keeps(killed: Killed) -> None:
    said = killed.resumed.said
    kept = len(killed.rows)
    assert "was killed: its rows are kept" in said.out
    assert f"{kept} of {PLANNED} responses kept, {PLANNED - kept} to do" in said.err
    assert killed.resumed.made("responses") == PLANNED + 10 - kept


def test_at_most_one_batch_is_repeated(killed: Killed) -> None:
    repeated = sum(times - 1 for times in killed.asked.values())
    assert repeated <= BATCH
    assert max(killed.asked.values()) <= 2


def test_nothing_is_lost_and_nothing_differs(killed: Killed, unkilled: Ran) -> None:
    everything = (
        "SELECT response_id, prompt_id, parent_id, gen_key, position, seed, text, finish_reason FROM {} ORDER BY ALL"
    )
    verdicts = "SELECT response_id, judge_key, score, reason FROM {} ORDER BY ALL"
    for scope in ("main", "held_out"):
        for sql in (everything.format(f"{scope}.responses"), verdicts.format(f"{scope}.judgements")):
            assert killed.resumed.store.query(sql) == unkilled.store.query(sql)
    pairs = "SELECT * FROM pairs ORDER BY ALL"
    assert killed.resumed.store.query(pairs) == unkilled.store.query(pairs)


def test_the_killed_run_is_not_called_completed(killed: Killed) -> None:
    last, first = reading.runs(killed.resumed.store)
    assert last["status"] == "stopped"
    assert first["status"] == "killed"
    assert "without a word" in first["reason"]
