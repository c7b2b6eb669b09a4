"""The run's own record: its start and end, its iterations, the first champion."""

from __future__ import annotations

from uuid import uuid4

from rlrf import judging
from rlrf.config import RunConfig
from rlrf.handles import Decision, Outcome, Policy, Run
from storage import intervals, ledger, runs
from storage.store import open_store
from tasks.progress import StageProgress
from tasks.publishing import publish_or_say


def begin_run(config: RunConfig, run_id: str) -> Run:
    """Open the store and record the run with its resolved configuration; earlier attempts that were killed end here.

    An id that is taken is an earlier attempt's: Prefect runs a run again with the parameters that it had.
    """
    store = open_store(config.store_path)
    runs.mark_killed(store, config.name)
    run_id = str(uuid4()) if runs.is_run(store, run_id) else run_id
    runs.start_run(store, run_id, config.name, config.model_dump_json())
    return Run(run_id=run_id, store_id=store.store_id, config=config)


def finish_interval(run: Run) -> None:
    """What the run's date works on is done: a later date works on what arrived after it."""
    if run.interval is not None:
        intervals.finish(open_store(run.config.store_path), run.config.name, run.interval.as_of)


def finish_run(run: Run, status: str, reason: str | None = None) -> None:
    """Record how the run ended, and publish the store as it then is."""
    store = open_store(run.config.store_path)
    runs.end_run(store, run.run_id, status, reason)
    publish_or_say(store, StageProgress("snapshot").say)


def record(run: Run, arm: str, outcome: Outcome, decision: Decision | None = None) -> None:
    """Record one iteration of one arm."""
    judge_key = judging.key_of(run.config.judge).key
    store = open_store(run.config.store_path)
    ledger.add_iteration(store, run.run_id, arm, outcome, judge_key, decision.key if decision else None)


def start_champion(run: Run, policy: Policy) -> None:
    """In a store that has no champion yet, the first policy is it."""
    store = open_store(run.config.store_path)
    if ledger.champion(store) is None:
        ledger.decide(store, "start", policy, policy, "the run's first policy", "gate", run_id=run.run_id)
