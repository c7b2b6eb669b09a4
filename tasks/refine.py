"""Refine: m rewrites of each promising response from its feedback."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.config import RunConfig
from rlrf.exploring import Planned, plan_refinements
from rlrf.fingerprints import content_id
from rlrf.handles import Handle, Policy, Run
from rlrf.reflection import REFINE_TEMPLATE
from storage import rows, sets
from tasks.produce import produce
from tasks.stage import Stage, stage


def refinement_key(config: RunConfig, policy: Policy) -> stages.Key:
    """Identity of this policy's refinements apart from parent and position."""
    judge_key = judging.key_of(config.judge).key
    return stages.refinement_key(config, policy, judge_key, content_id("template", REFINE_TEMPLATE))


def _key(run: Run, policy: Policy, feedback: Handle) -> stages.Key:
    return stages.refine_key(run.config, policy, feedback, refinement_key(run.config, policy))


@stage("refine", _key)
def refine(stage: Stage, run: Run, policy: Policy, feedback: Handle) -> Handle:
    """Refinements of the promising response of each prompt, as responses with a parent."""
    settings, key = stage.config.refine, refinement_key(stage.config, policy)
    plan: list[Planned] = []
    if settings.m:
        judge_key = judging.key_of(stage.config.judge).key
        for row in rows.promising(stage.store, feedback.key, judge_key, settings.promising, stage.config.seed):
            about = (row["prompt_id"], row["response_id"], row["messages"], row["text"], row["ratings"])
            plan += plan_refinements(key.key, *about, settings.m)
    made = produce(stage, stage.store, policy, key, settings.sampling(), plan) if plan else []
    sets.add_members(stage.store, stage.key, made)
    return stage.handle(len(made), sets.digest(stage.store, "responses", stage.key))
