"""Two runs of one configuration at once, in processes of their own: the work of one, and the other's too if one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from rlrf.config import load_config
from storage import reading, runs
from storage.store import Store, open_store
from tests import builders
from tests.flows.conftest import KILLED
from tests.flows.replies import ASKED, SECONDS
from tests.flows.test_resume import BATCH, RLRF

STOPPED = 3


def start(path: Path, asked: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [RLRF, "run", path],
        env=os.environ | {SECONDS: "0.05", ASKED: str(asked)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def at_work(store: Store, asked: Path) -> int:
    """The process of two that makes responses, once both have begun and it has made some."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        begun = store.value("SELECT count(*) FROM runs WHERE status = 'running'") == 2
        if begun and asked.exists() and len(asked.read_text().splitlines()) > BATCH:
            (holder,) = store.query("SELECT DISTINCT pid FROM claims JOIN claimants USING (owner)") or [{"pid": 0}]
            if holder["pid"]:
                return int(holder["pid"])
        time.sleep(0.3)
    raise AssertionError("the runs ended before one could be killed")


def everything(store: Store) -> list[object]:
    """What a run leaves, in both splits."""
    texts = "SELECT response_id, position, text FROM {}.responses ORDER BY ALL"
    verdicts = "SELECT response_id, judge_key, score FROM {}.judgements ORDER BY ALL"
    sqls = [sql.format(scope) for scope in ("main", "held_out") for sql in (texts, verdicts)]
    return [store.query(sql) for sql in (*sqls, "SELECT * FROM pairs ORDER BY ALL")]


def test_two_runs_at_once_ask_for_nothing_twice_and_one_goes_on_without_the_other(
    prefect_server: str, model: Path, tmp_path: Path
) -> None:
    path, asked = builders.write_config(tmp_path / "both", model, "slow", **KILLED), tmp_path / "both.txt"
    first, second = start(path, asked), start(path, asked)
    said = [one.communicate(timeout=300) for one in (first, second)]
    assert [one.returncode for one in (first, second)] == [STOPPED, STOPPED], said  # too few pairs to train on
    times = Counter(asked.read_text().split())
    assert times.total() - len(times) <= 0.02 * len(times)
    store = open_store(load_config(path).store_path)
    assert store.query("FROM claims") == store.query("FROM claimants") == []
    assert [row["status"] for row in reading.runs(store)] == ["stopped", "stopped"]

    path, asked = builders.write_config(tmp_path / "killed", model, "slow", **KILLED), tmp_path / "killed.txt"
    pair = {one.pid: one for one in (start(path, asked), start(path, asked))}
    other = open_store(load_config(path).store_path)
    killed = pair.pop(at_work(other, asked))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (heir,) = pair.values()
    out, err = heir.communicate(timeout=300)
    assert heir.returncode == STOPPED, out + err
    again = Counter(asked.read_text().split())
    assert again.total() - len(again) <= BATCH
    assert everything(other) == everything(store)
    assert other.query("FROM claims") == other.query("FROM claimants") == []
    assert len(runs.mark_killed(other, "wheel")) == 1
