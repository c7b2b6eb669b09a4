"""Stages without a server: a task's function runs as it is, and the store decides what is left to do."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateType

from rlrf.config import parse_config
from rlrf.errors import StoppedError
from rlrf.handles import Handle, Run
from rlrf.stages import Key
from storage import ledger
from storage.store import Store, open_store
from tasks.stage import Stage, stage
from tests import builders

CALLS: list[int] = []


def _key(run: Run, number: int) -> Key:
    return Key("numbers", f"00000000-0000-0000-0000-{number:012d}", {"number": number})


@stage("numbers", _key)
def numbers(stage: Stage, run: Run, number: int) -> Handle:
    """Counts itself, and stops at 13."""
    CALLS.append(number)
    stage.progress.begin(number, 1)
    stage.progress.advance(number - 2, 1, tokens=10)
    if number == 13:
        raise StoppedError("numbers: 13")
    return stage.handle(number, f"00000000-0000-0000-0000-{number:012d}")


work: Any = numbers


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run over an empty store."""
    CALLS.clear()
    config = parse_config(builders.values(tmp_path, tmp_path / "model"), "a test")
    return Run(run_id=f"{1:032x}", store_id=open_store(config.store_path).store_id, config=config)


def store_of(run: Run) -> Store:
    return open_store(run.config.store_path)


def test_a_stage_leaves_a_receipt_with_what_it_did(run: Run) -> None:
    handle = work.fn(run, 5)
    store = store_of(run)
    assert (
        ledger.receipt(store, handle.key)
        == handle
        == Handle(stage="numbers", key=handle.key, rows=5, digest=handle.digest)
    )
    row = store.query("SELECT kept, produced, failed, tokens, seconds, run_id FROM receipts")[0]
    assert (row["kept"], row["produced"], row["failed"], row["tokens"]) == (1, 3, 1, 10)
    assert row["seconds"] >= 0
    assert store.value("SELECT ingredients FROM keys WHERE key = ?", [handle.key]) == '{"number": 5}'


def test_a_finished_stage_is_not_done_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    first = work.fn(run, 5)
    assert work.fn(run, number=5) == first
    assert CALLS == [5]
    assert "5 rows kept, nothing to do" in capsys.readouterr().err
    assert work.fn(run, 6) != first
    assert CALLS == [5, 6]


def test_a_stage_that_stops_is_done_again(run: Run) -> None:
    for _ in range(2):
        with pytest.raises(StoppedError, match="13"):
            work.fn(run, 13)
    assert CALLS == [13, 13]
    assert store_of(run).value("SELECT count(*) FROM receipts") == 0


def test_prefect_is_told_what_was_done_and_what_was_kept(run: Run) -> None:
    done, kept = (work.task.fn(run, 5) for _ in range(2))
    assert done.type == kept.type == StateType.COMPLETED
    assert (done.name, kept.name) == ("Completed", "Cached")
    assert done.message.startswith("5 rows, 1 kept, 3 new, 1 failed, 10 tokens")
    assert kept.message == "5 rows kept, nothing to do"
    assert done.data == kept.data == work.fn(run, 5)


def test_prefects_key_names_store_stage_and_contents(run: Run) -> None:
    key = f"rlrf/{run.store_id}/numbers/{_key(run, 5).key}"
    assert work.task.fn(run, 5).state_details.cache_key == key
    other = run.model_copy(update={"run_id": f"{2:032x}"})
    assert work.task.fn(other, 5).state_details.cache_key == key


def test_prefect_sees_the_tasks_own_parameters() -> None:
    assert list(inspect.signature(work.task.fn).parameters) == ["run", "number"]
    assert work.task.name == "numbers"


def test_prefect_neither_keeps_nor_looks_up_results() -> None:
    assert work.task.persist_result is False
    assert work.task.cache_policy == NO_CACHE
