"""Which refinements a judged set asks for: each promising response's rewrites, with ids and chats."""

from __future__ import annotations

from typing import Any

from rlrf import judging
from rlrf.config import RunConfig
from rlrf.exploring import Planned, plan_refinements
from rlrf.handles import Handle, Policy
from rlrf.judge_config import PanelJudge
from rlrf.records import Rating
from rlrf.reflection import hide_answers
from rlrf.stage_keys import picking_key, refinement_key
from storage import promising
from storage.store import Store


def planned_refinements(store: Store, config: RunConfig, policy: Policy, feedback: Handle) -> list[Planned]:
    """`refine.m` refinements of each prompt's promising response, where the budget finds it worthwhile."""
    settings, judge_key, picks = config.refine, judging.key_of(config.judge).key, picking_key(config)
    key = refinement_key(config, policy).key
    rows = promising.promising(
        store,
        feedback.key,
        judge_key,
        settings.promising,
        config.seed,
        reward_key=picks.key if picks else None,
        budget=settings.budget,
    )
    each = _members_verdicts(store, config, rows)
    plan: list[Planned] = []
    for row in rows:
        feedbacks = each.get(row["response_id"]) or [row["ratings"]]
        if settings.hide_answers:
            feedbacks = [hide_answers(one, row["reference"]) for one in feedbacks]
        about = (row["prompt_id"], row["response_id"], row["messages"], row["text"])
        plan += plan_refinements(key, *about, feedbacks, settings.m)
    return plan


def _members_verdicts(
    store: Store, config: RunConfig, rows: list[dict[str, Any]]
) -> dict[str, list[tuple[Rating, ...]]]:
    """Each panel judge's feedback by itself; none where it is merged. A response that no single judge rated in full keeps
    the merged one."""
    judge = config.judge
    if config.refine.feedback != "each" or not isinstance(judge, PanelJudge):
        return {}
    keys = [judging.key_of(member).key for member in judge.judges]
    return promising.verdicts(store, [row["response_id"] for row in rows], keys)
