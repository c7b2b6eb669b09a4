"""A run of which everything is finished, where no Prefect server is configured: recorded as any other, without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from storage import reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import Ran

RECORDED = """SELECT iteration, arm, base_id, policy_id, evaluation, decision, prompts_key, responses_key, refinements_key, pair_set,
              judge_key, stage_keys FROM iterations WHERE run_id = ? ORDER BY iteration, arm"""


@dataclass(frozen=True)
class Again:
    """The same command over a copy of a finished run's home."""

    said: str
    store: Store
    prefect: Path
    before: dict[str, list[dict[str, object]]]


def contents(store: Store) -> dict[str, list[dict[str, object]]]:
    tables = (
        "responses",
        "judgements",
        "ratings",
        "pairs",
        "trainings",
        "evaluations",
        "decisions",
        "policies",
        "receipts",
    )
    return {name: store.query(f"SELECT * FROM {name} ORDER BY ALL") for name in tables}


@pytest.fixture(scope="module")
def again(wheel: Ran, tmp_path_factory: pytest.TempPathFactory) -> Again:
    folder = tmp_path_factory.mktemp("unchanged")
    shutil.copytree(wheel.config.home, folder / "home")
    assert wheel.config.policy.model is not None
    path = builders.write_config(folder, Path(wheel.config.policy.model), "improving", iterations=3)
    store, prefect = open_store(folder / "home" / "store.duckdb"), folder / "prefect"
    before = contents(store)
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [Path(sys.executable).with_name("rlrf"), "run", path],
        env=environment | {"PREFECT_HOME": str(prefect)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Again(done.stdout, store, prefect, before)


def test_nothing_is_made_and_nothing_changes(again: Again) -> None:
    assert "nothing was regenerated" in again.said
    assert contents(again.store) == again.before


def test_it_is_recorded_as_the_run_that_did_the_work_was(again: Again, wheel: Ran) -> None:
    run_id = reading.latest_run(again.store)
    assert run_id is not None
    assert run_id != wheel.run_id
    assert reading.runs(again.store)[0]["status"] == "completed"
    assert again.store.query(RECORDED, [run_id]) == wheel.store.query(RECORDED, [wheel.run_id])
    assert reading.results(again.store, run_id)


def test_no_server_of_prefects_was_started(again: Again) -> None:
    assert list(again.prefect.rglob("*.db")) == []
