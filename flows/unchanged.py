"""A run of which every stage is finished already: recorded like any other, without a flow, as nothing has to be done.

Only where no Prefect server is configured: there is no UI then in which the stages could show as Cached, and a temporary
server would take longer to start than all the rest.
"""

from collections import defaultdict
from datetime import datetime
from typing import Any

from rich.console import Console

from flows.dates import expected
from flows.plan import Planner
from flows.preflight import check_corpus
from flows.steps import FINISHED, Step
from rlrf.config import RunConfig
from rlrf.handles import Decision, Evaluation, Outcome, Policy, Run, Trained
from storage.store import open_store
from tasks.record import begin_run, finish_interval, finish_run, record, start_champion


def record_unchanged(config: RunConfig, run_id: str, out: Console, as_of: datetime | None = None) -> bool:
    """Record the run, from what is in the store. False where a stage isn't finished: nothing is recorded then."""
    store = open_store(config.store_path)
    interval = expected(config, store, as_of)
    planner = Planner(config, store, interval)
    with store.kept_open():
        steps = list(planner.steps())
    if any(step.state != FINISHED for step in steps) or planner.base is None or planner.corpus is None:
        return False
    check_corpus(config, planner.corpus)
    for step in steps:
        out.print(f"  {step.stage:<14} {step.kept:,} rows kept, nothing to do", markup=False, soft_wrap=True)
    with store.kept_open():
        run = begin_run(config, run_id).model_copy(update={"first": planner.base, "interval": interval})
        _record_all(run, planner, steps, planner.base)
    finish_interval(run)
    finish_run(run, "completed")
    return True


def _record_all(run: Run, planner: Planner, steps: list[Step], base: Policy) -> None:
    """Each arm and iteration, as `flows.flywheel` records it."""
    made: dict[int, list[Any]] = defaultdict(list)
    for step in steps:
        made[step.iteration].append(planner.result(step, planner.done(step.key)))
    first, *control = [one for one in made.pop(0) if isinstance(one, Trained | Evaluation)]
    assert isinstance(first, Evaluation), "the first policy's exam comes before all training"
    exam, best = run.judged_by(base), first
    record(exam, "base", Outcome.of(0, None, first, [first]))
    start_champion(run, base)
    for number, results in sorted(made.items()):
        *stages, decision = results
        evaluation = _evaluation(stages)
        policy = base if best is first else best.policy
        assert isinstance(decision, Decision), "an iteration ends with its decision"
        record(run.judged_by(policy), "policy", Outcome.of(number, policy, evaluation, stages), decision)
        best = evaluation if decision.verdict == "promote" else best
    if control:
        outcome = Outcome.of(run.config.iterations, base, _evaluation(control), control)
        record(exam, "control", outcome)


def _evaluation(stages: list[Any]) -> Evaluation:
    """The last stage but the decision: how good the new policy is."""
    found = stages[-1]
    assert isinstance(found, Evaluation), "an iteration ends with an evaluation"
    return found
