"""Promotions that wait for a person: by the command line without a server, in Prefect's UI with one, and after kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from flows.plan import plan
from flows.steps import FINISHED, PARTLY
from rlrf import stages
from rlrf.config import load_config
from rlrf.errors import StoppedError, StoreError
from rlrf.handles import Evaluation, Run
from storage import approvals, ledger
from storage.approvals import Answer
from storage.store import Store, open_store
from tasks.decide import decide
from tests import builders
from tests.builders import Ran
from tests.flows.test_prefect import wait_for

RLRF = Path(sys.executable).with_name("rlrf")


class Case:
    """A finished wheel whose promotions a person is to approve, in a home of its own: all but the decisions is done."""

    def __init__(self, wheel: Ran, folder: Path, hours: float = 24) -> None:
        shutil.copytree(wheel.config.home, folder / "home")
        assert wheel.config.policy.model is not None
        changes = {"gate__approval": hours, "iterations": 1}
        self.path = builders.write_config(folder, Path(wheel.config.policy.model), "improving", **changes)
        self.config, self.home = load_config(self.path), folder / "home"
        self.store: Store = open_store(self.config.store_path)
        rows = self.store.query("SELECT evaluation FROM iterations WHERE arm <> 'control' ORDER BY iteration")
        found = [ledger.evaluation(self.store, row["evaluation"]) for row in rows[:2]]
        self.old, self.new = (one for one in found if isinstance(one, Evaluation))
        self.run = Run(run_id=wheel.run_id, store_id=self.store.store_id, config=self.config)
        self.key = stages.decide_key(self.config, self.new, self.old).key

    def decide(self) -> Any:
        return decide.fn(self.run, 1, self.new, self.old)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        return self.store.query("SELECT verdict, decided_by, reason FROM decisions WHERE stage_key = ?", [self.key])

    @property
    def step(self) -> Any:
        return next(one for one in plan(self.config) if one.stage == "decide")


@pytest.fixture
def case(wheel: Ran, tmp_path: Path) -> Case:
    return Case(wheel, tmp_path)


def test_approval_is_part_of_the_key_only_where_it_is_asked_for(case: Case, wheel: Ran) -> None:
    off = stages.decide_key(wheel.config, case.new, case.old)
    assert "approval" not in off.ingredients
    assert ledger.receipt(wheel.store, off.key) is not None, "the key that there was before"
    patient = case.config.model_copy(update={"gate": case.config.gate.model_copy(update={"approval": 1.0})})
    assert stages.decide_key(patient, case.new, case.old).key == case.key != off.key


def test_nothing_is_promoted_without_an_answer(case: Case) -> None:
    for _ in range(2):
        with pytest.raises(StoppedError, match="awaits approval.*rlrf approve"):
            case.decide()
    assert case.decisions == []
    status = builders.rlrf("status", case.home).out
    for part in ("Awaits approval until", "would replace", "length ratio", "Pair audit", "Example 1", "Rejected"):
        assert part in status
    assert case.step.why.startswith("awaits approval")
    assert case.step.state == PARTLY


def test_approve_and_reject_are_rows_with_who_and_why(wheel: Ran, tmp_path: Path) -> None:
    for word, verdict in (("approve", "promote"), ("reject", "keep")):
        case = Case(wheel, tmp_path / word)
        with pytest.raises(StoppedError):
            case.decide()
        said = builders.rlrf(word, case.home, "--reason", "because", "--by", "Ada")
        assert said.code == 0, said.err
        assert f"{word}" in said.out
        assert case.decide().verdict == verdict
        assert case.decisions == [{"verdict": verdict, "decided_by": "Ada", "reason": "because"}]
        assert case.step.state == FINISHED
        late = builders.rlrf("approve", case.home, "--reason", "late")
        assert late.code == 1
        assert "0 promotions wait for approval" in late.err


def test_after_its_time_a_policy_is_kept_out_once_and_for_all(wheel: Ran, tmp_path: Path) -> None:
    case = Case(wheel, tmp_path, hours=1e-7)
    assert case.decide().verdict == "keep"
    assert [(row["decided_by"], row["verdict"]) for row in case.decisions] == [("gate", "keep")]
    assert "nobody approved it within 1e-07 hours" in case.decisions[0]["reason"]
    assert approvals.settle(case.store, case.key, Answer(True, "Ada", "late")) == Answer(
        False, "gate", case.decisions[0]["reason"]
    )


def test_the_gates_own_keep_needs_nobody(case: Case) -> None:
    assert decide.fn(case.run, 1, case.old, case.new).verdict == "keep"
    with pytest.raises(StoreError, match="0 promotions wait"):
        approvals.waiting(case.store)


def test_the_first_answer_counts(case: Case) -> None:
    with pytest.raises(StoppedError):
        case.decide()
    first = Answer(False, "Ada", "no")
    assert approvals.settle(case.store, case.key) is None
    assert approvals.settle(case.store, case.key, first) == first
    assert approvals.settle(case.store, case.key, Answer(True, "Bob", "yes")) == first


def test_a_decision_that_is_made_again_is_asked_again(case: Case) -> None:
    with pytest.raises(StoppedError):
        case.decide()
    builders.rlrf("approve", case.home, "--reason", "yes")
    case.decide()
    said = builders.rlrf("invalidate", case.path, "decide", "--yes")
    assert said.code == 0, said.err
    with pytest.raises(StoppedError, match="awaits approval"):
        case.decide()


@contextmanager
def running(case: Case, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run under the server, in a process of its own: of all, or of what comes after the iteration."""
    alone = (sys.executable, "-m", "tests.flows.waiting_run", case.path, case.new.key, case.old.key)
    with (case.home.parent / "run.log").open("ab") as log:
        process = subprocess.Popen(command or alone, stdout=log, stderr=log, env=os.environ, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def paused(case: Case, number: int) -> FlowRun:
    """The flow run that shows form `number` of this decision."""
    found = wait_for(f"form {number}", lambda: approvals.forms(case.store, case.key)[number - 1 : number])
    with get_client(sync_client=True) as client:
        flow_run = wait_for("the pause", lambda: _if_paused(client.read_flow_run(found[0]["flow_run_id"])))
    assert isinstance(flow_run, FlowRun)
    return flow_run


def _if_paused(flow_run: FlowRun) -> FlowRun | None:
    return flow_run if flow_run.state is not None and flow_run.state.is_paused() else None


def said_by(case: Case) -> str:
    return (case.home.parent / "run.log").read_text()


def test_a_killed_wait_asks_once_more_and_forgets_no_answer(case: Case, prefect_server: str) -> None:
    with running(case) as first:
        before = paused(case, 1)
    assert first.returncode == -signal.SIGKILL
    with running(case) as second, get_client(sync_client=True) as client:
        shown = paused(case, 2)
        assert shown.id != before.id
        base = f"paused-{shown.state.state_details.pause_key}"  # type: ignore[union-attr]
        evidence = client.read_flow_run_input(shown.id, f"{base}-description")
        refused = client.resume_flow_run(shown.id, run_input={"answer": "perhaps", "who": "Ada"})
        assert "REJECT" in str(refused.status)
        os.killpg(second.pid, signal.SIGSTOP)  # it doesn't see the answer any more
        client.resume_flow_run(shown.id, run_input={"answer": "approve", "who": "Ada", "note": "good"})
    assert case.decisions == [], "killed before it knew"
    with running(case) as third:
        assert third.wait(240) == 0, said_by(case)
    for part in ("would replace", "accuracy", "length ratio", "Pair audit", "Example 1"):
        assert part in evidence
    assert case.decisions == [{"verdict": "promote", "decided_by": "Ada", "reason": "good"}]
    assert len(approvals.forms(case.store, case.key)) == 2, "nobody was asked a third time"


def test_the_command_line_answers_a_run_that_waits_in_the_ui(case: Case, prefect_server: str) -> None:
    with running(case, RLRF, "run", case.path) as waiting:
        shown = paused(case, 1)
        said = builders.rlrf("reject", case.home, "--reason", "too terse", "--by", "Bob")
        assert said.code == 0, said.err
        assert waiting.wait(240) == 0, said_by(case)
    assert case.decisions == [{"verdict": "keep", "decided_by": "Bob", "reason": "too terse"}]
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(shown.id).state_name == "Completed"
