"""Pairs by several rules from what there is, and what an audit says of each; nothing is trained."""

from uuid import uuid4

from prefect import flow
from rich.console import Console

from flows import tables
from flows.preflight import check_secrets, preflight
from flows.temporary_server import start_temporary_server
from rlrf import judging
from rlrf.backends.opening import stop_engine
from rlrf.config import RunConfig
from rlrf.errors import StoppedError
from rlrf.handles import Corpus, Handle, Run
from rlrf.judge_config import named
from rlrf.pair_config import Pairs, Rule
from rlrf.terminal import visible
from storage import comparing
from storage.audits import audit_of
from storage.store import open_store
from tasks.audit_pairs import audit_pairs
from tasks.explore import explore
from tasks.first_policy import first_policy
from tasks.ingest import ingest
from tasks.judge import judge
from tasks.outbox import outbox
from tasks.record import begin_run, finish_run
from tasks.sample_prompts import sample_prompts
from tasks.select_pairs import select_pairs

Made = tuple[Handle | None, str]
"""A rule's pairs, None where there are too few, and why a run would stop at them."""


@flow(name="pairs", flow_run_name="pairs of {config.name}", persist_result=False, result_serializer="json")
def pair_up(config: RunConfig, rules: list[Rule], run_id: str | None = None) -> tuple[Run, Handle, dict[Rule, Made]]:
    """Ingest, explore, judge, then pairs by every rule with its audit; returns the judged set, and why a rule stopped."""
    run = begin_run(config, run_id or str(uuid4()))
    try:
        corpus = ingest(run)
        policy = first_policy(run) if config.explore.n else None
        run = run.model_copy(update={"first": policy}).judged_by(policy)
        prompts = sample_prompts(run, corpus, 1)
        feedback = judge(run, explore(run, corpus, policy, prompts))
        made = {rule: _by_rule(run, corpus, prompts, feedback, rule) for rule in rules}
    except StoppedError as stop:
        finish_run(run, "stopped", str(stop))
        raise
    except BaseException as error:
        finish_run(run, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        stop_engine(lambda text: None)
        outbox.flush()
    finish_run(run, "completed")
    return run, feedback, made


def _by_rule(run: Run, corpus: Corpus, prompts: Handle, feedback: Handle, rule: Rule) -> Made:
    """Pairs by one rule and why a run would stop at them."""
    changed, pairs = with_rule(run, rule), None
    try:
        pairs = select_pairs(changed, prompts, (feedback,))
        audit_pairs(changed, corpus, pairs, (feedback,))
    except StoppedError as stop:
        return pairs, str(stop)
    return pairs, ""


def with_rule(run: Run, rule: Rule) -> Run:
    """The run with another pair rule; its other settings stay where the rule uses them."""
    own = run.config.pairs
    margin = own.margin if rule == "margin" else None
    pairs = Pairs(type=rule, k=own.k, min_pairs=own.min_pairs, margin=margin)
    return run.model_copy(update={"config": run.config.model_copy(update={"pairs": pairs})})


def compare_rules(config: RunConfig, rules: list[Rule], out: Console) -> None:
    """Run it, and print per policy lengths and aspect means, and per rule its pairs and audit. Raises RlrfError."""
    config = preflight(config)
    start_temporary_server()
    check_secrets(config)
    run, feedback, made = pair_up(config, rules, str(uuid4()))
    store = open_store(config.store_path)
    out.print(tables.lengths_table(comparing.lengths(store, feedback.key)))
    for judge_config in (run.config.judge, *run.config.observers):
        key = judging.key_of(judge_config).key
        out.print(tables.means_table(named(judge_config), comparing.aspect_means(store, feedback.key, key)))
    out.print(tables.audit_table({str(rule): audit_of(store, pairs.key) for rule, (pairs, _) in made.items() if pairs}))
    for rule, (_, why) in made.items():
        if why:
            out.print(f"{rule}: a run would stop here. {visible(why)}", style="yellow", markup=False, soft_wrap=True)
