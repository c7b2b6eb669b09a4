"""Explore: n responses per prompt from the policy, joined by the external responses to the same prompts."""

from __future__ import annotations

from rlrf import stages
from rlrf.exploring import plan_responses
from rlrf.handles import Corpus, Handle, Policy, Run
from storage import rows, sets
from tasks.produce import produce
from tasks.stage import Stage, stage


def _key(run: Run, corpus: Corpus, policy: Policy | None, prompts: Handle) -> stages.Key:
    return stages.explore_key(run.config, corpus, policy, prompts)


@stage("explore", _key)
def explore(stage: Stage, run: Run, corpus: Corpus, policy: Policy | None, prompts: Handle) -> Handle:
    """n responses per prompt; external responses to these prompts are members of the same set. No policy: those alone."""
    settings = stage.config.explore
    made: list[str] = []
    if settings.n and policy:
        key = stages.response_key(stage.config, policy, settings)
        asked = rows.prompts_of(stage.store, prompts.key)
        made = produce(
            stage, stage.store, policy, key, settings.sampling(), lambda one: plan_responses(one, asked, settings.n)
        )
    borrowed = rows.responses_within(stage.store, corpus.external.key, prompts.key)
    sets.add_members(stage.store, stage.key, [*made, *borrowed])
    return stage.handle(len(made) + len(borrowed), sets.digest(stage.store, "responses", stage.key))
