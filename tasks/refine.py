"""Refine: m rewrites of each promising response from its feedback, by the policy or a teacher."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.handles import Handle, Policy, Run
from rlrf.identities import reviser
from rlrf.stage_keys import refine_key, refinement_key
from storage import ledger, promising, sets
from storage.refining import plan_of_refinements
from tasks.produce import produce
from tasks.stage import Stage, stage

_WHY = {
    "solved": "solved (budget.solved)",
    "hopeless": "hopeless (budget.hopeless)",
    "nothing_rated": "without a rated response",
    "none_promising": "without a promising response",
}


def _key(run: Run, policy: Policy, feedback: Handle) -> stages.Key:
    return refine_key(run.config, policy, feedback)


@stage("refine", _key)
def refine(stage: Stage, run: Run, policy: Policy, feedback: Handle) -> Handle:
    """Refinements of the promising response of each prompt that the budget allows, as responses with a parent."""
    settings, who = stage.config.refine, reviser(stage.config, policy)
    teacher = settings.teacher
    if teacher is not None:
        ledger.add_policy(stage.store, who, "teacher" if who.folder else "external")
    made: list[str] = []
    if settings.m:
        _say_left_out(stage, feedback)
        key, engine = refinement_key(stage.config, policy), teacher.engine if teacher else None
        plan_of = plan_of_refinements(stage.store, stage.config, feedback)
        made = produce(stage, stage.store, who, key, settings.sampling(), plan_of, engine) if plan_of(key.key) else []
    sets.add_members(stage.store, stage.key, made)
    return stage.handle(len(made), sets.digest(stage.store, "responses", stage.key))


def _say_left_out(stage: Stage, feedback: Handle) -> None:
    """Which prompts get no refinements, and why."""
    settings, judge_key = stage.config.refine, judging.key_of(stage.config.judge).key
    without = promising.left_out(stage.store, feedback.key, judge_key, settings.promising, settings.budget)
    if without:
        said = ", ".join(f"{n:,} {_WHY[reason]}" for reason, n in without.items())
        stage.progress.say(f"prompts without refinements: {said}")
