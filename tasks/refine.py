"""Refine: m rewrites of each promising response from its feedback, by the policy or a teacher."""

from __future__ import annotations

from typing import Any

from rlrf import judging, stages
from rlrf.config import RunConfig
from rlrf.exploring import Planned, plan_refinements
from rlrf.fingerprints import content_id
from rlrf.handles import Handle, Policy, Run
from rlrf.identities import reviser
from rlrf.judge_config import PanelJudge
from rlrf.records import Message, Rating
from rlrf.reflection import REFINE_TEMPLATE, hide_answers
from storage import ledger, promising, sets
from tasks.produce import produce
from tasks.stage import Stage, stage

_Draft = tuple[str, str, tuple[Message, ...], str, list[tuple[Rating, ...]]]
"""What is rewritten: prompt, response, the prompt's chat, the text, and each feedback on it."""

_WHY = {
    "solved": "solved (budget.solved)",
    "hopeless": "hopeless (budget.hopeless)",
    "nothing_rated": "without a rated response",
    "none_promising": "without a promising response",
}


def refinement_key(config: RunConfig, policy: Policy) -> stages.Key:
    """Identity of the refinements of this policy's responses apart from parent and position."""
    judge_key = judging.key_of(config.judge).key
    return stages.refinement_key(config, reviser(config, policy), judge_key, content_id("template", REFINE_TEMPLATE))


def refine_key(config: RunConfig, policy: Policy, feedback: Handle) -> stages.Key:
    """The stage's key."""
    return stages.refine_key(config, feedback, refinement_key(config, policy), _reward_key(config))


def _key(run: Run, policy: Policy, feedback: Handle) -> stages.Key:
    return refine_key(run.config, policy, feedback)


@stage("refine", _key)
def refine(stage: Stage, run: Run, policy: Policy, feedback: Handle) -> Handle:
    """Refinements of the promising response of each prompt that the budget allows, as responses with a parent."""
    settings, who = stage.config.refine, reviser(stage.config, policy)
    teacher = settings.teacher
    if teacher is not None:
        ledger.add_policy(stage.store, who, "teacher" if who.folder else "external")
    key, drafts = refinement_key(stage.config, policy), _drafts(stage, feedback) if settings.m else []
    engine = teacher.engine if teacher else None

    def plan_of(gen_key: str) -> list[Planned]:
        return [one for draft in drafts for one in plan_refinements(gen_key, *draft, settings.m)]

    made = produce(stage, stage.store, who, key, settings.sampling(), plan_of, engine) if drafts else []
    sets.add_members(stage.store, stage.key, made)
    return stage.handle(len(made), sets.digest(stage.store, "responses", stage.key))


def _drafts(stage: Stage, feedback: Handle) -> list[_Draft]:
    """The promising responses with their feedback."""
    config = stage.config
    settings, judge_key = config.refine, judging.key_of(config.judge).key
    asked = (stage.store, feedback.key, judge_key, settings.promising)
    rows = promising.promising(*asked, config.seed, reward_key=_reward_key(config), budget=settings.budget)
    without = promising.left_out(*asked, settings.budget)
    if without:
        said = ", ".join(f"{n:,} {_WHY[reason]}" for reason, n in without.items())
        stage.progress.say(f"prompts without refinements: {said}")
    each = _members_verdicts(stage, rows)
    drafts: list[_Draft] = []
    for row in rows:
        feedbacks = each.get(row["response_id"]) or [row["ratings"]]
        if settings.hide_answers:
            feedbacks = [hide_answers(one, row["reference"]) for one in feedbacks]
        drafts.append((row["prompt_id"], row["response_id"], row["messages"], row["text"], feedbacks))
    return drafts


def _members_verdicts(stage: Stage, rows: list[dict[str, Any]]) -> dict[str, list[tuple[Rating, ...]]]:
    """Each panel judge's feedback by itself; none where it is merged. A response that no single judge rated in full keeps
    the merged one."""
    judge = stage.config.judge
    if stage.config.refine.feedback != "each" or not isinstance(judge, PanelJudge):
        return {}
    keys = [judging.key_of(member).key for member in judge.judges]
    return promising.verdicts(stage.store, [row["response_id"] for row in rows], keys)


def _reward_key(config: RunConfig) -> str | None:
    """The judge that picks, where it is the reward model."""
    if config.refine.promising != "reward" or config.reward is None:
        return None
    return judging.key_of(config.reward).key
