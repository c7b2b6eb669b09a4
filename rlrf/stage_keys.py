"""The keys of a run's stages: its configuration's judges, reviser and files put in their places. Opens no model."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.bootstrapping import demonstrations_path
from rlrf.config import RunConfig
from rlrf.handles import Corpus, Handle, Interval, Policy
from rlrf.identities import reviser
from rlrf.ingesting import source_files
from rlrf.judge_config import JudgeConfig
from rlrf.judges.function import load_function
from rlrf.redacting import SETTING
from rlrf.reflection import REFINE_TEMPLATE
from rlrf.stages import Key


def ingest_key(config: RunConfig, interval: Interval | None = None) -> Key:
    """The files as they are on the disk. Raises DataError for a missing one."""
    return stages.ingest_key(config, source_files(config), interval, redact_part(config.prompts.redact))


def redact_part(name: str | None) -> Key | None:
    """Identity of the hook: its name and its file's contents; what that file imports is not looked at."""
    if name is None:
        return None
    return stages.make_key("redact", function=name.rpartition(":")[2], source=load_function(name, SETTING)[1])


def bootstrap_key(config: RunConfig) -> Key:
    """The tiny policy's settings and its demonstrations as they are on the disk."""
    return stages.bootstrap_key(config, stages.file_part(demonstrations_path(config)))


def judged_key(config: RunConfig, responses: Handle) -> Key:
    """The judges, who says something beside them, and the responses."""
    beside = [judging.key_of(judge) for judge in beside_judges(config)]
    return stages.judged_key(judging.key_of(config.judge), responses, beside, config.judge_health.sample)


def beside_judges(config: RunConfig) -> list[JudgeConfig]:
    """Who says something besides the judge: the reward model and the observers."""
    return [*([config.reward] if config.reward else []), *config.observers]


def refinement_key(config: RunConfig, policy: Policy) -> Key:
    """Identity of the refinements of this policy's responses apart from parent and position."""
    template = stages.text_part("template", REFINE_TEMPLATE)
    return stages.refinement_key(config, reviser(config, policy), judging.key_of(config.judge), template)


def refine_key(config: RunConfig, policy: Policy, feedback: Handle) -> Key:
    """The refinements of this policy's judged responses."""
    return stages.refine_key(config, feedback, refinement_key(config, policy), picking_key(config))


def picking_key(config: RunConfig) -> Key | None:
    """The judge that picks what is refined, where it is the reward model."""
    return reward_key(config) if config.refine.promising == "reward" else None


def pairs_key(config: RunConfig, judged: tuple[Handle, ...]) -> Key:
    """The pairs of these judged sets."""
    return stages.select_pairs_key(config, judged, reward_key(config))


def reward_key(config: RunConfig) -> Key | None:
    """The reward model as a judge, where there is one."""
    return None if config.reward is None else judging.key_of(config.reward)


def audit_pairs_key(
    config: RunConfig, corpus: Corpus, pairs: Handle, judged: tuple[Handle, ...], check: str | None
) -> Key:
    """The audit of a pair set; `check`: the digest of the judge's latest check."""
    return stages.audit_pairs_key(config, corpus, pairs, judged, judging.key_of(config.judge), check)


def control_key(config: RunConfig, base: Policy, steps: int) -> Key:
    """The control arm: the base, the demonstrations, and as many steps as the wheel took."""
    data = stages.file_part(demonstrations_path(config))
    return stages.train_policy_key(config, base, data, method="rs", epochs=None, max_steps=steps)


def evaluate_key(config: RunConfig, policy: Policy, held_out: Handle) -> Key:
    """The policy's exam."""
    return stages.evaluate_key(config, policy, held_out, judging.key_of(config.judge))
