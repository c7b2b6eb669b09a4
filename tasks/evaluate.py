"""Evaluate: greedy answers to the held-out prompts, judged; the only stage that opens the held-out split."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.exploring import plan_responses
from rlrf.handles import Corpus, Evaluation, Policy, Run
from rlrf.stage_keys import evaluate_key
from storage import answers, ledger, rows, sets
from tasks.judging import judge_set
from tasks.produce import produce
from tasks.progress import stage_progress
from tasks.stage import Stage, stage


def _key(run: Run, corpus: Corpus, policy: Policy) -> stages.Key:
    return evaluate_key(run.config, policy, corpus.held_out)


@stage("evaluate", _key, found=ledger.evaluation)
def evaluate(stage: Stage, run: Run, corpus: Corpus, policy: Policy) -> Evaluation:
    """Accuracy and aspect means of one policy, with intervals.

    The answers come from an engine of this run, also for a policy that endpoints serve: all policies by the same means.
    """
    policy = policy.here()
    settings, held_out = stage.config.evaluate, stage.store.held_out()
    judge, key = judging.key_of(stage.config.judge), stages.response_key(stage.config, policy, settings)
    asked = rows.prompts_of(held_out, corpus.held_out.key)
    made = produce(stage, held_out, policy, key, settings.sampling(), lambda one: plan_responses(one, asked, 1))
    sets.add_members(held_out, stage.key, made)
    with stage_progress("judge answers") as progress:
        judge_set(stage, held_out, stage.key, stage.config.judge, progress)
    found = answers.answers(held_out, stage.key, judge.key, settings.aspect)
    digest = sets.digest(held_out, "judgements", stage.key, judge.key)
    result = Evaluation(key=stage.key, policy=policy, judge_key=judge.key, digest=digest, **answers.accuracy(found))
    unrated = sum(row["unrated"] for row in found)
    ledger.add_evaluation(stage.store, result, unrated, answers.aspects(held_out, stage.key, judge.key))
    stage.progress.say(f"{policy.name}: accuracy {result.accuracy:.1%} ({result.low:.1%} to {result.high:.1%})")
    return result
