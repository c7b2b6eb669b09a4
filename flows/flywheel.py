"""The wheel: iterations from the best policy so far, until they are used up or no longer help; then the control."""

from datetime import datetime
from uuid import uuid4

from prefect import flow

from flows.approval import await_approval
from flows.dates import due, settled
from flows.iteration import iteration
from flows.naming import wheel_name
from flows.preflight import check_corpus, check_secrets, preflight
from flows.scheduled import scheduled_for
from flows.summary import summarise
from rlrf import judging
from rlrf.backends.opening import stop_engine
from rlrf.config import RunConfig
from rlrf.errors import ReachedError, StoppedError
from rlrf.handles import Corpus, Decision, Outcome, Policy, Run
from storage.store import open_store
from tasks.decide import decide
from tasks.evaluate import evaluate
from tasks.first_policy import first_policy
from tasks.ingest import ingest
from tasks.outbox import outbox
from tasks.record import begin_run, finish_interval, finish_run, record, start_champion
from tasks.train_policy import train_control


@flow(name="flywheel", flow_run_name=wheel_name, persist_result=False, result_serializer="json")
def flywheel(
    config: RunConfig, as_of: datetime | None = None, run_id: str | None = None, stop_after: str | None = None
) -> str:
    """Run the whole configuration, or up to the stage with the key `stop_after`; returns the run's id.

    `as_of`: the date that the run is of, UTC where it has no zone; prompts that arrived later don't count. Where the
    configuration needs a date and none is given, it is the moment for which the run is scheduled.
    A stop on purpose is recorded with its reason and raised.
    """
    config = preflight(config)
    check_secrets(config)
    store = open_store(config.store_path)
    interval = settled(config, store, due(config, store, as_of, scheduled_for()))
    run = begin_run(config, run_id or str(uuid4()))
    run = run.model_copy(update={"stop_after": stop_after, "interval": interval})
    try:
        corpus = ingest(run)
        if nothing_new(run, corpus):
            return run.run_id
        check_corpus(config, corpus)
        turn(run, corpus, first_policy(run))
    except ReachedError as reached:
        finish_run(run, "completed", str(reached))
        return run.run_id
    except StoppedError as stop:
        finish_run(run, "stopped", str(stop))
        raise
    except BaseException as error:
        finish_run(run, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        stop_engine(lambda text: None)
        outbox.flush()
    finish_interval(run)
    finish_run(run, "completed")
    return run.run_id


def nothing_new(run: Run, corpus: Corpus) -> bool:
    """Whether no prompt arrived in the run's interval: recorded as the end of a run that has nothing to do."""
    if run.interval is None or run.config.prompts.window == "all" or corpus.prompts.rows:
        return False
    finish_interval(run)
    finish_run(run, "completed", f"no prompt arrived {run.interval}: nothing to do")
    return True


def turn(run: Run, corpus: Corpus, base: Policy) -> None:
    """All iterations and the control, each recorded as it ends."""
    config = run.config
    run = run.model_copy(update={"first": base})
    exam = run.judged_by(base)  # the same judge for every policy, also where each iteration has its own
    best = first = evaluate(exam, corpus, base)
    tell(exam, "base", Outcome.of(0, None, first, [first]))
    start_champion(run, base)
    steps = idle = 0
    for number in range(1, config.iterations + 1):
        policy = base if best is first else best.policy
        outcome = iteration(run, corpus, policy, number)
        await_approval(run.judged_by(policy), number, outcome, best)
        decision = decide(run, number, outcome.evaluation, best)
        tell(run.judged_by(policy), "policy", outcome, decision)
        steps += outcome.steps
        idle = 0 if decision.verdict == "promote" else idle + 1
        best = outcome.evaluation if decision.verdict == "promote" else best
        if idle >= config.gate.patience:
            break
    if config.evaluate.control:
        control(exam, corpus, base, steps)


def control(run: Run, corpus: Corpus, base: Policy, steps: int) -> None:
    """The same number of steps at the same rate on what the base already learned: what the wheel has to beat."""
    trained = train_control(run, base, steps)
    evaluation = evaluate(run, corpus, trained.policy)
    tell(run, "control", Outcome.of(run.config.iterations, base, evaluation, [trained, evaluation]))


def tell(run: Run, arm: str, outcome: Outcome, decision: Decision | None = None) -> None:
    """Record one iteration of one arm, and show it in Prefect's UI."""
    record(run, arm, outcome, decision)
    summarise(run, outcome, judging.key_of(run.config.judge).key)
