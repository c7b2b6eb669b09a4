"""Judge: ratings and critiques on every aspect for every response of a set; what can't be rated is unrated."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.fingerprints import content_id
from rlrf.handles import Handle, Run
from rlrf.judge_config import repeats_of
from rlrf.stage_keys import beside_judges, judged_key
from storage import health, sets
from tasks.judging import judge_set
from tasks.progress import stage_progress
from tasks.stage import Stage, stage


def _key(run: Run, responses: Handle) -> stages.Key:
    return judged_key(run.config, responses)


@stage("judge", _key)
def judge(stage: Stage, run: Run, responses: Handle) -> Handle:
    """Every response of the set has a judgement afterwards; its key names the same members as the responses'."""
    config, judge_key = stage.config, judging.key_of(stage.config.judge).key
    sets.copy_members(stage.store, responses.key, stage.key)
    judge_set(stage, stage.store, stage.key, config.judge, stage.progress)
    for other in beside_judges(config):
        with stage_progress(f"judge: {other.type}") as progress:
            judge_set(stage, stage.store, stage.key, other, progress, limited=other is config.reward)
    _repeat(stage, judge_key)
    digests = [sets.digest(stage.store, "judgements", stage.key, judge_key)]
    if config.reward:
        digests.append(sets.digest(stage.store, "judgements", stage.key, judging.key_of(config.reward).key))
    return stage.handle(responses.rows, digests[0] if len(digests) == 1 else content_id("judged", digests))


def _repeat(stage: Stage, judge_key: str) -> None:
    """A sample is judged again, and with the aspects reversed: how far the judge agrees with itself."""
    sample, repeats = stage.config.judge_health.sample, repeats_of(stage.config.judge)
    if not sample or not repeats:
        return
    key = content_id("judge health", [stage.key, sample])
    sets.add_members(
        stage.store, key, health.health_sample(stage.store, stage.key, judge_key, sample, stage.config.seed)
    )
    for other in repeats:
        with stage_progress("judge again") as progress:
            judge_set(stage, stage.store, key, other, progress, limited=False)
