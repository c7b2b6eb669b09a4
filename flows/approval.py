"""Promotions that a person approves: the form in Prefect's UI and `rlrf approve`, of which the first answer counts.

Without a server that somebody can look at, nothing waits here: `tasks.decide` stops the run and says how to answer.
"""

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from uuid import UUID, uuid4

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.input import RunInput
from prefect.input.run_input import keyset_from_base_key
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Paused
from pydantic import Field, ValidationError

from flows.summary import evidence
from rlrf import stages
from rlrf.backends.opening import stop_engine
from rlrf.errors import StoppedError
from rlrf.handles import Evaluation, Outcome, Run
from storage import approvals, ledger
from storage.approvals import Answer
from storage.store import Store, open_store
from tasks.decide import weigh
from tasks.outbox import is_watched, outbox
from tasks.progress import StageProgress
from tasks.signals import AWAITS_APPROVAL, signal

POLL_SECONDS = 5.0
"""How often a waiting run looks for an answer, in the store and in Prefect."""

MARGIN = 3600
"""Seconds by which Prefect's own limit of a pause comes later than ours: it would fail the run."""


class Approval(RunInput):
    """The form: whether this policy replaces the champion."""

    answer: Literal["approve", "reject"] = Field(description="Approve: the new policy becomes the champion")
    who: str = Field(min_length=1, max_length=100, description="Your name; kept with the decision")
    note: str = Field("", max_length=2000, description="Why; kept as the decision's reason")


def await_approval(run: Run, number: int, outcome: Outcome, old: Evaluation) -> None:
    """Where the gate would promote and a person has to approve that: show the evidence and wait, in Prefect's UI.

    Returns once there is an answer, or none is needed, or nobody could see the form.
    """
    hours, new, store = run.config.gate.approval, outcome.evaluation, open_store(run.config.store_path)
    key = stages.decide_key(run.config, new, old).key
    context = FlowRunContext.get()
    if hours is None or not is_watched() or context is None or context.flow_run is None:
        return
    verdict, reason = weigh(run, new, old)
    if not verdict.promote or ledger.receipt(store, key) is not None:
        return
    approvals.propose(store, key, run.run_id, number, new, old, hours, reason)
    wait = _Wait(store, key, context.flow_run.id)
    if wait.answer() is not None:
        return
    stop_engine(lambda text: None)
    StageProgress("approval").say(
        f"{new.policy.name} awaits approval in Prefect's UI, or by `rlrf approve {run.config.home}`"
    )
    numbers = {"gain": verdict.gain, "low": verdict.low, "high": verdict.high, "length_ratio": verdict.length_ratio}
    signal(AWAITS_APPROVAL, run.config, iteration=number, accuracy=new.accuracy, hours=hours, **numbers)
    pairs = outcome.stages.get("select_pairs")
    told = evidence(run, pairs, new, old, reason, pictures=True)
    outbox.put(("approval", key), lambda: create_markdown_artifact(key="approval", markdown=told, description=reason))
    wait.until_answered(evidence(run, pairs, new, old, reason, pictures=False), hours)


class _Wait:
    """One decision that waits, in a flow run that is paused meanwhile."""

    def __init__(self, store: Store, key: str, flow_run: UUID) -> None:
        self.store, self.key, self.flow_run = store, key, flow_run
        self.paused = False

    def until_answered(self, evidence: str, hours: float) -> None:
        """Pause, then look for an answer until there is one; a server that is away is asked again later."""
        while (answer := self.answer()) is None:
            with _patiently() as client:
                if not self.paused:
                    self._pause(client, evidence, hours)
                self._check(client)
            time.sleep(POLL_SECONDS)
        with _patiently() as client:
            state = client.read_flow_run(self.flow_run).state
            if state is not None and state.is_paused():  # the answer came from the command line, or time is up
                said = {"answer": "approve" if answer.approved else "reject", "who": answer.decided_by[:100]}
                client.resume_flow_run(self.flow_run, run_input={**said, "note": answer.reason[:2000]})

    def answer(self) -> Answer | None:
        """What was answered: in the store, or in a form of this or an earlier attempt."""
        found = approvals.settle(self.store, self.key)
        for form in approvals.forms(self.store, self.key) if found is None else ():
            with _patiently() as client:
                if (given := _answered(client, UUID(form["flow_run_id"]), form["response"])) is not None:
                    return approvals.settle(self.store, self.key, given)
        return found

    def _pause(self, client: SyncPrefectClient, evidence: str, hours: float) -> None:
        """Bring the flow run into the state in which Prefect's UI shows the form."""
        name = uuid4().hex  # a key serves one pause of a flow run, and an attempt that was killed had its own
        keys = keyset_from_base_key(f"paused-{name}")
        approvals.add_form(self.store, self.key, str(self.flow_run), keys["response"])
        form = Approval.with_initial_data(description=evidence)
        form.save(keys, self.flow_run)
        state: State[None] = Paused(timeout_seconds=int(3600 * hours) + MARGIN, pause_key=name)
        state.state_details.run_input_keyset = {str(part): key for part, key in keys.items()}
        client.set_flow_run_state(self.flow_run, state)
        self.paused = True

    def _check(self, client: SyncPrefectClient) -> None:
        """Raise StoppedError where somebody ended the flow run; pause again where it was resumed without an answer."""
        state = client.read_flow_run(self.flow_run).state
        if state is not None and (state.is_final() or state.is_cancelling()):
            raise StoppedError(
                f"the flow run was ended ({state.name}) while a promotion awaited approval; nothing was decided"
            )
        if state is not None and state.is_running() and self.answer() is None:
            self.paused = False


def _answered(client: SyncPrefectClient, flow_run: UUID, response: str) -> Answer | None:
    """The answer in a form; None where it can't be used. Raises httpx.HTTPError where there is none."""
    try:
        given = Approval.model_validate_json(client.read_flow_run_input(flow_run, response))
    except ValidationError:
        return None
    return _decided(given.answer == "approve", given.who, given.note)


@contextmanager
def _patiently() -> Iterator[SyncPrefectClient]:
    """A client for a moment; trouble with the server is passed over, because we come again."""
    with temporary_settings({PREFECT_API_REQUEST_TIMEOUT: 10.0, PREFECT_CLIENT_MAX_RETRIES: 0}):
        try:
            with get_client(sync_client=True) as client:
                yield client
        except (httpx.HTTPError, PrefectException, OSError):
            return


def answer_by_hand(store: Store, policy: str, reason: str, who: str | None, *, approve: bool) -> str:
    """Decide on the promotion that waits. Raises StoreError where none waits, several do, or it was decided meanwhile."""
    proposal = approvals.waiting(store, policy)
    given = _decided(approve, who or getpass.getuser(), reason)
    found = approvals.settle(store, proposal.stage_key, given)
    word = "approved" if found and found.approved else "rejected"
    if found != given:
        told = f"by {found.decided_by}: {found.reason}" if found else ""
        return f"{proposal.policy} was {word} before, {told}; `rlrf promote` and `rlrf rollback` change champions at any time"
    return (
        f"{proposal.policy} ({proposal.policy_id}) is {word} by {given.decided_by}; a run that waits goes on, otherwise give "
        "the same command again"
    )


def _decided(approved: bool, who: str, note: str) -> Answer:
    return Answer(approved, who.strip(), note.strip() or f"{'approved' if approved else 'rejected'} without a note")
