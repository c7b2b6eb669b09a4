"""Two runs of one configuration at once, in processes of their own: the work of one, and the other's too if one is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from rlrf.config import load_config
from storage import ledger, reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import HELD_OUT
from tests.flows.replies import ASKED, SECONDS
from tests.flows.test_resume import BATCH, CHANGES, ENOUGH, RLRF

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


def wait_for(asked: Path, count: int) -> None:
    deadline = time.monotonic() + 180
    while not asked.exists() or len(asked.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def everything(store: Store) -> list[object]:
    """What a run leaves, in both splits."""
    texts = "SELECT response_id, position, text FROM {}.responses ORDER BY ALL"
    verdicts = "SELECT response_id, judge_key, score FROM {}.judgements ORDER BY ALL"
    sqls = [sql.format(scope) for scope in ("main", "held_out") for sql in (texts, verdicts)]
    return [store.query(sql) for sql in (*sqls, "SELECT * FROM pairs ORDER BY ALL")]


def test_two_runs_at_once_ask_for_nothing_twice_and_one_goes_on_without_the_other(
    prefect_server: str, model: Path, tmp_path: Path
) -> None:
    path, asked = builders.write_config(tmp_path, model, "slow", **CHANGES), tmp_path / "asked.txt"
    first, second = start(path, asked), start(path, asked)
    said = [one.communicate(timeout=300) for one in (first, second)]
    assert [one.returncode for one in (first, second)] == [STOPPED, STOPPED], said  # too few pairs to train on
    times = Counter(asked.read_text().split())
    assert times.total() - len(times) <= 0.02 * len(times)
    assert any(
        "waiting for run" in err and f"PID {other.pid}" in err
        for (_, err), other in zip(said, (second, first), strict=True)
    )
    store = open_store(load_config(path).store_path)
    assert store.query("FROM claims") == store.query("FROM claimants") == []
    assert [row["status"] for row in reading.runs(store)] == ["stopped", "stopped"]

    killed, heir = tmp_path / "killed", tmp_path / "killed.txt"
    path = builders.write_config(killed, model, "slow", **CHANGES)
    first = start(path, heir)
    wait_for(heir, 1)
    second = start(path, heir)
    wait_for(heir, HELD_OUT + ENOUGH)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    out, err = second.communicate(timeout=300)
    assert second.returncode == STOPPED, out + err
    again = Counter(heir.read_text().split())
    assert again.total() - len(again) <= BATCH
    other = open_store(load_config(path).store_path)
    assert everything(other) == everything(store)
    assert other.query("FROM claims") == other.query("FROM claimants") == []
    assert len(ledger.mark_killed(other, "wheel")) == 1
