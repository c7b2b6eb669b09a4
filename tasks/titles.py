"""How a stage's run is called in Prefect: the stage, what it is about, and how much of it there is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rlrf.terminal import visible

Arguments = Mapping[str, Any]


def title(stage: str, arguments: Arguments) -> str:
    """`judge of refine, 40 responses`: of the arguments that the stage is called with."""
    describe = _TITLES.get(stage)
    return visible(describe(arguments)) if describe else stage


def subject(stage: str, arguments: Arguments) -> str:
    """The stage with what tells it from others of its name: `judge of refine`."""
    return f"judge of {arguments['responses'].stage}" if stage == "judge" else stage


def artifact_key(subject: str) -> str:
    """The name under which Prefect keeps the history of an artifact: lower-case letters, digits, dashes."""
    return re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")


def _sample_prompts(of: Arguments) -> str:
    there, wanted = of["corpus"].prompts.rows, of["run"].config.prompts.per_iteration
    return f"sample_prompts, {min(there, wanted or there):,} of {there:,}"


def _explore(of: Arguments) -> str:
    return f"explore, {of['prompts'].rows:,} prompts x {of['run'].config.explore.n}"


def _judge(of: Arguments) -> str:
    return f"{subject('judge', of)}, {of['responses'].rows:,} responses"


def _refine(of: Arguments) -> str:
    return f"refine after {of['feedback'].rows:,} judgements, {of['run'].config.refine.m} each"


def _compare(of: Arguments) -> str:
    settings = of["run"].config.refine
    return f"compare, {settings.compare:,} prompts x {settings.m}" if settings.compare else "compare, not asked for"


_TITLES: dict[str, Callable[[Arguments], str]] = {
    "bootstrap": lambda of: f"bootstrap, {of['run'].config.policy.bootstrap.steps:,} steps",
    "sample_prompts": _sample_prompts,
    "explore": _explore,
    "judge": _judge,
    "refine": _refine,
    "compare": _compare,
    "select_pairs": lambda of: f"select_pairs from {sum(one.rows for one in of['judged']):,} responses",
    "audit_pairs": lambda of: f"audit_pairs, {of['pairs'].rows:,} pairs",
    "train_policy": lambda of: f"train_policy on {of['pairs'].rows:,} pairs",
    "train_control": lambda of: f"train_control, {of['steps']:,} steps",
    "evaluate": lambda of: f"evaluate of {of['policy'].name}, {of['corpus'].held_out.rows:,} questions",
    "decide": lambda of: f"decide on {of['new'].policy.name} against {of['old'].policy.name}",
}
