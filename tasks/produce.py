"""Generate what a plan wants and the store lacks, micro-batch by micro-batch."""

from __future__ import annotations

import json
from contextlib import closing

from rlrf.backends.protocols import Generator
from rlrf.engine_config import AnyEngine
from rlrf.errors import BackendError, StoppedError
from rlrf.exploring import Planned
from rlrf.handles import Policy
from rlrf.records import Completion, Request, Sampling
from rlrf.stages import Key, engine_key
from storage import ledger, reuse, rows
from storage.reuse import PlanOf
from storage.store import Store
from tasks.claiming import share
from tasks.engines import open_policy
from tasks.stage import Stage


def produce(
    stage: Stage,
    store: Store,
    policy: Policy,
    key: Key,
    sampling: Sampling,
    plan_of: PlanOf,
    engine: AnyEngine | None = None,
) -> list[str]:
    """Bring every planned response into the store; returns the ids of the rows that serve, in the plan's order.

    `plan_of` gives the plan under any key; `engine` is the run's when left out. Only missing rows are asked for: those that
    are there and complete under another token limit serve as they are (`storage.reuse`), those that another process is at
    are waited for. Each batch is one transaction, so a kill costs what is under way. Raises
    StoppedError when more requests fail than `limits.failed` allows, BackendError when a backend loses requests.
    """
    with store.kept_open():
        ledger.record_keys(store, key)
        found = reuse.reusable(store, key, plan_of)
    plan, missing = found.plan, {one.response_id: one for one in found.missing}
    if found.borrowed:
        stage.progress.say(f"{found.borrowed:,} responses made under other settings serve on, complete as they are")
    stage.progress.begin(len(plan), len(found.there), "responses")

    def generate(ours: set[str]) -> None:
        wanted = {name: one for name, one in missing.items() if name in ours}
        with closing(open_policy(stage, policy, engine)) as generator:
            made.update(_generate(stage, store, generator, policy, key, sampling, wanted))

    made: set[str] = set()
    of_others = share(
        stage.claimant, stage.progress, key.key, missing, lambda ids: rows.existing(store, list(ids)), generate
    )
    asked = len(missing) - len(of_others)
    if len(made) + stage.progress.failed != asked:
        raise BackendError(
            f"{stage.name}: {asked:,} responses were asked for, {len(made):,} came and {stage.progress.failed:,} "
            "failed; the backend lost some: run again, and report it if it stays"
        )
    _check_failures(stage, store, key, len(plan))
    serving = found.there | {name: name for name in made | of_others}
    return [serving[one.response_id] for one in plan if one.response_id in serving]


def _generate(
    stage: Stage,
    store: Store,
    generator: Generator,
    policy: Policy,
    key: Key,
    sampling: Sampling,
    missing: dict[str, Planned],
) -> set[str]:
    made: set[str] = set()
    common = {
        "gen_key": key.key,
        "policy_id": policy.policy_id,
        "backend": generator.name,
        "run_id": stage.run.run_id,
    }
    engine: Key | None = None
    planned = {
        one.response_id: {
            "prompt_id": one.prompt_id,
            "parent_id": one.parent_id,
            "position": one.position,
            "seed": one.seed,
        }
        for one in missing.values()
    }
    requests = [Request(one.response_id, one.messages, one.seed) for one in missing.values()]
    for batch in generator.generate(requests, sampling):
        if engine is None or engine != engine_key(generator.settings):  # an engine may fall back to other means
            engine = engine_key(generator.settings)
            ledger.record_keys(store, engine)
        rows.add_results(store, batch, planned, common | {"metadata": json.dumps({"engine": engine.key})})
        done = [result for result in batch if isinstance(result, Completion)]
        made.update(result.request_id for result in done)
        tokens = sum(result.completion_tokens for result in done)
        stage.progress.advance(len(done), len(batch) - len(done), tokens)
    return made


def _check_failures(stage: Stage, store: Store, key: Key, planned: int) -> None:
    failed, limit = stage.progress.failed, stage.config.limits.failed
    if not failed:
        return
    reasons = store.query(
        "SELECT reason, count(*) AS n, min(detail) AS example FROM failures WHERE gen_key = ? GROUP BY ALL ORDER BY n DESC",
        [key.key],
    )
    said = "; ".join(f"{row['n']:,} x {row['reason']} ({row['example']})" for row in reasons)
    stage.progress.say(f"{failed:,} of {planned:,} requests yielded no response: {said}")
    if failed > limit * planned:
        raise StoppedError(
            f"{stage.name}: {failed:,} of {planned:,} requests failed, limits.failed is {limit:.0%}: {said}. The rows that "
            "came are kept; mend the cause and run again"
        )
