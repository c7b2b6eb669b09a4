"""Compare: as many further plain responses as there are refinements, for some of the refined prompts; they enter no pair."""

from __future__ import annotations

from rlrf import stages
from rlrf.exploring import Planned, plan_responses
from rlrf.fingerprints import content_id
from rlrf.handles import Handle, Policy, Run
from storage import promising, rows, sets
from tasks.produce import produce
from tasks.stage import Stage, stage


def _key(run: Run, policy: Policy, refined: Handle) -> stages.Key:
    return stages.compare_key(run.config, policy, refined)


@stage("compare", _key)
def compare(stage: Stage, run: Run, policy: Policy, refined: Handle) -> Handle:
    """m plain responses to each of `refine.compare` refined prompts, at the positions after the explored ones.

    What refinement costs is thus spent on the policy alone, drawn as refinements are.
    """
    config, settings = stage.config, stage.config.refine
    made: list[str] = []
    if settings.compare and settings.m:
        key = stages.response_key(config, policy, settings)
        chosen = promising.sample_behind(stage.store, refined.key, settings.compare, config.seed)
        asked = content_id("compared prompts", stage.key)
        sets.add_members(stage.store, asked, chosen)
        prompts = rows.prompts_of(stage.store, asked)

        def plan_of(gen_key: str) -> list[Planned]:
            return plan_responses(gen_key, prompts, settings.m, first=config.explore.n)

        made = produce(stage, stage.store, policy, key, settings.sampling(), plan_of)
    sets.add_members(stage.store, stage.key, made)
    return stage.handle(len(made), sets.digest(stage.store, "responses", stage.key))
