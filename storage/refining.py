"""Which refinements a judged set asks for: each promising response's rewrites, with ids and chats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlrf import judging
from rlrf.config import RunConfig
from rlrf.exploring import Planned, plan_refinements
from rlrf.handles import Handle
from rlrf.judge_config import PanelJudge
from rlrf.records import Rating
from rlrf.reflection import hide_answers
from rlrf.stage_keys import picking_key
from storage import promising
from storage.store import Store


def plan_of_refinements(store: Store, config: RunConfig, feedback: Handle) -> Callable[[str], list[Planned]]:
    """`refine.m` refinements of each prompt's promising response, where the budget finds it worthwhile; by their key."""
    settings, judge_key, picks = config.refine, judging.key_of(config.judge).key, picking_key(config)
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
    drafts = []
    for row in rows:
        feedbacks = each.get(row["response_id"]) or [row["ratings"]]
        if settings.hide_answers:
            feedbacks = [hide_answers(one, row["reference"]) for one in feedbacks]
        drafts.append((row["prompt_id"], row["response_id"], row["messages"], row["text"], feedbacks))

    def plan_of(gen_key: str) -> list[Planned]:
        return [one for draft in drafts for one in plan_refinements(gen_key, *draft, settings.m)]

    return plan_of


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
