"""One turn of the wheel: the method's figure, a line per stage."""

from prefect import flow

from rlrf.handles import Corpus, Outcome, Policy, Run
from tasks.audit_pairs import audit_pairs
from tasks.compare import compare
from tasks.evaluate import evaluate
from tasks.explore import explore
from tasks.judge import judge
from tasks.refine import refine
from tasks.sample_prompts import sample_prompts
from tasks.select_pairs import select_pairs
from tasks.train_policy import train_policy


@flow(
    name="iteration",
    flow_run_name="{run.config.name}, iteration {number}",
    validate_parameters=False,
    persist_result=False,
    result_serializer="json",
)
def iteration(run: Run, corpus: Corpus, policy: Policy, number: int) -> Outcome:
    """Explore, judge, reflect, judge again, pair, audit, train, evaluate; `policy` is both start and reference."""
    exam, run = run.judged_by(run.first), run.judged_by(policy)
    prompts = sample_prompts(run, corpus, number)
    explored = explore(run, corpus, policy, prompts)
    feedback = judge(run, explored)
    refined = refine(run, policy, feedback)
    plain = compare(run, policy, refined)
    verdicts, compared = judge(run, refined), judge(run, plain)
    pairs = select_pairs(run, prompts, (feedback, verdicts))
    audited = audit_pairs(run, corpus, pairs, (feedback, verdicts))
    trained = train_policy(run, policy, pairs, number)
    evaluation = evaluate(exam, corpus, trained.policy)
    made = (prompts, explored, feedback, refined, plain, verdicts, compared, pairs, audited, trained, evaluation)
    return Outcome.of(number, policy, evaluation, made)
