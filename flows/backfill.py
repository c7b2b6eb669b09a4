"""Backfills: the past judged, explored, refined or evaluated anew, and missed dates made up for.

Each is made of the wheel's own stages under the wheel's own keys: what is there is kept, a second time does nothing, a kill
costs what a kill of a run costs, and a run that needs the same rows finds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from prefect import flow
from prefect.logging import get_run_logger

from flows import backfill_counts, backfill_dates
from flows.backfill_past import chosen
from flows.backfill_work import Dates, Reevaluate, Reexplore, Rejudge, Rerefine, Work
from flows.dates import latest
from flows.evaluate_policy import named_policy
from flows.preflight import check_secrets, preflight
from rlrf.backends.opening import stop_engine
from rlrf.config import RunConfig
from rlrf.errors import StoppedError
from rlrf.handles import Corpus, Policy, Run
from rlrf.terminal import visible
from storage import backfilling, reading
from storage.store import Store, open_store
from tasks.evaluate import evaluate
from tasks.explore import explore
from tasks.ingest import ingest
from tasks.judge import judge
from tasks.outbox import outbox
from tasks.record import begin_run, finish_run
from tasks.refine import refine


@dataclass
class Done:
    """What a backfill came to: what it made, a row per thing that was looked at, and what was left out with the reason."""

    made: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {"made": self.made, "rows": self.rows, "left_out": self.left_out}


@flow(
    name="backfill",
    flow_run_name="backfill {work.kind} of {config.name}",
    persist_result=False,
    result_serializer="json",
)
def backfill(config: RunConfig, work: Work, dry_run: bool = False) -> dict[str, Any]:
    """Do `work` over the past of the configuration's home; with `dry_run` count what it would take and start nothing.

    Returns what was made, or would be. Raises StoreError where there is no such past.
    """
    config = preflight(config)
    store = open_store(config.store_path)
    if dry_run:
        counted = backfill_counts.count(config, store, work).plain()
        get_run_logger().info("%s", visible(str(counted)))
        return counted
    if isinstance(work, Dates):
        return backfill_dates.run_dates(config, store, work).plain()
    check_secrets(config)
    run = begin_run(config, str(uuid4())).model_copy(update={"interval": latest(config, store)})
    done = Done()
    try:
        _WAYS[type(work)](run, store, work, done)
    except BaseException as error:
        status = "stopped" if isinstance(error, StoppedError) else "failed"
        finish_run(run, status, f"backfill {work.kind}: {type(error).__name__}: {error}")
        raise
    finally:
        stop_engine(lambda text: None)
        outbox.flush()
    done.made = reading.produced(store, run.run_id)
    said = ", ".join(f"{count:,} {name}" for name, count in done.made.items() if count) or "nothing was left to do"
    finish_run(run, "completed", f"backfill {work.kind}: {said}")
    return done.plain()


def _judge(run: Run, store: Store, work: Rejudge, done: Done) -> None:
    for one in chosen(store, work.iterations):
        for handle in one.responses:
            judge(run, handle)
            done.rows.append({"iteration": one.number, "stage": handle.stage, "responses": handle.rows})


def _explore(run: Run, store: Store, work: Reexplore, done: Done) -> None:
    policy, corpus = named_policy(store, work.policy), ingest(run)
    run = _by(run, policy)
    for one in chosen(store, work.iterations):
        made = explore(run, corpus, policy, one.prompts)
        if work.judge:
            judge(run, made)
        done.rows.append({"iteration": one.number, "policy": policy.name, "responses": made.rows})


def _refine(run: Run, store: Store, work: Rerefine, done: Done) -> None:
    policy = named_policy(store, work.policy)
    run = _by(run, policy)
    for one in chosen(store, work.iterations):
        made = refine(run, policy, judge(run, one.explored))
        if work.judge and made.rows:
            judge(run, made)
        done.rows.append({"iteration": one.number, "policy": policy.name, "responses": made.rows})


def _evaluate(run: Run, store: Store, work: Reevaluate, done: Done) -> None:
    corpus = ingest(run)
    for policy in _policies(store, work.policies, done):
        _evaluate_one(run, corpus, policy, done)


def _evaluate_one(run: Run, corpus: Corpus, policy: Policy, done: Done) -> None:
    found = evaluate(_by(run, policy), corpus, policy)
    shown = {name: getattr(found, name) for name in ("questions", "accuracy", "low", "high", "tokens_mean")}
    done.rows.append({"policy": policy.name, "policy_id": policy.policy_id, **shown})


def _policies(store: Store, names: Sequence[str], done: Done) -> list[Policy]:
    """The policies that are meant; those that are gone are left out and said."""
    if names:
        return [named_policy(store, one) for one in names]
    found = backfilling.policies(store)
    done.left_out += [
        f"{one.name} ({one.policy_id}): not in {one.folder!r} any more" for one, whole in found if not whole
    ]
    return [one for one, whole in found if whole]


def _by(run: Run, policy: Policy) -> Run:
    return run.model_copy(update={"first": policy}).judged_by(policy)


_WAYS: dict[type, Any] = {Rejudge: _judge, Reexplore: _explore, Rerefine: _refine, Reevaluate: _evaluate}
